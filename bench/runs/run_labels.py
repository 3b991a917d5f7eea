"""What tells one run from another, in the shortest labels, and its marks: for tables, and for MLflow's page."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from bench.data.cards import card_names
from bench.data.store import Store
from bench.environment import CPU
from bench.errors import InputError, counted
from bench.runs.registry import Outline, describe, file_origin, is_file, is_shipped
from bench.scores.jackknife import FEWEST_GROUPS
from bench.scores.metrics import is_fitted
from bench.spec import FOREST_ON, RunSpec
from bench.tracking.record import ELSEWHERE, Record
from bench.training.budget import steps_an_epoch

MARKS: Final = {
    "leaky": "*",
    "reduced": "†",
    "reconstructed": "‡",
    "class-missing": "‖",
    "did-not-fit": "#",
    "not-converged": "○",
    "transductive": "◇",
    "elsewhere": "△",
}
MEANING: Final = {
    "leaky": "the split lets parts share sessions or captures on purpose",
    "reduced": "reduced scale",
    "reconstructed": "reconstructed where the paper is silent",
    "class-missing": "training or test lacks a class of the task; macro scores count it as 0",
    "did-not-fit": "did not fit its training samples: the score says little about the method",
    "not-converged": "its fit did not converge, as scikit-learn warned",
    "transductive": "answers depend on the whole test part, on purpose",
    "elsewhere": "answers of another program (bench score): nobody here saw what it learned from",
}
FEW_SIGN: Final = "§"
EARLIER_SIGN: Final = "¶"
INTERVAL_SIGNS: Final = {
    FEW_SIGN: f"do not trust the interval: a tested class has fewer than {FEWEST_GROUPS} groups",
    EARLIER_SIGN: "interval of an earlier version, a percentile bootstrap over groups: too narrow where a class has "
    "few; `bench run … --rerun` computes the current one",
}


def marks(record: Record) -> list[str]:
    """Keys of `MARKS` that hold for a run, in their order.

    What a method that is here declares holds of its runs from elsewhere, too, whatever these say.
    """
    outline = outline_of(record.spec.method)
    samples = record.metrics.get("training_samples")
    holds = {
        "leaky": record.leaky,
        "reduced": record.scale != "full" or bool(outline and reductions(outline, record.spec.parameters, samples)),
        "reconstructed": is_reconstructed(record.deviations) or bool(outline and is_reconstructed(outline.deviations)),
        "class-missing": bool(missing_classes(record.metrics)),
        "did-not-fit": did_not_fit(record.spec, record.metrics),
        "not-converged": bool(record.metrics.get("not_converged")),
        "transductive": record.transductive or bool(outline and outline.transductive),
        "elsewhere": is_elsewhere(record),
    }
    return [mark for mark in MARKS if holds[mark]]


def is_elsewhere(record: Record) -> bool:
    """Whether answers are another program's: of no method that is shipped, in a file, or of a package that it names."""
    named = is_file(record.spec.method) or is_shipped(record.spec.method) or " " in record.origin
    return record.origin == ELSEWHERE or not named


def reductions(outline: Outline, parameters: Mapping[str, Any], samples: float | None) -> list[str]:
    """In what parameters make a run smaller than a method's own are; ``samples`` are those of training, once known.

    A forest on what a method reads takes that method's parameters, and its training ones do nothing to it.
    """
    own, reduced = outline.defaults, list[str]()
    if outline.name.startswith(FOREST_ON):
        return reduced
    values = {**own, **parameters}
    epochs, steps, before = (values.get(name) for name in ("epochs", "steps", "pretraining_steps"))
    if before is not None and before < own["pretraining_steps"]:
        reduced.append(f"pretraining_steps={before}")
    if steps is None and epochs is not None and epochs < own["epochs"]:
        reduced.append(f"epochs={epochs}")
    elif samples is not None and {"epochs", "steps", "batch_size"} <= own.keys():
        asked = steps or values["epochs"] * steps_an_epoch(int(samples), values["batch_size"])
        usual = own["steps"] or own["epochs"] * steps_an_epoch(int(samples), values["batch_size"])
        reduced += [f"steps={asked} of {usual}"] if asked < usual else []
    if (small := outline.presets.get("small")) and small.items() <= parameters.items():
        reduced.append("preset small")
    return reduced


def missing_classes(metrics: Mapping[str, float]) -> list[str]:
    """Where a run's parts lack a class, in words: ``9 of 12 classes tested``; empty where nothing is recorded."""
    counts = [(int(metrics[f"classes_{part}"]), part) for part in ("trained", "tested") if f"classes_{part}" in metrics]
    return [
        f"{number} of {metrics['classes']:.0f} classes {part}" for number, part in counts if number < metrics["classes"]
    ]


def did_not_fit(spec: RunSpec, metrics: Mapping[str, float]) -> bool:
    """Whether a run's method did not learn what it was trained on; a shipped baseline need not."""
    if "training_majority" not in metrics or is_fitted(metrics["training_accuracy"], metrics["training_majority"]):
        return False
    return not is_baseline(spec.method)


SEEN_IN_TRAINING: Final = {  # metric, a share of the test samples -> what these are
    "test_in_training_captures": "come from captures that are also in training",
    "test_in_training_conversations": "have 5-tuples that are also in training",
    "test_in_training_quic_ids": "have a QUIC connection ID of another 5-tuple in training",
    "test_in_training_quic_continued": "may continue a QUIC connection in training",
    "test_in_training_equal_payloads": "have the payload of another 5-tuple in training",
    "test_identical_windows": "are windows that are also in training",
    "test_overlapping_windows": "are windows that overlap one in training",
    "test_other_windows_of_training_sessions": "are other windows of a training session",
}


def seen_in_training(runs: Iterable[Mapping[str, float]]) -> str:
    """The share of test samples that training has seen, by how, over runs of one split; empty where there are none."""
    known = list(runs)
    texts = []
    for metric, what in SEEN_IN_TRAINING.items():
        ends = sorted({f"{100 * metrics[metric]:.0f}" for metrics in known if metrics.get(metric)}, key=int)
        texts += [f"{' to '.join(dict.fromkeys((ends[0], ends[-1])))} % {what}"] if ends else []
    return f"of the test samples, {'; '.join(texts)}" if texts else ""


def left_out(runs: Iterable[Mapping[str, float]]) -> list[str]:
    """A line where classes of the task have no sample in a split at all, over runs of one split."""
    most = int(max((metrics.get("classes_left_out", 0) for metrics in runs), default=0))
    return [f"{most} class{'es' * (most > 1)} of the task left out: no sample in any part"] if most else []


def of_records(runs: Iterable[Mapping[str, float]]) -> list[str]:
    """A line where the data set is made of flow records, over runs of one split."""
    shares = [metrics["test_bounded_lengths"] for metrics in runs if "test_bounded_lengths" in metrics]
    if not shares:
        return []
    bounded = f"; lengths of {100 * max(shares):.0f} % of their packets are bounds" if max(shares) else ""
    return [f"made of flow records, which hold no bytes{bounded}; `bench prepare` says what else they do not show"]


def remarks(spec: RunSpec, metrics: Mapping[str, float]) -> list[str]:
    """What the scores of a run cannot be read without, a line each."""
    seen = seen_in_training([metrics])
    lines = [seen] if seen else []
    lines += left_out([metrics]) + of_records([metrics])
    lines += [f"{text}; macro scores count the others as 0" for text in missing_classes(metrics)]
    if cut := metrics.get("test_cut_packets"):
        lines.append(f"{100 * cut:.0f} % of the packets with payload are cut in the capture: their bytes end early")
    if metrics.get("not_converged"):
        lines.append("its fit did not converge, as scikit-learn warned; allow it more steps")
    if metrics.get("still_improving"):
        lines.append("its loss on validation was lowest in the last tenth of the steps: more steps may score higher")
    if did_not_fit(spec, metrics):
        lines.append(f"did not fit its training samples (accuracy {metrics['training_accuracy']:.2f} on them)")
    return lines


def is_baseline(method: str) -> bool:
    """Whether a method is a shipped one that any other has to beat, and need not fit; others cannot say so."""
    return is_shipped(method) and describe(method).family == "baseline"


def outline_of(method: str) -> Outline | None:
    """What a method of a stored run declares; None of one that is not here any more, and of any file.

    Whoever wrote the record chose that file's path: it is not even read (`bench.runs.models`).
    """
    if is_file(method):
        return None
    try:
        return describe(method)
    except InputError as error:
        if error.code != "unknown-method":
            raise
        return None


def origin_of(record: Record) -> str:
    """Where a run's method is from: package and version, or a file's digest.  Empty for shipped ones."""
    spec = record.spec
    if is_file(spec.method):
        return file_origin(spec.source)
    return "" if is_shipped(spec.method) else record.origin


def is_reconstructed(deviations: Iterable[str]) -> bool:
    """Whether a method that says so of itself had to be guessed in places."""
    return any(text.startswith("reconstructed") for text in deviations)


def signs(marks: Iterable[str]) -> str:
    """Signs of some of `MARKS`, each once, in their order."""
    holding = set(marks)
    return "".join(sign for mark, sign in MARKS.items() if mark in holding)


def marked(text: str, marks: Iterable[str]) -> str:
    """The text with the `signs`, where any holds, behind a space."""
    return f"{text} {signs(marks)}".rstrip()


def meanings(marks: Iterable[str]) -> list[str]:
    """What some of `MARKS` mean: a note each, once, in their order."""
    holding = set(marks)
    return [f"{MARKS[mark]} {meaning}" for mark, meaning in MEANING.items() if mark in holding]


def with_interval(value: float, low: float, high: float, form: str = ".3f", sign: str = "") -> str:
    """A number with its interval in brackets, all in one format (``+.1f``: a difference in percent), and its sign."""
    return f"{value:{form}} [{low:{form}}, {high:{form}}] {sign}".rstrip()


def interval_sign(groups: float | None) -> str:
    """The sign of `INTERVAL_SIGNS`, or none, of an interval over so many ``groups`` of the smallest tested class.

    None: a run of an earlier version, which did not record their number.
    """
    if groups is None:
        return EARLIER_SIGN
    return FEW_SIGN if groups < FEWEST_GROUPS else ""


def interval_meanings(signs: Iterable[str]) -> list[str]:
    """What signs of intervals mean: a note each, once, in the order of `INTERVAL_SIGNS`."""
    there = set(signs)
    return [f"{sign} {meaning}" for sign, meaning in INTERVAL_SIGNS.items() if sign in there]


def provenance(records: Iterable[Record]) -> list[str]:
    """Notes on what scores rest on: data sets that are not shipped, by their stores, methods that are not and whose
    runs do not say where they are from, runs that scored something else before, that may have ended too early, and that
    have no digests.
    """
    records = [record for record in records if record.status == "done"]
    stores: dict[str, set[str]] = {}
    for record in records:
        stores.setdefault(record.spec.dataset, set()).add(record.spec.store or "unknown")
    notes = store_notes(stores) + state_notes(records)
    foreign = dict.fromkeys(record.spec.method for record in records if not origin_of(record))
    notes += [
        f"method {name} is not a shipped one; its runs name no package" for name in foreign if not is_shipped(name)
    ]
    return [
        *notes,
        *again_notes(records),
        *improving_notes(records),
        *unverified_note(sum(not r.verifiable for r in records), len(records)),
    ]


def again_notes(records: Iterable[Record]) -> list[str]:
    """A note for each method of whose runs older ones are here that came to other scores."""
    apart: dict[str, list[float]] = {}
    for record in records:
        if record.before:
            apart.setdefault(record.spec.method, []).append(
                max(abs(record.metrics["macro_f1"] - other) for other in record.before)
            )
    return [
        f"{method}: {counted(len(most), 'run')} had another score when computed before, macro_f1 up to {max(most):.3f} "
        "apart; the newest counts (`bench results show` lists all)"
        for method, most in apart.items()
    ]


def improving_notes(records: Iterable[Record]) -> list[str]:
    """A note that counts, for each method, the runs whose steps may have ended too early; none where there are none."""
    counts: dict[str, list[bool]] = {}
    for record in records:
        counts.setdefault(method_label(record.spec), []).append(bool(record.metrics.get("still_improving")))
    told = [f"{label} {sum(runs)} of {counted(len(runs), 'run')}" for label, runs in counts.items() if any(runs)]
    what = "loss on validation lowest in the last tenth of the steps, so more steps may score higher"
    return [f"{what}: {', '.join(told)}"] if told else []


def store_notes(stores: Mapping[str, Iterable[str]]) -> list[str]:
    """A note for each data set that is not shipped, by name, with the digests of its stores."""
    shipped_ones = card_names()
    return [
        f"data set {name} is not a shipped one (store {', '.join(sorted(digest[:8] for digest in digests))})"
        for name, digests in stores.items()
        if name not in shipped_ones
    ]


def state_notes(records: Sequence[Record]) -> list[str]:
    """Notes on data sets that were prepared again between runs: which store is the current one, how others differ."""
    notes = []
    for dataset in dict.fromkeys(record.spec.dataset for record in records):
        states = {record.spec.store: record.state for record in records if record.spec.dataset == dataset}
        if len(states) > 1:
            notes += _prepared_anew(dataset, states)
    return notes


def _prepared_anew(dataset: str, states: Mapping[str, Mapping[str, str]]) -> list[str]:
    """The notes of one data set, of whose stores ``states`` has what their runs keep."""
    try:
        store = Store.find(dataset)
    except InputError:
        return [f"data set {dataset}: its runs belong to {len(states)} preparations, and none of them is here"]
    now, unused = store.manifest.state, "" if store.digest in states else " and has no runs here"
    lines = [f"data set {dataset} was prepared again: store={store.digest[:8]} is the current one{unused}"]
    for digest, was in states.items():
        differing = [name for name in now if was.get(name, now[name]) != now[name]]
        changes = ", ".join(f"{name} {was[name] or 'unknown'} (now {now[name]})" for name in differing)
        told = changes or ("other captures, as many of them" if was else "its runs do not say what it held")
        lines += [f"data set {dataset}, store={digest[:8]}: {told}"] if digest != store.digest else []
    return lines


def unverified_note(unverified: int, runs: int) -> list[str]:
    """A note on runs whose files nothing vouches for; none where there are none."""
    what = "files are unverified, made before runs recorded digests of them; --rerun makes them again"
    return [f"{unverified} of {runs} runs: {what}"] if unverified else []


def method_label(spec: RunSpec, *more: str) -> str:
    """The method with its settings and ``more``, of which empty ones are none."""
    words = [*settings_of(spec), *filter(None, more)]
    return spec.method + (f" ({', '.join(words)})" if words else "")


def settings_of(spec: RunSpec) -> list[str]:
    """What tells a run from one at a method's defaults: preset, parameters, samples a class, another device."""
    words = [f"tuned: {spec.tuned}"] if spec.tuned else parameter_labels(spec.method, spec.parameters)
    if spec.split.max_per_class and not spec.split.leaky:  # there it is the split's own
        words.append(f"max_per_class={spec.split.max_per_class}")
    return words if spec.device == CPU else [*words, f"{spec.device}, {spec.precision}"]


def parameter_labels(method: str, parameters: Mapping[str, Any]) -> list[str]:
    """The shortest labels of parameters that differ from the defaults: a preset and what differs from that."""
    outline = outline_of(method)
    if outline is None:
        return [f"{name}={value}" for name, value in sorted(parameters.items())]
    values = outline.defaults | dict(parameters)
    labels = []
    for preset, changes in {**outline.presets, "": {}}.items():  # of two that are as short, the preset
        start = outline.defaults | dict(changes)
        different = [f"{name}={value}" for name, value in sorted(values.items()) if start.get(name) != value]
        labels.append([preset, *different] if preset else different)
    return min(labels, key=len)
