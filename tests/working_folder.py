"""A working folder as a user has it: captures in a folder with a space, others of the same name, an own method."""

from bench.generators import demo

MINE = """
from methods.majority import Majority


class Mine(Majority):
    \"\"\"The most frequent class.\"\"\"

    name = "mine"
"""


def write_working_folder(folder, *, others):
    """Write it; ``others`` says how large the second folder is."""
    demo.write(folder / "my captures", sessions=20, captures=4, classes=3)
    demo.write(folder / "other" / "my captures", classes=2, **others)
    (folder / "mine.py").write_text(MINE)
    return folder
