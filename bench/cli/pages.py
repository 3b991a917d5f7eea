"""Commands that make or serve pages."""

import os
import sys
from pathlib import Path

import click

from bench.cli.base import cli, list_option, results_option, runs_in, runs_to_change, tell
from bench.cli.help import examples


@cli.command(epilog=examples("bench report", "bench report --dataset demo --output demo.html"))
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="The page; report.html in --results.")
@list_option("--dataset", "datasets", metavar="D,...", help="Only these data sets.")
@results_option
def report(output: Path | None, datasets: list[str], results: Path) -> None:
    """One HTML page of all results, complete in itself: tables, charts, details, how to reproduce each number."""
    tracker = runs_in(results)
    from bench.report.page import write

    output = output or results / "report.html"
    number = write(tracker, output, datasets=datasets, tell=tell)
    click.echo(f"{output}: {number} runs, {output.stat().st_size / 1e6:.1f} MB")


@cli.command(epilog=examples("bench ui --port 5001"))
@click.option("--port", default=5000, show_default=True, help="Where it listens, on 127.0.0.1 alone.")
@results_option
def ui(port: int, results: Path) -> None:
    """Serve the MLflow page of all runs on the loopback address."""
    address = runs_to_change(results).address  # the page takes notes
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")  # seven processes that no run of ours needs
    if address.is_server:
        click.echo(address.shown)  # it has these pages itself
        return
    if address.is_database:  # not among the words: other users can read those, and it may hold a password
        os.environ["MLFLOW_BACKEND_STORE_URI"] = address.url
    command = ["-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    click.echo(f"http://127.0.0.1:{port}", err=True)
    os.execv(sys.executable, [sys.executable, *command])
