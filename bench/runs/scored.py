"""Predictions from elsewhere: what another program needs of a split, and how its answers become a run.

A sample has a name that begins with the start of its split's digest, so that answers for another split are seen.  Names
count the samples of a part in the order in which methods get them, which tells nothing of their classes.
"""

import csv
import ipaddress
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.data.store import Store
from bench.environment import environment
from bench.errors import LISTED, InputError, counted, instead, some
from bench.files import csv_rows, file_sha256, written
from bench.runs import registry
from bench.runs.attempt import scored_classes, scores_of
from bench.runs.execute import Outcome
from bench.runs.plan import split_digest
from bench.scores.metrics import CLOSE
from bench.spec import RunSpec, SplitSpec
from bench.splits.assignment import PARTS
from bench.splits.split import Split, make_split
from bench.tracking.record import ELSEWHERE, SPLIT, STATE, Record
from bench.tracking.results import Predictions, RunResult, SplitSummary
from bench.tracking.tracker import Tracker

KEYS: Final = ("sample", "part", "label", "capture", "protocol", "client_ip", "client_port", "server_ip",
               "server_port", "start_ns", "first_packet", "packets")  # fmt: skip
DIGITS: Final = 12  # hex digits of a split's digest in the name of a sample
NAME: Final = re.compile(r"[a-z][a-z0-9]*([-.][a-z0-9]+)*")


def sample_names(split: Split, part: str) -> list[str]:
    """The names of a part's samples, in the order in which methods get them."""
    return [f"{split.digest[:DIGITS]}-{part}-{number}" for number in range(len(split.parts[part]))]


def write_samples(path: Path, store: Store, split: Split, *, labels: bool = True) -> None:
    """Write the samples of a split as CSV, a row each, with the columns `KEYS`.

    ``first_packet`` counts the session's packets from 0 to where the sample begins, ``packets`` are the packets of the
    sample.  Without ``labels`` the test part's are empty.  Raises :class:`InputError` where the file cannot be written.
    """
    with written(path) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(KEYS)
        for part in PARTS:
            rows.writerows(_rows(store, split, part, labels or part != "test"))


def _rows(store: Store, split: Split, part: str, labels: bool) -> Iterator[list[Any]]:
    samples = split.parts[part].take(split.order(part))
    classes, number = store.classes(split.task), store.labels(split.task)
    paths = [capture.path for capture in store.manifest.captures]
    columns = {name: np.asarray(store.session(name))[samples.session]
               for name in ("capture", "protocol", "ip_version", "client_ip", "client_port", "server_ip",
                            "server_port", "start")}  # fmt: skip
    for row, name in enumerate(sample_names(split, part)):
        of = {key: column[row] for key, column in columns.items()}
        session = samples.session[row]
        yield [
            name,
            part,
            classes[number[session]] if labels else "",
            paths[of["capture"]],
            {6: "TCP", 17: "UDP"}.get(int(of["protocol"]), ""),  # of records that do not tell
            *([""] * 4 if "ports" in store.lacks else _ends(of)),
            of["start"],
            samples.first[row],
            samples.count[row],
        ]


def _ends(of: Mapping[str, Any]) -> list[Any]:
    """Address and port of client and server."""
    ends = ((bytes(of[f"{end}_ip"]), of[f"{end}_port"]) for end in ("client", "server"))
    return [cell for packed, port in ends for cell in (_address(packed, int(of["ip_version"])), port)]


def _address(packed: bytes, version: int) -> str:
    size = 4 if version == 4 else 16
    return str(ipaddress.ip_address(packed.ljust(size, b"\0")[:size]))


def write_predictions(path: Path, record: Record, store: Store, split: Split) -> None:
    """Write a run's answers as CSV: ``sample``, and a column a class; :func:`read_predictions` reads them to the bit.

    Raises :class:`InputError` where the run has none, or the file cannot be written.
    """
    known = record.predictions()
    order = split.order("test")
    with written(path) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["sample", *known.classes])
        for name, row in zip(sample_names(split, "test"), known.probabilities[order], strict=True):
            rows.writerow([name, *("" if np.isnan(value) else repr(float(value)) for value in row)])


def read_predictions(path: Path, split: Split, classes: Sequence[str]) -> NDArray[np.float32]:
    """Answers for the test part, in the split's order: float32 ``[samples, classes]``, NaN where there is none.

    The file has the column ``sample`` and either ``prediction``, a class, or a column of probabilities a class; an
    empty answer abstains.  Raises :class:`InputError` for a file of another split, for samples that are missing, there
    twice or of another part, and for what is not a class or a probability, with the row.
    """
    names = {name: number for number, name in enumerate(sample_names(split, "test"))}
    answers = np.full((len(names), len(classes)), np.nan, np.float32)
    seen = np.zeros(len(names), bool)
    for number, name, row in _read(path, classes):
        place = names.get(name)
        if place is None:
            raise _refused(path, number, _strange(name, split))
        if seen[place]:
            raise _refused(path, number, f"sample {name} is there twice; give one answer a sample")
        seen[place] = True
        answers[place] = _answer(path, number, row, classes)
    if not seen.all():
        first = next(name for name, place in names.items() if not seen[place])
        what = f"{counted(int((~seen).sum()), 'test sample')} of {len(names)} missing, first {first}"
        raise InputError("wrong-predictions", f"{path}: {what}; answer all, with an empty answer where there is none")
    in_order = np.empty_like(answers)
    in_order[split.order("test")] = answers
    return in_order


def _read(path: Path, classes: Sequence[str]) -> Iterator[tuple[int, str, dict[str, str]]]:
    """Line, sample and the other columns of each row, as far as the head is right.

    The first column ``sample`` has the names; a second one is of a class of that name.
    """
    rows = csv_rows(path)
    try:
        _, head = next(rows, (1, list[str]()))
        columns = [name if name in classes else name.strip() for name in head]
        _check_head(path, [name for name in columns if name], classes)
        for line, row in rows:
            if len(row) != len(columns):
                what = f"has {counted(len(row), 'column')}, the head has {len(columns)}; write the file again, whole"
                raise _refused(path, line, what)
            place = columns.index("sample")
            name, others = row.pop(place), columns[:place] + columns[place + 1 :]
            yield line, name, dict(zip(others, row, strict=True))
    except FileNotFoundError:
        raise InputError("missing-file", f"{path}: there is no such file; give a CSV of predictions") from None
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError("wrong-predictions", f"{path}: cannot be read as CSV in UTF-8: {reason}") from None


def _check_head(path: Path, head: Sequence[str], classes: Sequence[str]) -> None:
    others = [name for place, name in enumerate(head) if name != "sample" or "sample" in head[:place]]
    lacking = [name for name in classes if name not in others]
    if "sample" not in head or ("prediction" not in head and lacking):
        what = "needs the columns sample and prediction, or sample and one a class"
        cut = [f"{name!r:.40}" for name in head]
        raise InputError(
            "wrong-predictions", f"{path}: {what}: {some(classes, LISTED)}; it has {some(cut, LISTED) or 'none'}"
        )
    if "prediction" in head and "prediction" not in classes and any(name in others for name in classes):
        both = "has a column of predictions and of probabilities; give one of them"
        raise InputError("wrong-predictions", f"{path}: {both}")
    if len(set(others)) < len(others) or ("sample" in others and "sample" not in classes):
        raise InputError("wrong-predictions", f"{path}: a column is there twice; give each once")


def _strange(name: str, split: Split) -> str:
    """Why a name is none of the test part's."""
    digest, _, rest = name.partition("-")
    if digest != split.digest[:DIGITS]:
        return f"sample {name!r:.60} is not of this split ({split.digest[:DIGITS]}-…); answer what `bench split` wrote"
    if rest.partition("-")[0] in ("train", "validation"):
        return f"sample {name} is of the part {rest.partition('-')[0]}; answer the test part alone"
    return f"there is no sample {name!r:.60} in the test part; copy the names that `bench split` wrote"


def _answer(path: Path, number: int, row: dict[str, str], classes: Sequence[str]) -> NDArray[np.float32]:
    """One answer: probabilities where there is a column a class, else the class alone."""
    if all(name in row for name in classes):
        texts = [row[name].strip() for name in classes]
        if not any(texts):
            return np.full(len(classes), np.nan, np.float32)
        try:
            values = np.array(texts, np.float64)
        except ValueError:
            raise _refused(
                path, number, f"{texts!r:.80} are not probabilities; give numbers, or leave all empty"
            ) from None
        if (values < 0).any():
            raise _refused(path, number, f"{values.min():.4g} is negative; give probabilities")
        if not abs(values.sum() - 1) <= CLOSE:
            raise _refused(
                path, number, f"its numbers sum to {values.sum():.4g}; give probabilities of sum 1, with more digits"
            )
        return _rounded(values)
    label = row["prediction"]
    if label and label not in classes:
        raise _refused(path, number, f"prediction {label!r:.60} is not a class; {instead(label, classes)}")
    return np.array([name == label if label else np.nan for name in classes], np.float32)


def _rounded(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """In 32 bits; the class that leads still does where these cannot tell it from another one."""
    rounded, best = values.astype(np.float32), values.argmax()
    if rounded.argmax() != best:
        rounded[best] = np.nextafter(rounded.max(), np.float32(2))
    return rounded


def _refused(path: Path, number: int, what: str) -> InputError:
    return InputError("wrong-predictions", f"{path}: row {number}: {what}")


def check_name(name: str) -> None:
    """Raises :class:`InputError` for a name that no tool can have in tables."""
    if not NAME.fullmatch(name):
        raise InputError("bad-options", f"--name {name}: use small letters, digits, '-' and '.', as in my-tool-1.2")
    if name in registry.names():
        raise InputError("same-name", f"--name {name}: is the name of a method of bench; take another, as in my-{name}")


def score(predictions: Path, split_file: Path, store: Store, name: str, tracker: Tracker) -> Outcome:
    """Score answers from elsewhere for the test part of a saved split, and remember them as a run of ``name``.

    The same answers are scored once; others under the same name take the place of the earlier ones in tables.  Raises
    :class:`InputError` as :func:`read_predictions` does, and for a split of another store.
    """
    check_name(name)
    split = Split.load(split_file, store)
    if split.spec.scheme != "file" and split.digest != make_split(store, split.task, split.spec).digest:
        what = f"{split_file}: is not what split {split.spec.label} makes of this data set, in whose row it would stand"
        raise InputError("wrong-split-file", f"{what}; make it again, or set its scheme to file and drop digest")
    classes = scored_classes(split, store)
    answers = read_predictions(predictions, split, classes)
    spec, digest = _spec(name, split, split_file, store), file_sha256(predictions)
    known = tracker.finished(spec.digest)
    if known is not None and known.source == digest:
        return Outcome(spec, "cached", "the same file was scored before", known.run_id, known.metrics)
    if (holder := tracker.claims.take(spec.digest)) is not None:
        raise InputError("busy", f"{name} is being scored on this split by {holder}; start again when that is done")
    try:
        return _remembered(spec, split, store, tracker, (classes, answers), digest, known)
    finally:
        tracker.claims.let_go(spec.digest)


def _remembered(
    spec: RunSpec,
    split: Split,
    store: Store,
    tracker: Tracker,
    answered: tuple[list[str], NDArray[np.float32]],
    digest: str,
    known: Record | None,
) -> Outcome:
    """The run of these answers, by class and of the file with this digest."""
    classes, answers = answered
    truth = split.to_scored_classes(store.labels(split.task)[split.test.session])
    kept = Predictions(classes, split.test.session, split.test.first, truth, split.groups["test"], answers)
    scores, metrics = scores_of(kept, split)
    tags = {"origin": ELSEWHERE, "source": digest, "leaky": str(split.spec.leaky).lower(), "scale": _scale(spec)}
    tags |= {"family": "elsewhere", "row": f"{spec.method} · {spec.split.label}", SPLIT: split.digest}
    run = tracker.start(spec, f"{spec.method} · {spec.split.label}", tags | {STATE: json.dumps(store.manifest.state)})
    result = RunResult(
        spec=spec,
        metrics=metrics,
        scores=scores,
        parameters={},
        deviations=[],
        environment=environment("cpu"),
        split=SplitSummary.from_dict(split.summary()),
        ingest=store.manifest.options.unusual,
    )
    try:
        run.metrics(metrics | scores.f1_by_class)
        with run.artefacts() as folder:
            result.save(folder / "result.json")
            kept.save(folder / "predictions.npz")
    except BaseException:
        run.end("killed", "interrupted")
        raise
    run.end("done", "")
    reason = f"takes the place of run {known.run_id[:8]}, of another file" if known else ""
    return Outcome(spec, "done", reason, run.run_id, metrics)


def _spec(name: str, split: Split, file: Path, store: Store) -> RunSpec:
    asked = split.spec
    if asked.scheme == "file":
        asked = SplitSpec("file", file=str(file.absolute()), file_digest=split_digest(file))
    return RunSpec(method=name, dataset=store.name, task=split.task, split=asked, store=store.digest)


def _scale(spec: RunSpec) -> str:
    return f"max_per_class={spec.split.max_per_class}" if spec.split.reduced else "full"
