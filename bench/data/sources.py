"""Where a data set's captures come from: the source folder, its files, a generator's captures."""

import collections
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from bench.data.cards import Card, FileLabels, SessionLabels
from bench.data.file_list import COMPRESSED, SUFFIXES, Listed, match_captures
from bench.data.manifest import FilesReport
from bench.data.store import path_value
from bench.environment import code_digest
from bench.errors import InputError
from bench.files import file_sha256, written_folder
from bench.schema import CAPTURE_MAGICS


@dataclass(frozen=True)
class CaptureFile:
    """A capture as it lies in the source folder."""

    root: Path
    path: str  # relative to root, '/' between folders
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Source:
    """The input of one preparation."""

    root: Path
    files: tuple[CaptureFile, ...]  # by path
    ignored: dict[str, int]  # files that are no captures, by suffix
    label_file: Path | None
    label_digest: str | None  # SHA-256 (hex) of the label file
    rows: dict[str, Listed] = field(default_factory=dict)  # path -> row of the card's list of captures
    files_report: FilesReport | None = None  # how the folder matches that list; None: the card has none


def source_folder(card: Card, source: Path | None, home: Path) -> Path:
    """The folder of the captures, absolute; a generator's are made where they are not there yet.

    Raises :class:`InputError` where no folder is named or there is none.
    """
    if card.generator:
        if source is not None:
            raise InputError("bad-options", f"{card.name} makes its own captures; leave out --source")
        return _generated(home)
    if source is None and not card.source:
        how = "--source DIR, or --download" if card.downloads else "--source DIR"
        raise InputError(
            "missing-source", f"{card.name}: say where its captures lie ({how}); they are published at {card.home}"
        )
    folder = _straight(Path(source or card.source).absolute())
    if not folder.is_dir():
        raise InputError(
            "missing-source", f"{folder}: no such folder; --source must name the folder of the captures of {card.name}"
        )
    return folder


def _straight(folder: Path) -> Path:
    """The folder without "..".  Links behind the last one stay: the names of folders may tell a listed capture."""
    parts = folder.parts
    last = max((place for place, name in enumerate(parts, 1) if name == ".."), default=0)
    return Path(os.path.realpath(Path(*parts[:last])), *parts[last:]) if last else folder


def _generated(home: Path) -> Path:
    """The demo's captures; the folder's name carries the generator's digest, so a changed one writes anew."""
    folder = home / "captures" / f"demo-{code_digest('bench.data.demo')[:12]}"
    if not folder.is_dir():
        from bench.data import demo  # scapy takes a second to import

        with written_folder(folder) as aside:
            demo.write(aside)
    return folder


def find_captures(card: Card, root: Path, switches: Mapping[str, str]) -> Source:
    """All files of the card's globs that are captures by suffix or by their first bytes; and the label file.

    Of a card with a list of captures only those that it lists, as ``switches`` (name -> choice, of all) have it.
    Raises :class:`InputError` where there is none, or no label file.
    """
    patterns = [pattern.split("/") for pattern in card.captures.include]
    files, others, ignored = [], [], collections.Counter[str]()
    for full in _walk(root, frozenset()):
        path = full.relative_to(root).as_posix()
        if not any(_matches(path.split("/"), pattern) for pattern in patterns):
            continue
        if full.name.startswith("."):
            ignored["hidden"] += 1
        elif _is_capture(full):
            stat = full.stat()
            files.append(CaptureFile(root, path, stat.st_size, stat.st_mtime_ns))
        else:
            others.append(path)
            ignored[full.suffix.lower() or "no suffix"] += 1
    labels = root / card.labels.file if isinstance(card.labels, SessionLabels) else None
    if labels and not labels.is_file():
        raise InputError("missing-file", f"{labels}: label file of {card.name} is missing; check --source")
    source = Source(root, tuple(files), dict(sorted(ignored.items())), labels, file_sha256(labels) if labels else None)
    if not isinstance(card.labels, FileLabels):
        return source
    match = match_captures(*card.listed(switches), root, [file.path for file in files], others)
    kept = tuple(file for file in files if file.path in match.rows)
    return dataclasses.replace(source, files=kept, rows=match.rows, files_report=match.report)


def _walk(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    """All files below a folder, by name; links to folders are followed, unless they lead to a folder above."""
    stat = folder.stat()
    here = (stat.st_dev, stat.st_ino)
    if here in above:
        return
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(
            "unreadable-file", f"{folder}: cannot be read ({error.strerror}); make it readable or move it away"
        ) from error
    for entry in entries:
        if entry.is_dir():
            yield from _walk(entry, above | {here})
        elif entry.is_file():
            yield entry


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a path's parts match a glob's; ``**`` stands for any number of folders."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return _matches(parts, pattern[1:]) or (bool(parts) and _matches(parts[1:], pattern))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _is_capture(path: Path) -> bool:
    """A capture has a capture's suffix (before that of a compression) or a capture's first four bytes."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        return len(suffixes) > 1 and suffixes[-2] in SUFFIXES
    if suffixes and suffixes[-1] in SUFFIXES:
        return True
    try:
        with path.open("rb") as file:
            return file.read(4) in CAPTURE_MAGICS
    except OSError:
        return False


def capture_group(card: Card, path: str, row: Listed | None) -> str:
    """Name of a capture's group, by its row in a list or its path; its own where neither names one."""
    return (row.group if row else "") or (path_value(card.captures.group, path) if card.captures.group else "") or path


def capture_attributes(card: Card, path: str, row: Listed | None) -> dict[str, str]:
    """The card's attributes of a capture, empty where its path does not tell; the label columns of its row, too."""
    return (row.labels if row else {}) | {name: path_value(pattern, path) for name, pattern in card.attributes.items()}
