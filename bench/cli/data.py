"""Commands from captures to samples."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli.base import (
    SplitOptions,
    check_classes,
    cli,
    emit,
    grouped,
    json_option,
    opened,
    other_code,
    pairs,
    settle,
    split_options,
)
from bench.cli.text import brief, columns, outline, without_classes
from bench.errors import InputError

if TYPE_CHECKING:
    from bench.data.cards import Card


@cli.command()
@click.argument("name", required=False)
@json_option
def datasets(name: str | None, as_json: bool) -> None:
    """List the data sets, or show one card in full."""
    from bench.data.cards import card_names, describe_card, find_card

    if name is None:
        cards = {n: find_card(n) for n in card_names()}
        rows = [{"name": n, "title": c.title, "tasks": list(c.tasks), "licence": c.licence} for n, c in cards.items()]
        text = columns([(name, ", ".join(card.tasks), card.title) for name, card in cards.items()])
        emit(as_json, {"datasets": rows}, text)
    else:
        card = describe_card(find_card(name))
        emit(as_json, card, outline(card))


@cli.command()
@click.argument("captures", nargs=-1, required=True, type=click.Path(path_type=Path))
@json_option
def inspect(captures: Sequence[Path], as_json: bool) -> None:
    """What the ingest sees in each capture."""
    from bench.ingest.capture import inspect as inspect_capture

    seen = [inspect_capture(path) for path in captures]
    text = "\n\n".join(outline(capture) for capture in seen)
    emit(as_json, {"captures": seen}, text)


@dataclass(frozen=True)
class PrepareArguments:
    """How a data set is prepared, as it was typed."""

    source: Path | None = None
    download: bool = False
    idle_timeout: float | None = None
    switch: dict[str, str] = field(default_factory=dict)
    strict: bool = False
    rebuild: bool = False
    verify: bool = False
    jobs: int | None = None


@cli.command()
@click.argument("dataset")
@grouped("asked", PrepareArguments,
         click.option("--source", type=click.Path(path_type=Path), help="Folder of the captures."),
         click.option("--download", is_flag=True,
                      help="Fetch the captures that the card names, as far as they are not there."),
         click.option("--idle-timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
                      help="Cut a session where no packet comes for so long; none by default."),
         click.option("--switch", multiple=True, callback=pairs, metavar="NAME=CHOICE",
                      help="Answer one of the card's questions otherwise than by default."),
         click.option("--strict", is_flag=True, help="Refuse captures that are not exactly those of the card."),
         click.option("--rebuild", is_flag=True, help="Make the store anew, also where nothing has changed."),
         click.option("--verify", is_flag=True,
                      help="Make nothing: read the store and its captures in full, against their checksums."),
         click.option("--jobs", type=click.IntRange(min=1),
                      help="Captures read at once; one a core by default."))  # fmt: skip
@json_option
def prepare(dataset: str, asked: PrepareArguments, as_json: bool) -> None:
    """Check captures against the card, read them once, write the session store."""
    from bench.cli.progress import PrepareProgress
    from bench.data.cards import find_card
    from bench.data.prepare import PrepareOptions, code_of_stores, prepare_dataset
    from bench.data.store import Store

    card = find_card(dataset)
    if asked.verify:
        _verify(card, asked, as_json)
        return
    source = _downloaded(card, asked.source) if asked.download else asked.source
    options = PrepareOptions(asked.idle_timeout, asked.switch, asked.strict, asked.rebuild, asked.jobs)
    with PrepareProgress() as progress:
        prepared = prepare_dataset(card, source, options, progress=progress)
    state = "unchanged, nothing done" if prepared.unchanged else "written"
    data = {"store": str(prepared.store_path), "unchanged": prepared.unchanged, **prepared.report}
    emit(as_json, data, f"{prepared.store_path}: {state}\n{outline(brief(prepared.manifest))}")
    for line in without_classes(prepared.manifest):
        click.echo(line, err=True)
    if prepared.damage:
        click.echo(prepared.damage, err=True)
    if prepared.other_code:
        click.echo(other_code(dataset, Store.open(prepared.store_path), code_of_stores()), err=True)


def _verify(card: "Card", asked: PrepareArguments, as_json: bool) -> None:
    """Hold a data set's store and captures against their checksums."""
    from bench.data.store import Store

    if dataclasses.replace(asked, verify=False) != PrepareArguments():
        raise InputError("bad-options", "--verify makes nothing; leave the other options out")
    store = Store.find(card.name)
    store.verify()
    manifest, told = store.manifest, f"{len(store.manifest.captures)} captures are what was prepared"
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


@cli.command()
@click.argument("dataset")
@split_options
@click.option("--seed", default=0, show_default=True)
@click.option("--fold", type=click.IntRange(min=0), help="With --folds: the fold to make, from 0.")
@click.option("--save", type=click.Path(path_type=Path), help="Write the split to a file for --split file:PATH.")
@json_option
def split(dataset: str, split: SplitOptions, seed: int, fold: int | None, save: Path | None, as_json: bool) -> None:
    """Make a split, verify that no group stands in two parts, describe and save it."""
    from bench.splits.split import make_split

    if save is not None and not save.parent.is_dir():
        raise InputError("unwritable-file", f"{save}: there is no folder {save.parent}; make it or name another place")
    spec = split.spec(seed=seed, fold=fold if split.folds is None else fold or 0)
    store = opened(dataset)
    spec = settle(store, split.task, spec)
    check_classes(store, split.task, spec, split.strict)
    division = make_split(store, split.task or store.default_task, spec)
    if save is not None:
        division.save(save)
    summary = division.summary()
    emit(as_json, summary, outline(summary))
