"""What pages share: looks, the one short script, the policy that lets nothing else be fetched or run, sections."""

import base64
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count, groupby
from pathlib import Path
from typing import Final

from bench.analysis.tables import Row
from bench.render.html import Html, el
from bench.render.svg import dots
from bench.runs.run_labels import MARKS, MEANING

STYLE: Final = Path(__file__).with_name("style.css")
SCRIPT: Final = Path(__file__).with_name("script.js")  # sorts and filters; without it all is still there to read


def framed(title: str, *parts: Html | None) -> str:
    """A whole page of HTML; one of the parts is ``main`` with the id ``results``."""
    style, script = (path.read_text(encoding="utf-8") for path in (STYLE, SCRIPT))
    policy = (
        f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(script)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=policy),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", title),
        el("style", Html(style)),
    )
    skip = el("a", "Skip to the results", href="#results", class_="skip")
    body = el("body", skip, *parts, el("script", Html(script)))
    return f"<!DOCTYPE html>\n{el('html', head, body, lang='en')}\n"


def _digest(text: str) -> str:
    """What a content security policy knows a style sheet or a script in the page by."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


class Names:
    """Names for links: each says what it is and is unique in the page."""

    def __init__(self) -> None:
        self._numbers = count(1)

    def __call__(self, text: str) -> str:
        """A name for what has this text."""
        return f"{re.sub(r'[^a-z0-9]+', '-', text.lower()).strip('-')[:60] or 'part'}-{next(self._numbers)}"


def by_place(
    rows: Sequence[Row], name: Names, content: Callable[[Sequence[Row]], Iterable[Html]]
) -> Iterator[tuple[Html, Html]]:
    """Entry of the contents and section of each data set's task; ``content`` gives what is told of one split."""
    for (dataset, task), here in groupby(rows, lambda r: (r.head.spec.dataset, r.head.spec.task)):
        title, links, parts = f"{dataset} · {task}", [], []
        for split, alike in groupby(here, lambda r: r.split):
            place = name(f"{title} {split}")
            links.append(el("li", el("a", split, href=f"#{place}")))
            parts.append(el("section", el("h3", f"Split {split}", id=place), *content(list(alike))))
        place = name(title)
        entry = el("li", el("a", title, href=f"#{place}"), el("ul", *links))
        yield entry, el("section", el("h2", title, id=place), *parts)


def chart(rows: Sequence[tuple[str, Row]]) -> Html:
    """Macro-F1 of rows that have it, each with its label."""
    caption = "macro-F1: mean of the runs ± one standard deviation; of a single run its value and 95 % interval."
    points = [(label, *_ends(row.value("macro_f1"))) for label, row in rows]
    return el("figure", dots(points, "macro-F1"), el("figcaption", caption))


def _ends(value: Mapping[str, float]) -> tuple[float, float, float]:
    """Macro-F1 and the ends of its line."""
    middle, spread = value["macro_f1"], value.get("macro_f1_sd", 0.0)
    return middle, value.get("macro_f1_low", middle - spread), value.get("macro_f1_high", middle + spread)


def how_to_read() -> Html:
    """What numbers and marks of tables mean."""
    marks = {MARKS[key]: meaning for key, meaning in MEANING.items()}
    return el(
        "p",
        "Several runs: mean ± standard deviation over seeds and folds. One run: its value with a 95 % "
        "interval, by a jackknife over groups of sessions that belong together. Marks: "
        + "; ".join(f"{sign} {meaning}" for sign, meaning in marks.items())
        + ".",
    )
