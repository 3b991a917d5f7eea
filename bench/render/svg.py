"""Pictures as inline SVG and shaded cells; their colours are the style sheet's, so they follow light and dark."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.render.html import Html, el, joined, scrolled
from bench.scores.metrics import Reliability

SHADES: Final = 9  # of a confusion matrix's cells, s1 to s9 in the style sheet
POINTS: Final = 60  # of one curve
TICKS: Final = (0, 0.25, 0.5, 0.75, 1)
Curve = tuple[NDArray[np.int64], NDArray[np.float64]]  # steps and values


def dots(rows: Sequence[tuple[str, float, float, float]], title: str) -> Html:
    """Value, lower and upper end (all in 0 to 1) of each row as a dot on a line, beside or below its label.

    It is as wide as its place: labels are text of the page, of any length, and lines are measured in percent.
    """
    shown = []
    for label, *numbers in rows:
        value, low, high = (_percent(number) for number in numbers)
        drawn = (el("line", x1=low, x2=high, y1=10, y2=10, class_="range"), el("circle", cx=value, cy=10, r=4.5))
        told = f"{label}: {numbers[0]:.3f}, from {numbers[1]:.3f} to {numbers[2]:.3f}"
        shown.append(el("div", el("span", label), _strip(told, *drawn), role="listitem", class_="row"))
    ends: dict[float, str] = {0: "start", 1: "end"}  # where text in the middle would be cut off
    ticks = (
        el("text", f"{tick:g}", x=_percent(tick), y=14, text_anchor=ends.get(tick, "middle"), class_="tick")
        for tick in TICKS
    )
    axis = el("div", el("span"), _strip("from 0 to 1", *ticks), aria_hidden="true")
    return el("div", *shown, axis, class_="dots", role="list", aria_label=title)


def bars(rows: Sequence[tuple[str, Sequence[float], str]], title: str) -> Html:
    """Shares (of 0 to 1 in all) of each row end to end as a bar, between its label and its numbers in words."""
    shown = []
    for label, shares, told in rows:
        ends = np.cumsum([0.0, *shares])
        parts = (
            el("rect", x=_percent(start), width=_percent(share), y=3, height=14, class_=f"b{number}")
            for number, (start, share) in enumerate(zip(ends, shares, strict=False))
        )
        strip = _strip(f"{label}: {told}", *parts)
        shown.append(el("div", el("span", label), strip, el("span", told), role="listitem", class_="row"))
    return el("div", *shown, class_="bars", role="list", aria_label=title)


def key(names: Sequence[str]) -> Html:
    """What the colours of `bars` stand for, in their order."""
    texts = (joined(el("span", class_=f"key b{number}"), f" {name} ") for number, name in enumerate(names))
    return el("p", *texts, class_="muted")


def reliability(found: Reliability, name: str, title: str) -> Html:
    """Of each bin the share of answers that are right over their mean confidence; the larger, the more answers.

    An empty bin is not drawn.  On the diagonal answers are as sure as they are right.
    """
    left, top, side, count = 44, 10, 220, found.count
    confidence, right = found.sure / np.maximum(count, 1), found.right / np.maximum(count, 1)
    x, y = left + side * confidence, top + side * (1 - right)
    radius = 2.5 + 6 * np.sqrt(count / max(count.sum(), 1))
    there = np.flatnonzero(count)
    shown = [
        el("path", d=f"M{left} {top}V{top + side}H{left + side}", class_="grid"),
        el("line", x1=left, y1=top + side, x2=left + side, y2=top, class_="grid dashed"),
        el("polyline", points=" ".join(f"{x[bin]:.1f},{y[bin]:.1f}" for bin in there), class_="c0"),
        *(el("circle", cx=f"{x[bin]:.1f}", cy=f"{y[bin]:.1f}", r=f"{radius[bin]:.1f}") for bin in there),
        *(el("text", f"{tick:g}", x=left - 6, y=top + side * (1 - tick) + 4, text_anchor="end", class_="tick")
          for tick in (0.5, 1)),
        *(el("text", f"{tick:g}", x=left + side * tick, y=top + side + 16, text_anchor="middle", class_="tick")
          for tick in (0, 0.5, 1)),
        el("text", "confidence", x=left + side / 2, y=top + side + 32, text_anchor="middle", class_="tick"),
        el("text", "right", x=left - 6, y=top + side / 4, text_anchor="end", class_="tick"),
    ]  # fmt: skip
    told = "; ".join(f"of {count[bin]} answers with {confidence[bin]:.0%}, {right[bin]:.0%}" for bin in there)
    return _svg(left + side + 20, top + side + 40, name, title, told, *shown)


def lines(curves: Mapping[str, Curve], name: str, title: str, over: str, top: float | None = None) -> Html:
    """Curves ``over`` epochs or steps, each with a colour and a dash of its own.

    ``top`` is the axis's, by default the largest value.
    """
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
        el("text", over, x=left + width / 2, y=high + 24, text_anchor="middle", class_="tick"),
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
    return scrolled(
        title, el("table", el("caption", el("span", title)), el("thead", head), el("tbody", *body), class_="confusion")
    )


def _finite(steps: NDArray[np.int64], values: NDArray[np.float64]) -> Curve:
    """Without what is not a number, and thinned to `POINTS`, first and last among them."""
    rows = np.flatnonzero(np.isfinite(values))
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), POINTS)).astype(np.int64))]
    return steps[rows], values[rows]


def _percent(share: float) -> str:
    """A share, held within 0 to 1, as a length."""
    return f"{100 * min(max(share, 0.0), 1.0):.1f}%".replace(".0%", "%")


def _strip(told: str, *shapes: Html) -> Html:
    """One line of a chart, as wide as its place; what it shows is told to those who do not see it."""
    return el("svg", el("title", told), *shapes, width="100%", height=20, role="img")


def _svg(width: int, height: int, name: str, title: str, description: str, *shapes: Html) -> Html:
    """A picture with its title and description for those who do not see it."""
    labels = joined(el("title", title, id=f"{name}-title"), el("desc", description, id=f"{name}-desc"))
    box = {"viewBox": f"0 0 {width} {height}", "aria_labelledby": f"{name}-title {name}-desc"}
    return scrolled(title, el("svg", labels, *shapes, width=width, height=height, role="img", **box))
