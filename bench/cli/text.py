"""What the command line prints for people: plain aligned text."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench.files import plain

if TYPE_CHECKING:
    from bench.data.manifest import Manifest
    from bench.runs.execute import Outcome


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Cells as aligned columns, one line a row."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def outline(value: Mapping[str, Any], indent: str = "") -> str:
    """Nested mappings and lists as indented lines; what is empty is left out."""
    lines = []
    for key, item in value.items():
        if isinstance(item, dict) and item:
            lines += [f"{indent}{key}:", outline(item, indent + "  ")]
        elif isinstance(item, list | tuple) and item:
            lines += _listing(f"{indent}{key}:", list(item), indent)
        elif item not in (None, "", [], {}, ()):
            lines.append(f"{indent}{key}: {item}")
    return "\n".join(lines)


def _listing(head: str, items: list[Any], indent: str) -> list[str]:
    """Short words behind the head, sentences and mappings on lines of their own."""
    texts = [", ".join(f"{k} {v}" for k, v in i.items()) if isinstance(i, dict) else str(i) for i in items]
    if isinstance(items[0], dict) or any(" " in text for text in texts):
        return [head, *(f"{indent}  - {text}" for text in texts)]
    return [f"{head} {', '.join(texts)}"]


def parameter_table(parameters: Sequence[dict[str, Any]]) -> str:
    """One line a parameter, with its search space as ``--param`` writes it."""
    rows = [("parameter", "type", "default", "search", "meaning (source)")]
    for p in parameters:
        search = p["search"] or ""
        if isinstance(search, dict):
            tail = ":log" if search["log"] else f":{search['step']}" if search["step"] else ""
            search = f"{search['low']}:{search['high']}{tail}"
        elif search:
            search = ",".join(map(str, search))
        rows.append((p["name"], p["type"], str(p["default"]), search, f"{p['help']} ({p['source']})"))
    return "\n" + columns(rows) if parameters else ""


def brief(manifest: "Manifest") -> dict[str, Any]:
    """A store's manifest for people: counts, and whatever is not as the card expects."""
    shown: dict[str, Any] = {"captures": len(manifest.captures)}
    shown |= {"sessions": manifest.sessions, "packets": manifest.packets, "switches": manifest.options.switches}
    shown["tasks"] = {
        name: f"{task.sessions} sessions in {len(task.classes)} classes" for name, task in manifest.tasks.items()
    }
    if manifest.files:
        shown["files"] = plain(manifest.files) | {"lacking": {one.task: one.classes for one in manifest.files.lacking}}
    names = ("labels", "unexpected", "skipped", "damaged", "copies", "unreadable", "ignored")
    return shown | {name: plain(getattr(manifest, name)) for name in names}


def without_classes(manifest: "Manifest") -> list[str]:
    """A line for each task some of whose listed classes have no session, and what they need."""
    lines = []
    for one in manifest.files.lacking if manifest.files else ():
        files, archives = one.files, ", ".join(one.archives)
        named = ", ".join(files[:3]) + (f" and {len(files) - 3} more" if len(files) > 3 else "")
        needs = [f"missing: {named}" + (f" ({archives})" if archives else "")] if files else []
        reason = "; ".join([*needs, *one.notes]) or "no capture of theirs has a session that the task uses"
        lines.append(f"{manifest.name}: task {one.task} lacks {', '.join(one.classes)}: {reason}")
    return lines


def shortcomings(manifest: "Manifest") -> str:
    """What of a store is not as it should be, counted; empty where all is well."""
    files = manifest.files
    counted = {
        "captures could not be read": len(manifest.unreadable),
        "captures are damaged": len(files.damage_unexpected if files else manifest.damaged),
        "counts are not those of the card": len(manifest.unexpected),
        "listed captures are missing": len(files.missing) if files else 0,
        "captures have other numbers of packets than listed": len(files.packets_differ) if files else 0,
    }
    return ", ".join(f"{number} {what}" for what, number in counted.items() if number)


def outcome_table(outcomes: "Sequence[Outcome]") -> str:
    """One line a run: what became of it, and its test scores with the 95 % interval of macro-F1; below, remarks."""
    from bench.runs.registry import origin
    from bench.runs.run_labels import interval_meanings, interval_sign, remarks

    signs: list[str] = []
    rows = [("run", "data set", "status", "accuracy", "macro F1", "95 % interval", "seconds", "id")]
    for outcome in outcomes:
        m, spec = outcome.metrics, outcome.spec
        scores = ("", "", "")
        if m:
            sign = interval_sign(m.get("interval_groups"))
            interval = f"{m['macro_f1_low']:.3f}-{m['macro_f1_high']:.3f} {sign}".rstrip()
            signs.append(sign)
            scores = (f"{m['accuracy']:.4f}", f"{m['macro_f1']:.4f}", interval)
        asked = [f"{name}={value}" for name, value in spec.parameters.items()]
        limit = f"max_per_class={spec.split.max_per_class}"
        asked += [limit] if spec.split.max_per_class and limit not in spec.name else []  # under paper it is in the name
        asked += [origin(spec.method)] if spec.source else []  # of a method that is not shipped
        run_id = (outcome.run_id or "")[:8]
        name = spec.name + (f" ({', '.join(asked)})" if asked else "")
        rows.append(
            (
                name,
                f"{spec.dataset}/{spec.task}",
                outcome.status,
                *scores,
                f"{m.get('seconds', outcome.seconds):.1f}",
                run_id,
            )
        )
    told: dict[str, list[str]] = {}
    for outcome in outcomes:
        reason = [f"{outcome.status}: {outcome.reason}"] if outcome.reason else []
        for line in (*reason, *remarks(outcome.spec, outcome.metrics)):
            told.setdefault(line, []).append(outcome.spec.name)
    return "\n".join([columns(rows), *(_said_of(*one) for one in told.items()), *interval_meanings(signs)])


def _said_of(line: str, names: Sequence[str]) -> str:
    """A line with the first of the runs that it holds for, and how many more there are."""
    return f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {line}"
