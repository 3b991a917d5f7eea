"""Pages that are written from what the code and the cards declare: methods, and data sets."""

from collections.abc import Iterator
from typing import Any

from bench.data.cards import card_folder, card_names, describe_card, read_card
from bench.runs.registry import describe, names

FAMILIES = {
    "deep": "Neural networks on bytes, lengths or pictures",
    "graph": "Neural networks on graphs of packets",
    "features": "Features made by hand",
    "baseline": "Baselines",
}


def pages() -> dict[str, str]:
    """Path in the site and Markdown of every generated page."""
    methods = {f"methods/{name}.md": method_page(describe(name).to_dict()) for name in names()}
    return {"methods.md": methods_page(), "datasets.md": datasets_page()} | methods


def methods_page() -> str:
    """One table a family, each method with a link to its page."""
    known = [describe(name) for name in names()]
    lines = [
        "# Methods",
        "",
        "Written from the declarations in `methods/`. `bench methods NAME` prints the same.",
        "`forest-on:METHOD` is a random forest on exactly the input of a deep or graph method.",
        "It separates the method from its input.",
        "",
    ]
    for family, title in FAMILIES.items():
        lines += [f"## {title}", "", "| method | what | reads | published in |", "|---|---|---|---|"]
        lines += [
            f"| [{one.name}](methods/{one.name}.md) | {cell(one.title)} | {codes(sorted(one.reads))} "
            f"| {cell(one.reference)} |"
            for one in known
            if one.family == family
        ]
        lines.append("")
    return "\n".join(lines)


def method_page(method: dict[str, Any]) -> str:
    """Parameters with their sources, presets, and every known difference from the paper."""
    lines = [
        f"# {method['name']}",
        "",
        method["title"],
        "",
        f"- Published: {method['reference']}",
        f"- Family: {method['family']}; one answer a {method['unit']}",
        f"- Reads: {codes(method['reads']) or 'nothing of a packet'}",
        "",
        "## Parameters",
        "",
    ]
    if method["parameters"]:
        lines += ["| parameter | default | meaning | source | search space |", "|---|---|---|---|---|"]
        lines += [
            f"| `{one['name']}` | `{one['default']}` | {cell(one['help'])} | {cell(one['source'])} "
            f"| {space(one['search'])} |"
            for one in method["parameters"]
        ]
    else:
        lines.append("None.")
    lines += ["", "## Presets", ""]
    lines += [f"- `{name}`: {settings(values)}" for name, values in method["presets"].items()] or ["None."]
    lines += ["", "## Differences from the paper", ""]
    lines += [f"- {cell(one)}" for one in method["deviations"]] or ["None known, or nothing was published."]
    return "\n".join([*lines, ""])


def datasets_page() -> str:
    """A table of all cards, then each of them."""
    cards = {name: read_card(card_folder() / f"{name}.toml") for name in card_names()}
    lines = [
        "# Data sets",
        "",
        "Written from the cards in `datasets/`. `bench datasets NAME` prints the same.",
        "[Cards](cards.md) describes every field, [your own captures](own-captures.md) says how to get the files.",
        "",
        "| data set | what | tasks | licence |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| [{name}](#{name}) | {cell(card.title)} | {codes(card.tasks)} | {cell(card.licence) or '–'} |"
        for name, card in cards.items()
    ]
    for name, card in cards.items():
        lines += ["", f"## {name}", "", cell(card.title), "", *card_lines(describe_card(card))]
    return "\n".join([*lines, ""])


def card_lines(card: dict[str, Any]) -> Iterator[str]:
    """What a card says, as a list and a table of its tasks."""
    for field in ("citation", "licence", "home", "notes"):
        if card.get(field):
            yield f"- {field}: {cell(str(card[field]))}"
    yield from ("", "| task | label | notes |", "|---|---|---|")
    for name, task in card["tasks"].items():
        yield f"| `{name}` | `{task.get('label', 'label')}` | {cell(task.get('notes', ''))} |"


def cell(words: str) -> str:
    """Words on one line, safe within a table; a name in angle brackets stays text."""
    return " ".join(words.split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def codes(words: Any) -> str:
    """Names as code."""
    return ", ".join(f"`{word}`" for word in words)


def settings(values: dict[str, Any]) -> str:
    """The values of a preset."""
    return ", ".join(f"`{name}={value}`" for name, value in values.items()) or "the defaults"


def space(search: Any) -> str:
    """A search space: choices, or a range."""
    if not search:
        return "–"
    if isinstance(search, dict):
        return f"`{search['low']:g}` to `{search['high']:g}`" + (", log" if search.get("log") else "")
    return codes(search)
