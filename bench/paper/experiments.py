"""The experiments of the ATVITSC paper as declarations: which systems, on which data, under which protocol.

A table or figure is a few *arms*, each a method with its parameters; every arm becomes runs under the paper's order
of operations (mode ``paper``: windows, balanced to N a class, then divided at random) and under a clean split (mode
``clean``: whole sessions, no group in two parts, the classes as frequent as they are).  Nothing here runs anything.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from bench.data.store import Store
from bench.errors import InputError
from bench.runs.execute import RunSpec, expand
from bench.runs.registry import describe
from bench.splits.split import PAPER_PER_CLASS

MODES: Final = ("published", "paper", "clean")
SYSTEMS: Final = {
    "appscanner": "AppScanner",
    "bind": "BIND",
    "fsnet": "FS-Net",
    "graphdapp": "GraphDApp",
    "flowpic": "FlowPic",
    "deeppacket": "DeepPacket",
    "tscrnn": "TSCRNN",
    "han": "HAN",
    "cmtsnn": "CMTSNN",
    "flowgnn": "Flow-GNN",
    "atvitsc": "ATVITSC",
}
PACKETS: Final = (4, 9, 16, 25, 36, 49)  # Fig. 6
BYTES: Final = (16, 36, 64, 100, 169, 256, 324, 400)  # Fig. 6
TEMPERATURES: Final = tuple(float(value) for value in range(1, 801, 20))  # IV-C-2: 1 to 800 in steps of 20
THINNED: Final = ("grid", "sweep")  # kinds of experiments of which `Scale.every` takes some values
TAKEN: Final = 500.0  # what the paper takes, though it is not among those it tries; never left out of a sweep
SEEDS: Final = 5  # our choice: the paper does not say


@dataclass(frozen=True)
class Arm:
    """One system of an experiment."""

    label: str  # as the paper names it
    method: str
    key: str = ""  # by which its published numbers are found; the label where empty
    values: Mapping[str, Any] = field(default_factory=dict, hash=False)
    preset: str | None = None
    sampling: str | None = None  # how sessions become its samples, in every mode; None: the mode's own way

    @property
    def published(self) -> str:
        """The key of its published numbers."""
        return self.key or self.label


@dataclass(frozen=True)
class Experiment:
    """A table or a figure of the paper."""

    id: str  # as on the command line
    title: str
    dataset: str  # the paper's
    kind: str  # what is shown: see `bench.paper.tables_and_figures`
    target: str  # what the paper finds
    arms: tuple[Arm, ...] = ()
    per_class: int = PAPER_PER_CLASS  # samples a class under the paper's order
    limit: int | None = None  # samples a class at most where the split is clean
    epochs: int | None = None  # None: each method's own
    metric: str = "accuracy"
    pairs: tuple[tuple[str, str], ...] = ()  # labels of arms that are set against each other, the first less the second

    def arm(self, label: str) -> Arm:
        """The arm of that label."""
        return next(arm for arm in self.arms if arm.label == label)


@dataclass(frozen=True)
class Scale:
    """What makes an experiment smaller or other than the paper's."""

    max_per_class: int | None = None
    epochs: int | None = None
    seeds: int = SEEDS
    folds: int | None = None  # of the clean split
    methods: tuple[str, ...] = ()  # only these arms, by method; empty: all
    preset: str | None = None  # for the methods that have it
    every: int = 1  # only each so many-th value of a grid or sweep
    split: str = "session"  # of mode clean
    sampling: str | None = None  # of mode paper; None: windows without overlap (methods of windows: our choice)

    @property
    def asked(self) -> dict[str, Any]:
        """Fields that are not as ever, by name."""
        return {key: value for key, value in vars(self).items() if value and value != getattr(Scale(), key)}

    def words(self, experiment: Experiment) -> list[str]:
        """What makes this experiment other than the full one, for people."""
        known = any(self.preset in describe(arm.method).presets for arm in experiment.arms)
        told = {
            "samples a class": self.max_per_class if experiment.kind != "timing" else None,
            "epochs": self.epochs if experiment.kind != "timing" else None,
            "preset": self.preset if known and experiment.kind != "timing" else None,
            "every so many-th value:": self.every if self.every > 1 and experiment.kind in THINNED else None,
            "only": ", ".join(self.methods) or None,
        }
        seeds = [] if experiment.kind == "timing" else [f"{self.seeds} seed{'s' if self.seeds > 1 else ''}"]
        return [*(f"{name} {value}" for name, value in told.items() if value is not None), *seeds]


@dataclass(frozen=True)
class Planned:
    """An arm with its runs under one mode."""

    arm: Arm
    mode: str
    specs: tuple[RunSpec, ...]


def plan(experiment: Experiment, mode: str, store: Store, scale: Scale, task: str | None = None) -> list[Planned]:
    """The runs of an experiment under mode ``paper`` or ``clean``, arm by arm.

    Raises :class:`InputError` for a method that the experiment has not, and a preset that no system has or that would
    change what an arm is about.
    """
    arms = chosen(experiment, scale)
    if scale.preset and not any(scale.preset in describe(name).presets for name in SYSTEMS):
        raise InputError(f"no system has a preset {scale.preset!r}; `bench methods NAME` shows those of each")
    return [
        Planned(
            arm,
            mode,
            tuple(
                expand(
                    [arm.method],
                    [store],
                    task=task,
                    seeds=range(scale.seeds),
                    values=_values(arm, scale.preset),
                    epochs=scale.epochs or experiment.epochs,
                    **_protocol(experiment, mode, arm, scale, store.manifest["tasks"].get(task or store.default_task)),
                )
            ),
        )
        for arm in arms
    ]


def _values(arm: Arm, preset: str | None) -> dict[str, Any]:
    """An arm's parameters on top of a preset, which may not touch what makes the arm what it is."""
    presets = describe(arm.method).presets
    own = {**(presets[arm.preset] if arm.preset else {}), **arm.values}
    asked = presets.get(preset or "", {})
    if common := sorted(own.keys() & asked.keys()):
        raise InputError(f"--preset {preset} sets {common[0]}, which is what {arm.label!r} is about; leave it out")
    return {**asked, **own}


def chosen(experiment: Experiment, scale: Scale) -> list[Arm]:
    """The arms that a scale leaves."""
    known = list(dict.fromkeys(arm.method for arm in experiment.arms))
    if strange := [name for name in scale.methods if name not in known]:
        raise InputError(f"{experiment.id} has no method {strange[0]!r}; it has: {', '.join(known)}")
    arms = [arm for arm in experiment.arms if not scale.methods or arm.method in scale.methods]
    if experiment.kind == "grid":
        packets, sizes = thinned(PACKETS, scale.every), thinned(BYTES, scale.every)
        return [arm for arm in arms if arm.values["packets"] in packets and arm.values["bytes"] in sizes]
    if experiment.kind == "sweep":
        left = thinned([arm for arm in arms if arm.values["temperature"] in TEMPERATURES], scale.every)
        return [arm for arm in arms if arm in left or arm.values["temperature"] == TAKEN]
    return arms


def thinned(values: Sequence[Any], every: int) -> list[Any]:
    """Each so many-th, from the first on."""
    return list(values[::every])


def _protocol(
    experiment: Experiment, mode: str, arm: Arm, scale: Scale, task: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Split, sampling and size of one arm under one mode; a limit that no class of the ``task`` reaches is none."""
    if mode == "clean":
        sampling = arm.sampling or "session"
        binds = task is None or max(task["class_sessions"], default=0) > (experiment.limit or 0)
        limit = scale.max_per_class or (experiment.limit if binds else None)
        return {"split": scale.split, "folds": scale.folds, "max_per_class": limit, "sampling": sampling}
    windows = scale.sampling or f"window={arm.values.get('packets', 16)}"
    per_class = scale.max_per_class or experiment.per_class
    return {"split": "paper", "max_per_class": per_class, "sampling": arm.sampling or windows}


def _systems(number: str, name: str, dataset: str, target: str) -> Experiment:
    arms = tuple(Arm(label, method, key=method) for method, label in SYSTEMS.items())
    return Experiment(f"table-{number}", f"ATVITSC and ten systems on {name}", dataset, "systems", target, arms)


def _classes(number: str, name: str, dataset: str, target: str) -> Experiment:
    return Experiment(
        f"table-{number}", f"ATVITSC by class on {name}", dataset, "classes", target, (Arm("ATVITSC", "atvitsc"),)
    )


def _single(number: str, name: str, preset: str, target: str) -> Experiment:
    """Sessions of one packet with payload: learned from sessions, and from windows of one packet of any session."""
    arms = (
        Arm(f"{name}, trained on sessions", "atvitsc", preset=preset),
        Arm(f"{name}, trained on single packets", "atvitsc", preset=preset, sampling="window=1,per_session=10"),
    )
    return Experiment(f"fig-{number}", f"{name} on sessions of one packet", "ustc-tfc", "single", target, arms)


_VARIANTS: Final = (
    Arm("PVT", "atvitsc", preset="pvt"),
    Arm("STFE", "atvitsc", preset="stfe"),
    Arm("PVT+STFE", "atvitsc", preset="concat"),
    Arm("PVT+STFE+DW", "atvitsc"),
)
_ON_PACKETS, _ON_SESSION = (
    "packet-level: 4 packets of 256 payload bytes",
    "session-level: first 1600 bytes of the session",
)
_ON_1024, _ON_ALL = "session-level: first 1024 bytes", "session-level: first 1600 bytes of all layers, ports shown"
_WEIGHTED, _PLAIN = Arm("with weighting", "atvitsc"), Arm("without weighting", "atvitsc", preset="concat")
_QUARTET: Final = "precision/recall/F1/accuracy"

_ALL: Final = (
    _systems("II", "USTC-TFC2016", "ustc-tfc", f"ATVITSC {_QUARTET} 99.66/99.67/99.67/99.66"),
    _classes("III", "USTC-TFC2016", "ustc-tfc", "20 classes, F1 above 98"),
    _systems("IV", "ISCX-Tor2016", "iscx-tor", f"ATVITSC {_QUARTET} 98.80/98.79/98.79/98.79"),
    _classes("V", "ISCX-Tor2016", "iscx-tor", "16 classes"),
    _systems("VI", "ISCX-VPN2016", "iscx-vpn", f"ATVITSC {_QUARTET} 97.89/97.89/97.88/97.89"),
    _classes("VII", "ISCX-VPN2016", "iscx-vpn", "12 classes; weakest: Voip recall 86.80, Streaming precision 89.49"),
    _systems("VIII", "Cross-Platform", "cross-platform", f"ATVITSC {_QUARTET} 94.91/95.24/94.90/96.21"),
    _classes("IX", "Cross-Platform", "cross-platform", "59 applications"),
    Experiment(
        "table-X",
        "Milliseconds for a batch of 16 sessions",
        "iscx-vpn",
        "timing",
        "FS-Net 18.67 the fastest, ATVITSC 32.54, HAN 323.25 the slowest",
        tuple(Arm(SYSTEMS[m], m, key=m) for m in SYSTEMS if m not in ("appscanner", "bind")),
    ),
    Experiment(
        "table-XI",
        "1D-CNN on bytes of packets and on bytes of the session",
        "iscx-vpn",
        "arms",
        "packet-level 89.3, session-level 82.7 (accuracy)",
        (
            Arm(_ON_PACKETS, "wang1d", preset="packet-level", sampling="session"),
            Arm(_ON_SESSION, "wang1d", preset="session-level", sampling="session"),
            Arm(_ON_1024, "wang1d", preset="session-1024", sampling="session"),
            Arm(
                _ON_ALL,
                "wang1d",
                preset="session-raw",
                sampling="session",
            ),
        ),
        per_class=1000,
        limit=1000,
        pairs=((_ON_PACKETS, _ON_SESSION), (_ON_PACKETS, _ON_1024), (_ON_SESSION, _ON_ALL)),
    ),
    Experiment(
        "table-XII",
        "Branches and fusion",
        "iscx-tor",
        "arms",
        "weighting 98.79 ± 0.19 > concatenation 98.00 ± 0.66 > PVT 95.85 ± 1.23 > STFE 91.99 ± 2.46 (accuracy)",
        _VARIANTS,
        pairs=(("PVT+STFE+DW", "PVT+STFE"), ("PVT+STFE", "PVT"), ("PVT", "STFE")),
    ),
    Experiment(
        "fig-6",
        "Packets and bytes",
        "iscx-vpn",
        "grid",
        "best at 16 packets of 256 bytes: 0.953 (the text says 0.9436)",
        tuple(
            Arm(f"{n} packets of {m} bytes", "atvitsc", key=f"{n},{m}", values={"packets": n, "bytes": m})
            for n in PACKETS
            for m in BYTES
        ),
    ),
    Experiment(
        "fig-7",
        "Temperature",
        "iscx-vpn",
        "sweep",
        "accuracy rises from 0.78 at 1 to 0.94 beyond 500",
        tuple(
            Arm(f"τ = {t:g}", "atvitsc", key=f"{t:g}", values={"temperature": t})
            for t in sorted((*TEMPERATURES, TAKEN))
        ),
        per_class=500,
        limit=500,
        epochs=20,
    ),
    Experiment(
        "fig-8",
        "Attention between a session's packets",
        "iscx-vpn",
        "attention",
        "four query packets over a grid of 4 x 4",
        (Arm("ATVITSC", "atvitsc"),),
    ),
    Experiment(
        "fig-9",
        "Weights of the branches without temperature",
        "iscx-tor",
        "weights",
        "one branch takes all: spatiotemporal to 0, global to 1 after some 400 points",
        (Arm("τ = 1", "atvitsc", values={"temperature": 1.0}),),
    ),
    Experiment(
        "fig-10",
        "Weights of the branches with temperature 500",
        "iscx-tor",
        "weights",
        "both between 0.30 and 0.70, the global one mostly above",
        (Arm("τ = 500", "atvitsc"),),
    ),
    Experiment(
        "fig-11",
        "Training accuracy with and without weighting",
        "iscx-tor",
        "training",
        "both to 0.97-0.98, faster with weighting",
        (_WEIGHTED, _PLAIN),
    ),
    _single("12", "PVT", "pvt", "mean diagonal 0.85; BitTorrent 0.59"),
    _single("13", "STFE", "stfe", "mean diagonal 0.91; BitTorrent 0.71"),
)
EXPERIMENTS: Final = {experiment.id: experiment for experiment in _ALL}


def find(name: str) -> Experiment:
    """An experiment by its id.  Raises :class:`InputError`."""
    if name not in EXPERIMENTS:
        raise InputError(f"the paper has no {name!r} that can be reproduced; there are: {', '.join(EXPERIMENTS)}")
    return EXPERIMENTS[name]
