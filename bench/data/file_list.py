"""The list of a published data set's captures, and how a folder of captures matches it; and what can be fetched of it.

A list is a CSV file with one row a capture.  `RESERVED` names its own columns, of which only ``file`` is needed; all
others are label columns.  Only the standard library is imported here, as cards are read by listing commands.
"""

import collections
import dataclasses
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import quote

from bench.data.manifest import (
    CaptureEntry,
    DoubleCapture,
    FilesReport,
    LackingClasses,
    PacketsDiffer,
    TaskEntry,
)
from bench.errors import InputError, all_wrong, near
from bench.files import csv_rows
from bench.structure import FieldError, FieldErrors, Ruled, rule

SUFFIXES: Final = (".pcap", ".pcapng", ".cap")
COMPRESSED: Final = (".gz", ".zst", ".xz", ".bz2", ".lz4")
#: the end of an archive's name -> the command that unpacks it; 7z also knows Deflate64, which unzip does not
ARCHIVES: Final = {
    **dict.fromkeys((".zip", ".7z", ".rar"), "7z x"),
    **dict.fromkeys((".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".tar.zst"), "tar xf"),
    ".tar.lz4": "tar -I lz4 -xf",  # the one that tar does not know by itself
}
RESERVED: Final = ("file", "packets", "copy_of", "damaged", "group", "archive", "note")
DOWNLOAD: Final = ("path", "bytes", "sha256", "url_path")  # columns of a list of downloads
DAMAGED: Final = ("", "yes", "possible")

Key = tuple[str, ...]


@dataclass(frozen=True)
class Listed:
    """One capture of a list."""

    file: str  # its name, with the folders that are needed to know it
    labels: dict[str, str]  # label column -> value
    packets: int | None = None  # records up to the end or the damage
    copy_of: str = ""  # file of the list of which this one is a byte-identical copy
    damaged: str = ""  # "yes": the published file's end is damaged; "possible": sources disagree
    group: str = ""  # capture group; "": its own
    archive: str = ""  # where it is published
    note: str = ""  # what to do without it

    def flat(self) -> dict[str, Any]:
        """Its filled cells, for people."""
        content = {name: getattr(self, name) for name in RESERVED} | self.labels
        return {name: value for name, value in content.items() if value not in ("", None)}


@dataclass(frozen=True)
class FileList:
    """A list, as it was read."""

    name: str
    files: tuple[Listed, ...]

    @property
    def columns(self) -> frozenset[str]:
        """Label columns."""
        return frozenset(self.files[0].labels)


@dataclass(frozen=True)
class Download(Ruled):
    """A file that anybody may fetch (`bench.data.download`): a capture, a label file or an archive of them."""

    url: str
    sha256: str
    path: str  # where it goes, relative to the folder of the downloads; of an archive: the folder of its content
    unpack: str = ""  # "zip" or "tar" (also .tar.gz, .tar.bz2, .tar.xz); "": the file stays as it is
    bytes: int = 0  # its size; 0: not told

    @rule("url")
    def _url_is_of_the_web(self) -> Iterator[FieldError]:
        if not re.match(r"https?://[^/]", self.url):
            yield FieldError("url", "must begin with https:// or http://")

    @rule("sha256")
    def _sha256_is_one(self) -> Iterator[FieldError]:
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            yield FieldError("sha256", "must be 64 hexadecimal digits in lower case")

    @rule("path")
    def _path_stays_below(self) -> Iterator[FieldError]:
        if any(part == "" or part.startswith(".") for part in self.path.split("/")) or "\\" in self.path:
            yield FieldError(
                "path", "must be relative, with '/' between names of which none is empty or begins with '.'"
            )

    @rule("unpack")
    def _unpack_is_known(self) -> Iterator[FieldError]:
        if self.unpack not in ("", "zip", "tar"):
            yield FieldError("unpack", "can be unpacked: zip, tar")


@dataclass(frozen=True)
class DownloadList:
    """Many downloads: a CSV file beside the card, and the address that its ``url_path`` follows."""

    base: str
    table: str
    labels: str = ""  # "ndpi": the card's label file is made of nDPI's result files, which are among the downloads

    def __post_init__(self) -> None:
        if self.labels not in ("", "ndpi"):
            raise FieldError("labels", "can be made of: ndpi")

    def read(self, folder: Path) -> tuple[Download, ...]:
        """The downloads.  Raises :class:`InputError` naming the list and its rows."""
        downloads, problems = [], []
        for line, row in enumerate(_read_downloads(folder / self.table), 2):
            try:
                url = self.base + quote(row["url_path"])
                downloads.append(Download(url, row["sha256"], row["path"], bytes=int(row["bytes"])))
            except FieldErrors as error:
                problems.append(f"row {line}: {error}")
        if problems:
            raise all_wrong("bad-file-list", folder / self.table, problems)
        return tuple(downloads)


@dataclass(frozen=True)
class CaptureMatch:
    """A folder held against a list: the captures to read with their rows, and how they match."""

    rows: dict[str, Listed]  # path -> row
    report: FilesReport


def read_file_list(path: Path) -> FileList:
    """Read and check a list.  Raises :class:`InputError` naming the file and all that is wrong: row and reason."""
    try:
        rows = list(csv_rows(path))
    except (OSError, ValueError) as error:
        raise InputError(
            "bad-file-list", f"{path}: cannot be read as a list of captures: {error}; give a CSV file in UTF-8"
        ) from error
    head = rows.pop(0)[1] if rows else []
    problems, files = list(_faults_of_head(head)), dict[Key, tuple[int, Listed]]()
    if head.count("file") == 1:
        problems += ["has a head and no row; write a row for each capture"] if not rows else []
        for line, row in rows:
            problems += _read_row(line, row, head, files)
        problems += [f"row {line}: copy_of = {fault}" for line, fault in _faults_of_copies(files)]
    if problems:
        raise all_wrong("bad-file-list", path, problems)
    return FileList(path.name, tuple(listed for _, listed in files.values()))


def _read_downloads(path: Path) -> list[dict[str, str]]:
    """The rows of a list of downloads: ``path``, ``bytes``, ``sha256``, ``url_path``.

    Raises :class:`InputError` naming the file, the row and the reason.
    """
    try:
        rows = list(csv_rows(path))
    except (OSError, ValueError) as error:
        raise InputError("bad-file-list", f"{path}: cannot be read as a list of downloads: {error}") from error
    what = f"needs the columns {', '.join(DOWNLOAD)}, and a value in each"
    head = rows.pop(0)[1] if rows else []
    if sorted(head) != sorted(DOWNLOAD):
        raise InputError("bad-file-list", f"{path}: row 1: {what}")
    size = head.index("bytes")
    problems = [
        f"row {line}: {what}"
        for line, row in rows
        if len(row) != len(head) or not all(row) or not row[size].isdecimal()
    ]
    if problems:
        raise all_wrong("bad-file-list", path, problems)
    return [dict(zip(head, row, strict=True)) for _, row in rows]


def _faults_of_head(head: Sequence[str]) -> Iterator[str]:
    """Columns that cannot be, are there twice, or are one of `RESERVED` but for a slip of the pen."""
    if "file" not in head:
        yield f"needs a column 'file' and a row for each capture; it has: {', '.join(head) or '-'}"
    for place, name in enumerate(head, 1):
        if not name.strip():
            yield f"row 1: column {place} has no name; name it or take it out"
            continue
        if name in head[: place - 1]:
            yield f"row 1: column {name!r} is there twice; keep one"
        meant = near(name, RESERVED, least=0.85)
        if meant and name not in RESERVED:
            yield f"row 1: column {name!r} is nearly {meant!r}; write it so, or give labels another name"


def _faults_of_copies(files: Mapping[Key, tuple[int, Listed]]) -> Iterator[tuple[int, str]]:
    """Rows of copies whose original is not listed, is itself, or is a copy of another."""
    for key, (line, listed) in files.items():
        if not listed.copy_of:
            continue
        of = capture_key(listed.copy_of)
        if of not in files:
            yield line, f"{listed.copy_of!r} is not a file of the list; add it or empty the cell"
        elif of == key:
            yield line, f"{listed.copy_of!r} is the row's own file; name another or empty the cell"
        elif files[of][1].copy_of:
            yield line, f"{listed.copy_of!r} is a copy itself, by row {files[of][0]}; name its original"


def _read_row(line: int, row: Sequence[str], head: Sequence[str], files: dict[Key, tuple[int, Listed]]) -> list[str]:
    """Put a row among the files, by its key; what is wrong with it."""
    if len(row) != len(head):
        return [f"row {line} has {len(row)} columns, the head has {len(head)}; quote its commas"]
    cells = dict(zip(head, row, strict=True))
    texts = {name: cells.get(name, "") for name in RESERVED}
    packets, name = texts.pop("packets"), texts["file"]
    key, faults = capture_key(name), list(_faults_of_cells(name, packets, texts["damaged"]))
    if key in files:
        faults.append(f"file = {name!r} is already in row {files[key][0]}; keep one")
    elif key[-1]:  # also of a row that is wrong in another cell: its copies are right
        labels = {name: value for name, value in cells.items() if name not in RESERVED}
        number = int(packets) if packets and not faults else None
        files[key] = line, Listed(labels=labels, packets=number, **texts)
    return [f"row {line}: {fault}" for fault in faults]


def _faults_of_cells(name: str, packets: str, damaged: str) -> Iterator[str]:
    key = capture_key(name)
    if not key[-1]:
        yield f"file = {name!r} names no file; name the capture" if name else "file is empty; name the capture"
    elif "/" in key or ".." in key:
        yield f"file = {name!r} must be a name, or folders and a name, without '..'; shorten it"
    if packets and not (packets.isdecimal() and len(packets) < 19):
        yield f"packets = {packets!r:.80} is not a number; give digits alone or leave it empty"
    if damaged not in DAMAGED:
        yield f"damaged = {damaged!r}; it may be empty, 'yes' or 'possible'"


def capture_key(path: str) -> Key:
    """What of a path tells a capture: its parts in lower case without blanks, the last without a capture's suffix.

    The suffix tells nothing: publishers and users convert captures and keep the name, or rename and keep the bytes.
    """
    *folders, name = PurePosixPath("".join(path.lower().split())).parts or ("",)
    for suffixes in (COMPRESSED, SUFFIXES):
        name = next((name.removesuffix(suffix) for suffix in suffixes if name.endswith(suffix)), name)
    return (*folders, name)


def unpacking(name: str) -> str:
    """The command that unpacks an archive of that name; empty where it is none."""
    command = next((ARCHIVES[end] for end in ARCHIVES if name.lower().endswith(end)), "")
    return f"{command} {shlex.quote(name)}" if command else ""


def match_captures(
    files: Sequence[Listed], left_out: Sequence[Listed], root: Path, captures: Sequence[str], others: Iterable[str]
) -> CaptureMatch:
    """Hold the captures below ``root`` against the rows of a list; ``others`` are the files that are no captures.

    A capture matches the row whose parts are the last of its own path (the longest such row), so that it does not
    matter how deep the captures lie.  Rows ``left_out`` are known but not wanted.  Copies are read only where their
    original is not there.
    """
    wanted = {capture_key(listed.file): listed for listed in files}
    unwanted = {capture_key(listed.file) for listed in left_out}
    known = wanted.keys() | unwanted
    by_key: dict[Key, list[str]] = collections.defaultdict(list)
    unknown = []
    for path in sorted(captures):
        parts = capture_key(f"{root.absolute().as_posix()}/{path}")
        if key := next((parts[first:] for first in range(len(parts)) if parts[first:] in known), None):
            by_key[key].append(path)
        else:
            unknown.append(path)
    taken = {key: by_key[key][0] for key in wanted if key in by_key}
    rows, skipped, used = _without_copies(wanted, taken)
    covered = set(rows) | {key for key, listed in wanted.items() if listed.copy_of} | {capture_key(of) for of in used}
    missing = [listed for key, listed in wanted.items() if key not in covered]
    report = FilesReport(
        listed=len(wanted),
        missing=[
            {name: cell for name, cell in one.flat().items() if name in ("file", "archive", "note")} for one in missing
        ],
        unknown=unknown,
        double=[
            DoubleCapture(wanted[key].file, paths[0], paths[1:])
            for key, paths in by_key.items()
            if key in wanted and len(paths) > 1
        ],
        copies_skipped=skipped,
        copies_used=used,
        left_out=sorted(path for key in by_key.keys() & unwanted for path in by_key[key]),
        archives=[{"file": path, "unpack": how} for path in sorted(others) if (how := unpacking(path))],
    )
    return CaptureMatch({taken[key]: wanted[key] for key in rows}, report)


def _without_copies(
    wanted: Mapping[Key, Listed], taken: Mapping[Key, str]
) -> tuple[list[Key], dict[str, str], dict[str, str]]:
    """Keys to read; copies that are skipped (path -> original's path) and used (original -> copy's path)."""
    skipped: dict[str, str] = {}
    used: dict[str, str] = {}
    rows = [key for key in taken if not wanted[key].copy_of]
    read = {key: taken[key] for key in rows}  # by the original's key, however a copy's row writes its name
    for key in taken:
        if not (original := wanted[key].copy_of):
            continue
        of = capture_key(original)
        if of in read:
            skipped[taken[key]] = read[of]
        else:
            used[original] = read[of] = taken[key]
            rows.append(key)
    return rows, skipped, used


def with_captures(report: FilesReport, rows: Mapping[str, Listed], captures: Sequence[CaptureEntry]) -> FilesReport:
    """The report with what the ingest found of packets and damage, against the rows."""
    pairs = [(capture, rows[capture.path]) for capture in captures]
    return dataclasses.replace(
        report,
        packets_differ=[
            PacketsDiffer(capture.path, listed.packets, capture.records)
            for capture, listed in pairs
            if listed.packets is not None and listed.packets != capture.records
        ],
        damage_expected=[c.path for c, listed in pairs if c.damage and listed.damaged],
        damage_unexpected=[c.path for c, listed in pairs if c.damage and not listed.damaged],
        damage_absent=[c.path for c, listed in pairs if not c.damage and listed.damaged == "yes"],
    )


def lacking_classes(
    classes: Mapping[str, Sequence[str]], tasks: Mapping[str, TaskEntry], files: Sequence[Listed], report: FilesReport
) -> list[LackingClasses]:
    """The classes of each task that the list has and the captures have not.

    ``classes`` gives for each task the class of each of the list's ``files``, empty for none.  What a class needs is
    told where its captures are among the missing ones.
    """
    absent, lacking = {one["file"] for one in report.missing}, []
    for task, of_file in classes.items():
        if names := sorted(set(of_file) - set(tasks[task].classes) - {""}):
            needed = [one for one, name in zip(files, of_file, strict=True) if name in names and one.file in absent]
            lacking.append(
                LackingClasses(
                    task=task,
                    classes=names,
                    files=[listed.file for listed in needed],
                    archives=sorted({listed.archive for listed in needed} - {""}),
                    notes=sorted({listed.note for listed in needed} - {""}),
                )
            )
    return lacking
