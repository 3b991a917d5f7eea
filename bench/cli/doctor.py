"""What a bug report needs to know, in one look that writes nothing."""

import getpass
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import click

from bench import __version__
from bench.cli.base import cli, emit, results_option
from bench.cli.help import examples, json_option
from bench.cli.text import outline, shortcomings
from bench.environment import CPU, environment
from bench.errors import InputError
from bench.files import plain
from bench.tracking.address import without_password

PACKAGE: Final = "etc-bench"
#: what decides where and how bench works, beside its options
VARIABLES: Final = (
    "BENCH_HOME",
    "BENCH_RESULTS",
    "BENCH_CLAIMS",
    "BENCH_KEPT_ARRAYS",
    "MLFLOW_TRACKING_URI",
    "OMP_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
)
GPU_SECONDS: Final = 10


@cli.command(epilog=examples("bench doctor", "bench doctor --json"))
@results_option
@json_option
def doctor(results: Path, as_json: bool) -> None:
    """Print what a bug report needs: versions, machine, stores, results, plug-ins.  Hides user and home folder."""
    from bench.data.manifest import bench_home

    try:
        home = bench_home()
        stores: Any = {"folder": str(home), "free": _free(home), "stores": _stores(home)}
    except InputError as error:
        stores = str(error)
    found = {
        "bench": {"version": __version__, "folder": str(Path(__file__).parents[2]), **_machine()},
        "packages": _packages(),
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "home": stores,
        "results": _results(results),
        "plug-ins": _plug_ins(),
    }
    shown = nameless(found)
    emit(as_json, shown, outline(shown))


def nameless(value: Any) -> Any:
    """A report's texts without passwords, the home folder's path (``~``) and the user's name in paths and addresses."""
    if isinstance(value, Mapping):
        return {nameless(key): nameless(item) for key, item in value.items()}
    if isinstance(value, list):
        return [nameless(item) for item in value]
    if not isinstance(value, str):
        return value
    text = re.sub(r"(://)[^/@\s:]+(:[^/@\s]*)?@", r"\1***@", without_password(value))
    with suppress(RuntimeError):  # nobody knows a home folder
        text = re.sub(rf"{re.escape(str(Path.home()))}(?![^/\s'\"])", "~", text)
    with suppress(OSError, KeyError):  # nobody knows a name
        text = re.sub(rf"(?<=/){re.escape(getpass.getuser())}(?=/|$)", "***", text)
    return text


def _machine() -> dict[str, Any]:
    """Python, system, processor, memory and graphics cards; torch is not asked, which takes seconds."""
    known = environment(CPU)
    told = {name: known[name] for name in ("commit", "dirty", "python", "platform", "cpu", "cores", "threads")}
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return told | {"executable": sys.executable, "memory": f"{memory / 1e9:.0f} GB", "cards": _cards()}


def _cards() -> str:
    """Graphics cards, as their driver lists them."""
    if (program := shutil.which("nvidia-smi")) is None:
        return "none (no nvidia-smi)"
    command = [program, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=GPU_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        return f"nvidia-smi does not answer ({error})"
    return "; ".join(done.stdout.splitlines())


def _packages() -> dict[str, str]:
    """Versions of what bench is built on."""
    from importlib.metadata import PackageNotFoundError, requires, version

    found: dict[str, str] = {}
    try:
        needed = requires(PACKAGE) or []
    except PackageNotFoundError:
        return {**environment(CPU)["packages"], PACKAGE: "not installed: run from a checkout"}
    for line in needed:
        name, _, condition = line.partition(";")
        name = re.split(r"[^\w.-]", name.strip(), maxsplit=1)[0]
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed" + (" (an extra)" if "extra" in condition else "")
    return found


def _stores(home: Path) -> dict[str, str]:
    """By data set, how its prepared store is."""
    return {path.parent.name: _state(path.parent) for path in sorted((home / "stores").glob("*/manifest.json"))}


def _state(path: Path) -> str:
    from bench.data.build import code_of_stores
    from bench.data.store import Store

    words: list[str] = []
    try:
        store = Store.open(path)
        manifest = store.manifest
        words.append(f"{manifest.sessions} sessions, {manifest.packets} packets, digest {store.digest[:8]}")
        words += ["made by other code"] * (manifest.code != code_of_stores())
        words += filter(None, [shortcomings(manifest)])
        root = Path(store.sources.root)
        words += [f"its captures are no longer in {root}"] * (not root.exists())
    except InputError as error:
        words.append(str(error))
    return "; ".join(words)


def _results(results: Path) -> dict[str, Any]:
    """The results folder and the store of runs: whether it answers, and how many runs are how."""
    from bench.tracking.record import status_of
    from bench.tracking.tracker import Tracker

    tracker = Tracker(results, reading=True)
    source = click.get_current_context().get_parameter_source("results")
    told: dict[str, Any] = {"folder": str(tracker.results), "named by": source.name.lower() if source else ""}
    told |= {"free": _free(tracker.results), "store of runs": tracker.address.shown}
    if not tracker.is_there:
        return told | {"state": "there is none yet"}
    told["state"] = "it answers"
    try:
        told["runs"] = dict(Counter(status_of(row) for row in tracker.rows()))
        told |= {"waiting": len(tracker.waiting()), "waiting for other stores": tracker.waiting_elsewhere()}
    except InputError as error:
        told["state"] = str(error)
    return told


def _plug_ins() -> list[Any]:
    """Methods of other packages, and what is wrong with those that give none."""
    from bench.runs import registry

    sound, _ = registry.seen(registry.summary)
    foreign = [name for name in sound if not registry.is_shipped(name)]
    _, faults = registry.seen(lambda name: registry.load(name) if name in foreign else registry.summary(name))
    broken = {fault.name for fault in faults}
    good = [{"name": name, "package": registry.origin(name)} for name in foreign if name not in broken]
    return [*good, *map(plain, faults)]


def _free(folder: Path) -> str:
    """Room on the disk of a folder, which need not be there."""
    place = next(path for path in (folder, *folder.parents) if path.exists())
    return f"{shutil.disk_usage(place).free / 1e9:.1f} GB"
