"""Commands that make or serve pages."""

import os
import sys
from contextlib import suppress
from pathlib import Path

import click

from bench.cli.base import cli, results_option, runs_in, runs_to_change, suite_named, suite_option, tell
from bench.cli.help import examples, list_option
from bench.cli.text import file_size
from bench.errors import InputError, counted
from bench.render.table import one_line


@cli.command(epilog=examples("bench report", "bench report --dataset demo --output demo.html"))
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The page; report.html in --results by default.",
)
@list_option("--dataset", "datasets", metavar="D,...", help="Only these data sets.")
@suite_option("Only runs of this suite.")
@results_option
def report(output: Path | None, datasets: list[str], suite: str | None, results: Path) -> None:
    """Write one HTML page of all results: tables, charts, details, how to reproduce each number."""
    asked = suite_named(suite)
    tracker = runs_in(results)
    if datasets:  # a wrong word costs nothing
        from bench.tracking.selection import Wanted, narrowed

        narrowed(tracker.search(), Wanted(datasets=datasets))
    from bench.report.page import write

    output = output or results / "report.html"
    number = write(tracker, output, datasets=datasets, suite=asked, tell=tell)
    click.echo(f"{output}: {counted(number, 'run')}, {file_size(output.stat().st_size)}")


@cli.command(
    epilog=examples(
        "bench leaderboard results/leaderboard --suite etc-2026", "bench leaderboard results/leaderboard --check"
    )
)
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@suite_option("Only runs at the places of this suite; what it lacks is counted.")
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
              help="Folder of index.html and leaderboard.csv; FOLDER by default.")  # fmt: skip
@click.option(
    "--check", is_flag=True, help="Write nothing; also compare test samples with the data sets that are here."
)
def leaderboard(folder: Path, suite: str | None, output: Path | None, check: bool) -> None:
    """Make a page and a CSV of the runs in a FOLDER of bundles; each bundle is verified, any fault is refused."""
    if check and output:
        raise InputError("bad-options", "--check writes nothing; leave out --output")
    asked = suite_named(suite)
    from bench.report.leaderboard import write
    from bench.report.submissions import Submissions, held_against_data

    found = Submissions(folder)
    faults = [*found.faults, *(held_against_data(found, asked) if check else ())]
    for line in faults:
        tell(f"refused: {line}")
    if faults:
        of = f"{len({line.partition(': ')[0] for line in faults})} of {len(found.digests) + len(found.faults)} bundles"
        raise InputError("bad-bundle", f"{folder}: {of} refused; mend or remove these")
    if check:
        for line in found.remarks:
            tell(line)
        click.echo(f"{folder}: {counted(len(found.digests), 'bundle')}, {counted(len(found.runs), 'run')}, all sound")
        return
    lines = write(found, output or folder, asked)
    click.echo(f"{output or folder}: {counted(lines, 'line')} of {counted(len(found.digests), 'bundle')}")


@cli.command(epilog=examples("bench ui --port 5001"))
@click.option(
    "--port", type=click.IntRange(1, 65535), default=5000, show_default=True, help="Port of the loopback address."
)
@click.option(
    "--open/--no-open", "is_opened", default=None, help="Open a browser; the default on a desktop's terminal."
)
@results_option
def ui(port: int, is_opened: bool | None, results: Path) -> None:
    """Serve MLflow's page of all runs until Ctrl-C, and print the address of each data set's runs."""
    from bench.report.mlflow_server import links, page_of, served

    tracker = runs_to_change(results)  # the page takes notes
    address, experiments = tracker.address, tracker.experiments()
    if not experiments:
        from bench.tracking.selection import NO_RUNS

        raise InputError("no-runs", f"{address.at}: {NO_RUNS}")
    opened = _has_desktop() if is_opened is None else is_opened
    if address.is_server:  # it has these pages itself
        _show(links(page_of(address), experiments), opened)
        return
    with served(address, port) as server:
        tell("starting MLflow's server; this takes a few seconds")
        with suppress(KeyboardInterrupt):
            server.wait_until_it_listens()
            _show(links(server.page, experiments), opened)
            tell("Ctrl-C ends it")
            server.wait()


def _show(addresses: dict[str, str], opened: bool) -> None:
    """Print the addresses, that of the newest runs first, and open that one."""
    for name, address in addresses.items():
        click.echo(f"{address}  {one_line(name)}")
    sys.stdout.flush()
    if opened:
        import webbrowser

        webbrowser.open(next(iter(addresses.values())))


def _has_desktop() -> bool:
    """Whether somebody sees what is opened; a browser in the terminal itself would hide the addresses."""
    desktop = sys.platform in ("darwin", "win32") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
    return desktop and sys.stdout.isatty()
