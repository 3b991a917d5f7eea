"""How quick the memory of runs is: a finished matrix, a table, the page, one run written; beside another checkout.

    python benchmarks/memory_of_runs.py [--runs 5000] [--matrix 500] [--rounds 3] [--against CHECKOUT] [--folder DIR]

Writes two stores of runs of usual size (60 metrics, 36 tags, six curves of 20 epochs, five files): one finished matrix
on the demo, and runs of eleven methods on eight data sets under four splits.  A process of each checkout then does
everything on a store of few runs, which imports all, and after that what is timed; the checkouts take turns.  The
folder is removed at the end unless it was named.
"""

import argparse
import contextlib
import io
import itertools
import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench import Tracker
from bench.cli import cli
from bench.data.prepare import open_dataset
from bench.runs.execute import tags_of, title_of
from bench.runs.plan import expand
from bench.scores.metrics import evaluate
from bench.spec import RunSpec, SplitSpec

EPOCHS = 20
CLASSES = [f"class {number}" for number in range(12)]
CHEAP = ["forest", "knn", "majority", "ports", "first-bytes"]
METHODS = ["atvitsc", "appscanner", "bind", "fsnet", "graphdapp", "flowpic", "tscrnn", "han", "cmtsnn", "forest", "knn"]
SPLITS = [SplitSpec("session"), SplitSpec("capture"), SplitSpec("capture+session"), SplitSpec("time")]
MATRIX = ["run", "--method", ",".join(CHEAP), "--dataset", "demo"]
QUESTIONS = ("finished matrix", "table", "report", "one run written")


def write_run(tracker: Any, spec: RunSpec) -> str:
    """A run of usual size, as a method that was trained leaves it; its id."""
    random = np.random.default_rng(spec.split.seed)
    truth = random.integers(0, len(CLASSES), 300)
    answers = random.dirichlet(np.ones(len(CLASSES)), 300).astype(np.float32)
    scores = evaluate(truth, answers, CLASSES)
    metrics = scores.metrics() | {f"f1/{name}": row["f1"] for name, row in scores.per_class.items()}
    metrics |= {f"macro_f1_{side}": 0.5 for side in ("low", "high")} | {"training_accuracy": 0.9, "seconds": 2.0}
    metrics |= {f"number_{one}": float(one) for one in range(60 - len(metrics) - 6)}
    run = tracker.start(spec, title_of(spec), tags_of(spec) | {f"deviation.{one:02d}": "d" * 80 for one in range(13)})
    run.parameters({f"parameter_{one}": one for one in range(14)})
    for epoch in range(1, EPOCHS + 1):
        names = ("loss", "accuracy", "samples_a_second", "validation_loss", "validation_accuracy", "validation_f1")
        run.curve(epoch, {f"epoch/{name}": 1 / epoch for name in names})
    run.metrics(metrics)
    result: dict[str, Any] = {
        "spec": spec.to_dict(),
        "metrics": metrics,
        "scores": scores.to_dict(),
        "parameters": {"epochs": EPOCHS},
    }
    result |= {"deviations": ["d" * 80] * 13, "environment": {"python": "3", "packages": {}}, "reads": ["lengths"]}
    result |= {"split": {"samples": {"train": 700, "test": 300}, "groups": {"train": 20, "test": 9}}}
    with run.artefacts() as folder:
        (folder / "model").mkdir()
        (folder / "model" / "method.json").write_text("{}")
        (folder / "model" / "weights").write_bytes(random.bytes(100_000))
        (folder / "result.json").write_text(json.dumps(result, indent=1))
        np.savez_compressed(folder / "predictions.npz", truth=truth, probabilities=answers)
    run.end("done")
    return str(run.run_id)


def write_store(results: Path, specs: Sequence[RunSpec]) -> None:
    """A store with these runs: the first written as all are, the others as its copies in SQL."""
    first = write_run(Tracker(results, f"sqlite:///{results / 'mlflow.db'}"), specs[0])
    with contextlib.closing(sqlite3.connect(results / "mlflow.db")) as base:
        tables = ("runs", "tags", "latest_metrics", "metrics", "params")
        kept = {name: _rows(base, name, first) for name in tables}
        for number, spec in enumerate(specs[1:]):
            own = {"bench.digest": spec.digest, "bench.spec": json.dumps(spec.to_dict(), sort_keys=True)}
            own |= tags_of(spec)
            run_id = uuid.uuid4().hex
            for name, rows in kept.items():
                lines = [_copied(row, first, run_id, own, number) for row in rows]
                marks = ",".join("?" * len(lines[0]))
                base.executemany(f"insert into {name} ({','.join(lines[0])}) values ({marks})",
                                 [list(line.values()) for line in lines])  # fmt: skip
            shutil.copytree(results / "artifacts" / first, results / "artifacts" / run_id)
        base.commit()


def _rows(base: sqlite3.Connection, table: str, run_id: str) -> list[dict[str, Any]]:
    found = base.execute(f"select * from {table} where run_uuid = ?", [run_id])
    names = [column[0] for column in found.description]
    return [dict(zip(names, row, strict=True)) for row in found]


def _copied(row: dict[str, Any], first: str, run_id: str, own: dict[str, str], number: int) -> dict[str, Any]:
    """A row of the first run as one of another."""
    line: dict[str, Any] = {
        key: value.replace(first, run_id) if isinstance(value, str) else value for key, value in row.items()
    }
    if line.get("key") in own:
        line["value"] = own[line["key"]]
    if "start_time" in line:
        line |= {"start_time": line["start_time"] + number, "end_time": line["end_time"] + number}
    return line


def stores(folder: Path, runs: int, matrix: int) -> None:
    """The two stores, and one of few runs."""
    seeds = range(matrix // len(CHEAP))
    split = SplitSpec("session")
    cells = expand(CHEAP, [open_dataset("demo")], split, seeds=seeds)
    places = itertools.product(range(runs), SPLITS, range(8), METHODS)
    many = [
        RunSpec(method, f"set-{number}", "app", SplitSpec(scheme.scheme, seed=seed))
        for seed, scheme, number, method in itertools.islice(places, runs)
    ]
    write_store(folder / "few", cells[:: len(seeds)])
    write_store(folder / "matrix", cells)
    write_store(folder / "many", many)


def bench(*words: str) -> str:
    """What a command prints."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()):
        cli.main(list(words), standalone_mode=False)
    return out.getvalue()


def timed(work: Callable[[], Any]) -> float:
    """Seconds that it takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def measured(folder: Path, seeds: int) -> dict[str, float]:
    """Seconds of each question in this process, all imported before; the page's size in megabytes."""
    few, many = str(folder / "few"), str(folder / "many")
    split = ["--split", "session"]
    bench(*MATRIX, *split, "--results", few)
    bench("table", "--results", few)
    bench("report", "--results", few, "--output", str(folder / "few.html"))
    tracker = Tracker(folder / "written", f"sqlite:///{folder / 'written' / 'mlflow.db'}")
    places = [RunSpec("forest", "written", "app", SplitSpec("session", seed=seed)) for seed in range(6)]
    write_run(tracker, places[0])
    taken = {"finished matrix": timed(lambda: _all_done(folder, split, seeds))}
    taken |= {"table": timed(lambda: bench("table", "--results", many))}
    page = folder / "page.html"
    taken |= {"report": timed(lambda: bench("report", "--results", many, "--output", str(page)))}
    taken |= {"one run written": statistics.median(timed(partial(write_run, tracker, one)) for one in places[1:])}
    shutil.rmtree(folder / "written")
    return taken | {"page_mb": page.stat().st_size / 1e6}


def _all_done(folder: Path, split: list[str], seeds: int) -> None:
    told = bench(*MATRIX, *split, "--seeds", str(seeds), "--json", "--results", str(folder / "matrix"))
    statuses = {run["status"] for run in json.loads(told)["runs"]}
    if statuses != {"cached"}:
        raise SystemExit(f"the matrix was not finished: {statuses}")


def asked(checkout: Path, folder: Path, seeds: int) -> dict[str, float]:
    """What :func:`measured` finds in a process of a checkout."""
    words = [sys.executable, str(Path(__file__).resolve()), "--child", "--folder", str(folder), "--matrix", str(seeds)]
    where = os.environ | {"PYTHONPATH": str(checkout)}
    done = subprocess.run(words, env=where, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5000)
    parser.add_argument("--matrix", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", type=Path, help="another checkout, of before")
    parser.add_argument("--folder", type=Path, help="where the stores are, or are made and stay")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder = options.folder.absolute() if options.folder else Path(tempfile.mkdtemp())
    os.environ["BENCH_HOME"] = str(folder / "home")
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    if options.child:
        print(json.dumps(measured(folder, options.matrix)))
        return
    if not (folder / "many").is_dir():
        stores(folder, options.runs, options.matrix)
    checkouts = {"now": Path(__file__).resolve().parents[1]}
    checkouts |= {"before": options.against.absolute()} if options.against else {}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in checkouts}
    for _ in range(options.rounds):
        for name, checkout in checkouts.items():
            found[name].append(asked(checkout, folder, options.matrix // len(CHEAP)))
    print("| seconds, median |", *(f"{name} |" for name in checkouts))
    print("|---|" + "---|" * len(checkouts))
    for question in (*QUESTIONS, "page_mb"):
        cells = [f"{statistics.median(one[question] for one in rounds):.2f} |" for rounds in found.values()]
        print(f"| {question} |", *cells)
    if not options.folder:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
