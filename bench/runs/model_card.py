"""A saved model as its readers meet it: a model card, README.md in the format of Hugging Face's hub."""

import json
import shlex
from typing import Any, Final

from bench import __version__
from bench.runs.registry import describe
from bench.runs.run_labels import method_label, remarks
from bench.spec import command_lines
from bench.tracking.results import RunResult

CARD: Final = "README.md"
SCORES: Final = {"macro_f1": ("f1", "macro F1"), "accuracy": ("accuracy", "accuracy")}  # type on the hub, and name


def model_card(result: RunResult) -> str:
    """The text of a finished run's card: YAML that programs read, then what people must know before they use it."""
    spec, outline = result.spec, describe(result.spec.method)
    classes = result.scores.classes
    place = f"data set {spec.dataset}, task {spec.task}, split {spec.split.label}, {_part(result)}"
    scores = [f"- {name}: {result.metrics[key]:.4f}" for key, (_, name) in SCORES.items()]
    warnings = [f"- {line}" for line in (*remarks(spec, result.metrics), *result.deviations)]
    reference = [f"Paper: {outline.reference}", ""] if outline.reference else []
    limits = (
        "It answers with one of its classes for any traffic, also for traffic of none of them. Its scores are of the "
        "test part above; on traffic captured elsewhere expect lower ones."
    )
    load = f"bench classify new.pcap --run RUN --method {shlex.quote(spec.method)}"
    lines = [
        "---", _head(result), "---", "", f"# {method_label(spec)} on {spec.dataset}", "",
        outline.title, "", *reference,
        f"Trained and tested by etc-bench {__version__}: {place}.", "",
        "## Scores on the test part", "", *scores, "",
        f"## Classes ({len(classes)})", "", *(f"- {name}" for name in classes), "",
        "## Limits", "", limits, "", *([*warnings, ""] if warnings else []),
        "## Use", "", "```", load, "```", "", "To train it again:", "",
        "```", *command_lines(spec), "```",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _part(result: RunResult) -> str:
    seed, fold = result.spec.place
    return f"seed {seed}" + ("" if fold is None else f", fold {fold}")


def _head(result: RunResult) -> str:
    """The card's YAML; JSON is YAML too, a key a line."""
    spec = result.spec
    found = [
        {"type": kind, "name": name, "value": round(result.metrics[key], 6)} for key, (kind, name) in SCORES.items()
    ]
    measured = {
        "task": {"type": "other", "name": f"encrypted-traffic classification: {spec.task}"},
        "dataset": {"type": spec.dataset, "name": spec.dataset, "config": spec.task, "split": spec.split.label},
        "metrics": found,
    }
    content: dict[str, Any] = {
        "library_name": "etc-bench",
        "tags": ["encrypted-traffic-classification", "network-traffic"],
        "metrics": [kind for kind, _ in SCORES.values()],
        "model-index": [{"name": method_label(spec), "results": [measured]}],
    }
    return "\n".join(f"{name}: {json.dumps(value)}" for name, value in content.items())
