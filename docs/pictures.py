"""The drawings of README and docs: `python docs/pictures.py`; a test compares them with what is committed.

Charts are drawn from the tables in `results/`, so that no number stands here.  The pictures of protocols divide a toy
data set by each rule; what training and test share is computed from that division, and not written down.
"""

import html
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
BLUE, ORANGE, GREEN, PINK, GREY, RED = "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#8a8f98", "#c1121f"
INK, FAINT = "#1f2328", "#d8dee4"
Row = dict[str, str]
#: what a published method has to beat
YARDSTICKS = ("forest", "histgb", "knn", "logreg", "mlp-bytes", "first-bytes", "ports", "majority")


def text(x: float, y: float, words: str, anchor: str = "start", size: int = 13, colour: str = INK) -> str:
    """Words at a place."""
    look = f'text-anchor="{anchor}" font-size="{size}" fill="{colour}"'
    return f'<text x="{x:g}" y="{y:g}" {look}>{html.escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, colour: str = FAINT, width: float = 1) -> str:
    """A line."""
    return f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="{colour}" stroke-width="{width:g}"/>'


def box(x: float, y: float, width: float, height: float, colour: str, edge: str = "none") -> str:
    """A filled rectangle."""
    size = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"'
    return f'<rect {size} rx="2" fill="{colour}" stroke="{edge}" stroke-width="2"/>'


def picture(width: int, height: int, title: str, shapes: Sequence[str]) -> str:
    """A whole SVG file on white, readable in light and dark pages."""
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="system-ui, sans-serif" role="img">',
        f"<title>{html.escape(title)}</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        *shapes,
        "</svg>\n",
    ])  # fmt: skip


def table(name: str) -> list[Row]:
    """The rows of the first Markdown table of a file in `results/`."""
    lines = [row for row in (ROOT / "results" / name).read_text().splitlines() if row.startswith("|")]
    head, _, *rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in lines]
    return [dict(zip(head, row, strict=True)) for row in rows]


def spread(cell: str) -> tuple[float, float]:
    """Mean and deviation of ``0.803 ± 0.004``, in percent."""
    mean, deviation = (100 * float(part) for part in cell.split("±"))
    return mean, deviation


def interval(cell: str) -> tuple[float, float, float]:
    """Value and both ends of ``0.838 [0.814, 0.859]``."""
    value, low, high = (float(part) for part in cell.replace("[", " ").replace("]", " ").replace(",", " ").split())
    return value, low, high


def iscx_vpn() -> str:
    """Macro-F1 on ISCX-VPN under four protocols, one group of bars a protocol."""
    splits = {
        "paper, window=16, max_per_class=10000": "the paper's order *",
        "session, 5 folds": "by session",
        "capture, 5 folds": "by capture",
        "capture+session, 5 folds": "by capture and session",
    }
    methods = {"forest": GREEN, "knn": BLUE, "appscanner": ORANGE, "bind": PINK, "ports": GREY}
    cells = {
        (row["split"], row["method"].rstrip(" *‖")): spread(row["macro_f1"])
        for row in table("iscx-vpn-sequences.md")
        if row["runs"] != "0"
    }
    left, top, high, wide, bar = 46, 44, 250, 190, 32
    shapes = [
        text(
            left,
            20,
            "ISCX-VPN2016, twelve classes, by capture nine: macro-F1 in percent, mean and standard deviation",
            size=15,
        )
    ]
    for tick in range(0, 101, 20):
        y = top + high * (1 - tick / 100)
        shapes += [line(left, y, left + 4 * wide, y), text(left - 8, y + 4, str(tick), "end", 12)]
    for group, (split, words) in enumerate(splits.items()):
        start = left + group * wide + 14
        for number, (method, colour) in enumerate(methods.items()):
            mean, deviation = cells[split, method]
            x, y = start + number * bar, top + high * (1 - mean / 100)
            low, up = (top + high * (1 - max(end, 0) / 100) for end in (mean - deviation, mean + deviation))
            shapes += [
                box(x, y, bar - 6, high * mean / 100, colour),
                line(x + bar / 2 - 3, low, x + bar / 2 - 3, up, INK, 1.5),
                text(x + bar / 2 - 3, min(up, y) - 5, f"{mean:.1f}", "middle", 11),
            ]
        shapes.append(text(start + 2.5 * bar - 3, top + high + 20, words, "middle"))
    for number, (method, colour) in enumerate(methods.items()):
        x = left + 14 + number * 110
        shapes += [box(x, top + high + 36, 12, 12, colour), text(x + 18, top + high + 47, method)]
    shapes.append(text(left + 4 * wide, top + high + 47, "* leaky on purpose", "end", 12))
    return picture(left + 4 * wide + 16, top + high + 62, "Macro-F1 on ISCX-VPN2016 under four protocols", shapes)


def iot_sentinel() -> str:
    """Pooled macro-F1 of every ranked system, with its interval."""
    left, top, wide, step = 330, 44, 460, 20
    rows = table("etc-2026/iot-sentinel-tls-ranking.md")
    bottom = top + step * len(rows)
    shapes = [
        text(
            12,
            20,
            "IoT Sentinel, TLS sessions, by capture, published methods on one budget: macro-F1, 95 % interval",
            size=15,
        )
    ]
    for tick in range(0, 11, 2):
        x = left + wide * tick / 10
        shapes += [line(x, top - 8, x, bottom), text(x, bottom + 16, f"{tick / 10:g}", "middle", 12)]
    for number, row in enumerate(rows):
        value, low, high = (left + wide * one for one in interval(row["pooled [95 %]"]))
        y = top + step * number + 4
        colour = GREEN if row["method"].split()[0] in YARDSTICKS else BLUE
        shapes += [
            text(left - 12, y + 4, row["method"], "end"),
            line(low, y, high, y, colour, 3),
            f'<circle cx="{value:g}" cy="{y:g}" r="4.5" fill="{colour}"/>',
        ]
    for number, (words, colour) in enumerate((("yardstick", GREEN), ("published method", BLUE))):
        x = left + number * 110
        shapes += [box(x, bottom + 28, 12, 12, colour), text(x + 18, bottom + 39, words)]
    shapes.append(text(left + wide, bottom + 39, "† reduced scale", "end", 12))
    return picture(
        left + wide + 24,
        bottom + 54,
        f"Macro-F1 of {len(rows)} methods on IoT Sentinel, the published ones on one budget",
        shapes,
    )


def leaks() -> str:
    """What the paper's order is worth in points, and what other captures cost, for the forest."""
    left, top, wide, step = 250, 62, 260, 30
    rows = [row for row in table("leaks-in-points.md") if row["method"] == "forest (shared)"]
    bottom = top + step * len(rows)
    columns = {"leak [95 %]": ("leak: paper's order − session", ORANGE, -10, 30),
               "other captures [95 %]": ("other captures: session − capture", BLUE, -20, 80)}  # fmt: skip
    shapes = [text(12, 20, "Random forest on windows of 16 packets: points of macro-F1, 95 % interval", size=15)]
    for number, row in enumerate(rows):
        shapes.append(text(left - 16, top + step * number + 20, f"{row['data set']}, {row['N']} a class", "end"))
    for place, (column, (words, colour, first, last)) in enumerate(columns.items()):
        start = left + place * (wide + 40)
        shapes.append(text(start, 46, words, colour=colour))
        for tick in range(first, last + 1, 10 if last < 50 else 20):
            x = start + wide * (tick - first) / (last - first)
            shapes += [line(x, top, x, bottom), text(x, bottom + 16, f"{tick:+d}" if tick else "0", "middle", 12)]
        zero = start - wide * first / (last - first)
        shapes.append(line(zero, top, zero, bottom, INK))
        for number, row in enumerate(rows):
            y = top + step * number + 16
            if row[column] == "–":
                shapes.append(text(zero + 8, y + 4, "impossible: one capture a class", size=12, colour=GREY))
                continue
            value, low, high = (start + wide * (one - first) / (last - first) for one in interval(row[column]))
            shapes += [
                line(low, y, high, y, colour, 3),
                f'<circle cx="{value:g}" cy="{y:g}" r="4.5" fill="{colour}"/>',
            ]
    return picture(left + 2 * wide + 64, bottom + 30, "What a leak is worth", shapes)


#: a toy data set: four captures, the sessions in each named by their 5-tuple, five windows a session
CAPTURES, WINDOWS = ("AB", "CD", "AE", "FG"), 5
PARTS = {"training": BLUE, "validation": GREY, "test": ORANGE}
Place = tuple[int, str, int]  # capture, session, window
Rule = Callable[[Place], str]


def places() -> Iterator[Place]:
    """Every window."""
    for capture, sessions in enumerate(CAPTURES):
        for session in sessions:
            yield from ((capture, session, window) for window in range(WINDOWS))


def by_window() -> Rule:
    """Every window is drawn for itself, as in the paper."""
    drawn = random.Random(4)
    part = {place: drawn.choices(tuple(PARTS), (70, 10, 20))[0] for place in places()}
    return part.__getitem__


def by_session(place: Place) -> str:
    """A 5-tuple is in one part."""
    return {"B": "test", "C": "validation", "E": "test"}.get(place[1], "training")


def by_capture(place: Place) -> str:
    """A capture is in one part."""
    return ("training", "validation", "test", "training")[place[0]]


def by_both(place: Place) -> str:
    """Captures that share a 5-tuple are in one part."""
    return ("training", "validation", "training", "test")[place[0]]


def shared(rule: Rule, place: Place) -> set[str]:
    """What a test window has in common with a training window."""
    if rule(place) != "test":
        return set()
    trained = [other for other in places() if rule(other) == "training"]
    found = {
        "windows of one session": any(other[:2] == place[:2] for other in trained),
        "5-tuples": any(other[1] == place[1] for other in trained),
        "captures": any(other[0] == place[0] for other in trained),
    }
    return {name for name, there in found.items() if there}


def protocol(rule: Rule, title: str) -> str:
    """The toy data set divided by a rule, and what training and test share."""
    side, left, top, wide = 18, 16, 62, 174
    shapes = [text(left, 22, title, size=15)]
    for capture, sessions in enumerate(CAPTURES):
        x = left + capture * wide
        shapes += [
            box(x, top - 22, wide - 14, 92, "#f6f8fa", FAINT),
            text(x + 8, top - 6, f"capture {capture + 1}", size=12, colour=GREY),
        ]
        for lane, session in enumerate(sessions):
            shapes.append(text(x + 10, top + 20 + lane * 28, session))
            for window in range(WINDOWS):
                place = (capture, session, window)
                edge = RED if shared(rule, place) else "none"
                shapes.append(
                    box(x + 30 + window * (side + 6), top + 6 + lane * 28, side, side, PARTS[rule(place)], edge)
                )
    y = top + 92
    for number, (part, colour) in enumerate(PARTS.items()):
        shapes += [box(left + number * 92, y, 12, 12, colour), text(left + 17 + number * 92, y + 11, part)]
    found = {name for place in places() for name in shared(rule, place)}
    order = [name for name in ("windows of one session", "5-tuples", "captures") if name in found]
    words = f"training and test share: {', '.join(order)}" if order else "training and test share nothing"
    shapes.append(text(left + 4 * wide - 14, y + 11, words, "end", colour=RED if order else GREEN))
    return picture(left + 4 * wide + 4, y + 26, f"{title}: {words}", shapes)


def drawings() -> dict[str, str]:
    """Name of each file and its content."""
    return {
        "iscx-vpn.svg": iscx_vpn(),
        "iot-sentinel.svg": iot_sentinel(),
        "leaks.svg": leaks(),
        "protocol-paper.svg": protocol(by_window(), "The paper's order: windows are divided at random"),
        "protocol-session.svg": protocol(by_session, "--split session: a 5-tuple is in one part"),
        "protocol-capture.svg": protocol(by_capture, "--split capture: a capture is in one part"),
        "protocol-capture-session.svg": protocol(
            by_both, "--split capture+session: both, captures with a common 5-tuple are joined"
        ),
    }


def main(folder: Path) -> None:
    """Draw all of them."""
    for name, content in drawings().items():
        (folder / name).write_text(content)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGES)
