"""The one error that users read, with its code for programs and tests, how its words name many, and SIGTERM."""

import os
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType
from typing import Final, NoReturn, Self

#: code -> what it says; docs/errors.md has them with their remedies
CODES: Final[dict[str, str]] = {
    "ambiguous-split": "several splits could be meant",
    "ambiguous-task": "several tasks could be meant",
    "bad-archive": "a downloaded archive cannot be unpacked",
    "bad-bundle": "a bundle of runs that is damaged, or none, or whose runs are not what they say",
    "bad-card": "a data set's card is not what a card should be",
    "bad-class-size": "a least or most number of samples a class that cannot be",
    "bad-device": "a device that torch does not have",
    "bad-file-list": "a card's list of captures is not what it should be",
    "bad-fold": "a fold, or a number of folds, that cannot be",
    "bad-folder": "a folder that is no data set",
    "bad-label-file": "a file of session labels is not what its card says",
    "bad-method": "a file that holds no method",
    "bad-options": "options that do not go together, or one that is missing",
    "bad-pair": "an option that should be NAME=VALUE",
    "bad-paper": "a paper's declaration is not what it should be",
    "bad-parameter": "a method's parameter has a value that it cannot have",
    "bad-pattern": "a text that is no regular expression",
    "bad-picture": "a picture with an unknown suffix",
    "bad-record": "a record of a table is not what its card says",
    "bad-sampling": "a sampling that cannot be read",
    "bad-size": "a size that the demo cannot write",
    "bad-space": "a search space that cannot be read or drawn from",
    "bad-table": "a table of records cannot be read, or lacks a column",
    "bad-timeout": "an idle timeout out of range",
    "cannot-draw": "too little for a critical-difference diagram",
    "cannot-train": "too few training samples that a method can use",
    "busy": "another process has been at it for too long",
    "capture-changed": "a capture moved or changed after its data set was prepared",
    "card-changed": "a card changed after its data set was prepared",
    "different-tests": "runs that were tested on different samples",
    "download-failed": "a server did not give a file",
    "emptied-class": "a filter leaves a class without a sample, and --strict refuses that",
    "foreign-file": "a file among the downloads that no download put there",
    "method-cannot-run": "a method that cannot run here, or not for this purpose",
    "missing-artefact": "a run without the file that is needed",
    "missing-file": "a file that is not there",
    "missing-source": "no folder of captures was named, or there is none",
    "no-artefact-store": "a database whose runs' files lie on another machine",
    "no-attention": "a model without attention between packets",
    "no-capture": "none of the captures can be used",
    "no-cluster": "a Dask cluster that does not answer, or a worker that lacks something",
    "no-downloads": "a card without downloads",
    "no-packets": "captures without a TCP or UDP packet that counts",
    "no-runs": "no finished runs of what was asked for",
    "no-such-session": "no session of the kind that was asked for",
    "no-validation": "a split without a validation part",
    "not-a-capture": "a file that is no capture",
    "not-as-listed": "captures that are not exactly the card's, and --strict refuses that",
    "not-held": "a method reads what the data set does not hold",
    "not-prepared": "a data set without a store",
    "nothing-left": "no sample is left of a task",
    "one-class": "a task of which one class at most has sessions",
    "other-code": "a file of code that is not the one that a run was made by",
    "run-damaged": "a run whose files or record changed since, or cannot be read",
    "run-mismatch": "runs that do not belong together, or no longer fit their store",
    "same-name": "a name that another data set, method or paper has",
    "split-impossible": "a data set that cannot be divided so",
    "split-violation": "a split that does not keep its promise",
    "storage-failed": "a database that cannot be opened",
    "store-changed": "a data set was prepared anew since",
    "store-damaged": "a store that is damaged, or none",
    "store-format": "a store of another format",
    "too-few-sessions": "fewer sessions than asked for",
    "too-many-packets": "a capture with more packets than can be sorted",
    "unknown-attribute": "no capture has such an attribute",
    "unknown-balance": "no such way to balance",
    "unknown-column": "no such field to spread a table over",
    "unknown-dataset": "no such data set",
    "unknown-experiment": "no such table or figure",
    "unknown-filter": "no such filter",
    "unknown-format": "no such form of a table",
    "unknown-method": "no such method",
    "unknown-metric": "no such metric",
    "unknown-mode": "no such mode of reproduction",
    "unknown-paper": "no such paper",
    "unknown-parameter": "a method has no such parameter",
    "unknown-preset": "no such preset",
    "unknown-run": "no run, or several, have such an id",
    "unknown-sampler": "no such sampler",
    "unknown-split": "no such split, or not for this purpose",
    "unknown-switch": "a card has no such switch or choice",
    "unknown-task": "a data set has no such task",
    "unnamed-code": "code that only stored results name, not the user",
    "unpack-by-hand": "an archive, or a packed file, that is not read through",
    "unpacks-too-large": "a packed file that unpacks to more than the limit",
    "unreadable-file": "a file or folder that cannot be read",
    "unwritable-file": "a file or folder that cannot be written",
    "wrong-checksum": "a download with another checksum than its card says",
    "wrong-file": "a file that is not of the kind it should be",
    "wrong-model": "a model of another method, or one that may not be loaded",
    "wrong-split-file": "a split file that does not fit, or is none",
}


class Terminated(BaseException):
    """SIGTERM, which a scheduler sends some seconds before it kills: as an interrupt it ends what is going on."""

    @classmethod
    def listen(cls) -> None:
        """From now on SIGTERM is raised, and no interrupt is lost that came where nothing can be raised."""
        signal.signal(signal.SIGTERM, cls._raised)
        sys.unraisablehook = cls._once_more

    @classmethod
    def _raised(cls, number: int, frame: FrameType | None) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one does not disturb what the first one made end
        raise cls

    @classmethod
    def _once_more(cls, lost: "sys.UnraisableHookArgs") -> None:
        """Python drops, with a trace, what is raised while it clears an object away."""
        number = {cls: signal.SIGTERM, KeyboardInterrupt: signal.SIGINT}.get(lost.exc_type)
        if number is None:
            sys.__unraisablehook__(lost)
            return
        if number == signal.SIGTERM:
            signal.signal(number, cls._raised)
        threading.Timer(0.01, os.kill, (os.getpid(), number)).start()


class InputError(Exception):
    """Bad input: a code of `CODES`, and one line that says what is wrong, where, and what to do about it.

    The command line prints the line and the code without a trace and exits with status 2.

    >>> error = InputError("unknown-task", "demo has no task 'x'; it has: service")
    >>> error.code, str(error)
    ('unknown-task', "demo has no task 'x'; it has: service")
    """

    def __init__(self, code: str, message: str, problems: Sequence[str] = ()) -> None:
        assert code in CODES, f"no error code {code!r}: add it to bench.errors.CODES"
        super().__init__(message)
        self.code = code
        self.problems = tuple(problems) or (message,)  # a line each, where one file has several

    def __reduce__(self) -> tuple[type[Self], tuple[str, str, tuple[str, ...]]]:  # workers send it home
        return type(self), (self.code, str(self), self.problems)

    def within(self, where: object) -> "InputError":
        """The same with the place before its line."""
        return InputError(self.code, f"{where}: {self}")

    def with_remedy(self, remedy: str) -> "InputError":
        """The same with what to do behind its line."""
        return InputError(self.code, f"{self}; {remedy}")


def some(names: Sequence[str], most: int) -> str:
    """The first names of a list, ``most`` of them, and how many more there are.

    >>> some(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
