"""The one error that users read, with its code for programs and tests, how its words name many, and SIGTERM."""

import difflib
import os
import re
import signal
import sys
import threading
from collections.abc import Iterable, Sequence
from types import FrameType
from typing import Final, NoReturn, Self

#: code -> what it says; docs/errors.md has them with their remedies
CODES: Final[dict[str, str]] = {
    "ambiguous-split": "several splits could be meant",
    "ambiguous-task": "several tasks could be meant",
    "bad-archive": "a downloaded archive cannot be unpacked",
    "bad-bundle": "a file that is not a bundle of runs, is damaged, or has changed runs",
    "bad-card": "a data set's card with a wrong field, type or rule",
    "bad-class-size": "a smallest or largest class size that is not possible",
    "bad-device": "a device that torch does not have",
    "bad-file-list": "a card's list of captures with a wrong row or column",
    "bad-fold": "a fold, or a number of folds, that is not possible",
    "bad-folder": "a folder that is not a data set",
    "bad-label-file": "a file of session labels that does not fit its card",
    "bad-method": "a file without a method",
    "bad-options": "options that exclude each other, or a missing option",
    "bad-pair": "an option that should be NAME=VALUE",
    "bad-paper": "a paper's declaration with a wrong field, type or file",
    "bad-parameter": "a value that a method's parameter cannot have",
    "bad-pattern": "a text that is not a regular expression",
    "bad-picture": "a picture with an unknown suffix",
    "bad-record": "a record of a table that does not fit its card",
    "bad-sampling": "a sampling that cannot be read",
    "bad-size": "a size that the demo cannot write",
    "bad-space": "a search space that cannot be read or drawn from",
    "bad-table": "a table of records that cannot be read, or lacks a column",
    "bad-timeout": "an idle timeout out of range",
    "bad-variable": "an environment variable with a value that it cannot have",
    "bad-weights": "a file of weights that is not there, cannot be read or does not fit the method",
    "cannot-draw": "too little for a critical-difference diagram",
    "cannot-train": "too few training samples that a method can use",
    "busy": "another process has locked a file for too long",
    "capture-changed": "a capture that moved or changed after its data set was prepared",
    "cannot-wrap": "an estimator or a network that cannot be written into a file",
    "card-changed": "a card that changed after its data set was prepared",
    "different-tests": "runs that were tested on different samples",
    "download-failed": "a server did not give a file",
    "emptied-class": "a filter that leaves a class without samples, under --strict",
    "foreign-file": "a file among the downloads that was not downloaded",
    "method-cannot-run": "a method that cannot run here, or not for this purpose",
    "missing-artefact": "a run without the file that is needed",
    "missing-file": "a file that is not there",
    "missing-source": "no folder of captures was named, or there is none",
    "no-artefact-store": "a database whose runs have their files on another machine",
    "no-attention": "a model without attention between packets",
    "no-capture": "a data set without a capture that can be used",
    "no-cluster": "a Dask cluster that does not answer, or a worker that lacks something",
    "no-downloads": "a card without downloads",
    "no-packets": "captures without a TCP or UDP packet that counts",
    "no-results": "a results folder without a store of runs, for a command that reads one",
    "no-runs": "no runs match, or no run has this data set, task, split or method",
    "no-such-session": "no session of the kind that was asked for",
    "no-validation": "a split without a validation part",
    "not-a-capture": "a file that is not a capture",
    "not-as-listed": "captures that differ from the card's list, under --strict",
    "not-held": "a method reads what the data set does not hold",
    "not-prepared": "a data set without a store",
    "nothing-left": "a task without samples after its filters and limits",
    "one-class": "a task with sessions of one class at most",
    "other-code": "a file of code that is not the one that made the run",
    "port-taken": "a port that no server can listen on",
    "run-damaged": "a run whose files or record were changed, or cannot be read",
    "run-mismatch": "runs that do not belong together, or no longer match their store",
    "same-name": "a name that another data set, method or paper already has",
    "server-ended": "a server that bench started and that ended by itself",
    "split-impossible": "a data set that cannot be divided this way",
    "split-violation": "a split that does not keep its promise",
    "storage-failed": "a database that cannot be opened",
    "store-changed": "a data set that was prepared again in the meantime",
    "store-damaged": "a damaged store, or a folder that is not a store",
    "store-format": "a store of another format",
    "suite-mismatch": "data, splits or a method are not those whose digests a suite names",
    "too-few-sessions": "fewer sessions than requested",
    "too-many-packets": "a capture with more packets than can be sorted",
    "unknown-attribute": "no capture has such an attribute",
    "unknown-balance": "no such way to balance",
    "unknown-column": "no such field for the columns of a table",
    "unknown-dataset": "no such data set",
    "unknown-experiment": "no such table or figure",
    "unknown-filter": "no such filter",
    "unknown-format": "no such form of a table",
    "unknown-method": "no such method, or several with this name",
    "unknown-metric": "no such metric",
    "unknown-mode": "no such mode of reproduction",
    "unknown-paper": "no such paper",
    "unknown-parameter": "a method has no such parameter",
    "unknown-preset": "no such preset",
    "unknown-run": "no run, or several, have such an id",
    "unknown-sampler": "no such sampler",
    "unknown-split": "no such split, or not for this purpose",
    "unknown-suite": "no such suite",
    "unknown-switch": "a card has no such switch or choice",
    "unknown-task": "a data set has no such task",
    "unnamed-code": "code that stored results name and the user does not",
    "unpack-by-hand": "an archive or packed file that bench does not unpack",
    "unpacks-too-large": "a packed file that unpacks to more than the limit",
    "unreadable-file": "a file or folder that cannot be read",
    "unwritable-file": "a file or folder that cannot be written",
    "wrong-checksum": "a download with another checksum than its card says",
    "wrong-file": "a file of the wrong kind",
    "wrong-model": "a model of another method, or one that may not be loaded",
    "wrong-predictions": "a file that does not answer the test part of a split",
    "wrong-split-file": "a file that is not a split file, or does not fit the store",
    "wrong-suite": "a file that is not a suite, with all that is wrong with it",
}


LISTED: Final = 20  # problems of a file that people write which a message tells; the others are counted


class Terminated(BaseException):
    """SIGTERM, which a scheduler sends some seconds before it kills: as an interrupt it ends what is going on."""

    @classmethod
    def listen(cls) -> None:
        """From now on SIGTERM is raised, and no interrupt is lost that came where nothing can be raised.

        The end of the terminal is taken as SIGTERM, unless whoever started us wants it ignored, as nohup does.
        """
        signal.signal(signal.SIGTERM, cls._raised)
        if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
            signal.signal(signal.SIGHUP, cls._raised)
        sys.unraisablehook = cls._once_more

    @classmethod
    def listen_no_more(cls) -> None:
        """Either signal ends the process at once, as before :meth:`listen`."""
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) == cls._raised:
                signal.signal(number, signal.SIG_DFL)

    @classmethod
    def _raised(cls, number: int, frame: FrameType | None) -> NoReturn:
        signal.signal(number, signal.SIG_IGN)  # a second one does not disturb what the first one made end
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


def all_wrong(code: str, where: object, problems: Sequence[str], most: int = LISTED) -> InputError:
    """One error of all that is wrong with a file that people write: they mend all at once.  ``most`` are told.

    >>> str(all_wrong("bad-card", "a.toml", ["b is no number", "c is missing"], most=1))
    'a.toml: b is no number (and 1 more)'
    """
    more = f" (and {len(problems) - most:,} more)" if len(problems) > most else ""
    return InputError(code, f"{where}: {'; '.join(problems[:most])}{more}", [f"{where}: {one}" for one in problems])


def counted(number: int, noun: str) -> str:
    """A number of things.

    >>> counted(1, "run"), counted(1200, "run")
    ('1 run', '1,200 runs')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def some(names: Sequence[str], most: int) -> str:
    """The first names of a list, ``most`` of them, and how many more there are.

    >>> some(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def near(word: str, known: Iterable[str], least: float = 0.6) -> str | None:
    """The name that is spelled as a word but for case and signs, or most like it; None where none is.

    ``least`` is how much it must be like it, up to 1.

    >>> near("iot_Sentinel", ["demo", "iot-sentinel"]), near("forrest", ["knn", "forest"]), near("x", ["demo"])
    ('iot-sentinel', 'forest', None)
    """
    names = {_plain(name): name for name in reversed(list(known))}
    plain = _plain(word)
    if not plain or plain in names:
        return names.get(plain)
    close = difflib.get_close_matches(plain, names, n=1, cutoff=least)
    return names[close[0]] if close else None


def instead(word: str, known: Iterable[str], most: int = 12) -> str:
    """The end of a line that refuses a word: what was most likely meant, and what there is.

    ``most`` names are told where one of them is meant, else all.

    >>> instead("capturr", ["session", "capture"])
    'did you mean capture? There are: session, capture'
    """
    names = list(dict.fromkeys(known))
    if not names:
        return "there are none"
    verb = "is" if len(names) == 1 else "are"
    begun = [name for name in names if len(word) > 2 and name.lower().startswith(word.lower())]
    if meant := near(word, names) or min(begun, key=len, default=None):
        return f"did you mean {meant}? There {verb}: {some(names, most)}"
    return f"there {verb}: {', '.join(names)}"


def _plain(word: str) -> str:
    return re.sub(r"[\W_]+", "", word.lower())
