"""Progress on standard error: a live line on a terminal, a plain line now and then elsewhere."""

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from bench.runs.execute import Outcome, RunSpec

_EVERY_S = {True: 0.2, False: 10.0}  # between lines, on a terminal or not


class Line:
    """One line of progress that replaces itself on a terminal."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._last = time.monotonic() - _EVERY_S[self._terminal]
        self._open = False

    def show(self, text: str, *, final: bool = False) -> None:
        """Show `text`, unless the last one is too recent; `final` lines always show and stay."""
        now = time.monotonic()
        if not final and now - self._last < _EVERY_S[self._terminal]:
            return
        self._last = now
        self._open = self._terminal and not final
        sys.stderr.write(f"\r\x1b[K{text}" + ("" if self._open else "\n") if self._terminal else text + "\n")
        sys.stderr.flush()

    def close(self) -> None:
        """End an open line, so that the next output starts on its own."""
        if self._open:
            sys.stderr.write("\n")
            self._open = False


class _Shown:
    """Owns a line and ends it."""

    def __init__(self) -> None:
        self._line = Line()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._line.close()


class PrepareProgress(_Shown):
    """Bytes, rate and time left of an ingest; call with what `bench.data.prepare` reports."""

    _first: tuple[float, int] | None = None  # time and bytes of the first report: before it, code was compiled

    def __call__(self, done: int, total: int, captures: int, of: int, packets: int) -> None:
        """Show how far `bench.data.prepare` is: bytes and captures done, of how many, and packets kept so far."""
        now = time.monotonic()
        started, before = self._first = self._first or (now, done)
        rate = (done - before) / (now - started) if now > started else 0.0
        pace = f", {rate / 1e6:.0f} MB/s, {(total - done) / rate:.0f} s left" if rate else ""
        self._line.show(f"{captures}/{of} captures, {done / 1e6:.0f}/{total / 1e6:.0f} MB, {packets} packets{pace}")


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
        self._line.show(f"[{number}/{of}] {path}: {size} MB{pace}", final=done == total)


class RunProgress(_Shown):
    """Which run of how many is at which stage or epoch; call with what `bench.runs.execute` reports."""

    def __init__(self, runs: int) -> None:
        super().__init__()
        self._runs = runs
        self._done = 0
        self._fit_started = 0.0

    def __call__(self, spec: "RunSpec", stage: str, values: Mapping[str, float]) -> None:
        """Show a stage, or an epoch with its numbers and the time left of the training."""
        if stage == "fit":
            self._fit_started = time.monotonic()
        text = f"[{self._done + 1}/{self._runs}] {spec.dataset} {spec.name} {stage}"
        if stage == "epoch":
            done, of = int(values["epoch"]), int(values["epochs"])
            left = (time.monotonic() - self._fit_started) / done * (of - done)
            numbers = ", ".join(f"{name} {values[name]:.4g}" for name in _TOLD if name in values)
            text += f" {done}/{of}: {numbers}, at most {left:.0f} s left"
        self._line.show(text)

    def outcome(self, outcome: "Outcome") -> None:
        """Show what became of a run."""
        self._done += 1
        score = f", macro F1 {outcome.metrics['macro_f1']:.4f}" if "macro_f1" in outcome.metrics else ""
        why = f" ({outcome.reason})" if outcome.reason else ""
        name = f"{outcome.spec.dataset} {outcome.spec.name}"
        self._line.show(f"[{self._done}/{self._runs}] {name} {outcome.status}{score}{why}", final=True)


_TOLD = ("loss", "accuracy", "validation_macro_f1")
