"""What a data set gives away: copies, identical inputs with different labels, shortcuts, and what splits share.

All of it holds before any deep method is trained.  Identical inputs with different labels set a ceiling: the best
accuracy that any classifier can have on them, since it must answer alike.  It depends on what a method reads.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench import registry
from bench.errors import InputError
from bench.method import Inputs, make_parameters
from bench.readers import Ragged, View
from bench.runs import LATER, expand, run_matrix
from bench.schema import NO_CLASS, Samples
from bench.splits import Split, check_scheme, make_split
from bench.store import Store
from bench.tracking import Tracker

FEW_GROUPS: Final = 10  # classes with fewer capture groups are named
PAYLOAD: Final = (16, 256)  # packets and bytes by which sessions are compared: the payload that ATVITSC sees


def audit(
    store: Store,
    task: str,
    *,
    schemes: Sequence[str] = ("session", "capture", "paper"),
    methods: Sequence[str] = (),
    tracker: Tracker | None = None,
    seed: int = 0,
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Every finding as JSON types.

    ``methods`` are those whose representations are compared for the ceiling, with their default parameters; with a
    ``tracker`` the methods of the floor run on every split, and finished runs are set against their ceilings.
    """
    for scheme in schemes:
        check_scheme(scheme)
    samples = every_sample(store, task)
    labels = store.labels(task)[samples.session].astype(np.int64)
    classes = store.classes(task)
    keys = content_keys({"payload": View(store, samples, {"payload"}).payload(*PAYLOAD)})
    progress("ceilings")
    found: dict[str, Any] = {
        "dataset": store.name,
        "task": task,
        "store": store.digest,
        "seed": seed,
        "sessions": len(samples),
        "classes": composition(store, samples, labels, classes),
        "of_several_classes": several(store, samples, labels),
        "content": content(store, samples),
        "duplicates": {"packets": PAYLOAD[0], "bytes": PAYLOAD[1], **duplicates(keys, labels)},
        "ceilings": {name: ceiling_of(store, samples, labels, name, {}) for name in methods},
        "splits": {},
        "impossible": {},
    }
    for scheme in schemes:
        progress(f"split {scheme}")
        try:
            split = make_split(store, task, scheme, seed=seed)
        except InputError as error:
            found["impossible"][scheme] = str(error)
            continue
        found["splits"][scheme] = shared(store, split)
        if tracker is not None:
            found["splits"][scheme]["floor"] = floor(store, task, scheme, seed, tracker, progress)
            found["splits"][scheme]["gaps"] = gaps(store, split, tracker)
    return found


def every_sample(store: Store, task: str) -> Samples:
    """All sessions of a task, whole."""
    session = np.flatnonzero(store.labels(task) != NO_CLASS)
    if not len(session):
        raise InputError(f"{store.name}: task {task} has no session; look at what `bench prepare` says of its labels")
    return Samples(session, np.zeros_like(session), np.asarray(store.session("packets"), np.int64)[session])


def composition(store: Store, samples: Samples, labels: NDArray[np.int64], classes: list[str]) -> dict[str, Any]:
    """Sessions, conversations and capture groups of each class; ``few``: with too few groups to part by capture."""
    counts: dict[str, Any] = {}
    columns = {
        "conversations": np.asarray(store.session("conversation"))[samples.session],
        "captures": store.capture_group()[samples.session],
    }
    for number, name in enumerate(classes):
        mine = labels == number
        counts[name] = {"sessions": int(mine.sum())}
        counts[name] |= {kind: len(np.unique(values[mine])) for kind, values in columns.items()}
        counts[name]["few"] = counts[name]["captures"] < FEW_GROUPS
    return counts


def several(store: Store, samples: Samples, labels: NDArray[np.int64]) -> dict[str, int]:
    """How many conversations and capture groups have sessions of more than one class."""
    columns = {"conversations": np.asarray(store.session("conversation")), "captures": store.capture_group()}
    found = {}
    for kind, values in columns.items():
        pairs = np.unique(np.stack([values[samples.session].astype(np.int64), labels]), axis=1)
        found[kind] = int((np.unique(pairs[0], return_counts=True)[1] > 1).sum())
    return found


def content(store: Store, samples: Samples) -> dict[str, float]:
    """Share of sessions by what their first 64 payload bytes look like: our choice of rules.

    ``tls``: a TLS record; ``text``: nine tenths printable, so readable by anybody; ``empty``: no payload; ``other``.
    """
    stream = View(store, samples, {"payload"}).payload_stream(64)
    held = np.asarray(store.session("payload_bytes"))[samples.session]
    size = np.minimum(np.maximum(held, 1), 64)
    printable = ((stream >= 0x20) & (stream < 0x7F)) | np.isin(stream, (9, 10, 13))
    inside = np.arange(64) < size[:, None]
    text = (printable & inside).sum(axis=1) >= 0.9 * size
    tls = (stream[:, 0] >= 20) & (stream[:, 0] <= 23) & (stream[:, 1] == 3)
    kinds = {"empty": held == 0, "tls": tls, "text": text & ~tls}
    shares = {name: float((marks & ((held > 0) | (name == "empty"))).mean()) for name, marks in kinds.items()}
    return shares | {"other": max(0.0, 1 - sum(shares.values()))}


def content_keys(inputs: Inputs) -> NDArray[np.int64]:
    """Int64 ``[samples]``: equal where all arrays of two samples are."""
    numbers: dict[bytes, int] = {}
    return np.array([numbers.setdefault(digest, len(numbers)) for digest in _row_digests(inputs)], np.int64)


def _row_digests(inputs: Inputs) -> Iterator[bytes]:
    """SHA-256 of each sample's arrays."""
    arrays = [inputs[name] for name in sorted(inputs)]
    for row in range(len(arrays[0])):
        state = hashlib.sha256()
        for values in arrays:
            inside = values.values[slice(*values.offsets[row : row + 2])] if isinstance(values, Ragged) else values[row]
            state.update(len(np.atleast_1d(inside)).to_bytes(8, "little") + np.ascontiguousarray(inside).tobytes())
        yield state.digest()


def ceiling(keys: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    """The best accuracy of any rule that answers alike for equal keys: each group's most frequent class."""
    pairs, counts = np.unique(np.stack([keys, labels]), axis=1, return_counts=True)
    most = np.zeros(keys.max(initial=-1) + 1, np.int64)
    np.maximum.at(most, pairs[0], counts)
    return float(most.sum() / len(keys))


def duplicates(keys: NDArray[np.int64], labels: NDArray[np.int64]) -> dict[str, float]:
    """Shares of samples: those that equal another one, those that equal one of another class; and the ceiling."""
    _, group, size = np.unique(keys, return_inverse=True, return_counts=True)
    pairs = np.unique(np.stack([keys, labels]), axis=1)
    kinds = np.bincount(pairs[0], minlength=keys.max(initial=-1) + 1)
    return {
        "repeated": float((size[group] > 1).mean()),
        "of_several_classes": float((kinds[keys] > 1).mean()),
        "ceiling": ceiling(keys, labels),
    }


def ceiling_of(
    store: Store, samples: Samples, labels: NDArray[np.int64], method: str, values: Mapping[str, Any]
) -> float:
    """The ceiling of a method's representation of these samples."""
    kind = registry.load(method)
    made = kind(make_parameters(kind, values), classes=1)
    return ceiling(content_keys(made.represent(View(store, samples, kind.reads))), labels)


def shared(store: Store, split: Split) -> dict[str, Any]:
    """What training and test part share: groups, and equal payload under the same or another label."""
    summary = split.summary()
    samples = _joined(split.train, split.test)
    keys = content_keys({"payload": View(store, samples, {"payload"}).payload(*PAYLOAD)})
    labels = store.labels(split.task)[samples.session].astype(np.int64)
    border = len(split.train)
    same = np.isin(keys[border:] * len(summary["classes"]) + labels[border:],
                   keys[:border] * len(summary["classes"]) + labels[:border])  # fmt: skip
    told = {name: value for name, value in summary.items() if name.startswith(("shared_", "test_"))}
    return {
        "samples": summary["samples"],
        "proof": summary["proof"],
        **told,
        "test_equal_in_training": float(np.isin(keys[border:], keys[:border]).mean()),
        "test_equal_in_training_same_class": float(same.mean()),
    }


def _joined(one: Samples, two: Samples) -> Samples:
    arrays = ("session", "first", "count")
    joined: dict[str, Any] = {name: np.concatenate([getattr(one, name), getattr(two, name)]) for name in arrays}
    return dataclasses.replace(one, **joined)


def floor_methods() -> list[tuple[str, Mapping[str, Any]]]:
    """Methods of the floor with their parameters: as they are, and with one thing taken away (their presets)."""
    outlines = [registry.describe(name) for name in registry.names()]
    return [
        (outline.name, values)
        for outline in outlines
        if outline.family == "floor"
        for values in ({}, *(v for preset, v in outline.presets.items() if preset != "shared"))
    ]


def floor(
    store: Store, task: str, scheme: str, seed: int, tracker: Tracker, progress: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Scores of the methods of the floor; finished runs are not run again."""
    rows = []
    for method, values in floor_methods():
        progress(f"split {scheme}: {method} {' '.join(f'{k}={v}' for k, v in values.items())}")
        (spec,) = expand([method], [store], task=task, split=scheme, seeds=[seed], values=values)
        for outcome in run_matrix([spec], tracker):
            told = ("accuracy", "macro_f1", "macro_f1_low", "macro_f1_high", "abstentions")
            metrics = {name: outcome.metrics[name] for name in told if name in outcome.metrics}
            rows.append({"method": method, "parameters": dict(values), "status": outcome.status, **metrics})
    return rows


def gaps(store: Store, split: Split, tracker: Tracker) -> list[dict[str, Any]]:
    """Every finished run of this very split: its accuracy, and the ceiling of what it saw of the test part."""
    labels = store.labels(split.task)[split.test.session].astype(np.int64)
    wanted: dict[str, Any] = {"dataset": store.name, "task": split.task, "split": split.scheme, "seed": split.seed}
    rows = []
    for record in tracker.search(**wanted):
        spec = record.spec
        same = spec["store"] == store.digest and spec["fold"] is None and spec["max_per_class"] is None
        same &= all(spec.get(name, usual) == usual for name, usual in LATER.items())
        if record.status != "done" or not same:
            continue
        try:
            best = ceiling_of(store, split.test, labels, spec["method"], spec["parameters"])
        except InputError:  # a method of somebody's that is not here any more
            continue
        accuracy = record.metrics["accuracy"]
        row = {"method": spec["method"], "parameters": spec["parameters"], "accuracy": accuracy, "ceiling": best}
        rows.append(row | {"gap": best - accuracy})
    return rows


def audit_text(found: Mapping[str, Any]) -> str:
    """The findings for people."""
    lines = [f"{found['dataset']} · {found['task']} · {found['sessions']} sessions · seed {found['seed']}", ""]
    lines += _classes_text(found["classes"])
    shares = ", ".join(f"{name} {share:.1%}" for name, share in found["content"].items())
    same = found["duplicates"]
    lines += [f"of several classes: {', '.join(f'{n} {kind}' for kind, n in found['of_several_classes'].items())}"]
    lines += ["", f"first payload bytes: {shares}"]
    lines.append(
        f"equal payload ({same['packets']} packets x {same['bytes']} bytes): {same['repeated']:.1%} of sessions equal "
        f"another, {same['of_several_classes']:.1%} one of another class; accuracy from this alone at most "
        f"{same['ceiling']:.4f}"
    )
    lines += [f"ceiling of {name}: {value:.4f}" for name, value in found["ceilings"].items()]
    for scheme, split in found["splits"].items():
        lines += ["", *_split_text(scheme, split)]
    lines += [f"split {scheme}: {reason}" for scheme, reason in found["impossible"].items()]
    return "\n".join(lines)


def _classes_text(classes: Mapping[str, Any]) -> list[str]:
    few = [name for name, counts in classes.items() if counts["few"]]
    lines = [
        f"{name}: {c['sessions']} sessions, {c['conversations']} conversations, {c['captures']} capture groups"
        for name, c in classes.items()
    ]
    return lines + ([f"fewer than {FEW_GROUPS} capture groups: {', '.join(few)}"] if few else [])


def _split_text(scheme: str, split: Mapping[str, Any]) -> list[str]:
    tested = split["samples"]["test"]
    lines = [f"split {scheme}: {', '.join(f'{k} {v}' for k, v in split['samples'].items())}"]
    for name in (key for key in split if key.startswith("test_in_training")):
        share = split[name] / max(tested, 1)
        lines.append(f"  test samples whose {name.removeprefix('test_in_training_')} are in training: {share:.1%}")
    equal, alike = split["test_equal_in_training"], split["test_equal_in_training_same_class"]
    lines.append(f"  test samples whose payload is in training: {equal:.1%}, of the same class {alike:.1%}")
    for row in split.get("floor", []):
        what = " ".join([row["method"], *(f"{k}={v}" for k, v in row["parameters"].items())])
        score = "failed" if "macro_f1" not in row else (
            f"macro-F1 {row['macro_f1']:.3f} [{row.get('macro_f1_low', 0):.3f}, {row.get('macro_f1_high', 0):.3f}]"
        )  # fmt: skip
        lines.append(f"  {what}: {score}")
    for row in split.get("gaps", []):
        what = " ".join([row["method"], *(f"{k}={v}" for k, v in row["parameters"].items())])
        lines.append(f"  {what}: accuracy {row['accuracy']:.4f}, ceiling {row['ceiling']:.4f}, gap {row['gap']:.4f}")
    return lines
