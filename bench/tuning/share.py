"""What one process does of a study.

Processes draw one after the other, each of their trials is claimed by the one that evaluates it, and the claims are in
the study's own database, since whoever shares the study sees them there.
"""

import dataclasses
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import optuna
from optuna.trial import FrozenTrial, TrialState

from bench.environment import LOOK_SECONDS
from bench.errors import InputError, Terminated
from bench.method import Monitor, typed_values
from bench.runs import registry
from bench.runs.attempt import fit_and_validate
from bench.runs.execute import Superseded, code_of, store_of, unsaid
from bench.spec import named_seed
from bench.tracking.address import Address
from bench.tracking.claims import Claims
from bench.tracking.writing import WAITS
from bench.tuning.search import AGAIN, DEFAULT, FAILED, SAME, Look, Points, Search, free_point
from bench.tuning.spaces import point_key
from bench.tuning.studies import AWAY, draws_of, open_study

TRIALS: Final = 20


@dataclass(frozen=True)
class TuneOptions:
    """How a study is executed."""

    storage: Address  # a database
    results: Path  # folder of the parameter file
    trials: int | None = None  # finished ones to reach; None: 20, or the whole grid
    device: str = "cpu"
    progress: Callable[[str], None] = unsaid
    jobs: int = 1  # processes, each with its share of the threads


class TrialMonitor(Monitor):
    """Reports each epoch's validation macro-F1 to Optuna, which may end the trial.

    ``mine`` says whether the trial still is this process's.
    """

    def __init__(self, trial: optuna.Trial, mine: Callable[[], bool]) -> None:
        super().__init__()
        self._trial, self._mine = trial, mine
        self._whole = bool(trial.user_attrs.get(DEFAULT))  # the default's score stands beside the best one's
        self.last = float("nan")  # the newest validation macro-F1

    def epoch(self, epoch: int, epochs: int, **values: float) -> None:
        """See :class:`bench.method.Monitor`."""
        if not self._mine():
            raise Superseded
        self.last = values.get("validation_macro_f1", self.last)
        if math.isnan(self.last):  # a method that does not tell it cannot be pruned
            return
        self._trial.report(self.last, epoch)
        if not self._whole and self._trial.should_prune():
            raise optuna.TrialPruned(f"below the median at epoch {epoch} of {epochs}")


class Share:
    """What this process does of a study; any number of processes, on any machines, do the whole."""

    def __init__(self, search: Search, options: TuneOptions) -> None:
        self._search, self._options = search, options
        self._claims = Claims(options.storage)
        self.study = open_study(search, options.storage, self._claims)
        self._since = len(self.study.get_trials(deepcopy=False))

    @property
    def wanted(self) -> int:
        """Finished trials to reach."""
        return wanted_trials(self._search, self._options)

    def work(self, run: Any, *, wait: bool = True) -> None:
        """Evaluate what is left, under the study's ``run``; with ``wait``, until nobody else is at the rest either."""
        self._run = run
        try:
            while (trial := self._next(wait=wait)) is not None:
                self._evaluate(trial)
        except (KeyboardInterrupt, Terminated):
            self._close_own()
            raise

    def look(self) -> Look:
        """The study's trials now."""
        return Look(self.study.get_trials(deepcopy=False), self._since)

    def _next(self, *, wait: bool) -> optuna.Trial | None:
        """A trial of this process's own, as soon as there is one to begin; None: the study has what it needs."""
        told = False
        while True:
            with self._claims.alone(draws_of(self._search)):  # draw, knowing what others are at
                self._close_the_dead()
                look = self.look()
                if look.left(self.wanted) > 0 and not is_full(self._search, look):
                    trial = self._draw(look)
                    known = look.known.get(point_key(trial.params))
                    if known is None:
                        self._claims.take(self._claim(trial.number))
                        return trial
                    self._repeat(trial, known)
                    continue
            if len(look.finished) >= self.wanted or not (look.running and wait):
                return None
            if not told:
                numbers = ", ".join(str(one.number) for one in look.running)
                self._options.progress(f"waits for what runs elsewhere (trial {numbers})")
            told = True
            time.sleep(LOOK_SECONDS)

    def _claim(self, number: int) -> str:
        return f"{self.study.study_name} {number}"

    def _close_the_dead(self) -> None:
        """Close trials whose process is gone as failed, and put their points up to be tried once more."""
        for trial in self.look().running:
            if self._claims.take(self._claim(trial.number)) is not None:
                continue  # its process lives
            if trial.number in [one.number for one in self.look().running]:  # else it has just ended
                self._close(trial)
            self._claims.let_go(self._claim(trial.number))

    def close_the_dead(self, run: Any) -> None:
        """Close, under the study's ``run``, what ended processes left: else it runs until the next process comes."""
        self._run = run
        with suppress(InputError, *AWAY), self._claims.alone(draws_of(self._search)):
            self._close_the_dead()

    def _close_own(self) -> None:
        """Close what was drawn and not begun when somebody interrupted."""
        with suppress(InputError, *AWAY), self._claims.alone(draws_of(self._search)):
            for trial in self.look().running:
                self._claims.let_go(self._claim(trial.number))  # of others nothing happens
            self._close_the_dead()

    def _close(self, trial: FrozenTrial) -> None:
        self.study.tell(trial.number, state=TrialState.FAIL)
        self._run.close_trial(self._name(trial.number))
        if AGAIN in trial.user_attrs or trial.params.keys() != self._search.spaces.keys():
            return
        self.study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.WAITING,
                params=trial.params,
                distributions=trial.distributions,
                user_attrs=trial.user_attrs | {AGAIN: trial.number},
            )
        )

    def _draw(self, look: Look) -> optuna.Trial:
        """A running trial with its point: one that waits, the default, or a new one."""
        if not look.of(TrialState.WAITING):
            if self._default_is_due(look):
                self.study.enqueue_trial(self._search.default, user_attrs={DEFAULT: True})
            elif self._search.sampler == "grid":
                seed = named_seed(self._search.spec.split.seed, self._search.question, "grid")
                self.study.enqueue_trial(free_point(self._search, look, seed))
        self.study.sampler = Points(self._search, look)
        return self.study.ask(self._search.distributions)

    def _default_is_due(self, look: Look) -> bool:
        """Whether nobody evaluated the method's default parameters, or is at it, or failed just now."""
        default = self._search.default
        if default is None or point_key(default) in look.known.keys() | look.busy:
            return False
        tried = (one for one in look.of(TrialState.FAIL) if one.number >= self._since)
        return not any(DEFAULT in one.user_attrs for one in tried)

    def _repeat(self, trial: optuna.Trial, known: FrozenTrial) -> None:
        """End a trial whose point is known with what is known."""
        trial.set_user_attr(SAME, known.number)
        if known.state == TrialState.PRUNED:
            for step, value in known.intermediate_values.items():
                trial.report(value, step)
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            self.study.tell(trial, known.value)
        value = math.nan if known.value is None else known.value
        self._tell(trial, f"as trial {known.number}, validation macro-F1 {value:.4f}")

    def _name(self, number: int) -> int | str:
        """What the trial is called in the run of the study."""
        return number if self._search.spaces else DEFAULT

    def _tell(self, trial: optuna.Trial, what: str) -> None:
        drawn = {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in trial.params.items()}
        values = ", ".join(f"{name} {value}" for name, value in drawn.items())
        default = ["the default" if self._search.spaces else "outside the space"] if DEFAULT in trial.user_attrs else []
        name = f"trial {trial.number}" if self._search.spaces else "the default"
        self._options.progress(f"{name}: {what} ({': '.join(filter(None, [*default, values]))})")

    def _evaluate(self, trial: optuna.Trial) -> None:
        """One trial: fit on the training part, score the validation part, log a nested run."""
        claim = self._claim(trial.number)
        state, score, said = TrialState.FAIL, None, ""
        try:
            with self._run.trial(self._name(trial.number), trial.params) as log:
                state, score = self._scored(trial, TrialMonitor(trial, lambda: self._claims.has(claim)))
                log({"pruned": float(state == TrialState.PRUNED), "validation_macro_f1": score})
        except Superseded:
            said = "another process took it over"
        except Exception as error:
            if state != TrialState.FAIL or _is_away(error):
                raise  # what was scored is kept in the study, all the same
            said = f"failed, {type(error).__name__}: {error}"
            if self._claims.has(claim):
                trial.set_user_attr(FAILED, said)
        finally:
            told = self._told(trial, state, score)
            with suppress(InputError):  # the database is away: the claim ends with this process
                self._claims.let_go(claim)
        how = "pruned at " if state == TrialState.PRUNED else ""
        said = said or ("another process took it over" if told != state else f"{how}validation macro-F1 {score:.4f}")
        self._tell(trial, said)

    def _scored(self, trial: optuna.Trial, monitor: TrialMonitor) -> tuple[TrialState, float]:
        """How the trial ended, and its validation macro-F1."""
        kind = registry.load(self._search.spec.method)
        values = typed_values(kind, {**self._search.spec.parameters, **trial.params})
        spec = dataclasses.replace(self._search.spec, parameters=values)
        try:
            device, code = self._options.device, code_of(spec)
            score = fit_and_validate(spec, store_of(spec), kind, monitor, device=device, code=code).macro_f1
        except optuna.TrialPruned:
            return TrialState.PRUNED, monitor.last
        if math.isnan(score):
            raise ArithmeticError("the validation macro-F1 is not a number")
        return TrialState.COMPLETE, score

    def _told(self, trial: optuna.Trial, state: TrialState, score: float | None) -> TrialState:
        """Close a trial, several times if need be; the state that it is in, which may be another process's doing."""
        value = score if state == TrialState.COMPLETE else None
        for wait in WAITS if value is not None else ():
            try:
                return self.study.tell(trial, value, skip_if_finished=True).state
            except AWAY:
                time.sleep(wait)
        return self.study.tell(trial, value, state=state, skip_if_finished=True).state


def wanted_trials(search: Search, options: TuneOptions) -> int:
    """Finished trials that a study is to reach."""
    whole = search.points if search.sampler == "grid" else None
    return options.trials or whole or TRIALS


def is_full(search: Search, look: Look) -> bool:
    """Whether every point is known or being evaluated."""
    return search.points is not None and len(look.known.keys() | look.busy) >= search.points


def _is_away(error: Exception) -> bool:
    """Whether a database does not answer, so that the next trial would go the same way."""
    return isinstance(error, AWAY) or (isinstance(error, InputError) and error.code == "storage-failed")
