"""Pictures as inline SVG and shaded cells; their colours are the style sheet's, so they follow light and dark."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.render.html import Html, el, joined, scrolled

SHADES: Final = 9  # of a confusion matrix's cells, s1 to s9 in the style sheet
POINTS: Final = 60  # of one curve
Curve = tuple[NDArray[np.int64], NDArray[np.float64]]  # steps and values


def dots(rows: Sequence[tuple[str, float, float, float]], name: str, title: str, description: str) -> Html:
    """Value, lower and upper end (all in 0 to 1) of each row as a dot on a line; ``name`` is unique in the page."""
    left, width, line = 350, 400, 24
    height = line * len(rows) + 30
    grid = [
        el("line", x1=left + width * tick, x2=left + width * tick, y1=4, y2=height - 26, class_="grid")
        for tick in (0, 0.25, 0.5, 0.75, 1)
    ]
    ticks = [
        el("text", f"{tick:g}", x=left + width * tick, y=height - 8, text_anchor="middle", class_="tick")
        for tick in (0, 0.25, 0.5, 0.75, 1)
    ]
    marks = []
    for number, (label, *numbers) in enumerate(rows):
        value, low, high = (round(left + width * min(max(x, 0.0), 1.0), 1) for x in numbers)
        y = line * number + line // 2 + 4
        marks += [
            el("text", label, x=left - 12, y=y + 4, text_anchor="end"),
            el("line", x1=low, x2=high, y1=y, y2=y, class_="range"),
            el("circle", cx=value, cy=y, r=4.5, class_="dot"),
        ]
    return _svg(left + width + 20, height, name, title, description, *grid, *marks, *ticks)


def lines(curves: Mapping[str, Curve], name: str, title: str, top: float | None = None) -> Html:
    """Curves over epochs, each with a colour and a dash of its own; ``top`` of the axis, their maximum by default."""
    left, width, high = 52, 380, 150
    curves = {label: _finite(*curve) for label, curve in curves.items()}
    curves = {label: curve for label, curve in curves.items() if len(curve[0])}
    every = [np.concatenate(parts) for parts in zip(*curves.values(), strict=True)] or [np.zeros(1), np.zeros(1)]
    first, last, top = float(every[0].min()), float(every[0].max()), top or max(float(every[1].max()), 1e-9)
    shown: list[Html] = [
        el("line", x1=left, x2=left + width, y1=high + 8, y2=high + 8, class_="grid"),
        el("line", x1=left, x2=left, y1=8, y2=high + 8, class_="grid"),
        *(el("text", t, x=left - 6, y=y, text_anchor="end", class_="tick")
          for t, y in ((f"{top:.3g}", 14), ("0", high + 12))),
        *(el("text", f"{t:g}", x=x, y=high + 24, text_anchor="middle", class_="tick")
          for t, x in ((first, left), (last, left + width)) if last > first),
        el("text", "epoch", x=left + width / 2, y=high + 24, text_anchor="middle", class_="tick"),
    ]  # fmt: skip
    ends = []
    for number, (label, (steps, values)) in enumerate(curves.items()):
        x = left + width * (steps - first) / max(last - first, 1)
        y = high + 8 - high * np.clip(values / top, 0, 1)
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
        row = high + 44 + 18 * number
        shown += [
            el("polyline", points=points, class_=f"c{number % 4}"),
            el("line", x1=left, x2=left + 28, y1=row - 4, y2=row - 4, class_=f"c{number % 4}"),
            el("text", label, x=left + 36, y=row),
        ]
        ends.append(f"{label} from {values[0]:.3g} to {values[-1]:.3g}")
    return _svg(left + width + 20, high + 40 + 18 * len(curves), name, title, "; ".join(ends), *shown)


def confusion(classes: Sequence[str], counts: Sequence[Sequence[int]], title: str) -> Html:
    """Counts ``[classes][classes + 1]``, rows truth, the last column abstentions (left out where there are none).

    A cell is shaded by its share of the row; one of 0 is empty.
    """
    table = np.asarray(counts)
    names = [*classes, "abstained"] if table[:, -1].any() else list(classes)
    shade = np.ceil(SHADES * table / np.maximum(table.sum(axis=1, keepdims=True), 1)).astype(int)
    body = [
        el(
            "tr",
            el("th", name, scope="row"),
            *(
                el("td", int(count) or "", class_=f"s{level}" if level else None)
                for count, level in zip(row, levels, strict=True)
            ),
        )
        for name, row, levels in zip(classes, table[:, : len(names)], shade[:, : len(names)], strict=True)
    ]
    head = el("tr", el("th", "truth \\ predicted", scope="col"), *(el("th", name, scope="col") for name in names))
    return scrolled(title, el("table", el("caption", title), el("thead", head), el("tbody", *body), class_="confusion"))


def _finite(steps: NDArray[np.int64], values: NDArray[np.float64]) -> Curve:
    """Without what is no number, and thinned to `POINTS`, first and last among them."""
    rows = np.flatnonzero(np.isfinite(values))
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), POINTS)).astype(np.int64))]
    return steps[rows], values[rows]


def _svg(width: int, height: int, name: str, title: str, description: str, *shapes: Html) -> Html:
    """A picture with its title and description for those who do not see it."""
    labels = joined(el("title", title, id=f"{name}-title"), el("desc", description, id=f"{name}-desc"))
    box = {"viewBox": f"0 0 {width} {height}", "aria_labelledby": f"{name}-title {name}-desc"}
    return scrolled(title, el("svg", labels, *shapes, width=width, height=height, role="img", **box))
