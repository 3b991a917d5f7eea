"""``python -m bench``: the command line, where its script is not in the path."""

from bench import cli

cli.main()
