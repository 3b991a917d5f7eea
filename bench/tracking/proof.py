"""Whether a run that comes from elsewhere is what it says: its record, its files, and the scores by its answers."""

import dataclasses
import math
import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from bench.errors import InputError
from bench.scores.jackknife import GroupJackknife
from bench.scores.metrics import MACRO, Scores, decide, evaluate, plain_name
from bench.tracking.database import DIGEST, Row
from bench.tracking.record import ELSEWHERE, ENDS, Record, record_of
from bench.tracking.results import Predictions, digests_of
from bench.tracking.writing import NOTE, TEXT, UID, Content, experiment_of, now

UIDS: Final = re.compile(r"[0-9a-zA-Z]{1,64}")
#: a package and its version, or a file
ORIGIN: Final = re.compile(r"[A-Za-z0-9][\w.-]* [\w.+!-]+|file ([0-9a-f]{8}|without a digest)")
TUNED: Final = re.compile(r"[1-9]\d* trials a fold(, from .*)?")  # `bench.tuning.nested`
COST: Final = re.compile(r"seconds.*|model_parameters|peak_memory_bytes|packets_read|.*_steps|.*samples.*")
AHEAD: Final = 24 * 3600 * 1000  # milliseconds that another machine's clock may be before ours
KEY: Final = 250  # characters of a tag's or parameter's name, MLflow's limit
LATEST: Final = 1 << 53  # of times and steps


def proved(content: Content, folder: Path) -> Record:
    """The record of a run's folder, of which everything that can be recomputed was.

    Raises :class:`InputError` where something does not follow from something else.
    """
    _check_form(content)
    row = Row("", content.name, ENDS[content.status], content.started, content.ended, "", dict(content.tags))
    row.metrics.update(latest_of(content.points))
    row.tags.setdefault("status", content.status)
    record = dataclasses.replace(record_of(row), folder=folder, run_id=content.uid)
    spec = record.spec
    if content.tags.get(DIGEST) != spec.digest or content.experiment != experiment_of(spec):
        raise _wrong("its digest or experiment is not that of its specification")
    fields = spec.to_dict()
    for name in ("method", "dataset", "task", "split", "seed"):
        if content.tags.get(name, str(fields[name])) != str(fields[name]):
            raise _wrong(f"its tag {name} is not what its specification says")
    if (spec.split.leaky and not record.leaky) or (spec.split.reduced and record.scale == "full"):
        raise _wrong("its tag leaky or scale hides what its specification says")
    _check_claims(record)
    check_files(record, folder)
    if (folder / "result.json").is_file():
        check_scores(record)
    return record


def _check_claims(record: Record) -> None:
    """That what it says of where it is from, of a search and of its cost can be so; the rest is its word."""
    spec, metrics = record.spec, record.metrics
    if record.origin not in ("", ELSEWHERE) and not ORIGIN.fullmatch(record.origin):
        raise _wrong(f"origin {record.origin!r:.40} is neither a package with its version nor {ELSEWHERE!r}")
    if not spec.method.isascii() and ".py" not in spec.method:
        raise _wrong(f"method {spec.method!r:.40} has other letters than a method's name has")
    searched = metrics.get("search_trials") or record.status != "done"
    if spec.tuned and not (TUNED.fullmatch(spec.tuned) and searched):
        raise _wrong(f"it says tuned: {spec.tuned!r:.40}, and nothing of a search")
    for name, value in metrics.items():
        if COST.fullmatch(name) and not 0 <= value < math.inf:
            raise _wrong(f"{name} is {value:.6g}, which nothing takes")


def _wrong(what: str) -> InputError:
    return InputError("bad-bundle", what)


def _check_form(content: Content) -> None:
    """That a store can take it: MLflow refuses the rest when half of it is written."""
    tags = content.tags
    if content.format != 1:
        raise _wrong(f"it is of format {content.format}, which this version does not know; take a newer one")
    if content.status not in ENDS or tags.get("status", content.status) != content.status:
        raise _wrong(f"status {content.status!r:.40} is none that a finished run has")
    if not UIDS.fullmatch(tags.get(UID, "")):
        raise _wrong(f"{UID} is {tags.get(UID, '')!r:.40}, which is not a run's name")
    if foreign := [name for name in tags if name.startswith("mlflow.") and name != NOTE]:
        raise _wrong(f"tag {foreign[0]!r:.60} is MLflow's own")
    times = [content.started, content.started if content.ended is None else content.ended]
    for point in content.points:
        name, value, *when = point if len(point) == 4 else (None, None)
        if not isinstance(name, str) or type(value) not in (int, float) or not _is_name(name):
            raise _wrong(f"point {point!r:.60} is not a name, number, time and step")
        times += when
    if not all(type(time) is int and 0 <= time < LATEST for time in times):
        raise _wrong("a time or step is not a number of milliseconds or steps")
    if not times[0] <= times[1] <= now() + AHEAD:
        raise _wrong("it ended before it began, or has not ended yet")
    texts = {**tags, **content.parameters, "name": content.name}
    if bad := [name for name, value in texts.items() if not _is_name(name) or len(value) > 2 * TEXT]:
        raise _wrong(f"{bad[0]!r:.60} is too long, or has signs that no store takes")


def _is_name(name: str) -> bool:
    return 0 < len(name) <= KEY and plain_name(name) == name


def latest_of(points: list[list[Any]]) -> dict[str, float]:
    """The newest value of every curve, as a store gives it: the largest of the last step's last time."""
    best: dict[str, tuple[Any, ...]] = {}
    for name, value, at, step in points:
        key = (step, at, -math.inf if math.isnan(value) else value)
        if name not in best or key > best[name][:3]:
            best[name] = (*key, float(value))
    return {name: found[3] for name, found in best.items()}


def check_files(record: Record, folder: Path, *, without: tuple[str, ...] = ("model/",)) -> None:
    """That a folder has the very files of the record, but those that may be missing: models.

    Raises :class:`InputError`.  Of a run without digests nothing can be said.
    """
    if strange := [name for name in record.files if not {"", ".", ".."}.isdisjoint(name.split("/"))]:
        raise record.damaged(f"{strange[0]} is not a file of a run")
    there = digests_of(folder)
    there.pop("run.json", None)
    for name, digest in there.items():
        if record.files and record.files.get(name) != digest:
            raise record.damaged(f"{name} is not what it wrote")
    for name in record.files:
        if name not in there and not name.startswith(without):
            raise record.damaged(f"{name} is gone")


def check_scores(record: Record) -> None:
    """That scores follow from answers, and the record's numbers from both.

    Raises :class:`InputError`.  Of a run that kept no answers the numbers are only held against each other.
    """
    result = record.result()
    if result.spec.digest != record.digest:
        raise _wrong("result.json is of another specification")
    if record.split not in ("", result.split.fields.get("digest")):
        raise _wrong("result.json is of another split than the record")
    _same(record.metrics, {plain_name(name): value for name, value in result.metrics.items()}, "the record")
    scores = result.scores
    if record.folder is not None and (record.folder / "predictions.npz").is_file():
        answers = record.predictions()
        scores = evaluate(answers.truth, answers.probabilities, answers.classes)
        if (scores.confusion, scores.classes) != (result.scores.confusion, result.scores.classes):
            raise _wrong("the confusion matrix of result.json does not follow from predictions.npz")
        _same(_in_full(result.scores), _in_full(scores), "result.json")
        _same(record.metrics, _intervals(answers, record.metrics), "the record")
    if lacking := [name for name in MACRO if name not in record.metrics]:
        raise _wrong(f"the record does not have {lacking[0]}")
    _check_counts(record.metrics, scores, result.split.classes)
    _check_ends(record.metrics)
    _same(
        record.metrics, {plain_name(name): value for name, value in _numbers(scores).items()}, "the record", known=True
    )


def _check_counts(metrics: Mapping[str, float], scores: Scores, classes: Mapping[str, Mapping[str, int]]) -> None:
    """That the record has what makes the mark of classes that a part lacks."""
    counted = {"classes_tested": (int(scores.tested["classes_tested"]), len(scores.classes))}
    if classes:  # runs of before did not keep them
        counted["classes_trained"] = sum(bool(counts["train"]) for counts in classes.values()), len(classes)
    for name, (number, most) in counted.items():
        if metrics.get(name, most) != number:
            raise _wrong(f"{name} is {metrics.get(name, most):.0f} in the record, and {number} by its files")


def _check_ends(metrics: Mapping[str, float]) -> None:
    """That no interval misses its score; those of runs of before cannot be computed again."""
    for name in MACRO:
        low, high = (metrics.get(f"{name}_{end}", metrics[name]) for end in ("low", "high"))
        if not (math.isnan(low) or math.isnan(high) or low - 1e-6 <= metrics[name] <= high + 1e-6):
            raise _wrong(f"{name} is {metrics[name]:.6g}, outside of its interval from {low:.6g} to {high:.6g}")


def _numbers(scores: Scores) -> dict[str, float]:
    """All that a store keeps of scores."""
    return scores.metrics() | scores.f1_by_class


def _in_full(scores: Scores) -> dict[str, float]:
    """All numbers of scores but the confusion matrix."""
    rows = scores.per_class.items()
    return scores.metrics() | {f"{what} of {name}": value for name, row in rows for what, value in row.items()}


def _intervals(answers: Predictions, metrics: Mapping[str, float]) -> dict[str, float]:
    """Ends of the intervals, where the run has those of today: runs of before have others."""
    if "interval_groups" not in metrics:
        return {}
    decided = decide(answers.probabilities)
    jackknife = GroupJackknife(answers.truth, [decided], answers.groups, classes=len(answers.classes))
    ends = {name: _ends(jackknife, name, metrics) for name in MACRO}
    found = {
        f"{name}_{end}": value for name, pair in ends.items() for end, value in zip(("low", "high"), pair, strict=True)
    }
    counts = jackknife.counts
    return found | {"interval_groups": float(counts.smallest), "interval_groups_total": float(counts.total)}


def _ends(jackknife: GroupJackknife, name: str, metrics: Mapping[str, float]) -> tuple[float, float]:
    """The interval of a metric, as the run says it where it may be so.

    Where answers do not vary, earlier versions had degrees of freedom of rounding, which were 1 or more.
    """
    estimate = jackknife.score(0, name)
    today = estimate.score_interval()
    if jackknife.varies(0, name) or math.isnan(estimate.freedom):
        return today
    widest, narrowest = (dataclasses.replace(estimate, freedom=number).score_interval() for number in (1.0, math.inf))
    said = metrics.get(f"{name}_low", today[0]), metrics.get(f"{name}_high", today[1])
    ordered = (widest[0], said[0], narrowest[0], narrowest[1], said[1], widest[1])
    return said if all(one <= other + 1e-9 for one, other in pairwise(ordered)) else today


def _same(said: Mapping[str, float], found: Mapping[str, float], where: str, *, known: bool = False) -> None:
    """Raises where a number is not what was found, or is not said at all (unless only what is ``known`` counts)."""
    for name, value in found.items():
        if name not in said:
            if known:
                continue
            raise _wrong(f"{where} does not have {name}")
        one = said[name]
        alike = (math.isnan(one) and math.isnan(value)) or math.isclose(one, value, rel_tol=1e-6, abs_tol=1e-9)
        if not alike:
            raise _wrong(f"{name} is {one:.6g} in {where}, and {value:.6g} by what the run answered")
