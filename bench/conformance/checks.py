"""Asking all questions, and whose fault an answer is: the file and line of the author, and what failed first."""

import inspect
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.conformance.case import Case
from bench.conformance.questions import CHECKS, Question
from bench.data.store import Store
from bench.errors import InputError
from bench.files import from_here
from bench.method import Method
from bench.runs.guards import ContractBroken

#: what a class says of itself may be wrong and the rest sound: what needs these is asked all the same
SAID: Final = ("declares_itself", "documents_its_parameters")


@dataclass(frozen=True)
class Check:
    """The answer to one question; ``detail`` says in one line what went wrong, or what was measured, if anything."""

    name: str
    passed: bool
    detail: str = ""
    where: str = ""  # of a failure: file and line of the method's author
    needs: str = ""  # it was skipped, since this check failed

    def __str__(self) -> str:
        """One line."""
        if self.needs:
            return f"--   {self.name}: skipped: needs {self.needs}"
        place = f" ({self.where})" if self.where else ""
        return f"{'ok  ' if self.passed else 'FAIL'} {self.name}{': ' + self.detail if self.detail else ''}{place}"


def check(method: type[Method] | str, *, device: str = "cpu", folder: Path | None = None) -> list[Check]:
    """Ask every question; one that needs another, which failed, is skipped.

    ``method`` is a class, a name, or ``file.py:Class``; ``folder`` keeps the traffic for a further call; none: a
    temporary one.  Raises :class:`InputError` where there is no such method or where it cannot run here.
    """
    if isinstance(method, str):
        from bench.runs import registry

        method = registry.load(method)
    with tempfile.TemporaryDirectory(prefix="bench-check-") as temporary:
        case = Case(method, folder or Path(temporary), device)
        if reason := _reason_to_skip(method, case.store):
            raise InputError("method-cannot-run", f"{method.name}: {reason}")
        answers: dict[str, Check] = {}
        for question in CHECKS:
            answers[question.__name__] = _answer(question, case, answers)
        return list(answers.values())


def _answer(question: Question, case: Case, before: dict[str, Check]) -> Check:
    """The answer, or that it was skipped: since one before failed on which it rests."""
    failed = next((before[name] for name in question.needs if not before[name].passed), None)
    skipped = Check(question.__name__, False, needs=failed.needs or failed.name) if failed else None
    if skipped and skipped.needs not in SAID:
        return skipped
    answer = ask(question, case)
    return answer if answer.passed or skipped is None else skipped


def _reason_to_skip(method: type[Method], store: Store) -> str | None:
    """What the method says; one that cannot even say is asked, and `declares_itself` tells."""
    try:
        return method.skip(store.traits)
    except Exception:
        return None


def ask(question: Question, case: Case) -> Check:
    """One question's answer; whatever the method raises is a failure of that question alone."""
    try:
        return Check(question.__name__, True, question(case) or "")
    except Exception as error:
        said = "" if isinstance(error, ContractBroken) else f"{type(error).__name__}: "
        detail = f"{said}{error}".partition("\n")[0]
        return Check(question.__name__, False, detail, _place(error, case.method, question.hook))


def _place(error: Exception, method: type[Method], hook: str) -> str:
    """Where an author looks: the innermost line of theirs that raised, else their hook, else their class."""
    own = [kind for kind in method.__mro__ if issubclass(kind, Method) and not kind.__module__.startswith("bench.")]
    files = {file for kind in own if (file := _file_of(kind))}
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename in files:
            return f"{from_here(Path(frame.filename))}:{frame.lineno}, in {frame.name}"
    for thing in (*(vars(kind)[hook] for kind in own if hook in vars(kind)), *own):
        try:
            return f"{from_here(Path(str(inspect.getsourcefile(thing))))}:{inspect.getsourcelines(thing)[1]}"
        except (OSError, TypeError):  # a value, or a class that was made where there is no file
            continue
    return ""


def _file_of(kind: type[Any]) -> str | None:
    try:
        return inspect.getsourcefile(kind)
    except TypeError:
        return None
