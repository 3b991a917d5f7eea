"""What one run found, and how its split divides the data: the parts of the page that are unfolded on demand."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from bench.errors import InputError
from bench.render.html import Html, el, facts, joined, table
from bench.render.svg import Curve, bars, confusion, key, lines, reliability
from bench.render.table import Table
from bench.scores.metrics import Scores
from bench.scores.metrics import reliability as binned
from bench.splits.assignment import PARTS
from bench.tracking.record import Record
from bench.tracking.results import RunResult, SplitSummary

CURVES: Final = (  # title, how their names end, top of the axis
    ("Loss", ("loss",), None),
    ("Scores", ("accuracy", "f1"), 1.0),
)
SHARED_WITH: Final = {  # what training may have of a test sample, the nearest first, and words for it
    "windows": "the sample itself",
    "overlapping_windows": "a window that overlaps it",
    "neighbours": "the window beside it",
    "sessions": "its session",
    "conversations": "its 5-tuple",
    "capture_groups": "its capture group",
    "quic_ids": "its QUIC connection, by ID",
    "quic_continued": "its QUIC connection, by what follows",
    "equal_payloads": "its twin under another 5-tuple",
}


def found(run: Record, result: RunResult, curves: Mapping[str, Curve], name: str) -> Html:
    """Confusion matrix, scores of each class, curves, calibration, timings, parameters and environment of a run.

    ``name`` is unique in the page.
    """
    scores = result.scores
    pictures = [*_curves(curves, name), *_calibration(run, scores, name)]
    return joined(
        confusion(scores.classes, scores.confusion, "Confusion matrix: test samples, rows are the truth"),
        el("div", el("div", table(_per_class(scores))), el("div", *pictures), class_="beside"),
        _deviations(result.deviations),
        el(
            "div",
            facts("Timings and sizes", _timings(result.metrics)),
            facts("Samples and what parts share", _samples(result.split)),
            facts("Parameters", result.parameters) if result.parameters else None,
            facts("Files that its parameters name", result.given) if result.given else None,
            facts("Environment", flat(result.environment)),
            class_="beside",
        ),
    )


def divided(split: SplitSummary) -> Html | None:
    """What training has of the test samples, and the parts of each class; None where a run did not keep them."""
    size, seen, classes = split.samples.get("test", 0), split.seen, split.classes
    if not (size and (seen or classes)):
        return None
    kinds = [kind for kind in (*SHARED_WITH, *sorted(set(seen) - set(SHARED_WITH))) if kind in seen]
    shared = [
        (SHARED_WITH.get(kind, kind.replace("_", " ")), [seen[kind] / size], f"{seen[kind]:,} of {size:,}")
        for kind in kinds
    ]
    largest = max((sum(parts.values()) for parts in classes.values()), default=0) or 1
    parted = [
        (name, [parts[part] / largest for part in PARTS], " · ".join(f"{parts[part]:,}" for part in PARTS))
        for name, parts in classes.items()
    ]
    return joined(
        *(
            (el("h4", "For how many test samples does training have …"), bars(shared, "What training shares"))
            if shared
            else ()
        ),
        *((el("h4", "Samples of each class"), key(PARTS), bars(parted, "Parts of each class")) if parted else ()),
    )


def flat(values: Mapping[str, Any]) -> dict[str, str]:
    """Without one level of nesting, and without what is not known."""
    packages = values.get("packages", {})
    return {k: str(v) for k, v in (dict(values) | packages).items() if k != "packages" and v is not None}


def _curves(curves: Mapping[str, Curve], name: str) -> Iterator[Html]:
    """Loss and scores over the epochs, or over the steps of a method that counts no epochs."""
    for title, ends, top in CURVES:
        for over in ("epoch", "step"):
            shown: dict[str, Curve] = {
                one.removeprefix(f"{over}/").replace("_", " "): curve
                for one, curve in curves.items()
                if one.startswith(f"{over}/") and one.endswith(ends) and len(curve[0])
            }
            if shown:
                yield lines(shown, f"{name}-{title.lower()}", f"{title} by {over}", over, top)
                break


def _calibration(run: Record, scores: Scores, name: str) -> Iterator[Html]:
    """How sure its answers are against how often they are right; nothing where it left none."""
    try:
        kept = run.predictions()
    except InputError as error:
        if error.code != "missing-artefact":
            yield el("p", "The run's answers are not readable; run it again with --rerun.")
        return
    answers = binned(kept.truth, kept.probabilities)
    if not answers.count.sum():
        return
    if not ((kept.probabilities > 0) & (kept.probabilities < 1)).any():  # as labels alone are kept
        yield el("p", "Each answer is one class, as if certain: it does not say how sure it is.")
        return
    title = f"Reliability: calibration error {scores.calibration_error:.3f}"
    yield el("p", el("strong", title))
    yield reliability(answers, f"{name}-reliability", title)


def _per_class(scores: Scores) -> Table:
    rows = [
        (name, *(f"{row[key]:.3f}" for key in ("precision", "recall", "f1")), f"{row['support']:.0f}")
        for name, row in scores.per_class.items()
    ]
    return Table("Per class", ("class", "precision", "recall", "F1", "test samples"), rows)


def _deviations(texts: Sequence[str]) -> Html | None:
    if not texts:
        return None
    return joined(el("p", el("strong", "Where it deviates from its paper")), el("ul", *(el("li", t) for t in texts)))


def _timings(metrics: Mapping[str, float]) -> dict[str, str]:
    """Seconds by stage, memory and sizes, of a run's metrics."""
    stages = ("split", "represent", "pretrain", "fit", "predict")
    timings = {f"seconds to {name}": f"{metrics[key]:.2f}" for name in stages
             if (key := f"seconds_{name}") in metrics}  # fmt: skip
    if "peak_memory_bytes" in metrics:
        timings["peak memory"] = f"{metrics['peak_memory_bytes'] / 1e6:,.0f} MB"
    plain = ("model_parameters", "pretraining_optimiser_steps", "training_samples", "abstentions")
    return timings | {name.replace("_", " "): f"{metrics[name]:,.0f}" for name in plain if name in metrics}


def _samples(split: SplitSummary) -> dict[str, str]:
    """Sizes of the parts and every count of what they share."""
    parts = {f"samples: {part}": size for part, size in split.samples.items()}
    parts |= {f"groups: {part}": size for part, size in split.groups.items()}
    shared = {key.replace("_", " "): value for key, value in split.shared.items()}
    return {name: f"{value:,}" for name, value in (parts | shared).items()}
