"""Where a data set's captures come from: the source folder, its files, a generator's captures."""

import collections
import dataclasses
import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from bench.data.card_tables import ColumnLabels, FileLabels, PatternLabels, SessionLabels
from bench.data.cards import Card
from bench.data.file_list import COMPRESSED, SUFFIXES, Listed, match_captures, unpacking
from bench.data.manifest import EmptyClass, FilesReport, Manifest
from bench.data.store import path_value
from bench.environment import code_digest
from bench.errors import InputError, some
from bench.files import file_sha256, written_folder
from bench.records.tables import table_format
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
    others: tuple[str, ...] = ()  # paths of files that the card's globs name and that are no captures
    bare: tuple[str, ...] = ()  # folders without a file
    origin: Path | None = None  # the folder that was named, where captures were joined; None: the root


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
        where = f"; they are published at {card.home}" if card.home else ""
        raise InputError("missing-source", f"{card.name}: say where its captures are ({how}){where}")
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
    folder = home / "captures" / f"demo-{code_digest('bench.generators.demo')[:12]}"
    if not folder.is_dir():
        from bench.generators import demo  # scapy takes a second to import

        with written_folder(folder) as aside:
            demo.write(aside)
    return folder


def with_joined(card: Card, source: Source, home: Path) -> Source:
    """The source with the captures of one group and class joined, in a folder that is made where it is not there yet.

    Other captures are links, and so are damaged ones, which are joined to none.  Raises :class:`InputError` for a card
    whose labels are not told by paths alone, and where no two captures are of one group and class.
    """
    from bench.ingest.capture import join_captures  # numba

    if not isinstance(card.labels, PatternLabels):
        raise InputError("bad-options", f"{card.name}: its labels name single captures; leave out --join-captures")
    root, pattern, groups = source.root, re.compile(card.labels.pattern), dict[str, list[CaptureFile]]()
    for file in source.files:
        match = pattern.search(file.path)
        told = (
            capture_group(card, file.path, None),
            match and match.groups(),
            capture_attributes(card, file.path, None),
        )
        groups.setdefault(repr(told), []).append(file)
    if len(groups) == len(source.files):
        raise InputError(
            "bad-options",
            f"{root}: no two captures of {card.name} are of one group and class; name a group pattern in its card "
            '(captures.group = "…"), or leave out --join-captures',
        )
    state = repr({told: [dataclasses.astuple(file) for file in files] for told, files in groups.items()})
    state += code_digest("bench.ingest.capture")
    folder = home / "joined" / f"{card.name}-{hashlib.sha256(state.encode()).hexdigest()[:12]}"
    if not folder.is_dir():
        with written_folder(folder) as aside:
            for files in groups.values():
                paths = [root / file.path for file in files]
                target = aside / files[0].path
                target.parent.mkdir(parents=True, exist_ok=True)
                joined = aside / ".joined"
                alone = join_captures(paths, joined) if len(paths) > 1 else paths
                if joined.exists():
                    first = next(path for path in paths if path not in alone)
                    joined.rename(aside / first.relative_to(root))
                for path in alone:
                    (aside / path.relative_to(root)).parent.mkdir(parents=True, exist_ok=True)
                    (aside / path.relative_to(root)).symlink_to(path)
    found = find_captures(card, folder, {})
    return dataclasses.replace(found, origin=root, others=source.others, bare=source.bare, ignored=source.ignored)


def find_captures(card: Card, root: Path, switches: Mapping[str, str]) -> Source:
    """All files of the card's globs that are captures by suffix or by their first bytes; and the label file.

    Of a card of records: all that are tables by suffix.

    Archives are among them: the ingest reads them through or says what unpacks them.  Of a card with a list of captures
    only those that it lists, as ``switches`` (name -> choice, of all) have it; archives are left to the list's report.
    Raises :class:`InputError` where there is none, or no label file.
    """
    patterns = [pattern.split("/") for pattern in card.captures.include]
    listed = isinstance(card.labels, FileLabels) and card.records is None
    files, others, ignored = [], [], collections.Counter[str]()
    wanted = (lambda full: bool(table_format(full.name))) if card.records else _is_capture
    for full in _walk(root, frozenset()):
        path = full.relative_to(root).as_posix()
        if not any(_matches(path.split("/"), pattern) for pattern in patterns):
            continue
        if _is_hidden(path):
            ignored["hidden"] += 1
        elif wanted(full) or (not listed and not card.records and unpacking(full.name)):
            stat = full.stat() if full.exists() else None  # of a broken link nothing is known
            files.append(CaptureFile(root, path, stat.st_size if stat else 0, stat.st_mtime_ns if stat else 0))
        else:
            others.append(path)
            ignored[full.suffix.lower() or "no suffix"] += 1
    labels = root / card.labels.file if isinstance(card.labels, SessionLabels) else None
    if labels and not labels.is_file():
        raise InputError("missing-file", f"{labels}: label file of {card.name} is missing; check what is there")
    source = Source(
        root=root,
        files=tuple(files),
        ignored=dict(sorted(ignored.items())),
        label_file=labels,
        label_digest=file_sha256(labels) if labels else None,
        others=tuple(others),
        bare=tuple(_bare_folders(root, [*(file.path for file in files), *others])),
    )
    if not listed:
        return source
    match = match_captures(*card.listed(switches), root, [file.path for file in files], others)
    kept = tuple(file for file in files if file.path in match.rows)
    return dataclasses.replace(source, files=kept, rows=match.rows, files_report=match.report)


def idle_patterns(card: Card, files: Sequence[str], captures: Sequence[str]) -> list[str]:
    """The card's globs and patterns that hold for none of the files or captures at these paths: a line each."""
    lines = []
    if not isinstance(card.labels, FileLabels):  # a list tells itself what is missing
        for glob in card.captures.include:
            if not any(_matches(path.split("/"), glob.split("/")) for path in files):
                lines.append(f"captures.include: {glob!r} names no capture")
    patterns = {"captures.group": card.captures.group}
    patterns |= {f"attributes.{name}": pattern for name, pattern in card.attributes.items()}
    if isinstance(card.labels, PatternLabels | ColumnLabels):
        patterns["labels.pattern"] = card.labels.pattern
    for name, pattern in patterns.items():
        if pattern and not any(re.search(pattern, path) for path in captures):
            lines.append(f"{name}: {pattern!r} matches no capture, such as {captures[0]}")
    if card.captures.name and not any(re.search(card.captures.name, path) for path in files):
        lines.append(f"captures.name: {card.captures.name!r} matches no table, such as {files[0]}")
    return lines


def guessed_labels(paths: Sequence[str]) -> tuple[str, str]:
    """A pattern whose groups are label columns of captures at these paths, and tasks in a card's words.

    Folders name classes, two levels of them where all captures lie so deep; else the first word of the file's name.
    """
    folders = [path.split("/")[:-1] for path in paths]
    depth = min(map(len, folders))
    columns = [("label", "the first folder")] + [("inner", "the second folder")] * (depth > 1)
    pattern = "^" + "".join(f"(?P<{name}>[^/]+)/" for name, _ in columns)
    if not depth:
        columns, pattern = [("label", "the first word of the file's name")], "(?P<label>[A-Za-z]+)[^/]*$"
    found = [match.groupdict() for path in paths if (match := re.search(pattern, path))]
    lines = []
    for number, (name, what) in enumerate(columns):
        counts = collections.Counter(groups[name] for groups in found)
        held = some([f"{value!r} ({count})" for value, count in sorted(counts.items())], 12)
        lines += ["", f"[tasks.{name}] # GUESSED: {what} is the class; {len(counts)} values (captures): {held}"]
        lines += [f'label = "{name}"'] + ["default = true"] * (number == 0 and len(columns) > 1)
    return pattern, "\n".join(lines)


def empty_classes(card: Card, source: Source, held: Mapping[str, int], reasons: Mapping[str, str]) -> list[EmptyClass]:
    """The classes that paths of the folder name and of which no session is there.

    ``held`` are the sessions of each capture, ``reasons`` why a file gives none, both by path.  Of cards whose labels
    come from paths alone; others say by their lists and label files what is missing.
    """
    if not isinstance(card.labels, PatternLabels) or card.records:
        return []
    pattern = re.compile(card.labels.pattern)
    whys = (
        dict.fromkeys(source.others, "is not a capture")
        | dict.fromkeys(source.bare, "no capture in the folder")
        | dict(reasons)
    )
    classes: dict[str, list[str]] = {}
    for path in dict.fromkeys([*held, *whys]):
        match = pattern.search(f"{path}/" if path in source.bare else path)
        if match and any(match.groups("")):
            classes.setdefault("/".join(match.groups("")), []).append(path)
    return [
        EmptyClass(name, [path for path in paths if path not in source.bare], _first_reason(paths, whys))
        for name, paths in sorted(classes.items())
        if not any(held.get(path) for path in paths)
    ]


def same_folder(manifest: Manifest, card: Card, source: Source) -> bool:
    """Whether a store was made of files of these names and sizes, and the same were no captures or gave no class."""
    if card.records:
        sizes = {table.path: table.size for table in manifest.tables}
        return {file.path: file.size for file in source.files} == sizes and manifest.ignored == source.ignored
    matched = [report.met if report else None for report in (source.files_report, manifest.files)]
    if matched[0] != matched[1] or (manifest.label_file, manifest.ignored) != (source.label_digest, source.ignored):
        return False
    sizes = {one.path: one.size for one in manifest.captures} | {one.path: one.size for one in manifest.unreadable}
    if {file.path: file.size for file in source.files} != sizes:
        return False
    silent = {one.path: "" for one in manifest.empty} | {one.path: "" for one in manifest.unreadable}
    held = {capture.path: capture.sessions for capture in manifest.captures}
    lost = [one.name for one in empty_classes(card, source, held, silent)]
    if lost != [one.name for one in manifest.empty_classes]:
        return False
    return not any(_opens(source.root / one.path) for one in manifest.unreadable if not one.sha256)  # now, perhaps


def _opens(path: Path) -> bool:
    return path.is_file() and os.access(path, os.R_OK)  # asked, not tried: opening a pipe would wait for its writer


def _first_reason(paths: Sequence[str], whys: Mapping[str, str]) -> str:
    more = f" (and {len(paths) - 1} more)" if len(paths) > 1 else ""
    return f"{paths[0]}: {whys.get(paths[0], 'no session')}{more}"


def _bare_folders(root: Path, paths: Sequence[str]) -> Iterator[str]:
    """Folders below the root, relative to it, that hold none of the paths: empty ones, and links that lead nowhere."""
    held = {parent.as_posix() for path in paths for parent in PurePosixPath(path).parents}
    for folder, folders, _ in os.walk(root):
        place = Path(folder).relative_to(root)
        bare = [name for name in sorted(folders) if (place / name).as_posix() not in held and not name.startswith(".")]
        yield from ((place / name).as_posix() for name in bare)
        folders[:] = sorted(set(folders) - set(bare))  # what is below is bare, too


def _walk(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    """All files below a folder, by name, and what cannot be read as one: broken links, pipes.

    Links to folders are followed, unless they lead to a folder above.
    """
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
        else:
            yield entry


def captures_below(folder: Path) -> list[Path]:
    """All captures and archives in a folder and below, by name.  Raises :class:`InputError` where there is none."""
    found = [path for path in _walk(folder, frozenset()) if not _is_hidden(path.relative_to(folder).as_posix())]
    found = [path for path in found if _is_capture(path) or unpacking(path.name)]
    if not found:
        raise InputError("no-capture", f"{folder}: there is no capture in it; name a folder of captures")
    return found


def _is_hidden(path: str) -> bool:
    """Whether a path is below a hidden folder or hidden itself, as all is that a killed process did not end."""
    return any(name.startswith(".") for name in path.split("/"))


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
        suffixes.pop()
    if suffixes and suffixes[-1] in SUFFIXES:
        return True
    try:
        if not path.is_file():  # a pipe would be waited for
            return False
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
