"""Commands from captures to samples."""

import dataclasses
import json
import keyword
import re
import shlex
import string
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli.base import (
    SplitOptions,
    check_classes,
    check_words,
    cli,
    download_option,
    emit,
    ingest_options,
    opened,
    other_code,
    settle,
    split_options,
    tell,
)
from bench.cli.help import Choice, examples, form_options, grouped, json_option, pairs
from bench.cli.text import (
    agreement,
    brief,
    captures_table,
    columns,
    outline,
    remarked,
    split_text,
    unused,
)
from bench.errors import InputError, counted
from bench.files import from_here, plain, typed_path, write_text
from bench.ingest.options import IngestOptions
from bench.spec import Settings

if TYPE_CHECKING:
    from bench.data.build import Readers
    from bench.data.cards import Card


@cli.command(
    epilog=examples("bench datasets", "bench datasets iscx-vpn", "bench datasets demo --croissant > demo.json")
)
@click.argument("name", required=False)
@click.option("--croissant", "as_croissant", is_flag=True,
              help="Print the card, and the store where it is prepared, as Croissant JSON-LD.")  # fmt: skip
@json_option
def datasets(name: str | None, as_croissant: bool, as_json: bool) -> None:
    """List the data sets: shipped ones, your own that are prepared, cards in this folder; or show one card in full."""
    if as_croissant:
        if name is None:
            raise InputError("bad-options", "--croissant needs a data set; name one (`bench datasets` lists them)")
        emit(True, _croissant(name), "")
    elif name is None:
        rows = _known_datasets()
        lines = [(row["name"], ", ".join(row["tasks"]), row["title"] + _mark(row)) for row in rows]
        emit(as_json, {"datasets": rows}, columns(lines))
    else:
        from bench.data.cards import describe_card
        from bench.data.names import find_card

        card = describe_card(find_card(name))
        emit(as_json, card, outline(card))


def _croissant(name: str) -> dict[str, Any]:
    """A data set as Croissant has it, with its store where that is here."""
    from bench.data.names import find_card
    from bench.data.store import Store
    from bench.report.croissant import croissant

    card = find_card(name)
    try:
        store = Store.find(card.name)
    except InputError as error:
        if error.code != "not-prepared":
            raise
        return croissant(card)
    return croissant(card, store.manifest, store.digest)


def _known_datasets() -> list[dict[str, Any]]:
    """The shipped data sets, those whose stores were made of cards and folders of the user's, and cards in this folder.

    Each has the name that every command takes.
    """
    from bench.data.cards import card_names, summary
    from bench.data.manifest import names_there
    from bench.data.names import unprepared_cards

    there, shipped, rows = names_there(), card_names(), []
    own = [name for name in there if name not in shipped]
    for name in [*shipped, *own, *map(str, unprepared_cards())]:
        row = {"name": name, "shipped": name in shipped, "prepared": name in there, "made_of": there.get(name, "")}
        rows.append(row | {"next": ""} | (summary(name) if name in shipped else _own_summary(name, name in there)))
    return rows


def _own_summary(name: str, is_prepared: bool) -> dict[str, Any]:
    """What a listing says of a card or folder of the user's, and the command that prepares it where it is not."""
    from bench.data.names import find_card, first_command

    try:
        card = find_card(name)
    except InputError as error:
        following = "" if is_prepared else shlex.join(["bench", "check", name])
        return {"title": f"cannot be used: {error}", "tasks": [], "licence": "", "next": following}
    following = "" if is_prepared else first_command(card, name)
    return {"title": card.title, "tasks": list(card.tasks), "licence": card.licence, "next": following}


def _mark(row: Mapping[str, Any]) -> str:
    """What of a data set its title does not tell."""
    own = "" if row["shipped"] else f"yours, of {from_here(Path(row['made_of']))}" if row["made_of"] else "yours"
    state = "prepared" if row["prepared"] else f"not prepared: `{row['next']}`" if row["next"] else ""
    marks = ", ".join(filter(None, [own, state]))
    return f" [{marks}]" if marks else ""


@cli.command(epilog=examples("bench inspect day1.pcap", "bench inspect captures/ --format csv"))
@click.argument("captures", nargs=-1, required=True, type=click.Path(path_type=Path))
@ingest_options
@click.option("--full", is_flag=True, help="Show each capture in full, as a single one is shown.")
@form_options
def inspect(captures: Sequence[Path], ingest: IngestOptions, full: bool, form: str) -> None:
    """Show what the ingest sees in captures or folders of captures: a row each, or one capture in full.

    Ends with status 1 if one of several is not a capture.
    """
    if len(captures) == 1 and not captures[0].exists():
        raise InputError("unreadable-file", f"{captures[0]}: no such capture; give a file or a folder of captures")
    from bench.cli.progress import PrepareProgress
    from bench.data.manifest import bench_home
    from bench.data.sources import captures_below
    from bench.ingest.inspection import inspected
    from bench.render.table import render

    files = [file for path in captures for file in (captures_below(path) if path.is_dir() else [path])]
    alone, work = len(captures) == len(files) == 1 and not captures[0].is_dir(), bench_home()
    with suppress(OSError):  # where nothing can be written there is another folder for what is packed
        work.mkdir(parents=True, exist_ok=True)
    with PrepareProgress() as progress:
        seen = inspected(files, ingest, alone=alone, work=work, progress=progress)
    in_full = full or (alone and form == "text")
    emit(
        form == "json",
        {"captures": seen},
        "\n\n".join(map(outline, seen)) if in_full else render(captures_table(seen), form),
    )
    if any("error" in capture for capture in seen):
        raise click.exceptions.Exit(1)


@dataclass(frozen=True)
class PrepareArguments:
    """How a data set is prepared, as it was typed."""

    name: str = ""
    source: Path | None = None
    download: bool = False
    switch: dict[str, str] = field(default_factory=dict)
    strict: bool = False
    rebuild: bool = False
    verify: bool = False
    join_captures: bool = False
    join_records: bool | None = None
    jobs: int | None = None
    scheduler: str | None = None


@cli.command(
    epilog=examples(
        "bench prepare captures/",
        "bench prepare work/captures --name work",
        "bench prepare ndpi-services --download",
        "bench prepare iscx-vpn --source DIR --idle-timeout 600",
    )
)
@click.argument("dataset")
@grouped("asked", PrepareArguments,
         click.option("--name", default="", help="Name of a folder's data set, from now on."),
         click.option("--source", type=click.Path(path_type=Path), help="Folder of the captures."),
         click.option("--download", is_flag=True,
                      help="Fetch those captures of the card that are missing."),
         click.option("--switch", multiple=True, callback=pairs, metavar="NAME=CHOICE",
                      help="Choose another answer to one of the card's questions."),
         click.option("--strict", is_flag=True, help="Refuse captures that are not exactly those of the card."),
         click.option("--rebuild", is_flag=True, help="Make the store again, even if nothing has changed."),
         click.option("--verify", is_flag=True,
                      help="Make nothing; check the store and its captures against their checksums."),
         click.option("--join-captures", is_flag=True,
                      help="Join the captures of one group, into which a long one was rotated, before they are read."),
         click.option("--join-records/--no-join-records", default=None,
                      help="Of flow records: those of one 5-tuple of a capture are one session, or each is its own; by "
                           "default as the card says."),
         click.option("--jobs", type=click.IntRange(min=1),
                      help="Captures to read at once; one per core by default."),
         click.option("--scheduler", metavar="tcp://HOST:PORT",
                      help="Read captures on a Dask cluster, which sees them and BENCH_HOME."))  # fmt: skip
@ingest_options
@json_option
def prepare(dataset: str, asked: PrepareArguments, ingest: IngestOptions, as_json: bool) -> None:
    """Check captures against the card, read them once, write the session store."""
    from bench.data.names import find_card

    card = find_card(dataset, name=asked.name)
    if asked.source is not None and not asked.source.is_dir():
        raise InputError("missing-source", f"--source {asked.source}: no such folder; give a folder of captures")
    readers = _readers(card, asked)
    from bench.analysis.capture_setup import differences, set_up_by_class, set_up_table
    from bench.cli.progress import PrepareProgress
    from bench.data.build import code_of_stores
    from bench.data.prepare import PrepareOptions, prepare_dataset
    from bench.data.store import Store

    if asked.verify:
        _verify(card, asked, ingest, as_json)
        return
    source = _downloaded(card, asked.source) if asked.download else asked.source
    options = PrepareOptions(
        ingest=ingest,
        switches=asked.switch,
        strict=asked.strict,
        join_captures=asked.join_captures,
        join_records=asked.join_records,
        rebuild=asked.rebuild,
        jobs=asked.jobs,
        readers=readers,
    )
    with PrepareProgress() as progress:
        prepared = prepare_dataset(card, source, options, progress=progress)
    state = "unchanged, nothing done" if prepared.unchanged else "written"
    store, manifest = Store.open(prepared.store_path), prepared.manifest
    rows = set_up_by_class(store, store.default_task)
    data = {"store": str(prepared.store_path), "unchanged": prepared.unchanged, **prepared.report}
    data |= {"capture_set_up": [plain(row) for row in rows]}
    table = columns(set_up_table(rows))
    agrees = agreement(card, manifest)
    for line in (*remarked(manifest, differences(rows)), prepared.damage):
        if line:
            tell(line)
    if prepared.other_code:
        tell(other_code(dataset, store, code_of_stores()))
    emit(as_json, data, f"{prepared.store_path}: {state}\n{outline(brief(manifest))}\n{agrees}classes of task "
         f"{store.default_task}, and how they were captured:\n{table}")  # fmt: skip


def _readers(card: "Card", asked: PrepareArguments) -> "Readers | None":
    """Workers of the cluster that is asked for.  Raises :class:`InputError` where it cannot read."""
    if asked.scheduler is None:
        return None
    if asked.jobs is not None:
        raise InputError("bad-options", "--jobs is of this machine, --scheduler of a cluster; give one")
    if card.records:
        raise InputError(
            "bad-options", f"--scheduler: {card.name} is made of records, which are read here; leave it out"
        )
    from bench.matrix.cluster import check_scheduler
    from bench.matrix.readers import on_cluster

    check_scheduler(asked.scheduler)
    return partial(on_cluster, asked.scheduler)


def _verify(card: "Card", asked: PrepareArguments, ingest: IngestOptions, as_json: bool) -> None:
    """Hold a data set's store and captures against their checksums."""
    from bench.data.store import Store

    if (dataclasses.replace(asked, verify=False, name=""), ingest) != (PrepareArguments(), IngestOptions()):
        raise InputError("bad-options", "--verify writes nothing; leave out the other options")
    store = Store.find(card.name)
    store.verify()
    manifest, told = store.manifest, f"{len(store.manifest.captures)} captures are as they were prepared"
    bare = "" if manifest.columns else "; its columns have no checksums, made before there were any: bounds alone"
    told = f"columns and {told}" if manifest.columns else told
    emit(as_json, {"store": str(store.path), "verified": True, "checksums": bool(manifest.columns)},
         f"{store.path}: {told}{bare}")  # fmt: skip


def _downloaded(card: "Card", source: Path | None) -> Path:
    """The folder of a data set's downloads."""
    from bench.cli.progress import DownloadProgress
    from bench.data.download import fetch

    if source is not None:
        raise InputError("bad-options", "--download and --source exclude each other; give one")
    with DownloadProgress() as progress:
        return fetch(card, progress=progress)


@cli.command(
    epilog=examples("bench split demo", "bench split demo --split session --folds 5 --fold 0 --save fold0.json")
)
@click.argument("dataset")
@split_options
@click.option("--seed", default=0, show_default=True, help="Seed of all random draws; --fold is 0 by default.")
@click.option(
    "--save", type=click.Path(path_type=Path, dir_okay=False), help="Write the split to a file for --split file:PATH."
)
@click.option(
    "--samples",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.csv",
    help="Write the samples for another program: names, parts, labels, captures, 5-tuples, starts.",
)
@click.option("--no-test-labels", is_flag=True, help="Leave the labels of the test part out of --samples.")  # fmt: skip
@download_option
@json_option
def split(
    dataset: str,
    split: SplitOptions,
    seed: int,
    save: Path | None,
    samples: Path | None,
    no_test_labels: bool,
    as_json: bool,
) -> None:
    """Make a split, check that no group is in two parts, describe and save it."""
    for file in (save, samples):
        if file is not None and not file.parent.is_dir():
            what = f"there is no folder {file.parent}; make it or name another place"
            raise InputError("unwritable-file", f"{file}: {what}")
    if samples is not None and save is not None and samples.resolve() == save.resolve():
        raise InputError("bad-options", f"--save and --samples both name {save}; give each a file of its own")
    if no_test_labels and samples is None:
        raise InputError("bad-options", "--no-test-labels is for --samples FILE.csv; give that, too")
    spec = split.of_one_fold.spec(seed=seed)
    check_words([], [dataset], split.task, spec, Settings())
    from bench.splits.split import make_split

    store = opened(dataset)
    spec = settle(store, split.task, spec)
    check_classes(store, split.task, spec, split.strict)
    division = make_split(store, split.task or store.default_task, spec)
    if save is not None:
        division.save(save)
    if samples is not None:
        from bench.runs.scored import write_samples

        write_samples(samples, store, division, labels=not no_test_labels)
    summary = division.summary()
    if left := unused(store.manifest, division.task):
        tell(f"{store.name}, task {division.task}: {left}")
    from bench.analysis.capture_setup import differences, set_up_by_class

    if ways := differences(set_up_by_class(store, division.task)):
        lists, measures = store.command(word=dataset), shlex.join(["bench", "audit", store.name])
        what = f"the capture set-up differs by class ({counted(len(ways), 'way')})"
        tell(f"WARNING: {store.name}: {what}: `{lists}` lists them, `{measures}` measures what they reveal")
    for line in division.remarks:
        tell(line)
    emit(as_json, summary, split_text(summary))


@cli.group()
def new() -> None:
    """Write the start of a method or a data set of your own."""


@new.command(
    "method", epilog=examples("bench new method my-trees --kind sklearn", "bench new method my-net --kind torch")
)
@click.argument("name")
@click.option("--kind", type=Choice(("plain", "sklearn", "torch")), default="plain", show_default=True,
              help="What it is built on: NumPy alone, a scikit-learn classifier, or a torch network.")  # fmt: skip
@click.option("--output", type=click.Path(path_type=Path), help="File to write; NAME.py by default, with _ for -.")
def new_method(name: str, kind: str, output: Path | None) -> None:
    """Write a commented method, one class, that passes `bench check` as it stands."""
    from bench.runs.registry import names

    class_name = "".join(part.capitalize() for part in name.split("-"))
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or keyword.iskeyword(class_name):
        raise InputError("bad-options", f"{name}: a method's name is small letters, digits and '-', as in my-trees")
    if name in names():
        raise InputError("same-name", f"{name}: is the name of an existing method; take another, as in my-{name}")
    file = output or Path(f"{name.replace('-', '_')}.py")
    if file.suffix != ".py":
        raise InputError("bad-options", f"--output {file}: give a .py file")
    _write_new(file, _template(kind, name=name, Class=class_name))
    method = shlex.quote(f"{file}:{class_name}")
    click.echo(f"{file}: a whole method to change; next: `bench check {method}`, then "
               f"`bench run --method {method},majority --dataset demo`")  # fmt: skip


def _template(kind: str, **words: str) -> str:
    text = (Path(__file__).parents[1] / "templates" / f"{kind}.txt").read_text(encoding="utf-8")
    return string.Template(text).substitute(words)


def _write_new(file: Path, text: str) -> None:
    """Write a file that is not there yet.  Raises :class:`InputError` where it is, or its folder is not."""
    if file.exists():
        raise InputError("unwritable-file", f"{file}: already exists; move it away or give --output FILE")
    if not file.parent.is_dir():
        raise InputError("unwritable-file", f"{file}: there is no folder {file.parent}; make it or name another place")
    write_text(file, text)


@new.command(
    "dataset", epilog=examples("bench new dataset flows.csv", "bench new dataset captures/", "bench new dataset my-set")
)
@click.argument("subject", metavar="TABLE|FOLDER|NAME")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="File of the card; named after the table, folder or NAME by default.",
)
def new_dataset(subject: str, output: Path | None) -> None:
    """Write a commented card: for a table of flow records, for a folder of captures, or an empty one.

    Guesses (which column is what, which part of a path is the class) are marked as such.
    """
    from bench.data.cards import NAME, shipped_name
    from bench.data.names import find_card

    path = typed_path(subject)
    named = path.resolve().name if path.is_dir() else path.name.split(".")[0]
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", named).strip("-._").lower() or "records"
    card = output or Path(f"{stem}.toml")
    if card.suffix != ".toml" or not NAME.fullmatch(card.stem) or shipped_name(card.stem):
        raise InputError("bad-options", f"--output {card}: give a .toml file with a name that no shipped data set has")
    if not path.exists() and (path.suffix or path.name != subject):
        raise InputError("missing-file", f"{subject}: no such table or folder; give one, or a name alone")
    if card.exists():
        raise InputError("unwritable-file", f"{card}: already exists; move it away or give --output FILE")
    text = _card_of_table(path, card) if path.is_file() else _card_of_captures(path if path.is_dir() else None, card)
    try:
        _write_new(card, text)
        find_card(card)
    except InputError:
        card.unlink(missing_ok=True)
        raise
    more = "" if path.exists() else " --source DIR"
    click.echo(
        f"{card}: check it, above all what is marked GUESSED, then `bench prepare {shlex.quote(str(card))}{more}`"
    )


def _card_of_table(table: Path, card: Path) -> str:
    from bench.records.guess import guessed_card

    return guessed_card(table, card.stem)


def _card_of_captures(folder: Path | None, card: Path) -> str:
    """The text of a card for captures: those of a folder, whose labels are guessed from the paths, or any."""
    source = '# source = "captures" # their folder, as seen from this file; without it: bench prepare … --source DIR'
    pattern, tasks = "^(?P<label>[^/]+)/", '\n[tasks.label]\nlabel = "label" # the column that names the class'
    if folder is not None:
        from bench.data.sources import captures_below, guessed_labels

        paths = [path.relative_to(folder).as_posix() for path in captures_below(folder)]
        source = f"source = {json.dumps(str(folder.resolve()))} # folder of the captures"
        pattern, tasks = guessed_labels(paths)
    return _template("card", name=card.stem, file=str(card), source=source, pattern=pattern, tasks=tasks)
