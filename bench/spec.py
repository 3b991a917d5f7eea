"""Requests: which samples are in which parts (`SplitSpec`), which method runs how (`Settings`, `RunSpec`).

Enters: words of the command line, or a record of the store of runs.  Leaves: one frozen request, checked and
normalised.  Only this module hashes, names and writes requests; all others read them.  Nothing here knows a store or a
method; only the standard library is imported.

Schemes of splits, and what they promise:

``session``
    No conversation (unordered 5-tuple, over all captures) in two parts.
``capture``
    No capture group in two parts.
``capture+session``
    Neither a capture group nor a conversation in two parts; broadcast conversations, which would join all, are dropped.
``time``
    Every validation session starts after all training sessions, every test session after all validation sessions.
``attribute:NAME``
    Test on captures with other values of an attribute (device, version, person, day) than training has.
``paper``
    Nothing: the paper's order of operations (windows, balancing, then a random division), leaky on purpose.
``random``
    Nothing: samples are divided at random within each class, 8:1:1, as ET-BERT and many others do; leaky on purpose.
``file``
    The division is in a file, which names its own scheme.
``auto``
    ``capture`` if every class has enough capture groups, else ``session``.  A request may say so; a run never does.
"""

import dataclasses
import hashlib
import json
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from bench.environment import CPU, FLOAT32, precision_on
from bench.errors import InputError, instead

#: "attribute" is followed by ":" and a name; "auto" is one of the others, settled for a store (`bench.splits.groups`)
FOREST_ON: Final = "forest-on:"  # and a method's name: the forest on what that one reads
SCHEMES: Final = ("auto", "session", "capture", "capture+session", "time", "attribute", "paper", "random", "file")
BY_CAPTURE: Final = ("capture", "capture+session")
LEAKY: Final = ("paper", "random")  # schemes that let parts share groups on purpose
Shares = tuple[float, ...]
SHARES: Final[Shares] = (0.7, 0.1, 0.2)  # of training, validation and test part
RANDOM_SHARES: Final[Shares] = (0.8, 0.1, 0.1)  # likewise, of scheme ``random``
FILTERS: Final = ("none", "paper", "sugar", "dns", "tcp", "broadcast")  # see `bench.splits.filters`
BALANCES: Final = ("keep", "undersample", "resample")  # as it is, to the smallest class, up to the largest one
MOST_FOLDS: Final = 10_000
PAPER_PER_CLASS: Final = 10_000  # samples of a class that the paper's numbers imply: fewer are a reduced scale

#: Splits that other papers' numbers come from; a word for ``--split``, and any other option goes over it.  ET-BERT
#: (Lin et al., WWW 2022, 4.1.1) draws at most so many flows or packets a class and divides them 8:1:1.  Its paper
#: leaves out ARP and DHCP; its code also name service, STUN, ICMP, NTP, IGMP and frames of up to 80 bytes.  ``sugar``
#: and packets with payload stand for these here.  YaTC (Zhao et al., AAAI 2023) cleans nothing, and its code neither
#: limits classes nor divides flows: it finds folders of training and test (8:1:1 is ours).  NetMamba (Wang et al.,
#: ICNP 2024) leaves out classes of fewer flows and draws from larger ones: its code's numbers for USTC-TFC2016.
PROTOCOLS: Final[Mapping[str, Mapping[str, Any]]] = {
    "et-bert-flow": {"scheme": "random", "max_per_class": 500, "filter": "sugar"},
    "et-bert-packet": {"scheme": "random", "max_per_class": 5_000, "filter": "sugar", "sampling": "window=1"},
    "yatc-flow": {"scheme": "random"},
    "netmamba-flow": {"scheme": "random", "min_per_class": 500, "max_per_class": 2_000},
}

#: fields that came after the first runs, and the values that digests leave out, so that what was run before stays done
NEW_FIELDS: Final[dict[str, Any]] = {
    "filter": "none",
    "sampling": "session",
    "balance": None,
    "min_per_class": None,
    "min_groups": None,
}


def named_seed(*names: object) -> int:
    """A seed of 63 bits: SHA-256 of the names.  One more name elsewhere shifts no other draw.

    >>> named_seed(0, "demo") == named_seed("0", "demo") != named_seed(1, "demo")
    True
    """
    return int.from_bytes(hashlib.sha256("\0".join(map(str, names)).encode()).digest()[:8]) >> 1


# --- how sessions become samples ------------------------------------------------------------------------------

SAMPLING_SYNTAX: Final = "session, or window=16[,step=2][,stride=1][,per_session=10][,payload=no]"
LARGEST_WINDOW: Final = 1_000_000  # packets of a window, a step or a stride


@dataclass(frozen=True)
class Sampling:
    """How sessions become samples, whole or as windows that start at a fixed step.  All sizes in packets.

    "Fixed-step sampling" means two things: Rezaei & Liu (2018) keep every l-th packet
    (``window=45,stride=22,per_session=100``), TSCRNN puts starts at a fixed step and takes consecutive packets from
    there (``window=16,step=2``).  ATVITSC says only that it samples a fixed number of packets at a fixed step.

    With ``payload``, windows count only packets with payload, as ATVITSC's do.  A window reaches from the first of
    them to the last and includes the packets without payload in between.  A stride counts all packets.

    >>> str(parse_sampling("step=4,window=4"))
    'window=4'
    """

    window: int | None = None  # None: the whole session is the sample
    step: int | None = None  # from one start to the next; None: no overlap
    stride: int = 1  # packets from one that is kept to the next
    per_session: int | None = None  # at most so many windows, the first ones (our choice)
    payload: bool = True

    @property
    def extent(self) -> int:
        """Packets from a window's first to its last."""
        return ((self.window or 1) - 1) * self.stride + 1

    @property
    def distance(self) -> int:
        """Packets from one start to the next."""
        return self.step or (self.window or 1) * self.stride

    def __str__(self) -> str:
        """The shortest text that :func:`parse_sampling` reads as this: equal texts, equal samplings."""
        if self.window is None:
            return "session"
        words = [f"window={self.window}"]
        words += [f"step={self.step}"] if self.distance != self.window * self.stride else []
        words += [f"stride={self.stride}"] if self.stride > 1 else []
        words += [f"per_session={self.per_session}"] if self.per_session else []
        return ",".join(words + (["payload=no"] if not self.payload and self.stride == 1 else []))


def parse_sampling(text: str) -> Sampling:
    """Read `SAMPLING_SYNTAX`.  Raises :class:`InputError` with the syntax for anything else."""
    if text == "session":
        return Sampling()
    pairs = [word.partition("=")[::2] for word in text.split(",")]
    given = dict(pairs)
    flag = given.pop("payload", None)
    digits = {
        name: value if value.isascii() and value.isdigit() and len(value) < 8 else "0" for name, value in given.items()
    }
    numbers = {name: int(value) for name, value in digits.items()}
    known = {field.name for field in dataclasses.fields(Sampling)} - {"payload"}
    right = "window" in numbers and set(numbers) <= known and len(pairs) == len(dict(pairs))
    sane = right and 1 <= min(numbers.values()) and max(numbers.values()) <= LARGEST_WINDOW
    if not sane or flag not in (None, "yes", "no"):
        raise InputError("bad-sampling", f"sampling {text!r}: expected {SAMPLING_SYNTAX}")
    strides = numbers.get("stride", 1) > 1
    if strides and flag == "yes":
        raise InputError("bad-sampling", f"sampling {text!r}: a stride counts all packets; leave payload=yes out")
    return Sampling(**numbers, payload=flag != "no" and not strides)


def parse_filter(text: str) -> str:
    """One or several filters, ``sugar,dns``, in the order of `FILTERS` and each once.

    Raises :class:`InputError` for an unknown filter.

    >>> parse_filter("dns, sugar,none")
    'sugar,dns'
    """
    names = {name.strip() for name in text.split(",")}
    if unknown := sorted(names - set(FILTERS)):
        raise InputError(
            "unknown-filter",
            f"unknown filter {unknown[0]!r}; {instead(unknown[0], FILTERS)} (packets are left out by `bench prepare "
            "--filter`)",
        )
    return ",".join(name for name in FILTERS if name in names and name != "none") or "none"


def check_scheme(scheme: str) -> None:
    """Raises :class:`InputError` for an unknown scheme."""
    kind, colon, name = scheme.partition(":")
    if kind not in SCHEMES or (kind == "attribute") != bool(colon and name):
        known = ["attribute:NAME" if one == "attribute" else one for one in SCHEMES]
        if scheme in PROTOCOLS:  # a word of the command line for these
            own = ", ".join(f"{name}={value}" for name, value in PROTOCOLS[scheme].items())
            raise InputError("unknown-split", f"{scheme} stands for several options, here to be given each: {own}")
        raise InputError("unknown-split", f"unknown split {scheme!r}; {instead(scheme, [*known, *PROTOCOLS])}")


# --- which samples in which parts -----------------------------------------------------------------------------


@dataclass(frozen=True)
class SplitSpec:
    """Everything that decides a split of a data set's task, checked and normalised.

    Raises :class:`InputError` for an impossible split.  ``folds`` without ``fold`` means all folds
    (:meth:`each_fold`).

    >>> SplitSpec("capture", folds=5, filter="dns,sugar").label
    'capture, 5 folds, filter=sugar,dns'
    """

    scheme: str = "auto"
    seed: int = 0
    fold: int | None = None
    folds: int | None = None
    max_per_class: int | None = None  # samples of a class at most; under a leaky scheme with re-sampling, exactly
    min_per_class: int | None = None  # a class with fewer leaves the task
    min_groups: int | None = None  # a class of fewer capture groups leaves the task; None: the scheme's own
    filter: str = "none"
    sampling: str = "session"  # as `Sampling` writes itself
    balance: str | None = None  # one of `BALANCES`; None: the scheme's own
    file: str | None = None  # with scheme "file"; its content counts, not its place
    file_digest: str | None = None  # SHA-256 of that file, 16 hex digits

    def __post_init__(self) -> None:
        check_scheme(self.scheme)
        self._set(filter=parse_filter(self.filter), sampling=str(parse_sampling(self.sampling)))
        if self.balance is not None and self.balance not in BALANCES:
            raise InputError("unknown-balance", f"unknown balance {self.balance!r}; {instead(self.balance, BALANCES)}")
        if self.balance == self._own_balance:
            self._set(balance=None)
        if self.min_groups == self._own_min_groups:
            self._set(min_groups=None)
        self._check_folds()
        for name in ("max_per_class", "min_per_class", "min_groups"):
            if (number := getattr(self, name)) is not None and (number < 1 or self.file is not None):
                what = name.replace("_", "-")
                raise InputError("bad-class-size", f"{what} is 1 or more, and does not go with a split from a file")
        if self.file is not None and self.unusual:
            raise InputError(
                "bad-options", f"a split from a file has its own {', '.join(NEW_FIELDS)}; leave these options out"
            )
        if self.scheme != "file" and self.file is not None:
            raise InputError("bad-options", "split file and a split's file belong together; give both or neither")

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _check_folds(self) -> None:
        if self.folds is None and self.fold is not None:
            raise InputError(
                "bad-fold", "a fold needs the number of folds and the other way round; give both or neither"
            )
        if self.folds is None:
            return
        if self.scheme == "time" or self.file is not None:
            raise InputError(
                "bad-fold", f"split {self.scheme} has no folds; leave --folds out or take session or capture"
            )
        if not 2 <= self.folds <= MOST_FOLDS or not 0 <= (self.fold or 0) < self.folds:
            what = f"{self.folds} folds" if self.fold is None else f"fold {self.fold} of {self.folds} does not exist"
            raise InputError("bad-fold", f"{what}; folds are 2 to {MOST_FOLDS:,}, counted from 0")

    @classmethod
    def typed(cls, word: str, **fields: Any) -> Self:
        """The split that ``--split`` names: a scheme, one of `PROTOCOLS`, or ``file:PATH``.

        ``fields`` are the others; what is None is as it is without, and all else goes over a protocol's own.

        >>> SplitSpec.typed("et-bert-flow", max_per_class=100).label
        'random, filter=sugar, max_per_class=100'
        >>> SplitSpec.typed("et-bert-flow", max_per_class=100, filter="none").label
        'random, max_per_class=100'
        """
        fields = {name: value for name, value in fields.items() if value is not None}
        if word in PROTOCOLS:
            return cls(**{**PROTOCOLS[word], **fields})
        scheme, colon, file = word.partition(":")
        return cls("file", file=file, **fields) if scheme == "file" and colon else cls(word, **fields)

    @property
    def _own_balance(self) -> str:
        return "resample" if self.scheme == "paper" else "keep"

    @property
    def balancing(self) -> str:
        """How to balance: as asked, else as the scheme does."""
        return self.balance or self._own_balance

    @property
    def _own_min_groups(self) -> int:
        return 2 if self.scheme in BY_CAPTURE else 1  # of one group nothing can be learned and tested

    @property
    def least_groups(self) -> int:
        """Capture groups that a class must have: as asked, else as the scheme does."""
        return self.min_groups or self._own_min_groups

    @property
    def filtering(self) -> str:
        """What to filter: as asked, and what the scheme drops of its own."""
        return parse_filter(f"{self.filter},broadcast") if self.scheme == "capture+session" else self.filter

    @property
    def leaky(self) -> bool:
        """Whether parts may share groups on purpose."""
        return self.scheme in LEAKY

    @property
    def reduced(self) -> bool:
        """Whether classes have fewer samples than usual; what a paper itself takes is usual under its order."""
        limit = self.max_per_class
        return limit is not None and limit < self._papers_limit

    @property
    def _papers_limit(self) -> float:
        if self.scheme == "paper":
            return PAPER_PER_CLASS
        own = [PROTOCOLS[name].get("max_per_class", math.inf) for name in PROTOCOLS if self.is_of(name)]
        return min(own, default=math.inf)

    def is_of(self, protocol: str) -> bool:
        """Whether this is a split of one of `PROTOCOLS`, at whatever scale."""
        wanted = {name: value for name, value in PROTOCOLS[protocol].items() if name != "max_per_class"}
        usual = {"filter": "none", "sampling": "session", "min_per_class": None}
        return all(getattr(self, name) == value for name, value in {**usual, **wanted}.items())

    @property
    def shares(self) -> Shares:
        """Of training, validation and test part."""
        return RANDOM_SHARES if self.scheme == "random" else SHARES

    @property
    def attribute(self) -> str:
        """The attribute whose values differ between the test part and the rest; empty for other schemes."""
        return self.scheme.removeprefix("attribute:") if self.scheme.startswith("attribute:") else ""

    @property
    def windows(self) -> Sampling:
        """How sessions become samples."""
        return parse_sampling(self.sampling)

    @property
    def path(self) -> Path | None:
        """The file of scheme ``file``."""
        return None if self.file is None else Path(self.file)

    @property
    def unusual(self) -> dict[str, Any]:
        """Those of `NEW_FIELDS` that were requested."""
        return {name: value for name, usual in NEW_FIELDS.items() if (value := getattr(self, name)) != usual}

    def each_fold(self) -> list["SplitSpec"]:
        """The same split for each of its folds; the split itself if it has no folds or names one."""
        if self.folds is None or self.fold is not None:
            return [self]
        return [dataclasses.replace(self, fold=fold) for fold in range(self.folds)]

    def each_seed(self, count: int) -> list["SplitSpec"]:
        """The same split under ``count`` seeds, starting with its own.

        >>> [spec.seed for spec in SplitSpec("capture").each_seed(3)]
        [0, 1, 2]
        """
        return [dataclasses.replace(self, seed=self.seed + number) for number in range(count)]

    @property
    def label(self) -> str:
        """The scheme, the number of folds, and how sessions become samples if they are not whole."""
        folds = [f"{self.folds} folds"] if self.folds else []
        return ", ".join([self.scheme, *folds, *self.sample_labels])

    @property
    def sample_labels(self) -> list[str]:
        """What decides the samples besides scheme and task, one text for each option that is not at its default."""
        asked = self.unusual
        sampling = [asked.pop("sampling")] if "sampling" in asked else []
        limit = [f"max_per_class={self.max_per_class}"] if self.leaky and self.max_per_class else []
        return [*sampling, *(f"{name}={value}" for name, value in asked.items()), *limit]

    @property
    def group_label(self) -> str:
        """The groups that the scheme keeps together, over which intervals are taken."""
        if self.attribute:
            return f"values of {self.attribute.partition('=')[0]}"
        own = {"capture": "capture groups", "capture+session": "groups of captures that share 5-tuples"}
        return own.get(self.scheme, FIVE_TUPLES)


FIVE_TUPLES: Final = "5-tuples"


# --- which method on them -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """Parameter values that replace the defaults; each goes to the methods that have that parameter."""

    preset: str | None = None
    file: Path | None = None  # of one method's parameters, as `bench tune` writes it; goes over the preset
    values: Mapping[str, Any] = field(default_factory=dict)  # by parameter, over both; texts are read as its type
    epochs: int | None = None  # passes over the training part, in place of any steps; ignored by methods without


@dataclass(frozen=True)
class RunSpec:
    """Everything that decides a run's result, except the code."""

    method: str
    dataset: str
    task: str
    split: SplitSpec = SplitSpec("session")
    parameters: Mapping[str, Any] = field(default_factory=dict, hash=False)  # those that differ from the defaults
    store: str = ""  # the store's digest
    source: str | None = None  # digest of a method's source where it is not shipped: its author is still at work
    device: str = CPU  # the kind of processor: another one rounds otherwise
    precision: str = FLOAT32  # of torch methods on it
    tuned: str = ""  # how its parameters were searched, where each fold has its own; empty: they were given

    def on(self, device: str) -> Self:
        """The same on a device as torch names it (``cuda:1``), of which the kind counts."""
        return dataclasses.replace(self, device=device.partition(":")[0], precision=precision_on(device))

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of all fields but the split file's place; 16 hex digits."""
        fields = {name: value for name, value in self._fields().items() if name != "split_file"}
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def name(self) -> str:
        """A name for people; not unique."""
        split = self.split
        fold = "" if split.fold is None else f"-fold{split.fold}of{split.folds}"
        asked = "".join(f"-{word}" for word in split.sample_labels)
        return f"{Path(self.method).name}-{split.scheme}{asked}-seed{split.seed}{fold}"

    @property
    def place(self) -> tuple[int, int | None]:
        """Seed and fold: what distinguishes the runs of one table row."""
        return self.split.seed, self.split.fold

    @property
    def but_place(self) -> "RunSpec":
        """The same for all seeds and folds, and wherever a split file lies."""
        split = dataclasses.replace(self.split, seed=0, fold=None, file=None)
        return dataclasses.replace(self, split=split, parameters={} if self.tuned else dict(self.parameters))

    def to_dict(self) -> dict[str, Any]:
        """All fields, flat, and the digest, ready for JSON; of `NEW_FIELDS` only those that were requested."""
        return self._fields() | {"digest": self.digest}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Read back what :meth:`to_dict` wrote, in this or any earlier version."""
        _check_kinds(fields)
        names = {**dict.fromkeys(_SPLIT_FIELDS), "split": "scheme", "split_file": "file", "split_digest": "file_digest"}
        split = {names[key] or key: value for key, value in fields.items() if key in names}
        own = {field.name for field in dataclasses.fields(cls)} - {"split"}
        return cls(
            split=SplitSpec(**{"scheme": "session"} | split),
            **{name: value for name, value in fields.items() if name in own},
        )

    def _fields(self) -> dict[str, Any]:
        split = self.split
        fields: dict[str, Any] = {"method": self.method, "dataset": self.dataset, "task": self.task}
        fields |= {"split": split.scheme, "seed": split.seed, "fold": split.fold, "folds": split.folds}
        fields |= {"parameters": dict(self.parameters), "max_per_class": split.max_per_class, "store": self.store}
        fields |= {"split_file": split.file, "split_digest": split.file_digest, "source": self.source}
        fields |= {name: value for name in USUAL if (value := getattr(self, name)) != USUAL[name]}
        return fields | split.unusual


def _check_kinds(fields: Mapping[str, Any]) -> None:
    """That a record's fields are texts, numbers and a table, where it has them.  Raises TypeError."""
    kinds: dict[str, type] = dict.fromkeys(("method", "dataset", "task", "split", "store", "device", "precision"), str)
    for name, kind in (kinds | {"seed": int, "parameters": dict}).items():
        if name in fields and not isinstance(fields[name], kind):
            raise TypeError(f"{name} is {fields[name]!r:.40}")


USUAL: Final = {"device": CPU, "precision": FLOAT32, "tuned": ""}  # which runs of before do not say
_SPLIT_FIELDS: Final = ("seed", "fold", "folds", "max_per_class", *NEW_FIELDS)


def command_lines(spec: RunSpec, seeds: Sequence[int] = (), more: Sequence[str] = ()) -> list[str]:
    """The `bench run` lines of a specification, over all its folds, for a shell; ``more`` are words to append.

    ``seeds`` defaults to the specification's own seed.  Seeds other than 0 to N-1 take one line each.  A line cannot
    name the store: it means the data set as it is prepared now.
    """
    numbers = sorted(set(seeds)) or [spec.split.seed]
    if len(numbers) > 1 and numbers != list(range(len(numbers))):
        return [line for seed in numbers for line in command_lines(spec, [seed], more)]
    split = spec.split
    options: dict[str, Any] = {"method": spec.method, "dataset": spec.dataset, "task": spec.task}
    options |= {"split": f"file:{split.file}" if split.file else split.scheme, "folds": split.folds}
    options |= {"seeds": len(numbers)} if len(numbers) > 1 else {"seed": numbers[0]}
    options |= {"max_per_class": split.max_per_class, **split.unusual}
    options |= {} if spec.device == CPU else {"device": spec.device}
    words = [*_words(options), *(w for name, value in spec.parameters.items() for w in ("--set", f"{name}={value}"))]
    return [shlex.join(["bench", "run", *words, *more])]


def _words(options: Mapping[str, Any]) -> Iterator[str]:
    for name, value in options.items():
        if value is not None:
            yield from (f"--{name.replace('_', '-')}", str(value))
