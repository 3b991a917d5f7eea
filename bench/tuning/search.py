"""What a study asks, what its trials are at one moment, and how points are drawn.

The sampler is named with all its arguments, because Optuna's defaults change.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from bench.method import Range, Space
from bench.runs import registry
from bench.runs.execute import code_of
from bench.spec import RunSpec, named_seed
from bench.tuning.spaces import count_points, holds, is_whole, point_key, walk

DRAWS: Final = 20  # before a free point is looked for, where others are at what is drawn
# marks of trials
DEFAULT: Final = "default"  # of the method's own parameters
FAILED: Final = "failed"  # why its evaluation failed: neither killed nor interrupted
SAME: Final = "same as"  # number of the trial whose value it took
AGAIN: Final = "again"  # number of the trial of a killed process that it tries once more


@dataclass(frozen=True)
class Search:
    """What a study asks: the run that it varies, the space, how to draw, whether to prune.

    ``spec.parameters`` stay fixed in every trial; ``spaces`` maps a parameter to a range or choices.
    """

    spec: RunSpec
    spaces: Mapping[str, Space]
    sampler: str = "tpe"
    prune: bool = True

    @property
    def question(self) -> str:
        """Readable, and different for every different question; draws begin at it."""
        spaces = {name: _jsonable(space) for name, space in sorted(self.spaces.items())}
        asked = json.dumps([self.spec.digest, spaces, self.sampler, self.prune], sort_keys=True)
        return f"{Path(self.spec.method).name}-{self.spec.dataset}-{sha256(asked.encode()).hexdigest()[:10]}"

    @property
    def name(self) -> str:
        """The study's: the question and the code that answers it, so that a study resumes only itself."""
        return f"{self.question}-{sha256(code_of(self.spec).encode()).hexdigest()[:6]}"

    @property
    def of_default(self) -> "Search":
        """The search of one point, the method's default parameters."""
        return Search(self.spec, {})

    @cached_property
    def default(self) -> dict[str, Any] | None:
        """The point of the method's default parameters and what is fixed; None where the space does not hold it."""
        kind = registry.load(self.spec.method)
        parameters = kind.Parameters(**self.spec.parameters)
        point = {name: getattr(parameters, name) for name in self.spaces}
        if not all(holds(space, point[name]) for name, space in self.spaces.items()):
            return None
        return {name: _as_drawn(self.spaces[name], value) for name, value in point.items()}

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """The spaces as Optuna has them; an integer range gives integers."""
        return {name: _distribution(space) for name, space in self.spaces.items()}

    @property
    def points(self) -> int | None:
        """Number of points of the space; None where there is no end of them."""
        return count_points(self.spaces)


def _jsonable(space: Space) -> Any:
    return dataclasses.asdict(space) if isinstance(space, Range) else list(space)


def _as_drawn(space: Space, value: Any) -> Any:
    if not isinstance(space, Range):
        return value
    return int(value) if is_whole(space) else float(value)


def _distribution(space: Space) -> BaseDistribution:
    if not isinstance(space, Range):
        return CategoricalDistribution(list(space))
    if is_whole(space):
        return IntDistribution(int(space.low), int(space.high), step=int(space.step or 1), log=space.log)
    return FloatDistribution(space.low, space.high, step=space.step, log=space.log)


@dataclass(frozen=True)
class Look:
    """The trials of a study at one moment."""

    trials: list[FrozenTrial]
    since: int  # trials that failed from this number on are not tried again

    def of(self, *states: TrialState) -> list[FrozenTrial]:
        """Trials in one of these states."""
        return [trial for trial in self.trials if trial.state in states]

    @property
    def finished(self) -> list[FrozenTrial]:
        """Trials that count."""
        return self.of(TrialState.COMPLETE, TrialState.PRUNED)

    @property
    def failed(self) -> list[FrozenTrial]:
        """Trials whose evaluation failed while this process looked on."""
        return [one for one in self.of(TrialState.FAIL) if FAILED in one.user_attrs and one.number >= self.since]

    @property
    def running(self) -> list[FrozenTrial]:
        """Trials that somebody is at."""
        return self.of(TrialState.RUNNING)

    @property
    def known(self) -> dict[tuple[Any, ...], FrozenTrial]:
        """By point the trial that evaluated it."""
        return {point_key(trial.params): trial for trial in self.finished if SAME not in trial.user_attrs}

    @property
    def busy(self) -> set[tuple[Any, ...]]:
        """Points that nobody else should begin."""
        return {point_key(trial.params) for trial in (*self.running, *self.failed)}

    def left(self, wanted: int) -> int:
        """Trials to begin, where so many are to be finished; what fails is not made up for."""
        return wanted - len(self.finished) - len(self.failed) - len(self.running)


class Points(optuna.samplers.BaseSampler):  # type: ignore[misc]
    """Draws whole points with TPE, each anew while another process is at it.

    The seed is of the study and the trial's number: whoever draws it, the trial is the same, and no two are.
    """

    def __init__(self, search: Search, look: Look) -> None:
        self._search, self._look = search, look

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All parameters that have two values; see Optuna."""
        return {name: one for name, one in self._search.distributions.items() if not one.single()}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A point; see Optuna."""
        seed = named_seed(self._search.spec.split.seed, self._search.question, trial.number) % 2**32
        tpe = optuna.samplers.TPESampler(
            n_startup_trials=10,
            n_ei_candidates=24,
            multivariate=True,
            group=False,
            constant_liar=True,
            seed=seed,
        )
        single = {name: one for name, one in self._search.spaces.items() if name not in search_space}
        fixed = next(walk(single, 0))
        for _ in range(DRAWS):
            drawn = tpe.sample_relative(study, trial, search_space)
            for name, one in search_space.items():
                if name not in drawn:
                    drawn[name] = tpe.sample_independent(study, trial, name, one)
            if point_key(drawn | fixed) not in self._look.busy:
                return dict(drawn)
        free = drawn if self._search.points is None else free_point(self._search, self._look, seed)
        return {name: free[name] for name in search_space}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Never asked: points are drawn whole."""
        raise NotImplementedError


def free_point(search: Search, look: Look, seed: int) -> dict[str, Any]:
    """A point of a finite space that is neither known nor being evaluated; there is one."""
    taken = look.known.keys() | look.busy
    return next(point for point in walk(search.spaces, seed) if point_key(point) not in taken)
