"""Progress on standard error, a live bar on a terminal and a plain line now and then elsewhere; what guards both."""

import os
import sys
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, TextIO

from bench.render.table import one_line, printable
from bench.spec import RunSpec

if TYPE_CHECKING:
    from bench.runs.execute import Outcome
    from bench.runs.plan import Plan

EVERY_S: Final = 10.0  # between plain lines
RESET: Final = "\x1b[0m"  # what colorama, which numba brings, writes by itself when a process ends on a terminal
EPOCH_NUMBERS: Final = ("loss", "accuracy", "validation_macro_f1")  # of an epoch's numbers


class Guarded:
    """A text stream that nothing reaches which a terminal would obey, see `printable`.

    Names come from captures, cards, results and libraries, and all of them leave here: commands, errors, warnings and
    traces.  The stream's bytes are not to be had, so that nobody writes around it.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":
            raise AttributeError(name)
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write a text; what the stream's encoding does not have is written out, too."""
        shown = printable(text) if text != RESET else ""
        if encoding := getattr(self.stream, "encoding", None):
            shown = shown.encode(encoding, "backslashreplace").decode(encoding)
        self.stream.write(shown)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write texts one after the other."""
        for line in lines:
            self.write(line)


def guard() -> None:
    """Let all that this process writes to standard output and error from now on pass through `Guarded`."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, Guarded):
            setattr(sys, name, Guarded(stream))
    os.environ.setdefault("PYTHON_COLORS", "0")  # the colours of a trace would be written out as well


class Display(Protocol):
    """Where progress is shown."""

    def show(self, text: str, done: float = 0, total: float | None = None) -> None:
        """Show how far a thing is, if it is time to."""

    def tell(self, text: str) -> None:
        """Show a line that stays."""

    def close(self) -> None:
        """End, so that the next output starts on its own line; the next `show` begins anew."""


class PlainLines:
    """For logs: a line every so often."""

    def __init__(self) -> None:
        self._last = time.monotonic() - EVERY_S

    def show(self, text: str, done: float = 0, total: float | None = None) -> None:
        """See `Display`."""
        if time.monotonic() - self._last >= EVERY_S:
            self.tell(text)

    def tell(self, text: str) -> None:
        """See `Display`."""
        self._last = time.monotonic()
        sys.stderr.write(one_line(text) + "\n")
        sys.stderr.flush()

    def close(self) -> None:
        """See `Display`."""


class LiveBar:
    """For a terminal: rich's bar, redrawn in place by sequences that only an unguarded stream lets through."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=24))
        console = Console(file=getattr(sys.stderr, "stream", sys.stderr), highlight=False)
        self._progress: Any = Progress(*columns, console=console, transient=True, redirect_stdout=False)
        self._bar = self._progress.add_task("", total=None)

    def show(self, text: str, done: float = 0, total: float | None = None) -> None:
        """See `Display`."""
        self._progress.start()  # again after an end; nothing where it runs
        guard()  # rich has put a stream of its own in the place of standard error
        self._progress.update(self._bar, description=one_line(text), completed=done, total=total)

    def tell(self, text: str) -> None:
        """See `Display`."""
        self._progress.console.print(one_line(text), markup=False, soft_wrap=True)

    def close(self) -> None:
        """See `Display`."""
        self._progress.stop()


class _Shown:
    """Owns a display and ends it."""

    def __init__(self) -> None:
        self._display: Display = LiveBar() if sys.stderr.isatty() else PlainLines()

    def __enter__(self) -> Self:
        return self

    def pause(self) -> None:
        """Leave the terminal to other output until the next report."""
        self._display.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._display.close()


class PrepareProgress(_Shown):
    """Bytes, rate and time left of an ingest; call with what `bench.data.prepare` reports."""

    _first: tuple[float, int] | None = None  # time and bytes of the first report: before it, code was compiled

    def __call__(self, done: int, total: int, captures: int, of: int, packets: int) -> None:
        """Show how far it is: bytes and captures done, of how many, and packets kept so far."""
        now = time.monotonic()
        started, before = self._first = self._first or (now, done)
        rate = (done - before) / (now - started) if now > started else 0.0
        pace = f", {rate / 1e6:.0f} MB/s, {(total - done) / rate:.0f} s left" if rate else ""
        text = f"{captures}/{of} captures, {done / 1e6:.0f}/{total / 1e6:.0f} MB, {packets} packets{pace}"
        self._display.show(text, done, total)


class DownloadProgress(_Shown):
    """Bytes, rate and time left of each file; call with what `bench.data.download` reports."""

    _first: tuple[int, float, int] | None = None  # number, time and bytes of a file's first report: a part may be there

    def __call__(self, path: str, number: int, of: int, done: int, total: int) -> None:
        """Show a file's path, its number of how many, and its bytes done and in all (0: the server does not tell)."""
        now = time.monotonic()
        if self._first is None or self._first[0] != number:
            self._first = number, now, done
        _, started, before = self._first
        rate = (done - before) / (now - started) if now > started else 0.0
        size = f"{done / 1e6:.1f}" + (f"/{total / 1e6:.1f}" if total else "")
        left = f", {max(total - done, 0) / rate:.0f} s left" if rate and total else ""
        pace = f", {rate / 1e6:.1f} MB/s{left}" if rate else ""
        text = f"[{number}/{of}] {path}: {size} MB{pace}"
        if done == total:
            self._display.tell(text)
        else:
            self._display.show(text, done, total or None)


class RunProgress(_Shown):
    """Which run of how many is at which stage or epoch; call with what `bench.runs.execute` reports."""

    def __init__(self, runs: int, plan: "Plan | None" = None) -> None:
        super().__init__()
        self._runs = runs
        self._plan = plan  # that knows how long the rest takes
        self._done = 0
        self._fit_started = 0.0

    def __call__(self, spec: RunSpec, stage: str, values: Mapping[str, float]) -> None:
        """Show a stage, or an epoch with its numbers and the time left of the training."""
        if stage == "fit":
            self._fit_started = time.monotonic()
        text = f"[{self._done + 1}/{self._runs}] {spec.dataset} {spec.name} {stage}"
        if stage != "epoch":
            self._display.show(text, self._done, self._runs)
            return
        done, of = int(values["epoch"]), int(values["epochs"])
        left = (time.monotonic() - self._fit_started) / done * (of - done)
        numbers = ", ".join(f"{name} {values[name]:.4g}" for name in EPOCH_NUMBERS if name in values)
        self._display.show(f"{text} {done}/{of}: {numbers}, at most {left:.0f} s left", done, of)

    def outcome(self, outcome: "Outcome") -> None:
        """Show what became of a run, and the time that the others take."""
        self._done += 1
        left = ""
        if self._plan is not None:
            self._plan.ended(outcome.spec)
            left = self._plan.time_left if outcome.status == "done" else ""
        score = f", macro F1 {outcome.metrics['macro_f1']:.4f}" if "macro_f1" in outcome.metrics else ""
        why = f" ({outcome.reason})" if outcome.reason else ""
        name = f"{outcome.spec.dataset} {outcome.spec.name}"
        self._display.tell(f"[{self._done}/{self._runs}] {name} {outcome.status}{score}{why}{left}")
