"""From captures to a store: find, read, label, write.

The store is built in a folder beside its place and renamed when it is whole; a lock that ends with the process
keeps two preparations of one name apart.  The same captures, card and options give the same bytes.
"""

import re
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from bench.data.build import CaptureBuild, Progress, Readers, code_of_stores, in_threads
from bench.data.cards import Card
from bench.data.manifest import Manifest, Options, bench_home, store_path, unpacked_path
from bench.data.names import find_card
from bench.data.record_build import RecordBuild
from bench.data.sources import Source, find_captures, same_folder, source_folder, with_joined
from bench.data.store import Store
from bench.errors import InputError
from bench.files import file_sha256, locked, plain, write_json, written_folder
from bench.ingest.options import IngestOptions


@dataclass(frozen=True)
class Prepared:
    """What `prepare` made or found."""

    store_path: Path
    unchanged: bool  # the store was there already, made of the same input
    manifest: Manifest
    other_code: bool = False  # it was there, and made by other code than today's
    damage: str = ""  # what was wrong with the store that was there, so that it was made anew

    @property
    def report(self) -> dict[str, Any]:
        """The manifest with the number of captures instead of all of them, ready for JSON."""
        return self.manifest.to_dict() | {"captures": len(self.manifest.captures)}


@dataclass(frozen=True)
class PrepareOptions:
    """How a data set is prepared."""

    ingest: IngestOptions = field(default_factory=IngestOptions)  # how captures are read
    switches: Mapping[str, str] = field(default_factory=dict)  # choices of the card's; the others have their defaults
    strict: bool = False  # refuse captures that are not exactly what the card describes
    join_captures: bool = False  # captures of one group, into which one was rotated, are one
    join_records: bool | None = None  # records of one 5-tuple are one session; None: as the card says
    rebuild: bool = False  # also where the store already exists
    jobs: int | None = None  # threads; None: one a core
    readers: Readers | None = None  # instead of threads


DEFAULT_OPTIONS: Final = PrepareOptions()


def prepare_dataset(
    card: Card,
    source: Path | None = None,
    options: PrepareOptions = DEFAULT_OPTIONS,
    *,
    home: Path | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """Make the store of a data set, or find that it already exists.

    ``source`` is the folder of the captures (none for a card that makes or knows its own).  A capture that cannot be
    read is reported in the manifest.  Raises :class:`InputError` where no capture can; with ``options.strict``, and
    nothing written, also where the captures are not exactly what the card describes.
    """
    home = home or bench_home()
    path, work = store_path(card.name, home), unpacked_path(card.name, home)
    chosen = _chosen(card, options)
    with locked(path):
        folder = source_folder(card, source, home)
        if card.source:
            _check_owner(path, folder)
        captures = find_captures(card, folder, chosen.switches)
        if options.join_captures:
            captures = with_joined(card, captures, home)
        if options.strict and captures.files_report:  # before hours of reading
            _refuse(folder, captures.files_report.problems)
        if not options.rebuild and (store := _same_input(path, card, chosen, captures)):
            if options.strict:
                _refuse(folder, store.manifest.problems)
            return Prepared(path, True, store.manifest, other_code=store.manifest.code != code_of_stores())
        damage = _damage_of(path)
        try:
            with written_folder(path) as aside:
                kind = RecordBuild if card.records else CaptureBuild
                kind(card, captures, chosen, work, aside).run(
                    options.readers or partial(in_threads, options.jobs), progress
                )
                if options.strict:
                    _refuse(folder, Store.open(aside).manifest.problems)
        finally:
            _tidy(path, work, home / "joined")
    return Prepared(path, False, Store.open(path).manifest, damage=damage)


def _chosen(card: Card, options: PrepareOptions) -> Options:
    """How the card's captures or records are to be read.  Raises :class:`InputError` for options of the other kind."""
    join = options.join_records
    if card.records:
        if options.ingest != IngestOptions() or options.join_captures:
            raise InputError("bad-options", f"{card.name}: is made of records; leave out the options for captures")
        if join and not card.records.can_join:
            raise InputError("bad-options", f"{card.name}: its records have no end points and times to join them by")
        join = card.records.join if join is None else join
    elif join is not None:
        raise InputError("bad-options", f"{card.name}: is made of captures; leave out --join-records")
    choices = card.choose(options.switches)
    own_word = join if card.records and join != card.records.join else None
    return Options(
        **vars(options.ingest),
        switches=choices,
        join_captures=options.join_captures,
        join_records=join,
        asked_to_join=own_word,
    )


def _tidy(path: Path, work: Path, joined: Path) -> None:
    """Remove what was unpacked or joined for another store than the one that is there, or for one that was refused."""
    try:
        sources = Store.open(path).sources
        used = {*sources.unpacked.values(), Path(sources.root).name}
    except InputError:
        used = set()
    for file in work.glob("*"):
        if file.name not in used:
            file.unlink()
    for folder in joined.glob(f"{path.name}-*"):
        if re.fullmatch(r"[0-9a-f]{12}", folder.name.removeprefix(f"{path.name}-")) and folder.name not in used:
            shutil.rmtree(folder)


def _damage_of(path: Path) -> str:
    """What is wrong with the store at a path; empty where nothing is, or none is there."""
    try:
        if path.exists():
            Store.open(path).check_columns()
    except InputError as error:
        if error.code == "store-damaged":
            return f"the store was damaged and is made again: {str(error).rpartition('; ')[0]}"
    return ""


def open_dataset(
    name_or_path: str,
    *,
    home: Path | None = None,
    progress: Progress | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Store:
    """The store of a data set; prepared first where the captures are known (the demo, a folder).

    ``tell`` hears of a damaged store that is made anew.  Raises :class:`InputError` with the command to run where there
    is no store, or its card has changed since.
    """
    card = find_card(name_or_path, home=home)
    if card.generator or card.source:
        options = _kept_options(card, store_path(card.name, home))
        prepared = prepare_dataset(card, options=options, home=home, progress=progress)
        if prepared.damage:
            tell(prepared.damage)
        return Store.open(prepared.store_path)
    store = Store.find(card.name, home, name_or_path)
    if store.manifest.card != card.digest:
        command = store.command(word=name_or_path)
        raise InputError("card-changed", f"{card.name}: its card changed since it was prepared; run `{command}`")
    return store


def _kept_options(card: Card, path: Path) -> PrepareOptions:
    """How a store was prepared, as far as the card still knows its switches."""
    try:
        options = Store.open(path).manifest.options
    except InputError:  # none yet, or one of an older format
        return DEFAULT_OPTIONS
    known = {
        name: choice
        for name, choice in options.switches.items()
        if name in card.switches and choice in card.switches[name].choices
    }
    ingest = IngestOptions() if card.records else options.ingest
    return PrepareOptions(ingest, known, join_captures=options.join_captures, join_records=options.asked_to_join)


def _refuse(folder: Path, problems: Sequence[str]) -> None:
    """Raise :class:`InputError` with the first of the problems, if there is one."""
    if problems:
        others = f" ({len(problems) - 1} more)" if len(problems) > 1 else ""
        remedy = "leave out --strict to prepare what is there and see all"
        raise InputError("not-as-listed", f"{folder}: {problems[0]}{others}; nothing is written; {remedy}")


def _same_input(path: Path, card: Card, options: Options, source: Source) -> Store | None:
    """The store at the path, if it was made of exactly this input; a mere move of the captures is noted in it."""
    try:
        store = Store.open(path)
        sources = store.sources
        store.check_columns()
    except InputError:
        return None
    manifest = store.manifest
    entries: list[Any] = [*(manifest.tables or manifest.captures), *manifest.unreadable]
    known = {entry.path: entry for entry in entries}
    if (manifest.card, manifest.options) != (card.digest, options) or not same_folder(manifest, card, source):
        return None
    sizes = {capture.path: capture.bytes for capture in manifest.captures}
    if not all(_has_size(store.unpacked / name, sizes[p]) for p, name in sources.unpacked.items()):
        return None
    mtimes = {file.path: file.mtime_ns for file in source.files}
    try:
        touched = [path for path, mtime in mtimes.items() if sources.mtime_ns[path] != mtime]
        if any(file_sha256(source.root / path) != known[path].sha256 for path in touched):
            return None
    except OSError:
        return None
    here = replace(sources, root=str(source.root), mtime_ns=mtimes, origin=str(source.origin or ""), made_of=card.place)
    if sources != here:
        write_json(path / "sources.json", plain(here))
    return store


def _check_owner(path: Path, folder: Path) -> None:
    """Refuse a store that another folder of the same name still uses: each would overwrite the other's."""
    try:
        sources = Store.open(path).sources
    except InputError:
        return
    owner = Path(sources.origin or sources.root)
    if owner != folder and owner.is_dir():
        remedy = f"`{shlex.join(['bench', 'prepare', str(folder), '--name', 'NAME'])}` gives this one another name"
        raise InputError("same-name", f"{path}: is the store of {owner}; {remedy}")


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size
