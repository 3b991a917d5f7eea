"""Progress on standard error, a live bar on a terminal and a plain line now and then elsewhere; what guards both."""

import contextlib
import os
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, TextIO

import click

from bench.render.table import one_line, printable
from bench.spec import RunSpec

if TYPE_CHECKING:
    from bench.runs.execute import Outcome
    from bench.runs.plan import Plan

EVERY_S: Final = 10.0  # between plain lines
ALWAYS, NOTE, DETAIL = -1, 0, 1  # how loud it must be asked for that a line is said: with -q, without more, with -v
LOUDNESS: Final = "bench.loudness"  # in click's context
ALL: Final = "all"  # the bar of all runs
RESET: Final = "\x1b[0m"  # what colorama, which numba brings, writes by itself when a process ends on a terminal
EPOCH_NUMBERS: Final = ("pretraining_loss", "loss", "accuracy", "validation_macro_f1")  # of an epoch's numbers


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

    def write(self, text: str | bytes) -> int:
        """Write a text; what the stream's encoding does not have is written out, too."""
        if isinstance(text, bytes):  # click's answer to a shell
            text = text.decode()
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
        stream = getattr(sys, name) or Path(os.devnull).open("w", encoding="utf-8")
        if not isinstance(stream, Guarded):
            setattr(sys, name, Guarded(stream))
    os.environ.setdefault("PYTHON_COLORS", "0")  # the colours of a trace would be written out as well


def loudness() -> int:
    """How much the user wants to hear: `ALWAYS` alone with -q, `NOTE` too, or `DETAIL` too with -v."""
    context = click.get_current_context(silent=True)
    return NOTE if context is None else int(context.meta.get(LOUDNESS, NOTE))


class Display(Protocol):
    """Where progress is shown."""

    def show(self, text: str, done: float = 0, total: float | None = None, key: str = "") -> None:
        """Show how far a thing is, if it is time to; several at once have keys."""

    def overall(self, text: str, done: float, total: float) -> None:
        """Show how far all of them are, where there is room for that."""

    def end(self, key: str) -> None:
        """A thing of several is at its end."""

    def tell(self, text: str) -> None:
        """Show a line that stays."""

    def close(self) -> None:
        """End, so that the next output starts on its own line; the next `show` begins anew."""


class Silence:
    """For those who want results alone."""

    def show(self, text: str, done: float = 0, total: float | None = None, key: str = "") -> None:
        """See `Display`."""

    def overall(self, text: str, done: float, total: float) -> None:
        """See `Display`."""

    def end(self, key: str) -> None:
        """See `Display`."""

    def tell(self, text: str) -> None:
        """See `Display`."""

    def close(self) -> None:
        """See `Display`."""


class PlainLines(Silence):
    """For logs: a line every so often, and the last one."""

    def __init__(self, every: float = EVERY_S) -> None:
        self._every = every
        self._last = time.monotonic() - every
        self._told = ""

    def show(self, text: str, done: float = 0, total: float | None = None, key: str = "") -> None:
        """See `Display`."""
        is_last = total is not None and done >= total > 0
        if text != self._told and (is_last or time.monotonic() - self._last >= self._every):
            self.tell(text)

    def tell(self, text: str) -> None:
        """See `Display`."""
        self._last, self._told = time.monotonic(), text
        with contextlib.suppress(OSError):  # a log on a full disk, a closed pipe: what is computed counts
            sys.stderr.write(one_line(text) + "\n")
            sys.stderr.flush()


class LiveBars:
    """For a terminal: rich's bars, redrawn in place by sequences that only an unguarded stream lets through."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

        text = TextColumn("{task.description}", markup=False)
        columns = (BarColumn(bar_width=24), TaskProgressColumn(), TimeElapsedColumn(), text)
        console = Console(file=getattr(sys.stderr, "stream", sys.stderr), highlight=False)
        self._progress: Any = Progress(*columns, console=console, redirect_stdout=False)
        self._bars: dict[str, Any] = {}

    def show(self, text: str, done: float = 0, total: float | None = None, key: str = "") -> None:
        """See `Display`."""
        self._progress.start()  # again after an end; nothing where it runs
        guard()  # rich has put a stream of its own in the place of standard error
        if key not in self._bars:
            self._bars[key] = self._progress.add_task("", total=total)
        self._progress.update(self._bars[key], description=one_line(text), completed=done, total=total)

    def overall(self, text: str, done: float, total: float) -> None:
        """See `Display`."""
        self.show(text, done, total, ALL)

    def end(self, key: str) -> None:
        """See `Display`."""
        if key in self._bars:
            self._progress.remove_task(self._bars.pop(key))

    def tell(self, text: str) -> None:
        """See `Display`."""
        self._progress.console.print(one_line(text), markup=False, soft_wrap=True)

    def close(self) -> None:
        """See `Display`."""
        self._progress.stop()


def _display(*, each: bool) -> Display:
    """What standard error, and how much is wanted, allow; with -v ``each`` report has a line."""
    if loudness() < NOTE:
        return Silence()
    if loudness() > NOTE:
        return PlainLines(every=0 if each else EVERY_S)
    return LiveBars() if sys.stderr.isatty() else PlainLines()


class _Shown:
    """Owns a display and ends it."""

    def __init__(self, *, each: bool = False) -> None:
        self._display = _display(each=each)

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
    """Which run of how many is at which stage or epoch; call with what `bench.runs.execute` reports.

    On a terminal a bar for all of them, with rate and time left, and one for each run that is being computed.
    """

    def __init__(self, runs: int, plan: "Plan | None" = None) -> None:
        super().__init__(each=True)
        self._runs = runs
        self._plan = plan  # that knows how long the rest takes
        self._done = self._computed = 0
        self._started = time.monotonic()
        self._fits: dict[str, float] = {}  # when a run's training began

    def __call__(self, spec: RunSpec, stage: str, values: Mapping[str, float]) -> None:
        """Show a stage, or an epoch with its numbers and the time left of the training."""
        if stage in ("pretrain", "fit"):
            self._fits[spec.digest] = time.monotonic()
        self._display.overall(self._words, self._done, self._runs)
        text = f"[{self._done + 1}/{self._runs}] {_named(spec)} {stage}"
        if stage != "epoch":
            self._display.show(text, key=spec.digest)
            return
        done, of = int(values["epoch"]), int(values["epochs"])
        left = (time.monotonic() - self._fits.get(spec.digest, self._started)) / done * (of - done)
        numbers = ", ".join(f"{name} {values[name]:.4g}" for name in EPOCH_NUMBERS if name in values)
        text = f"{text} {done}/{of}: {numbers}, at most {left:.0f} s left"
        self._display.show(text, done, of, spec.digest)

    def outcome(self, outcome: "Outcome") -> None:
        """Show what became of a run, and the time that the others take."""
        self._done += 1
        self._computed += outcome.status != "cached"
        left = ""
        if self._plan is not None:
            self._plan.ended(outcome.spec)
            left = self._plan.time_left if outcome.status == "done" else ""
        score = f", macro F1 {outcome.metrics['macro_f1']:.4f}" if "macro_f1" in outcome.metrics else ""
        why = f" ({outcome.reason})" if outcome.reason else ""
        self._display.end(outcome.spec.digest)
        self._display.tell(f"[{self._done}/{self._runs}] {_named(outcome.spec)} {outcome.status}{score}{why}{left}")
        self._display.overall(self._words, self._done, self._runs)

    @property
    def _words(self) -> str:
        """How many runs of all have ended, how fast, and the time that the rest takes."""
        from bench.runs.plan import duration

        seconds, rest = time.monotonic() - self._started, self._runs - self._done
        rate = f", {3600 * self._computed / seconds:.0f} an hour" if self._computed else ""
        left = self._plan.time_left if self._plan is not None and rest else ""
        if self._plan is None and self._computed and rest:
            left = f"; about {duration(seconds / self._computed * rest)} left"
        return f"{self._done} of {self._runs} runs{rate}{left}"


def _named(spec: RunSpec) -> str:
    """A run's name with what tells it from the other arms of a matrix."""
    from bench.runs.run_labels import settings_of

    words = settings_of(spec)
    return f"{spec.dataset} {spec.name}" + (f" ({', '.join(words)})" if words else "")
