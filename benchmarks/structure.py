"""The house in figures: modules a room, lines a file, arguments a function, string-keyed reads, `Any`, arrows.

    python benchmarks/structure.py [--root CHECKOUT] [--list]

Reads the sources of ``bench/`` and ``methods/`` and runs nothing of them, so that any commit's checkout can be counted.
A room is a package of ``bench/``; the flat modules of ``bench/`` are counted as one more.  An argument is any
parameter but ``self``, ``cls``, ``*args`` and ``**kwargs``.  A string-keyed read is a subscript with a literal text,
``x["name"]``, or ``x.get("name")``.  An arrow is an import from one place (a room or a flat module) of another.
"""

import argparse
import ast
import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MOST_ARGUMENTS = 7


@dataclass(frozen=True)
class Source:
    """One parsed file."""

    path: Path  # below the checkout
    tree: ast.Module
    lines: int

    @property
    def place(self) -> str:
        """The room, or the flat module."""
        parts = self.path.with_suffix("").parts
        return ".".join(parts[:2]) if parts[0] == "bench" else parts[0]


def sources(root: Path) -> list[Source]:
    """All of ours, in order."""
    found = []
    for path in sorted([*(root / "bench").rglob("*.py"), *(root / "methods").rglob("*.py")]):
        text = path.read_text(encoding="utf-8")
        found.append(Source(path.relative_to(root), ast.parse(text), len(text.splitlines())))
    return found


def functions(source: Source) -> Iterator[tuple[str, int]]:
    """Each function's name and number of arguments."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            yield f"{source.path}:{node.lineno} {node.name}", sum(name not in ("self", "cls") for name in names)


def keyed_reads(tree: ast.Module) -> int:
    """Subscripts with a literal text that are read, and `.get` with one."""
    return sum(
        (isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load) and _is_text(node.slice))
        or (isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "get" and _is_text((*node.args, node)[0]))
        for node in ast.walk(tree)
    )


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def uses_of_any(tree: ast.Module) -> tuple[int, int]:
    """How often `Any` is written, and how often as the value of a dictionary by text."""
    written = sum(isinstance(node, ast.Name) and node.id == "Any" for node in ast.walk(tree))
    loose = sum(
        ast.unparse(node) in ("dict[str, Any]", "Mapping[str, Any]")
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript)
    )
    return written, loose


def arrows(found: list[Source]) -> set[tuple[str, str]]:
    """Pairs of places of which the first imports the second."""
    places = {source.place for source in found}
    pairs = set()
    for source in found:
        for node in ast.walk(source.tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            for name in names:
                parts = name.split(".")
                target = ".".join(parts[:2]) if parts[0] == "bench" else parts[0]
                if target in places and target != source.place:
                    pairs.add((source.place, target))
    return pairs


def circles(pairs: set[tuple[str, str]]) -> int:
    """Pairs of places that can be reached from each other."""
    reach = {place: {place} for pair in pairs for place in pair}
    for _ in reach:
        for one, other in pairs:
            reach[one] |= reach[other]
    return sum(one < other and one in reach[other] for one in reach for other in reach[one])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1], help="a checkout")
    parser.add_argument("--list", action="store_true", help="name the functions with too many arguments")
    options = parser.parse_args()
    found = sources(options.root)
    inner = [source for source in found if source.path.parts[0] == "bench"]
    modules = [s.path.parts for s in inner if not s.path.stem.startswith("__")]
    rooms = Counter(parts[1] if len(parts) > 2 else "(flat)" for parts in modules)
    lines = sorted(source.lines for source in found)
    many = [(name, number) for source in found for name, number in functions(source) if number > MOST_ARGUMENTS]
    counts = [uses_of_any(source.tree) for source in found]
    pairs = arrows(found)
    places = {source.place for source in found}
    print(f"modules flat in bench/                 {rooms.pop('(flat)')}")
    print(f"modules a room                         {', '.join(f'{r} {n}' for r, n in sorted(rooms.items()))}")
    print(f"lines a file (median, most)            {statistics.median(lines):.0f}, {lines[-1]}, {sum(lines)} in all")
    print(f"functions with over {MOST_ARGUMENTS} arguments        {len(many)}")
    print(f"string-keyed reads                     {sum(keyed_reads(source.tree) for source in found)}")
    print(f"`Any`, dictionaries of it by text      {sum(a for a, _ in counts)}, {sum(d for _, d in counts)}")
    print(f"places, arrows between them, circles   {len(places)}, {len(pairs)}, {circles(pairs)}")
    if options.list:
        print("\n".join(f"  {number:2} {name}" for name, number in sorted(many, key=lambda pair: -pair[1])))


if __name__ == "__main__":
    main()
