"""One matrix in many ways: several processes that are killed, a Dask cluster, a database that is stopped.

    python benchmarks/scaling.py killed|throughput|workers|studies

Starts Debian's PostgreSQL, an MLflow server and Dask workers on the loopback address (`tests/servers.py`) and computes
the same sixty small runs of the demo.  ``killed``: three processes with folders of their own share PostgreSQL, and ten
times one of them is killed; the table is held against one of a process alone, and no cell may have two finished runs.
``throughput``: `--jobs 2` and two Dask workers at the same time, a core each, four times; numbers must be equal.
``workers``: one forest's fit on a Dask worker as Dask starts it, on one with the settings of docs/scaling.md, and in a
process of `--jobs`, twenty times in turns.
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
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import geometric_mean, median

from joblib.externals.loky import ProcessPoolExecutor

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from servers import Postgres, dask_cluster, mlflow_server, postgres  # noqa: E402

from bench.matrix.cluster import connected  # noqa: E402
from bench.tracking.tracker import Tracker  # noqa: E402

METHODS = "forest,appscanner,bind,first-bytes,knn"
SEEDS = 12
KILLS = 10
ALL_CORES = os.sched_getaffinity(0)
WORKERS = {  # as docs/scaling.md starts them
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
    "MALLOC_TRIM_THRESHOLD_": str(128 * 2**20),
}
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
    """Both at the same time, each on a core of its own, which they swap: what slows the machine slows both."""
    cores = sorted(ALL_CORES)[:2]
    found: list[dict[str, object]] = []
    shares = []
    for turn in range(4):
        with ExitStack() as stack:
            arms = [
                (name, *_arm(name, folder / f"{name}{turn}", database, core, stack))
                for name, core in zip(("jobs", "dask"), cores, strict=True)
            ]
            began = time.monotonic()
            spent: dict[str, float] = {}
            runs = {name: begun() for name, begun, _ in arms}
            while len(spent) < len(runs):
                time.sleep(0.05)
                ended = [name for name, run in runs.items() if name not in spent and run.poll() is not None]
                spent |= dict.fromkeys(ended, time.monotonic() - began)
            for name, _, tracker in arms:
                wait(runs[name], folder / f"{name}{turn}")
                found.append(numbers(tracker))
        cores.reverse()
        shares.append(spent["jobs"] / spent["dask"])
        print(f"turn {turn}: --jobs 2 {spent['jobs']:.1f} s, two Dask workers {spent['dask']:.1f} s", flush=True)
    print(f"cells of each: {sorted({len(one) for one in found})}, same in all: {all(one == found[0] for one in found)}")
    print(f"throughput of the cluster, of that of --jobs 2 (geometric mean): {geometric_mean(shares):.3f}")


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """What begins in the block stays on a core."""
    os.sched_setaffinity(0, [core])
    try:
        yield
    finally:
        os.sched_setaffinity(0, ALL_CORES)


def _arm(
    name: str, place: Path, database: Postgres, core: int, stack: ExitStack
) -> tuple[Callable[[], subprocess.Popen[bytes]], Tracker]:
    """How to begin the matrix on a core, with servers of its own, and its store of runs."""
    place.mkdir()
    database.sql(f"CREATE DATABASE {place.name}", database="postgres")
    url = database.url(place.name).replace("postgresql", "postgresql+psycopg2")
    server = stack.enter_context(mlflow_server(url, place))
    with on_core(core):
        scheduler = stack.enter_context(dask_cluster(place, **WORKERS))
    stack.enter_context(connected(scheduler)).wait_for_workers(2)  # that they start belongs to neither
    more = ["--jobs", "2"] if name == "jobs" else ["--scheduler", scheduler]

    def begun() -> subprocess.Popen[bytes]:
        with on_core(core):
            return begin(place, server, *more)

    return begun, Tracker(place / "results", server)


def unit() -> float:
    """Seconds of a small fit on one core, as a cell's, without anything that is written."""
    import numpy as np
    from sklearn.ensemble import RandomForestClassifier

    random = np.random.default_rng(0)
    inputs, labels = random.normal(size=(600, 60)), random.integers(0, 5, 600)
    began = time.perf_counter()
    RandomForestClassifier(100, random_state=0).fit(inputs, labels).predict_proba(inputs)
    sum(number * number % 7 for number in range(600_000))  # what is not inside numpy holds the interpreter
    return time.perf_counter() - began


def workers(folder: Path, database: Postgres, seed: int) -> None:
    with ExitStack() as stack:
        arms = {"a process of --jobs": ProcessPoolExecutor(1).submit}
        for name, settings in (("Dask's own settings", {}), ("those of docs/scaling.md", WORKERS)):
            (place := folder / name[:5]).mkdir()
            client = stack.enter_context(connected(stack.enter_context(dask_cluster(place, workers=1, **settings))))
            client.wait_for_workers(1)
            arms[name] = partial(client.submit, pure=False)
        spent = [{name: submit(unit).result() for name, submit in arms.items()} for _ in range(21)][1:]
    for name in arms:
        seconds = [turn[name] for turn in spent]
        print(f"{name}: least {min(seconds):.3f} s, median {median(seconds):.3f} s")


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
    parser.add_argument("what", choices=["killed", "throughput", "workers", "studies"])
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-scaling-") as name, postgres() as database:
        what = {"killed": killed, "throughput": throughput, "workers": workers, "studies": studies}[asked.what]
        what(Path(name), database, asked.seed)


if __name__ == "__main__":
    main()
