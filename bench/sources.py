"""Where a data set's captures come from: the source folder, its files, a generator's captures."""

import collections
import glob
import importlib.util
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.cards import Card, SessionLabels
from bench.errors import InputError
from bench.store import file_sha256

SUFFIXES: Final = (".pcap", ".pcapng", ".cap")
COMPRESSED: Final = (".gz", ".zst")
MAGIC: Final = {bytes.fromhex(text) for text in ("a1b2c3d4", "d4c3b2a1", "a1b23c4d", "4d3cb2a1", "0a0d0d0a")}


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


def source_folder(card: Card, source: Path | None, home: Path) -> Path:
    """The folder of the captures, absolute; a generator's are made where they are not there yet."""
    if card.generator:
        if source is not None:
            raise InputError(f"{card.name} makes its own captures; leave out --source")
        return _generated(home)
    if source is None and not card.source:
        raise InputError(f"{card.name}: say where its captures lie (--source DIR); they are published at {card.home}")
    folder = Path(source or card.source).absolute()
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; --source must name the folder of the captures of {card.name}")
    return folder


def _generated(home: Path) -> Path:
    """The demo's captures; the folder's name carries the generator's digest, so a changed one writes anew."""
    spec = importlib.util.find_spec("bench.demo")
    assert spec and spec.origin
    folder = home / "captures" / f"demo-{file_sha256(Path(spec.origin))[:12]}"
    if not folder.is_dir():
        from bench import demo  # scapy takes a second to import

        aside = folder.with_name(f".{folder.name}.new")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        demo.write(aside)
        aside.rename(folder)
    return folder


def find_captures(card: Card, root: Path) -> Source:
    """All files of the card's globs that are captures by suffix or by their first bytes; and the label file."""
    paths: set[str] = set()
    for pattern in card.captures.include:
        # not Path.glob: that does not follow links to folders, which is how large data sets are often laid out
        paths.update(glob.glob(pattern, root_dir=root, recursive=True))  # noqa: PTH207
    files, ignored = [], collections.Counter[str]()
    for path in sorted(Path(path).as_posix() for path in paths):
        full = root / path
        if not full.is_file():
            continue
        if _is_capture(full):
            stat = full.stat()
            files.append(CaptureFile(root, path, stat.st_size, stat.st_mtime_ns))
        else:
            ignored[full.suffix.lower() or "no suffix"] += 1
    labels = root / card.labels.file if isinstance(card.labels, SessionLabels) else None
    if labels and not labels.is_file():
        raise InputError(f"{labels}: label file of {card.name} is missing; check --source")
    return Source(root, tuple(files), dict(sorted(ignored.items())), labels, file_sha256(labels) if labels else None)


def _is_capture(path: Path) -> bool:
    """A capture has a capture's suffix (before that of a compression) or a capture's first four bytes."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        return len(suffixes) > 1 and suffixes[-2] in SUFFIXES
    if suffixes and suffixes[-1] in SUFFIXES:
        return True
    try:
        with path.open("rb") as file:
            return file.read(4) in MAGIC
    except OSError:
        return False


def capture_group(card: Card, path: str) -> str:
    """Name of a capture's group; a path that the card's pattern does not match is its own group."""
    match = re.search(card.captures.group, path) if card.captures.group else None
    return (match.group(1) if match.re.groups else match.group()) if match else path
