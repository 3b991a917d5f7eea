"""Fetch the captures of a data set whose card says where they are: each file whole, or not at all.

pooch fetches and verifies; what it lacks, going on with a download that broke off, is done here.  Captures lie in
``<home>/downloads/<name>``, which is then the source folder; what is not finished lies in the hidden folder beside
it, under the checksum that it shall have, so that nothing half done is ever taken for a capture, and a card whose
checksum changed does not go on with the file of before.

Archives are unpacked by us and not by what the standard library calls extracting, which trusts names on some Pythons:
plain files and folders alone, in their folder alone, up to a bound; the whole archive is checked before the first byte.
"""

import hashlib
import json
import lzma
import os
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from bench.data.card_tables import SessionLabels
from bench.data.cards import Card
from bench.data.file_list import Download
from bench.data.manifest import bench_home
from bench.errors import InputError
from bench.files import file_sha256, locked, write_text
from bench.records.ndpi import write_labels

if TYPE_CHECKING:
    from requests import RequestException, Response

#: called after each chunk: the file's path, its number from 1, of how many, bytes there, bytes in all (0: not told)
Progress = Callable[[str, int, int, int, int], None]
CHUNK: Final = 1 << 16  # bytes; less than one is lost where a download breaks off
TIMEOUT_S: Final = 60  # without a connection or a byte; our choice
_AGAIN: Final = "run the same command again"
MOST_BYTES: Final = 4 << 30  # that an archive may unpack to, ...
MOST_TIMES: Final = 200  # ... or so many times its own size, where that is more; our choice
BLOCK: Final = 1 << 12  # bytes that a member counts for at least: an empty file takes room, too
MOST_HEADER: Final = 1 << 20  # bytes before a member of a tar file, all of which the standard library keeps in memory


class _Refused(Exception):
    """Something in an archive that is not unpacked."""


#: what an archive raises that cannot be unpacked: one that has a password RuntimeError, one in which a file has another
#: one's folder's name FileExistsError or one of its siblings
_UNPACKING: Final = (
    *(_Refused, zipfile.BadZipFile, tarfile.TarError, lzma.LZMAError, zlib.error, struct.error),
    *(EOFError, RuntimeError, ValueError, FileExistsError, IsADirectoryError, NotADirectoryError),
)


def fetch(card: Card, *, home: Path | None = None, progress: Progress | None = None) -> Path:
    """The folder with all downloads of a card; those that are not there yet, or are not whole, are fetched.

    ``home`` is :func:`bench.data.manifest.bench_home` by default.  Raises :class:`InputError` for a card without
    downloads, a folder with other files in it, a server that does not give a file, a wrong checksum, an archive that
    cannot be unpacked and a folder that cannot be written, such as on a full disk.
    """
    if not card.downloads:
        where = f"ask for the captures at {card.home}" if card.home else "ask its publisher for the captures"
        remedy = "leave out --download" if card.source or card.generator else f"{where}, then give --source DIR"
        raise InputError("no-downloads", f"{card.name}: its card has no downloads; {remedy}")
    folder = (home or bench_home()) / "downloads" / card.name
    work = folder.with_name(f".{card.name}")
    with _told(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _refuse_others(card, folder)
        work.mkdir(exist_ok=True)
        with locked(work):
            for left in work.glob("tmp*"):  # what a killed process left of pooch's
                left.unlink()
            for number, one in enumerate(card.downloads, 1):
                report = partial(progress or (lambda *_: None), one.path, number, len(card.downloads))
                _fetch(one, folder, work, report)
            if made := _made_labels(card):
                write_labels(folder / "result", folder / made)
    return folder


def _made_labels(card: Card) -> str:
    """The label file that is made of downloads; empty where none is."""
    made = card.download_list is not None and card.download_list.labels
    return card.labels.file if made and isinstance(card.labels, SessionLabels) else ""


def _refuse_others(card: Card, folder: Path) -> None:
    """Refuse files that no download put there, such as those of an older card: they would be taken for captures."""
    made = _made_labels(card)
    for path in sorted(folder.rglob("[!.]*")):
        inside = path.relative_to(folder).as_posix()
        ours = inside == made or any(f"{inside}/".startswith(f"{one.path}/") for one in card.downloads)
        if path.is_file() and not ours:
            raise InputError("foreign-file", f"{path}: is none of the downloads of {card.name}; move it away")


def _fetch(one: Download, folder: Path, work: Path, report: Callable[[int, int], None]) -> None:
    """Put one download in its place, if it is not there."""
    target, mark = folder / one.path, work / f"{hashlib.sha256(one.path.encode()).hexdigest()}.json"
    if one.unpack:
        if not (mark.is_file() and mark.read_text() == _content(one, target)):
            _unpack(one, _retrieve(one, work, report), target, mark)
    elif not (target.is_file() and file_sha256(target) == one.sha256):
        file = _retrieve(one, work, report)
        target.parent.mkdir(parents=True, exist_ok=True)
        file.replace(target)


def _retrieve(one: Download, work: Path, report: Callable[[int, int], None]) -> Path:
    """Fetch a file into the hidden folder, with the right checksum."""
    import pooch
    from requests import RequestException

    pooch.get_logger().setLevel("WARNING")  # progress is told by us
    part = work / f"{one.sha256}.part"
    resume = partial(_resume, part, report)
    try:
        pooch.retrieve(one.url, f"sha256:{one.sha256}", fname=one.sha256, path=work, downloader=resume)
    except RequestException as error:
        raise InputError("download-failed", f"{one.url}: {_reason(error, part)}") from error
    except ValueError as error:  # pooch's word for a wrong checksum
        digest = file_sha256(part)
        part.unlink()
        remedy = f"the download is deleted; {_AGAIN}, or ask the publisher which checksum is right"
        raise InputError(
            "wrong-checksum", f"{one.url}: has SHA-256 {digest}, its card says {one.sha256}; {remedy}"
        ) from error
    part.unlink(missing_ok=True)
    return work / one.sha256


def _resume(part: Path, report: Callable[[int, int], None], url: str, output: str, _pooch: Any) -> None:
    """Serve pooch as its downloader: fetch what the part does not have yet and give all as ``output``.

    The part itself stays until pooch has verified the output, so that an interrupt meanwhile loses nothing.
    """
    import requests

    response, have = _request(url, part)
    with response:
        length = int(response.headers.get("Content-Length", 0))
        if response.status_code != requests.codes.requested_range_not_satisfiable:
            with part.open("ab" if have else "wb") as file:
                for chunk in response.iter_content(CHUNK):
                    file.write(chunk)
                    report(file.tell(), have + length if length else 0)
            if part.stat().st_size < have + length:  # urllib3 tells since version 2
                raise requests.exceptions.ChunkedEncodingError("the connection was closed")
    Path(output).unlink()
    try:
        os.link(part, output)
    except OSError:  # a file system without links
        shutil.copyfile(part, output)


def _request(url: str, part: Path) -> "tuple[Response, int]":
    """Ask for what comes after the part; also how many of its bytes count: none where the server starts again.

    A status 416 that gives the part's size as the file's says that the part is whole.
    """
    import requests

    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    response = requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S)
    if not have or response.status_code == requests.codes.ok:
        response.raise_for_status()
        return response, 0
    given = response.headers.get("Content-Range", "")
    if response.status_code == requests.codes.partial_content and given.startswith(f"bytes {have}-"):
        return response, have
    unsatisfiable = response.status_code == requests.codes.requested_range_not_satisfiable
    if unsatisfiable and given == f"bytes */{have}":
        return response, have
    with response:
        if not unsatisfiable:
            response.raise_for_status()
    part.unlink()  # longer than the file, or the server counts otherwise
    return _request(url, part)


def _reason(error: "RequestException", part: Path) -> str:
    """What went wrong on the way, and the remedy."""
    if error.response is not None:
        answer = f"the server answers {error.response.status_code} {error.response.reason}"
        return f"{answer}; check the address in the card, or {_AGAIN} later"
    cause: BaseException = error
    while deeper := cause.__cause__ or cause.__context__:  # the innermost says it in the fewest words
        cause = deeper
    have = part.stat().st_size if part.exists() else 0
    where = f": it resumes after {have} bytes if the server can" if have else ""
    return f"the connection failed ({getattr(cause, 'strerror', None) or cause}); {_AGAIN}{where}"


def _unpack(one: Download, archive: Path, target: Path, mark: Path) -> None:
    """Unpack beside the target, put the folder in its place, note what is in it, and remove the archive."""
    aside = mark.with_name("unpacking")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    limit = max(MOST_BYTES, MOST_TIMES * archive.stat().st_size)
    try:
        with archive.open("rb") as file:
            if one.unpack == "zip":
                with zipfile.ZipFile(file) as packed:
                    _extract(_zip_members(packed), aside, limit)
            else:
                with _open_tar(file, limit) as tar:
                    _extract(_tar_members(tar), aside, limit)
    except _UNPACKING as error:  # NotImplementedError, for Deflate64, is a RuntimeError
        shutil.rmtree(aside)
        reason = " ".join(str(error).split())  # tarfile's has lines
        remedy = "unpack it by hand (`7z x`) and give --source DIR"
        raise InputError(
            "bad-archive", f"{archive}: {one.path} cannot be unpacked as {one.unpack} ({reason}); {remedy}"
        ) from error
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    mark.unlink(missing_ok=True)
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    aside.rename(target)
    write_text(mark, _content(one, target))
    archive.unlink()


@dataclass(frozen=True)
class _Member:
    """One entry of an archive."""

    name: str  # as it stands there, '/' separates
    kind: int  # S_IFREG, S_IFDIR, or of what is not unpacked
    size: int  # bytes, as the archive says
    open: Callable[[], IO[bytes]]


def _extract(members: Iterable[_Member], folder: Path, limit: int) -> None:
    """Write the members into an empty folder, and into no other: all are checked before the first is written."""
    for member, place in list(_checked(members, limit)):
        target = folder / place
        if member.kind == stat.S_IFDIR:
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        left = member.size
        with member.open() as source, target.open("wb") as file:
            while chunk := source.read(CHUNK):
                left -= len(chunk)
                if left < 0:  # so that what is written is bounded by what was checked
                    raise _Refused(f"{member.name!r} is larger than the archive says")
                file.write(chunk)


def _checked(members: Iterable[_Member], limit: int) -> Iterator[tuple[_Member, Path]]:
    """Members with their places in the folder; refuses one that is not plain, leaves the folder, or is too large."""
    total = 0
    for member in members:
        place = Path(member.name)
        if place.anchor or ".." in place.parts:  # absolute, or on a drive
            raise _Refused(f"{member.name!r} would leave its folder")
        if member.kind not in (stat.S_IFREG, stat.S_IFDIR):
            raise _Refused(f"{member.name!r} is not a plain file or folder")
        if member.size < 0:  # of older Pythons' tarfile, which would read it again and again
            raise _Refused(f"{member.name!r} has a size of {member.size} bytes")
        total += max(member.size, BLOCK)
        if total > limit:
            raise _too_much(limit)
        yield member, place


def _too_much(limit: int) -> _Refused:
    return _Refused(f"it unpacks to more than {limit} bytes, the most for an archive of its size")


def _zip_members(packed: zipfile.ZipFile) -> Iterator[_Member]:
    for info in packed.infolist():
        mode = stat.S_IFMT(info.external_attr >> 16)  # of Unix; 0 where another system packed it
        kind = stat.S_IFDIR if info.is_dir() else mode or stat.S_IFREG
        yield _Member(info.filename, kind, info.file_size, partial(packed.open, info))


def _tar_members(tar: tarfile.TarFile) -> Iterator[_Member]:
    for info in tar:
        kind = stat.S_IFDIR if info.isdir() else stat.S_IFREG if info.isreg() and not info.issparse() else 0
        yield _Member(info.name, kind, info.size, partial(_content_of, tar, info))


def _content_of(tar: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    content = tar.extractfile(info)
    assert content is not None, "a plain file"
    return content


def _open_tar(file: IO[bytes], limit: int) -> tarfile.TarFile:
    """A tar file, compressed in any way that the standard library knows, of which not many more are decompressed."""

    class Tar(tarfile.TarFile):
        @classmethod
        def taropen(cls, name: Any, mode: Any = "r", fileobj: Any = None, **more: Any) -> Any:
            measured: Any = _Measured(fileobj, limit)  # all ways of opening end here
            return super().taropen(name, mode, measured, **more)

        def next(self) -> tarfile.TarInfo | None:
            assert self.fileobj is not None
            self.fileobj.seek(self.fileobj.tell())  # a member's headers begin
            return super().next()

    return Tar.open(fileobj=file)


class _Measured:
    """The bytes of a tar file: none far beyond the limit, and few without a seek between, whatever headers say."""

    def __init__(self, file: IO[bytes], limit: int) -> None:
        self._file, self._limit, self._left = file, limit, MOST_HEADER
        self.tell, self.close = file.tell, file.close

    def seek(self, place: int) -> int:
        if place > self._limit:
            raise _too_much(self._limit)
        self._left = MOST_HEADER
        return self._file.seek(place)

    def read(self, size: int) -> bytes:
        self._left -= size
        if size < 0 or self._left < 0:
            raise _Refused(f"it has a header of more than {MOST_HEADER} bytes")
        return self._file.read(size)


def _content(one: Download, folder: Path) -> str:
    """What tells an unpacked archive that is whole: its checksum, the number of files and their bytes."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return json.dumps({"sha256": one.sha256, "files": len(sizes), "bytes": sum(sizes)})


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Turn what the file system refuses into one line."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            "unwritable-file", f"{folder}: cannot be written ({reason}); make room or set BENCH_HOME, then {_AGAIN}"
        ) from error
