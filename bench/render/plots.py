"""All pictures that matplotlib draws, SVG or PNG by the suffix, each from plain data: of papers, runs and rankings.

Read without colour: what differs, differs in marker, line or hatching, and the paper's own points are white circles.
Text is kept as text, the background is transparent, and in an SVG axes and text turn light where the page is dark.
The same data give the same bytes.  A title's first line is the heading; further lines say data set and scale.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from textwrap import wrap
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.errors import InputError
from bench.files import written
from bench.scores.metrics import Scores
from bench.scores.significance import LEVEL, critical_difference, nemenyi, ranks

Floats = NDArray[np.float64]
Series = tuple[NDArray[Any], Floats, Floats, Floats]  # steps, mean, low and high, each [points]

POINTS: Final = 400  # of a curve at most: more cannot be told apart at this width
INK: Final = "#1b1b1b"
LIGHT_INK: Final = "#e6e6e6"  # on a dark page
COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#8a6fd1")  # told apart by the colour-blind, on light and dark
LINES: Final = ("-", "--", "-.", ":")
MARKERS: Final = ("o", "s", "^", "D")
HATCHES: Final = ("", "//", r"\\", "--", "||", "xx", "++", "////")
PAPER: Final = {"linestyle": "none", "marker": "o", "markerfacecolor": "white", "color": "black", "label": "paper"}
STYLE: Final = {
    "svg.fonttype": "none",
    "svg.hashsalt": "bench",
    "hatch.linewidth": 0.5,
    "text.parse_math": False,  # a name may hold dollar signs
    **{key: INK for key in ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")},
}
THEME: Final = f"svg{{color:{INK}}}@media (prefers-color-scheme:dark){{svg{{color:{LIGHT_INK}}}}}"


def draw_grid(
    values: Mapping[tuple[int, int], tuple[float, float, float]],
    published: Mapping[tuple[int, int], float],
    path: Path,
    *,
    title: str,
    labels: tuple[str, ...],
) -> None:
    """Fig. 6: accuracy (mean, low, high; shares) by two parameters, such as packets and bytes, beside the paper's.

    A group of bars for every value of the first, a bar for every value of the second; a pair without a value has no
    bar.  ``labels`` are of the two parameters.
    """
    packets, sizes = (sorted({key[axis] for key in [*values, *published]}) for axis in (0, 1))
    with _picture(path, title, width=9.0) as (_, (axes,)):
        width = 0.85 / max(len(sizes), 1)
        place = {
            (n, m): group + (bar - (len(sizes) - 1) / 2) * width
            for group, n in enumerate(packets)
            for bar, m in enumerate(sizes)
        }
        for bar, m in enumerate(sizes):
            bars = [(place[n, m], *values[n, m]) for n in packets if (n, m) in values]
            if not bars:
                continue
            x, mean, low, high = np.array(bars).T
            shade = str(0.95 - 0.45 * bar / max(len(sizes) - 1, 1))
            look = {"color": shade, "edgecolor": "black", "hatch": HATCHES[bar % len(HATCHES)], "linewidth": 0.6}
            axes.bar(x, mean, width, label=f"{m} {labels[1]}", yerr=_bars(mean, low, high), ecolor=COLOURS[1], **look)
        if published:
            axes.plot(
                *zip(*((place[key], share) for key, share in published.items()), strict=True), markersize=4, **PAPER
            )
        axes.set_xticks(range(len(packets)), [str(n) for n in packets])
        axes.set(xlabel=labels[0], ylabel="accuracy (share)", ylim=(0, 1))
        _legend(axes, columns=5)


def draw_sweep(
    points: Sequence[tuple[float, float, float, float]],
    published: Sequence[tuple[float, float]],
    path: Path,
    *,
    title: str,
    labels: tuple[str, str],
) -> None:
    """Fig. 7: points (x, mean, low, high) with their bars, by x, beside the paper's (x, value); labels of x and y."""
    with _picture(path, title) as (_, (axes,)):
        if points:
            x, mean, low, high = np.array(sorted(points), np.float64).T
            look = {"color": COLOURS[0], "marker": "s", "markersize": 4, "capsize": 2, "linewidth": 1.2}
            axes.errorbar(x, mean, yerr=_bars(mean, low, high), label="measured", **look)
        if published:
            axes.plot(*zip(*published, strict=True), markersize=5, **PAPER)
        axes.set(xlabel=labels[0], ylabel=labels[1])
        _legend(axes)


def draw_series(series: Mapping[str, Series], path: Path, *, title: str, labels: tuple[str, str]) -> None:
    """Figs 9, 10 and 11: curves (steps, means, lows, highs, each ``[points]``) with the band between low and high.

    Of a long curve neighbouring points are joined (:func:`thinned`): means of means, the lowest low, the highest high.
    """
    with _picture(path, title) as (_, (axes,)):
        looks = zip(cycle(COLOURS), cycle(LINES), cycle(MARKERS), strict=False)
        for (name, curve), (colour, line, marker) in zip(series.items(), looks, strict=False):
            steps, mean, low, high = thinned(curve)
            axes.fill_between(steps, low, high, color=colour, alpha=0.25, linewidth=0)
            look = {"color": colour, "linestyle": line, "marker": marker, "markersize": 4, "linewidth": 1.3}
            axes.plot(steps, mean, label=name, markevery=max(1, len(steps) // 12), **look)
        axes.set(xlabel=labels[0], ylabel=labels[1])
        _legend(axes)


def thinned(curve: Series, most: int = POINTS) -> Series:
    """At most ``most`` points of a curve ``[points]``: each stands for as many neighbours, at the first one's step."""
    steps, mean, low, high = (np.asarray(values) for values in curve)
    if len(steps) <= most:
        return steps, mean, low, high
    starts = np.arange(0, len(steps), -(-len(steps) // most))
    sizes = np.diff(np.append(starts, len(steps)))
    return (
        steps[starts],
        np.add.reduceat(mean, starts) / sizes,
        np.minimum.reduceat(low, starts),
        np.maximum.reduceat(high, starts),
    )


def draw_attention(maps: Floats, queries: Sequence[int], path: Path, *, title: str, filled: int | None = None) -> None:
    """Fig. 8: attention ``maps [queries, rows, columns]`` (shares) of query packets over the grid of packets.

    A map a query (packets count from 0, row by row; the pictures count from 1), the query framed, enlarged
    bilinearly, one scale for all.  From packet ``filled`` on the cells are padding and say so.
    """
    columns = maps.shape[2]
    with _picture(path, title, width=3.0 * len(maps), height=3.6, panels=len(maps)) as (figure, panels):
        from matplotlib.patches import Rectangle

        top = float(maps.max(initial=0)) or 1.0
        for axes, shares, query in zip(panels, maps, queries, strict=True):
            picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=top, interpolation="bilinear")
            for packet, share in enumerate(shares.flat):
                row, column = divmod(packet, columns)
                empty = filled is not None and packet >= filled
                text = f"{packet + 1}\n{100 * share:.1f} %" + ("\npadding" if empty else "")
                axes.text(column, row, text, fontsize=6.5, **_readable(share / top))
            place = query % columns - 0.46, query // columns - 0.46
            axes.add_patch(Rectangle(place, 0.92, 0.92, fill=False, edgecolor="black", linewidth=2.5))
            axes.add_patch(Rectangle(place, 0.92, 0.92, fill=False, edgecolor="white", linewidth=1.0, linestyle="--"))
            axes.set(xlabel=f"query: packet {query + 1}", xticks=[], yticks=[])
        figure.colorbar(picture, ax=list(panels), label="attention (share)", shrink=0.8)


def draw_shares(
    shares: Floats,
    rows: Sequence[str],
    columns: Sequence[str],
    path: Path,
    *,
    title: str,
    published: Mapping[tuple[str, str], float] | None = None,
) -> None:
    """Figs 12 and 13: confusion ``shares [rows, columns]`` of the true class, in brackets the paper's."""
    printed = published or {}
    width, height = max(5.0, 0.8 * len(columns) + 2.5), max(4.0, 0.55 * len(rows) + 2.5)
    with _picture(path, title, width=width, height=height) as (figure, (axes,)):
        picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        axes.set_xticks(range(len(columns)), columns, rotation=90)
        axes.set_yticks(range(len(rows)), rows)
        axes.set(xlabel="predicted", ylabel="truth")
        for (row, true), (column, answer) in ((r, c) for r in enumerate(rows) for c in enumerate(columns)):
            share, of_paper = shares[row, column], printed.get((true, answer))
            if share >= 0.005 or of_paper is not None:
                text = f"{share:.2f}" + ("" if of_paper is None else f"\n({of_paper:.2f})")
                axes.text(column, row, text, fontsize=7, **_readable(share))
        named = "share of the class" + ("; in brackets the paper's" if printed else "")
        figure.colorbar(picture, ax=axes, label=named)


# --- of one run, and of many -------------------------------------------------------------------------------------


def draw_confusion(scores: Scores, path: Path) -> None:
    """The confusion matrix, rows (truth) as shares of the class; a last column for abstentions where there are any."""
    counts = np.array(scores.confusion)
    columns = [*scores.classes, "abstained"][: len(scores.classes) + (scores.abstentions > 0)]
    shares = counts[:, : len(columns)] / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = max(4.0, 0.4 * len(columns) + 2)
    figure, axes = _plain(side, side)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(columns)), columns, rotation=90)
    axes.set_yticks(range(len(scores.classes)), scores.classes)
    axes.set(xlabel="predicted", ylabel="truth", title=f"macro-F1 {scores.macro_f1:.3f}, {scores.sessions} sessions")
    for row, column in zip(*np.nonzero(counts[:, : len(columns)]), strict=True):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour, fontsize=7)
    save_figure(figure, path)


def draw_curves(epochs: Sequence[tuple[int, Mapping[str, float]]], path: Path) -> None:
    """Loss and scores by epoch, training and validation; nothing where there are no epochs."""
    names = {name for _, values in epochs for name in values}
    left, right = (sorted(n for n in names if n.endswith(kind)) for kind in ("loss", ("accuracy", "f1")))
    if not left + right:
        return
    figure, axes = _plain(6.0, 4.0)
    for axis, chosen, style in ((axes, left, "-"), (axes.twinx(), right, "--")):
        for name in chosen:
            points = [(epoch, values[name]) for epoch, values in epochs if name in values]
            axis.plot(*zip(*points, strict=True), style, marker=".", label=name.replace("_", " "))
        axis.set_ylabel("loss" if style == "-" else "score")
    axes.set(xlabel="epoch")
    figure.legend(loc="upper center", ncols=2, fontsize=8, bbox_to_anchor=(0.5, 1.08))
    save_figure(figure, path)


def draw_critical_difference(scores: Floats, labels: list[str], title: str, path: Path) -> None:
    """The critical-difference diagram of Demšar 2006, written as SVG or PNG by the suffix of ``path``.

    ``scores [blocks, methods]``; a bar joins methods whose mean ranks do not differ by Nemenyi's test.  ``labels``, one
    a method, are all different.
    """
    from matplotlib.transforms import ScaledTranslation
    from pandas import DataFrame
    from scikit_posthocs import critical_difference_diagram

    figure, axes = _plain(8.0, 1.6 + 0.14 * len(labels))
    places = ranks(scores).mean(axis=0)
    drawn = critical_difference_diagram(  # of numbers: bars go through sets, whose order for names is drawn anew
        dict(enumerate(places)),
        DataFrame(nemenyi(scores)),
        alpha=LEVEL,
        ax=axes,
        label_fmt_left="{label} left",
        label_fmt_right="{label} right",
        label_props={"fontsize": 8, "parse_math": False},
        elbow_props={"color": "0.25", "linewidth": 0.8},
    )
    for text in drawn["labels"]:
        number, side = text.get_text().split()
        words = [labels[int(number)], f"({places[int(number)]:.1f})"]
        text.set_text(" ".join(words if side == "left" else reversed(words)))
    distance = critical_difference(scores.shape[1], len(scores))
    above = axes.get_xaxis_transform() + ScaledTranslation(0, 24 / 72, figure.dpi_scale_trans)  # free of tick labels
    start = float(places.min())
    axes.plot([start, start + distance], [1, 1], color="black", linewidth=2, transform=above, clip_on=False)
    axes.text(start, 1, f"critical difference {distance:.2f}\n", fontsize=8, transform=above, va="center")
    how = "mean rank, 1 is the best; a bar joins what Nemenyi's test cannot tell apart"
    axes.set_title(f"{title}\n{how}", fontsize=9, pad=46, parse_math=False)
    save_figure(figure, path)


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure whole, cut to what it holds: the same figure, the same file."""
    import matplotlib

    stamp = {"Date": None} if path.suffix == ".svg" else {}
    with written(path) as aside, matplotlib.rc_context({"svg.hashsalt": "bench", "svg.fonttype": "none"}):
        figure.savefig(aside, dpi=120, bbox_inches="tight", metadata=stamp)


def _plain(width: float, height: float) -> tuple[Any, Any]:
    """A figure (inches) outside pyplot, so that nothing needs closing, and its axes."""
    from matplotlib.figure import Figure

    figure = Figure((width, height))
    return figure, figure.subplots()


@contextmanager
def _picture(
    path: Path, title: str, *, width: float = 6.5, height: float = 4.2, panels: int = 1
) -> Iterator[tuple[Any, NDArray[Any]]]:
    """A figure (inches) and its axes, side by side, under its title; written whole when the block ends."""
    if (form := path.suffix.removeprefix(".")) not in ("svg", "png"):
        raise InputError("bad-picture", f"{path}: a picture is .svg or .png; name it so")
    import matplotlib
    from matplotlib.figure import Figure

    head, *below = title.splitlines() or [""]
    letters = int(width * 13)
    with matplotlib.rc_context(STYLE):
        figure = Figure((width, height), layout="constrained")
        axes = figure.subplots(1, panels, squeeze=False)[0]
        yield figure, axes
        lines = [*wrap(head, letters), *(part for line in below for part in wrap(line, letters))]
        figure.suptitle("\n".join(lines), fontsize=10)
        read = {"Title": " ".join(title.split()), "Date": None, "Creator": None}
        stamp = read if form == "svg" else {"Software": None}
        file = io.BytesIO()
        figure.savefig(file, format=form, dpi=120, transparent=True, metadata=stamp)
    with written(path) as aside:
        aside.write_bytes(_themed(file.getvalue()) if form == "svg" else file.getvalue())


def _themed(content: bytes) -> bytes:
    """An SVG whose ink follows the page."""
    text = content.decode().replace(INK, "currentColor")
    return text.replace('<style type="text/css">', f'<style type="text/css">{THEME}', 1).encode()


def _bars(mean: Floats, low: Floats, high: Floats) -> Floats:
    """What error bars reach below and above: ``[2, points]``, never negative."""
    return np.stack([mean - low, high - mean]).clip(min=0)


def _readable(share: float) -> dict[str, Any]:
    """How text stands in a cell that is so dark."""
    return {"ha": "center", "va": "center", "color": "white" if share > 0.6 else "black"}


def _legend(axes: Any, columns: int = 2) -> None:
    """Below the axes, where it hides nothing; none without names."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16), "ncols": columns}
        axes.legend(handles, labels, fontsize=8, frameon=False, **place)
