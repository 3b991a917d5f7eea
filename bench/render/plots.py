"""Pictures of a run, written as PNG.  matplotlib is imported inside; its state is left alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.scores.metrics import Scores


def draw_confusion(scores: Scores, path: Path) -> None:
    """The confusion matrix, rows (truth) as shares of the class; a last column for abstentions where there are any."""
    counts = np.array(scores.confusion)
    columns = [*scores.classes, "abstained"][: len(scores.classes) + (scores.abstentions > 0)]
    shares = counts[:, : len(columns)] / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = max(4.0, 0.4 * len(columns) + 2)
    figure, axes = _figure(side, side)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(columns)), columns, rotation=90)
    axes.set_yticks(range(len(scores.classes)), scores.classes)
    axes.set(xlabel="predicted", ylabel="truth", title=f"macro-F1 {scores.macro_f1:.3f}, {scores.sessions} sessions")
    for row, column in zip(*np.nonzero(counts[:, : len(columns)]), strict=True):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour, fontsize=7)
    figure.savefig(path, dpi=120, bbox_inches="tight")


def draw_curves(epochs: Sequence[tuple[int, Mapping[str, float]]], path: Path) -> None:
    """Loss and scores by epoch, training and validation; nothing where there are no epochs."""
    names = {name for _, values in epochs for name in values}
    left, right = (sorted(n for n in names if n.endswith(kind)) for kind in ("loss", ("accuracy", "f1")))
    if not left + right:
        return
    figure, axes = _figure(6.0, 4.0)
    for axis, chosen, style in ((axes, left, "-"), (axes.twinx(), right, "--")):
        for name in chosen:
            points = [(epoch, values[name]) for epoch, values in epochs if name in values]
            axis.plot(*zip(*points, strict=True), style, marker=".", label=name.replace("_", " "))
        axis.set_ylabel("loss" if style == "-" else "score")
    axes.set(xlabel="epoch")
    figure.legend(loc="upper center", ncols=2, fontsize=8, bbox_to_anchor=(0.5, 1.08))
    figure.savefig(path, dpi=120, bbox_inches="tight")


def _figure(width: float, height: float) -> tuple[Any, Any]:
    """A figure outside pyplot, so that nothing needs closing; inches."""
    from matplotlib.figure import Figure

    figure = Figure((width, height))
    return figure, figure.subplots()
