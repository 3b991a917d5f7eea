"""Markup that is escaped by construction: what is not `Html` already becomes text."""

import base64
from collections.abc import Mapping
from dataclasses import replace
from html import escape
from typing import Any, Final

from bench.render.table import Table, render

VOID: Final = ("img", "meta")  # elements without an end


class Html(str):
    """Markup.  Only `el`, `joined` and `scrolled` make it."""


def el(name: str, /, *children: object, **attributes: object) -> Html:
    """An element.  Children are `Html` or texts; attributes are written as Python allows (``class_``, ``aria_label``).

    An attribute of None is left out.
    """
    shown = "".join(
        f' {key.strip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{shown}>" + ("" if name in VOID else f"{joined(*children)}</{name}>"))


def joined(*children: object) -> Html:
    """Children one after the other; those of None are left out."""
    texts = (child if isinstance(child, Html) else escape(str(child)) for child in children if child is not None)
    return Html("".join(texts))


def scrolled(label: str, *children: object) -> Html:
    """A box that scrolls sideways by itself, also with the keyboard, so that the page never does."""
    return el("div", *children, class_="scroll", tabindex="0", role="region", aria_label=label)


def table(content: Table, label: str = "") -> Html:
    """A table in a box of its own, its notes below; or what it says where it is empty."""
    notes = el("ul", *(el("li", note) for note in content.notes), class_="notes") if content.notes else None
    if not content.rows:
        return joined(el("p", content.empty), notes)
    markup = Html(render(replace(content, notes=()), "html"))  # escaped there
    return joined(scrolled(label or content.title or "table", markup), notes)


def facts(title: str, values: Mapping[str, Any]) -> Html:
    """Names and values as a table of two columns."""
    return table(Table(title, ("name", "value"), [(name, str(value)) for name, value in values.items()]))


def picture(content: bytes, kind: str, alt: str) -> Html:
    """An image inside the page.  One of SVG can neither run a script nor fetch anything there."""
    return el("img", src=f"data:{kind};base64,{base64.b64encode(content).decode()}", alt=alt)
