"""One matrix in many ways: several processes that are killed, a Dask cluster, a database that is stopped.

    python benchmarks/scaling.py killed|throughput|studies

Starts Debian's PostgreSQL, an MLflow server and Dask workers on the loopback address (`tests/servers.py`) and computes
the same sixty small runs of the demo.  ``killed``: three processes with folders of their own share PostgreSQL, and ten
times one of them is killed; the table is held against one of a process alone, and no cell may have two finished runs.
``throughput``: `--jobs 2` and two Dask workers, in turns on the same MLflow server; numbers must be equal to the digit.
``studies``: a grid of `bench tune` by one process with a file, and by three with PostgreSQL; scores must be equal.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from servers import Postgres, dask_cluster, mlflow_server, postgres  # noqa: E402

from bench.tracking.tracker import Tracker  # noqa: E402

METHODS = "forest,appscanner,bind,first-bytes,knn"
SEEDS = 12
KILLS = 10
TIMES = ("seconds", "peak_memory")  # in names of metrics that no two runs share


def words(methods: str, seeds: int, *more: str) -> list[str]:
    matrix = ["--method", methods, "--dataset", "demo", "--split", "session", "--seeds", str(seeds)]
    return [sys.executable, "-m", "bench", "run", *matrix, "--json", *more]


def begin(folder: Path, store: str | None, *more: str, methods: str = METHODS) -> subprocess.Popen[bytes]:
    """`bench run` of the matrix in a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    env = (
        os.environ
        | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        | ({"MLFLOW_TRACKING_URI": store} if store else {})
    )
    with (folder / "out").open("ab") as out:
        return subprocess.Popen(words(methods, SEEDS, *more), cwd=folder, env=env, stdout=out, stderr=out)


def numbers(tracker: Tracker) -> dict[str, object]:
    """All that is computed of each finished cell: numbers without times, and the digest of the predictions."""
    return {
        run.digest: (
            sorted((k, v) for k, v in run.metrics.items() if not any(word in k for word in TIMES)),
            run.files["predictions.npz"],
        )
        for run in tracker.search()
        if run.status == "done"
    }


def wait(process: subprocess.Popen[bytes], folder: Path) -> None:
    if process.wait() != 0:
        raise SystemExit((folder / "out").read_text()[-3000:])


def killed(folder: Path, database: Postgres, seed: int) -> None:
    chance = random.Random(seed)
    alone = begin(folder / "alone", None)
    wait(alone, folder / "alone")
    expected = numbers(Tracker(folder / "alone" / "results", f"sqlite:///{folder / 'alone' / 'results' / 'mlflow.db'}"))
    print(f"alone: {len(expected)} cells done")
    places = [folder / f"host{number}" for number in range(3)]
    runs = [begin(place, database.url()) for place in places]
    for number in range(KILLS):
        time.sleep(chance.uniform(6, 22))
        which = chance.randrange(3)
        alive = runs[which].poll() is None
        runs[which].kill()
        runs[which].wait()
        runs[which] = begin(places[which], database.url())
        tracker = Tracker(places[0] / "results", database.url())
        counts = dict(Counter(run.status for run in tracker.search(latest=False)))
        print(
            f"kill {number + 1}: process {which} ({'alive' if alive else 'had ended'}); the store has {counts}",
            flush=True,
        )
    for run, place in zip(runs, places, strict=True):
        wait(run, place)
    tracker = Tracker(places[0] / "results", database.url())
    every = tracker.search(latest=False)
    done = Counter(run.digest for run in every if run.status == "done")
    print(f"runs in the store: {dict(Counter(run.status for run in every))}")
    print(f"cells with two finished runs: {sum(number > 1 for number in done.values())}")
    print(f"claims that are left: {len(tracker.claims.holders())}")
    print(f"waiting folders: {[str(p) for place in places for p in (place / 'results').glob('pending/*')]}")
    print(f"same numbers and predictions as alone: {numbers(tracker) == expected}")


def throughput(folder: Path, database: Postgres, seed: int) -> None:
    found: list[dict[str, object]] = []
    spent: dict[str, list[float]] = {"--jobs 2": [], "two Dask workers": []}
    for turn in range(3):
        for name in spent:
            one = f"{name.replace(' ', '').replace('-', '').lower()}{turn}"
            database.sql(f"CREATE DATABASE {one}", database="postgres")
            place = folder / one
            place.mkdir()
            with mlflow_server(database.url(one).replace("postgresql", "postgresql+psycopg2"), place) as server:
                with dask_cluster(place) as scheduler:
                    more = ["--jobs", "2"] if "jobs" in name else ["--scheduler", scheduler]
                    started = time.monotonic()
                    wait(begin(place, server, *more), place)
                    spent[name].append(time.monotonic() - started)
                found.append(numbers(Tracker(place / "results", server)))
            print(f"turn {turn}, {name}: {spent[name][-1]:.1f} s, {len(found[-1])} cells", flush=True)
    best = {name: min(seconds) for name, seconds in spent.items()}
    print(f"same numbers and predictions in all: {all(one == found[0] for one in found)}")
    share = best["--jobs 2"] / best["two Dask workers"]
    print(f"throughput of the cluster, of that of --jobs 2 (least times): {share:.3f}")


def studies(folder: Path, database: Postgres, seed: int) -> None:
    grid = ["--param", "trees=10,20,40,80", "--param", "packets=8,16,32", "--sampler", "grid"]
    tune = [sys.executable, "-m", "bench", "tune", "--method", "forest", "--dataset", "demo", "--split", "session"]
    found = []
    for name, store in (("file", {}), ("server", {"MLFLOW_TRACKING_URI": database.url()})):
        place = folder / name
        place.mkdir()
        env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | store
        begun = [
            subprocess.Popen([*tune, *grid, "--json"], cwd=place, env=env, stdout=subprocess.PIPE)
            for _ in range(3 if store else 1)
        ]
        told = [json.loads(one.communicate()[0]) for one in begun]
        scores = [
            sorted((sorted(trial["parameters"].items()), trial["value"]) for trial in one["trials"]) for one in told
        ]
        print(f"{name}: {[len(one) for one in scores]} trials seen by {len(begun)} processes", flush=True)
        found += scores
    print(f"same scores in all: {all(one == found[0] for one in found)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["killed", "throughput", "studies"])
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-scaling-") as name, postgres() as database:
        {"killed": killed, "throughput": throughput, "studies": studies}[asked.what](Path(name), database, asked.seed)


if __name__ == "__main__":
    main()
