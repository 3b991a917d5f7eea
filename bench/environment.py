"""What a run ran on: the code that decides its result, versions, revision, processor, threads, peak memory."""

import ast
import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]  # of the packages, in a checkout and where they are installed
PACKAGES_OF_OURS: Final = ("bench", "methods")
SHARED_FOLDERS: Final = ("site-packages", "dist-packages")  # where packages of many people lie side by side
LOOK_SECONDS: Final = 1.0  # between two looks at whether a parent lives
GRACE_SECONDS: Final = 10.0  # for a process that is told to end
FLOAT32: Final = "float32"
CPU: Final = "cpu"
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4  # glibc's names of its settings, M_... in malloc.h
PACKAGES: Final = tuple("etc-bench mlflow numba numpy pyarrow scikit-learn scipy torch torch-geometric".split())


def environment(device: str) -> dict[str, Any]:
    """Ready for JSON.  Imports nothing: torch is asked only where a method has imported it."""
    torch = sys.modules.get("torch")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": cores(),
        "threads": torch.get_num_threads() if torch else threads(),
        "precision": precision_on(device),
        "device": torch.cuda.get_device_name(device) if torch and is_gpu(device) else device,
        "packages": {name: installed for name in PACKAGES if (installed := _version(name)) is not None},
        **_revision(),
    }


def arithmetic() -> list[str]:
    """What the last digits of the same code's numbers may differ by: processor, Python, versions of packages."""
    return [_cpu(), platform.python_version(), *(f"{name} {_version(name)}" for name in PACKAGES if name != "mlflow")]


def is_gpu(device: str) -> bool:
    """Whether a device, as torch names it, works beside the processor."""
    return device.startswith("cuda")


def precision_on(device: str) -> str:
    """What torch methods compute in: mixed bfloat16 on a GPU, which needs no scaling of the loss, float32 elsewhere."""
    return "bfloat16" if is_gpu(device) else FLOAT32


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory() -> int:
    """Bytes of the machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def threads() -> int:
    """Threads that a computation may use: OMP_NUM_THREADS (workers of a matrix get a share), else all cores."""
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return max(1, int(asked)) if asked.isdigit() else cores()


def limit_of_threads(number: int) -> dict[str, str]:
    """Environment of a process whose libraries may use ``number`` threads each, at least one."""
    names = ("OMP", "OPENBLAS", "MKL", "BLIS", "NUMBA", "NUMEXPR")
    return dict.fromkeys([*(f"{name}_NUM_THREADS" for name in names), "VECLIB_MAXIMUM_THREADS"], str(max(1, number)))


def reset_peak_memory() -> None:
    """Begin to measure anew, where the system can (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int:
    """The largest resident memory of this process since the last reset (elsewhere: since its start), bytes."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@contextlib.contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Within, memory that is freed stays with the process and is given out again; afterwards it goes back.

    Else glibc asks the system for every large array anew, which hands it out zeroed, a page fault every 4 KiB: a
    third of the time of some networks' training steps.  Without glibc nothing changes.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        yield
        return
    libc.mallopt(MMAP_MAX, 0)
    libc.mallopt(TRIM_THRESHOLD, -1)
    try:
        yield
    finally:
        libc.mallopt(MMAP_MAX, 65536)
        libc.mallopt(MMAP_THRESHOLD, 32 << 20)  # what glibc itself comes to, which adapts no more once it was told
        libc.mallopt(TRIM_THRESHOLD, 64 << 20)
        libc.malloc_trim(0)


def live_with(parent: int) -> None:
    """End this process soon after its parent, however that ends; a worker whose parent was killed works for nobody."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE_SECONDS)
        os.kill(os.getpid(), signal.SIGKILL)

    if not any(thread.name == "parent" for thread in threading.enumerate()):
        threading.Thread(target=watch, name="parent", daemon=True).start()


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version  # with e-mail's parser a tenth of `bench --help`

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    """The processor's model, as the system calls it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@functools.cache
def _revision() -> dict[str, Any]:
    """The checkout's commit and whether files differ from it; None outside a checkout."""

    def git(*arguments: str) -> str | None:
        command = ("git", "-C", str(Path(__file__).parent), *arguments)
        try:
            return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            return None

    commit, changes = git("rev-parse", "HEAD"), git("status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": bool(changes) if changes is not None else None}


def code_digest(*modules: str, files: Sequence[Path] = ()) -> str:
    """SHA-256, 16 hex digits, of the source of modules of ours and of all that they import of ours, at any depth.

    ``files`` are further sources, such as a method that lies outside the packages.  Imports for type checkers alone do
    not count.  Reads sources and imports none of them.
    """
    sources: dict[str, bytes] = {}
    waiting = [(name, _source_of(name)) for name in modules] + [(str(path), path) for path in files]
    while waiting:
        name, path = waiting.pop()
        if path is not None and name not in sources:
            sources[name] = path.read_bytes()
            waiting += [(other, _source_of(other)) for other in _imports(path)]
    state = hashlib.sha256()
    for name, text in sorted(sources.items()):
        state.update(Path(name).name.encode() + b"\0" + hashlib.sha256(text).digest())
    return state.hexdigest()[:16]


def imported_beside(path: Path) -> list[Path]:
    """The sources of its own folder, or of its package, that a file of somebody else's imports, at any depth."""
    found, waiting = {path}, [path]
    while waiting:
        one = waiting.pop()
        files = {file for module in _imports(one) for file in _beside(one, module)} - found
        found |= files
        waiting += files
    return sorted(found - {path})


def _beside(path: Path, module: str) -> Iterator[Path]:
    """The files of a module that a file imports, in its folder or its package; a relative import has lost its dots."""
    package = next((folder for folder in path.parents[::-1] if (folder / "__init__.py").is_file()), None)
    if package is None:
        places = [path.parent] if path.parent.name not in SHARED_FOLDERS else []
    else:
        places = [folder for folder in path.parents if folder.is_relative_to(package)]
        places += [package.parent] if module.partition(".")[0] == package.name else []
    for place in places:
        stem = place.joinpath(*module.split("."))
        yield from (file for file in (stem.with_suffix(".py"), stem / "__init__.py") if file.is_file())


def _source_of(module: str) -> Path | None:
    """The file of a module of ours, a package's face too; None for other people's and for names inside modules."""
    package, *below = module.split(".")
    if package not in PACKAGES_OF_OURS:
        return None
    place = ROOT.joinpath(package, *below)
    candidates = (place.with_suffix(".py"), place / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)


@functools.cache
def _imports(path: Path) -> frozenset[str]:
    """Modules that a source may import, by their dotted names, with names that are modules of a package.

    A package's face imports when it is asked; its stub says what.
    """
    modules: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(path.read_bytes())]
    if path.name == "__init__.py" and (stub := path.with_suffix(".pyi")).is_file():
        package = ".".join(path.parent.relative_to(ROOT).parts)
        face = (node for node in ast.walk(ast.parse(stub.read_bytes())) if isinstance(node, ast.ImportFrom))
        modules = {f"{package}.{node.module}" for node in face}
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)):
            waiting += ast.iter_child_nodes(node)
    return frozenset(modules)
