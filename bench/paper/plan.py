"""From a paper's experiment to runs: arm by arm, under its own order of operations and under a clean split.

Every arm becomes runs in mode ``paper`` (as the experiment's protocol of `bench.spec.PROTOCOLS` says; without one:
windows, balanced to N a class, then divided at random) and in mode ``clean`` (whole sessions, no group in two parts,
the classes as frequent as they are).  Nothing here runs anything.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from bench.data.store import Store
from bench.errors import InputError, instead
from bench.paper.declaration import SWEPT, Arm, Experiment, Paper
from bench.runs.plan import expand
from bench.runs.registry import describe
from bench.spec import RunSpec, Settings, SplitSpec, parse_sampling

MODES: Final = ("published", "paper", "clean")
SEEDS: Final = 5
NOT_PRINTED: Final = " (not in the paper's table)"  # of a system that was asked for besides


@dataclass(frozen=True)
class Scale:
    """What makes an experiment smaller or other than the paper's."""

    max_per_class: int | None = None
    epochs: int | None = None
    seeds: int = SEEDS
    folds: int | None = None  # of the clean split
    methods: tuple[str, ...] = ()  # only these arms, by method; empty: all
    preset: str | None = None  # for the methods that have it
    every: int = 1  # of a grid or sweep, take one of every so many values
    split: str = "auto"  # of mode clean
    sampling: str | None = None  # of mode paper; None: windows without overlap (methods of windows: our choice)

    @property
    def unusual(self) -> dict[str, Any]:
        """Fields that are not as usual, by name."""
        return {key: value for key, value in vars(self).items() if value and value != getattr(Scale(), key)}

    def labels(self, experiment: Experiment) -> list[str]:
        """What makes this experiment other than the full one, for people."""
        known = any(self.preset in describe(arm.method).presets for arm in experiment.arms)
        named = {
            "samples a class": self.max_per_class if experiment.kind != "timing" else None,
            "epochs": self.epochs if experiment.kind != "timing" else None,
            "preset": self.preset if known and experiment.kind != "timing" else None,
            "one value of every": self.every if self.every > 1 and experiment.kind in SWEPT else None,
            "only": ", ".join(self.methods) or None,
        }
        seeds = [] if experiment.kind == "timing" else [f"{self.seeds} seed{'s' if self.seeds > 1 else ''}"]
        return [*(f"{name} {value}" for name, value in named.items() if value is not None), *seeds]


@dataclass(frozen=True)
class PlannedArm:
    """An arm with its runs under one mode."""

    arm: Arm
    mode: str
    specs: tuple[RunSpec, ...]

    def on(self, device: str) -> Self:
        """The same runs on a device."""
        return dataclasses.replace(self, specs=tuple(spec.on(device) for spec in self.specs))


def plan(experiment: Experiment, mode: str, store: Store, scale: Scale, task: str | None = None) -> list[PlannedArm]:
    """The runs of an experiment under mode ``paper`` or ``clean``, arm by arm.

    Raises :class:`InputError` for a method that the experiment has not, and a preset that would change what an arm is
    about.  A preset goes to the methods that have it, which may be none of this experiment's.
    """
    arms = chosen_arms(experiment, scale)
    size = largest_class(store, task)
    return [
        PlannedArm(
            arm,
            mode,
            tuple(
                expand(
                    [arm.method],
                    [store],
                    split_of(experiment, mode, arm, scale, size),
                    task=task,
                    seeds=range(scale.seeds),
                    settings=Settings(values=_values(arm, scale.preset), epochs=scale.epochs or experiment.epochs),
                )
            ),
        )
        for arm in arms
    ]


def check_preset(paper: Paper, preset: str | None) -> None:
    """Raises :class:`InputError` for a preset that no system of the paper has."""
    known = dict.fromkeys(one for name in paper.systems for one in describe(name).presets)
    if preset and preset not in known:
        raise InputError(
            "unknown-preset",
            f"no system has a preset {preset!r}; {instead(preset, known)} (`bench methods NAME` shows those of each)",
        )


def check_scale(paper: Paper, experiments: Sequence[Experiment], scale: Scale) -> None:
    """Raises :class:`InputError` for a preset or a method that none of the experiments has."""
    check_preset(paper, scale.preset)
    for experiment in experiments:
        chosen_arms(experiment, scale)


def check_modes(modes: Sequence[str]) -> None:
    """Raises :class:`InputError` for a mode that there is not."""
    if strange := [mode for mode in modes if mode not in MODES]:
        raise InputError("unknown-mode", f"--mode {strange[0]}; {instead(strange[0], MODES)}")


def _values(arm: Arm, preset: str | None) -> dict[str, Any]:
    """An arm's parameters on top of a preset, which may not touch what makes the arm what it is."""
    presets = describe(arm.method).presets
    own = {**(presets[arm.preset] if arm.preset else {}), **arm.values}
    asked = presets.get(preset or "", {})
    if common := sorted(own.keys() & asked.keys()):
        raise InputError(
            "bad-options", f"--preset {preset} sets {common[0]}, which is what {arm.label!r} is about; leave it out"
        )
    return {**asked, **own}


def chosen_arms(experiment: Experiment, scale: Scale) -> list[Arm]:
    """The arms that a scale leaves; of a table of systems also one for each other method that it names.

    Raises :class:`InputError` for a method that there is not, or not in another kind of experiment.
    """
    known = list(dict.fromkeys(arm.method for arm in experiment.arms))
    strange = [name for name in scale.methods if name not in known]
    if strange and experiment.kind != "systems":
        raise InputError(
            "unknown-method", f"{experiment.id} has no method {strange[0]!r}; {instead(strange[0], known)}"
        )
    left = {arm.label for arm in experiment.over.arms(scale.every)} if experiment.over else None
    own = [
        arm
        for arm in experiment.arms
        if (not scale.methods or arm.method in scale.methods) and (left is None or arm.label in left)
    ]
    return own + [Arm(f"{describe(name).name}{NOT_PRINTED}", name) for name in strange]


def largest_class(store: Store, task: str | None) -> int:
    """Sessions of the task's largest class.  Raises :class:`InputError` for an unknown task."""
    task = task or store.default_task
    store.classes(task)
    return max(store.manifest.tasks[task].class_sessions, default=0)


def split_of(experiment: Experiment, mode: str, arm: Arm, scale: Scale, size: int) -> SplitSpec:
    """Split, sampling and size of one arm under one mode; a limit that the largest class does not reach is none."""
    if mode == "clean":
        own = experiment.limit if size > (experiment.limit or 0) else None
        limit, sampling = scale.max_per_class or own, arm.sampling or "session"
        return SplitSpec(scale.split, folds=scale.folds, max_per_class=limit, sampling=sampling)
    if experiment.protocol:
        return SplitSpec.typed(
            experiment.protocol, max_per_class=scale.max_per_class, sampling=scale.sampling or arm.sampling or None
        )
    windows = scale.sampling or f"window={arm.values.get('packets', 16)}"
    per_class = scale.max_per_class or experiment.per_class
    return SplitSpec("paper", max_per_class=per_class, sampling=arm.sampling or windows)


def check_splits(scale: Scale) -> None:
    """Raises :class:`InputError` for a split that is none of mode clean, and a sampling that is none."""
    if scale.split.startswith("file") or SplitSpec(scale.split, folds=scale.folds).leaky:
        known = "auto, session, capture, capture+session, time or attribute:NAME"
        raise InputError("unknown-split", f"--split {scale.split}: mode clean takes {known}")
    parse_sampling(scale.sampling or "session")
