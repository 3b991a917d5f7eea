"""``python -m bench``, and what the script `bench` calls: an interrupt is one line from the first import on."""

import sys


def main() -> None:
    """Import the command line and call it."""
    try:
        from bench import cli
    except KeyboardInterrupt:  # Ctrl-C within the first tenths of a second
        sys.stderr.write("bench: interrupted before anything was done\n")
        sys.exit(130)
    cli.main()


if __name__ == "__main__":
    main()
