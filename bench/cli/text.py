"""What the command line prints for people: plain aligned text."""

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from bench.errors import counted, some
from bench.files import plain
from bench.render.table import Table, one_line, render, shortened

if TYPE_CHECKING:
    from bench.data.cards import Card
    from bench.data.manifest import Manifest
    from bench.runs.execute import Outcome
    from bench.runs.plan import Plan
    from bench.tracking.record import Record

LOUD: Final = 5  # lines of a kind before the rest is counted
EMPTY: Final[tuple[Any, ...]] = (None, "", [], {}, ())  # what an outline leaves out
MANY: Final = 20  # mappings of a list that are still shown whole


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Cells as aligned columns, one line a row; long names are `shortened`."""
    cells = shortened([[one_line(cell) for cell in row] for row in rows])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in cells)


def outline(value: Mapping[str, Any], indent: str = "") -> str:
    """Nested mappings and lists as indented lines; what is empty is left out."""
    lines: list[str] = []
    for key, item in ((one_line(str(key)), item) for key, item in value.items()):
        if isinstance(item, dict) and item:
            lines += filter(None, [f"{indent}{key}:", outline(item, indent + "  ")])
        elif isinstance(item, list | tuple) and item:
            lines += _listing(f"{indent}{key}:", list(item), indent)
        elif item not in EMPTY:
            lines.append(f"{indent}{key}: {one_line(str(item).replace(chr(10), ' '))}")  # a note of several lines
    return "\n".join(lines)


def _listing(head: str, items: list[Any], indent: str) -> list[str]:
    """Short words behind the head, sentences and mappings on lines of their own; of many mappings the first ones."""
    more = len(items) - LOUD if isinstance(items[0], dict) and len(items) > MANY else 0
    items = items[: len(items) - more]
    texts = [
        ", ".join(f"{k} {v}" for k, v in i.items() if v not in EMPTY) if isinstance(i, dict) else str(i) for i in items
    ]
    texts = [one_line(text) for text in texts] + ([f"{more} more; --json lists all"] if more else [])
    if isinstance(items[0], dict) or any(" " in text for text in texts):
        return [head, *(f"{indent}  - {text}" for text in texts)]
    return [f"{head} {', '.join(texts)}"]


def split_text(summary: Mapping[str, Any]) -> str:
    """What `bench.splits.split.Split.summary` tells: what is missing, the classes by parts, and all the rest."""
    parts, rest = list(summary["samples"]), dict(summary)
    lacking: dict[str, list[str]] = {}
    for one in rest.pop("shortfalls"):
        lacking.setdefault(one["part"], []).append(one["class"])
    lines = [f"WARNING: no sample of {some(classes, LOUD)} in {part}" for part, classes in lacking.items()]
    rows = [[name, *(str(counts[part]) for part in parts)] for name, counts in rest.pop("classes").items()]
    rows += [[f"all {name}", *(str(counts[part]) for part in parts)]
             for name in ("samples", "sessions", "groups") for counts in [rest.pop(name)]]  # fmt: skip
    rest.pop("remarks")  # are told
    head = ["class", *parts]
    return "\n".join([*map(one_line, lines), render(Table("", head, rows)), outline(rest)])


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


def study_text(study: Mapping[str, Any]) -> str:
    """A study's default and best parameters, and the command that runs these."""
    score, default, best = study["objective"].replace("_f1", "-F1"), study["default"], study["best"]
    repeated = sum(trial["same_as"] is not None for trial in study["trials"])
    more = f", {repeated} of them at known points" if repeated else ""
    lines = [f"study {study['study']}: {len(study['trials'])} trials{more}"]
    if study["known"] == study["points"]:
        lines.append(f"all {study['points']} points of the space are known")
    against = "" if study["difference"] is None else f", {study['difference']:+.4f} against the default"
    if default:
        where = "outside of the space" if default["trial"] is None else f"trial {default['trial']}"
        lines.append(f"default {score} {default['value']:.4f} ({where})")
    else:
        lines.append("the default parameters have no score in this study; a further trial gives them one")
    if best and default and best["trial"] == default["trial"]:
        against = ", the default itself"
    if study["equal"] is not None:
        lines.append(f"all trials have {score} {study['equal']:.4f}{against}: none is the best")
    if best:
        lines.append(
            f"best {score} {best['value']:.4f} (trial {best['trial']}){against}\n{outline(best['parameters'])}"
        )
        lines.append(study["command"])
    return "\n".join(lines)


def brief(manifest: "Manifest") -> dict[str, Any]:
    """A store's manifest for people: counts, and whatever is not as the card expects."""
    shown: dict[str, Any] = {"captures": len(manifest.captures)}
    shown |= {"sessions": manifest.sessions, "packets": manifest.packets, "switches": manifest.options.switches}
    shown["tasks"] = {
        name: f"{task.sessions} sessions in {len(task.classes)} class{'' if len(task.classes) == 1 else 'es'}"
        + unused(manifest, name, "; ")
        for name, task in manifest.tasks.items()
    }
    if manifest.files:
        shown["files"] = plain(manifest.files) | {"lacking": {one.task: one.classes for one in manifest.files.lacking}}
    shown |= manifest.options.unusual | ({"join_records": manifest.options.join_records} if manifest.tables else {})
    shown |= {"tables": plain(manifest.tables)} if manifest.tables else {}
    told = ("lacks", "limits", "idle", "contradictions")
    shown |= {name: plain(value) for name in told if (value := getattr(manifest, name))}
    names = ("labels", "unexpected", "skipped", "damaged", "copies", "unreadable", "empty_classes", "empty", "ignored")
    return shown | {name: plain(getattr(manifest, name)) for name in names}


def unused(manifest: "Manifest", task: str, before: str = "") -> str:
    """How many sessions a task does not use, and what that can be for; empty where it uses all."""
    entry = manifest.tasks[task]
    left = manifest.sessions - entry.sessions
    if not left:
        return ""
    of = f"{left:,} of {manifest.sessions:,} sessions are not used"
    few = "".join(f"; {name} is left out, in {counted(number, 'capture')}" for name, number in entry.dropped.items())
    return f"{before}{of} (no label, a label that the task leaves out, or no payload where it asks for some){few}"


def captures_table(seen: Sequence[Mapping[str, Any]]) -> Table:
    """Captures that were inspected, a row each and their sum below."""
    from bench.ingest.inspection import TABLED, remarks_of

    records = [
        {"capture": one["capture"], "link types": some(one.get("link_types", []), LOUD)}
        | {name.replace("_", " "): one.get(name) for name in TABLED}
        | {"remarks": remarks_of(one)}
        for one in seen
    ]
    bad = sum("error" in one for one in seen)
    unread = f"{bad} could not be read" if bad else ""
    total: dict[str, Any] = {"capture": f"{len(seen)} captures", "link types": "", "remarks": unread}
    total |= {name.replace("_", " "): sum(one.get(name) or 0 for one in seen) for name in TABLED}
    head = list(records[0])
    rows = [["" if one[name] is None else str(one[name]) for name in head] for one in [*records, total]]
    return Table("", head, rows, records=records)


def without_classes(manifest: "Manifest") -> list[str]:
    """A line for each task some of whose listed classes have no session, and what they need."""
    lines = []
    for one in manifest.files.lacking if manifest.files else ():
        files, archives = one.files, ", ".join(one.archives)
        needs = [f"missing: {some(files, 3)}" + (f" ({archives})" if archives else "")] if files else []
        reason = "; ".join([*needs, *one.notes]) or "none of their captures has a session that the task uses"
        lines.append(one_line(f"{manifest.name}: task {one.task} lacks {', '.join(one.classes)}: {reason}"))
    return lines


def agreement(card: "Card", manifest: "Manifest") -> str:
    """A line that says so where the counts that the card expects were found; `brief` lists differences."""
    expected = card.expected.captures is not None or card.expected.sessions is not None
    return "counts agree with the card\n" if expected and not manifest.unexpected else ""


#: `bench.ingest.inspection.bare_payload` in words
_BARE: Final = {"cut": "all was cut when it was captured", "zeros": "all is zeros"}


def made_of_records(manifest: "Manifest") -> str:
    """A line on a store that is made of records; empty for one of captures."""
    told = "; ".join(manifest.limits)
    return f"{manifest.name}: made of flow records, which hold no bytes: {told}" if manifest.tables and told else ""


def remarked(manifest: "Manifest", set_up: Sequence[str]) -> list[str]:
    """Loud lines on a preparation: what gave no session, what labels say of times, where set-ups differ by class."""
    from bench.data.labels import label_remarks

    vanished, copies = manifest.vanished, manifest.copies
    lines = vanished[:LOUD]
    if len(vanished) > LOUD:
        lines.append(f"{len(vanished) - LOUD} more classes and captures without a session; --json lists all")
    lines += [f"words of its card match nothing: {line}" for line in manifest.idle]
    lines += _damage(manifest) + label_remarks(manifest.labels)
    bare = [one for one in manifest.captures if one.remarks.get("payload")]
    lines += [f"{one.path}: no byte of payload can be read, {_BARE[one.remarks['payload']]}" for one in bare[:LOUD]]
    lines += [f"{len(bare) - LOUD} more such captures; --json lists all"] if len(bare) > LOUD else []
    lines += [
        f"{some(paths[1:], LOUD)} hold what {paths[0]} holds: they are one capture group, remove all but one"
        for paths in copies[:LOUD]
    ]
    if len(copies) > LOUD:
        lines.append(f"{len(copies) - LOUD} more captures are there several times; --json lists all")
    lines += [f"{line}; one of them is wrong" for line in manifest.contradictions[:LOUD]]
    more = len(manifest.contradictions) - LOUD
    lines += [f"{more} more such contradictions; --json lists all"] if more > 0 else []
    lines += [f"the capture set-up differs by class: {line}" for line in set_up]
    told = [line for line in (made_of_records(manifest), *without_classes(manifest)) if line]
    return told + [f"WARNING: {manifest.name}: {line}" for line in lines]


def _damage(manifest: "Manifest") -> list[str]:
    """A line for each capture that is damaged and not known to be; the first, and how many more there are."""
    known = {*manifest.files.damage_expected} if manifest.files else set()
    lines = [
        f"{one.path}: damaged at byte {hit.offset}: {hit.reason}; {hit.bytes_lost} bytes are lost"
        for one in manifest.damaged
        if one.path not in known
        for hit in one.damage
    ]
    more = [f"{len(lines) - LOUD} more damaged places; --json lists all"] if len(lines) > LOUD else []
    return lines[:LOUD] + more


def shortcomings(manifest: "Manifest") -> str:
    """What of a store is not as it should be, counted; empty where all is well."""
    files = manifest.files
    counted = {
        "captures or classes cannot be read or have no session": len(manifest.vanished),
        "captures are damaged": len(files.damage_unexpected if files else manifest.damaged),
        "counts are not those of the card": len(manifest.unexpected),
        "words of the card match nothing": len(manifest.idle),
        "contradictions, one capture under several labels": len(manifest.contradictions),
        "listed captures are missing": len(files.missing) if files else 0,
        "captures have other numbers of packets than listed": len(files.packets_differ) if files else 0,
    }
    return ", ".join(f"{number} {what}" for what, number in counted.items() if number)


def outcome_table(outcomes: "Sequence[Outcome]") -> str:
    """One line a run: what became of it, and its test scores with the 95 % interval of macro-F1; below, remarks."""
    from bench.runs.registry import origin
    from bench.runs.run_labels import interval_meanings, interval_sign, remarks

    signs: list[str] = []
    rows = [("run", "data set", "status", "accuracy", "macro F1", "95 % interval", "on training", "seconds", "id")]
    for outcome in outcomes:
        m, spec = outcome.metrics, outcome.spec
        scores = ("", "", "", "")
        if m:
            sign = interval_sign(m.get("interval_groups"))
            interval = f"{m['macro_f1_low']:.3f}-{m['macro_f1_high']:.3f} {sign}".rstrip()
            signs.append(sign)
            scores = (f"{m['accuracy']:.4f}", f"{m['macro_f1']:.4f}", interval, _on_training(m))
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


ROW_METRICS: Final = ("accuracy", "macro_f1", "seconds")


def rows_of(records: "Sequence[Record]") -> Table:
    """Mean ± standard deviation over seeds and folds of each row, as `bench table` tells it, without what runs tell."""
    from bench.analysis.tables import results_table
    from bench.runs.run_labels import MARKS

    table = results_table(records, metrics=ROW_METRICS)
    return dataclasses.replace(table, notes=[note for note in table.notes if note[:1] in MARKS.values()])


def next_steps(records: "Sequence[Record]", place: Sequence[str]) -> list[str]:
    """What to do with runs that are done: command lines that can be pasted; ``place`` are their words for the store."""
    from bench.analysis.tables import group

    specs = [record.spec for record in records]
    filters = {"--dataset": {spec.dataset for spec in specs}, "--task": {spec.task for spec in specs}}
    filters |= {"--split": {spec.split.scheme for spec in specs}}
    words = [word for name, values in filters.items() if name == "--dataset" or len(values) == 1
             for word in (name, ",".join(sorted(values)))]  # fmt: skip
    steps = [["table", *words]]
    for first, second in pairwise(group(records)):
        places = {record.spec.place: record for record in second.done}
        twins = [(one, places[one.spec.place]) for one in first.done if one.spec.place in places]
        if twins and first.head.spec.dataset == second.head.spec.dataset and first.split == second.split:
            pool = ["--pool"] if len(twins) > 1 else []
            steps.append(["compare", twins[0][0].run_id[:8], twins[0][1].run_id[:8], *pool])
            break
    steps += [["report"], ["ui"]]
    return [shlex.join(["bench", *step, *place]) for step in steps]


def plan_table(plan: "Plan", budget: float | None = None) -> Table:
    """What a matrix would cost, a row for each method's settings on a data set and split, and below it in all."""
    from bench.runs.plan import duration
    from bench.runs.run_labels import method_label

    records: list[dict[str, Any]] = []
    for row, specs in plan.rows.items():
        spec, estimate = next(iter(specs.values())), plan.estimate(row)
        away = {digest: str(plan.elsewhere[digest]) for digest in specs.keys() & plan.elsewhere.keys()}
        number, each = len(plan.left[row]), estimate.seconds
        records.append(
            {"method": method_label(spec), "dataset": spec.dataset, "task": spec.task, "split": spec.split.label}
            | {"runs": len(specs), "done": len(specs.keys() & plan.done), "elsewhere": sorted(set(away.values()))}
            | {"running_elsewhere": len(away), "to_do": number, "seconds_each": each}
            | {"seconds": None if each is None else number * each, "basis": estimate.basis}
        )
    seconds, unknown = plan.seconds
    total: dict[str, Any] = {
        name: sum(one[name] for one in records) for name in ("runs", "done", "running_elsewhere", "to_do")
    }
    total |= {"seconds": seconds, "unknown": unknown}
    head = ["method", "data set", "split", "runs", "done", "running elsewhere", "to do", "each", "in all", "rests on"]
    lines = [_plan_line(one) for one in records]
    shown = [str(total[name]) for name in ("runs", "done", "running_elsewhere", "to_do")]
    lines.append(["in all", "", "", *shown, "", duration(seconds) + (f" and {unknown} unknown" if unknown else ""), ""])
    notes = [
        "rates of training are from two slow cores and windows of 16 packets (results/rates.csv): of whole sessions a "
        "method that reads more takes longer; steps without labels count as others do, nothing else is in them"
    ]
    notes += [f"{plan.jobs} at once"] if plan.jobs > 1 else []
    if budget is not None and (unknown or seconds > budget):
        notes.append(f"--budget {duration(budget)} may not be enough; first seeds and folds come first")
    return Table("", head, lines, notes, records, more={"total": total})


def _plan_line(row: Mapping[str, Any]) -> list[str]:
    from bench.runs.plan import duration

    away = f"{row['running_elsewhere']} ({', '.join(row['elsewhere'])})" if row["elsewhere"] else "0"
    times = ["?" if row[name] is None else duration(row[name]) for name in ("seconds_each", "seconds")]
    plain = [str(row[name]) for name in ("runs", "done")]
    place = [row["method"], f"{row['dataset']}/{row['task']}", row["split"]]
    return [*place, *plain, away, str(row["to_do"]), *times, row["basis"]]


def _on_training(metrics: Mapping[str, float]) -> str:
    """Accuracy on training samples of what was kept, and after how many of the optimiser's steps that stood."""
    accuracy = f"{metrics['training_accuracy']:.2f}" if "training_accuracy" in metrics else ""
    steps = f" at {metrics['chosen_step']:.0f} of {metrics['optimiser_steps']:.0f}" if "chosen_step" in metrics else ""
    return accuracy + steps


def _said_of(line: str, names: Sequence[str]) -> str:
    """A line with the first of the runs that it holds for, and how many more there are."""
    return one_line(f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {line}")


def file_size(number: int) -> str:
    """Bytes as text for people.

    >>> file_size(830), file_size(41_500), file_size(23_000_000)
    ('830 B', '42 kB', '23 MB')
    """
    if number < 10_000:
        return f"{number:,} B"
    return f"{number / 1000:,.0f} kB" if number < 10**7 else f"{number / 1e6:,.0f} MB"
