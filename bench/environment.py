"""What a run ran on: versions, revision, processor, threads, peak memory."""

import contextlib
import functools
import os
import platform
import resource
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

PACKAGES: Final = ("etc-bench", "mlflow", "numba", "numpy", "pyarrow", "scikit-learn", "scipy", "torch")


def environment(device: str) -> dict[str, Any]:
    """Ready for JSON.  Imports nothing: torch is asked only where a method has imported it."""
    torch = sys.modules.get("torch")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": cores(),
        "threads": torch.get_num_threads() if torch else threads(),
        "device": torch.cuda.get_device_name(device) if torch and device.startswith("cuda") else device,
        "packages": {name: found for name in PACKAGES if (found := _version(name)) is not None},
        **_revision(),
    }


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads() -> int:
    """Threads that a computation may use: OMP_NUM_THREADS (workers of a matrix get a share), else all cores."""
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return max(1, int(asked)) if asked.isdigit() else cores()


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


def _version(package: str) -> str | None:
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
