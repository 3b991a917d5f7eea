"""Packed captures, unpacked once into a file that can be memory-mapped; archives, named with what unpacks them."""

import bz2
import errno
import hashlib
import lzma
import os
import re
import shlex
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, Final

import zstandard

from bench.errors import InputError
from bench.files import aside_of
from bench.ingest.containers import Damage
from bench.schema import CAPTURE_MAGICS

#: what a packed file may unpack to: the larger of these bytes and this many times its own.  Our choice: captures pack
#: to a half or a twentieth, idle ones to a hundredth, while gzip reaches a thousandth and zstd, bzip2 and xz far less;
#: a gigabyte does no harm to any disk that has room for a store.
LIMIT_BYTES: Final = 1 << 30
LIMIT_RATIO: Final = 200

_HEAD: Final = 512  # bytes of a file that tell its format; tar's word stands at 257
_READ: Final = 1 << 13  # packed bytes at once: at most 9 MB of gzip's
_READ_ZSTD: Final = 1 << 9  # at most 17 MB: a block of 4 bytes becomes 128 KB, and nothing bounds what one call gives
_PIECE: Final = 1 << 20  # plain bytes at once, where the library can be told: 46 bytes of bzip2 become 46 MB
_WINDOW: Final = 1 << 31  # the largest that zstd knows (--long=31); by itself it refuses more than 128 MB
_WINDOW_XZ: Final = _WINDOW + (1 << 20)  # as much, and what xz needs beside it
_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # of others zipfile unpacks 4 KB at once, to any size

#: what zipfile raises for an archive that is damaged or unlike any that it knows
_BAD_ZIP: Final = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError)


@dataclass(frozen=True)
class _Stream:
    """How a compression's members (gzip), streams (bzip2, xz) or frames (zstd) are unpacked."""

    member: Callable[[], Any]  # a new decompressor of one of them
    error: type[Exception]  # what it raises for broken ones
    read: int = _READ  # packed bytes that it is fed at once
    stops: bool = False  # whether it can be told how much to give, and gives the rest when it is fed nothing


@dataclass(frozen=True)
class _Format:
    """A way to pack files."""

    name: str
    start: bytes  # regular expression for its first bytes
    command: str  # what unpacks a file by hand; {packed} and {plain} are names
    stream: _Stream | None = None  # None: an archive, or what cannot be unpacked here

    def by_hand(self, path: Path) -> str:
        """The command for that file."""
        plain = path.stem if path.suffix else f"{path.name}.pcap"  # never the file itself
        return self.command.format(packed=shlex.quote(path.name), plain=shlex.quote(plain))


_ZIP: Final = _Format("a zip archive", rb"PK(\x03\x04|\x05\x06|\x07\x08)", "unzip {packed}")
_TAR: Final = _Format("a tar archive", rb".{257}ustar[\0 ]", "tar xf {packed}")

#: all that are known, told by their first bytes alone
_FORMATS: Final = (
    _TAR,  # first: its first bytes are a file's name
    _Format(
        "gzip data",
        rb"\x1f\x8b",
        "gzip -dc {packed} > {plain}",
        _Stream(lambda: zlib.decompressobj(wbits=31), zlib.error),
    ),
    _Format(
        "zstd data",
        rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18",  # a frame, or one that is skipped, as pzstd begins
        "zstd -dc --long=31 {packed} > {plain}",
        _Stream(
            lambda: zstandard.ZstdDecompressor(max_window_size=_WINDOW).decompressobj(),
            zstandard.ZstdError,
            read=_READ_ZSTD,
        ),
    ),
    _Format(
        "xz data",
        rb"\xfd7zXZ\0",
        "xz -dc {packed} > {plain}",
        _Stream(lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_WINDOW_XZ), lzma.LZMAError, stops=True),
    ),
    _Format(
        "bzip2 data",
        rb"BZh[1-9](1AY&SY|\x17rE8P\x90)",  # a block, or the end
        "bzip2 -dc {packed} > {plain}",
        _Stream(bz2.BZ2Decompressor, OSError, stops=True),
    ),
    _Format("lz4 data", rb"\x04\x22\x4d\x18|\x02\x21\x4c\x18", "lz4 -dc {packed} > {plain}"),
    _ZIP,
    _Format("a 7z archive", rb"7z\xbc\xaf\x27\x1c", "7z x {packed}"),
    _Format("a rar archive", rb"Rar!\x1a\x07", "7z x {packed}"),
)


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Raises :class:`InputError` for what goes wrong in reading a capture: another file, its rights are the user's.

    Not around what writes: a full disk is no fault of the capture and must not count as one.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise InputError(
            "unreadable-file", f"{path}: cannot be read ({reason}); give a readable capture file"
        ) from error


def is_compressed(path: Path) -> bool:
    """Whether a file starts as a packed one or an archive does, whatever its name: `unpack` reads or refuses it."""
    return _format(path) is not None


def unpack(path: Path, folder: Path) -> tuple[Path, tuple[Damage, ...]]:
    """Unpack gzip, zstd, xz, bzip2 or a zip of one file into ``folder``; returns the new file and the damage met.

    The file is named by the SHA-256 of the source's bytes (the source's own name may leave no room for more), is
    written aside and renamed, and takes the source's time of change: unpacking again changes nothing that a later
    look can see.  A stream that ends early or breaks is kept as far as it goes.  No more than some 35 MB are held in
    memory, and the window that a zstd or xz stream asks for (2 GiB at most, of which it touches what it unpacks to).

    Raises InputError where the source cannot be read, unpacks to more than `LIMIT_BYTES` and `LIMIT_RATIO` allow, or
    is, or holds, what has to be unpacked by hand (lz4, 7z, rar, tar, other zips); OSError where the new file cannot be
    written.  Nothing is left of it then.
    """
    with reading(path):
        kind, source = _format(path), path.open("rb")
    with source:
        if kind is None:
            raise ValueError(f"{path} is not compressed")
        if kind.stream is None and kind is not _ZIP:
            raise _refusal(path, kind.name, kind.by_hand(path))
        with reading(path):
            digest = hashlib.file_digest(source, "sha256").hexdigest()
            source.seek(0)
            status = os.fstat(source.fileno())
        with aside_of(folder / digest) as aside, aside.open("w+b") as file:
            target = _Target(file, path, kind, max(LIMIT_BYTES, LIMIT_RATIO * status.st_size))
            damage = _copy(source, target, kind.stream) if kind.stream else _unzip(source, target)
            file.close()
            os.utime(aside, ns=(status.st_mtime_ns, status.st_mtime_ns))
    return folder / digest, damage


def _format(path: Path) -> _Format | None:
    """How a file is packed."""
    with path.open("rb") as file:
        return _format_of(file.read(_HEAD))


def _format_of(head: bytes) -> _Format | None:
    """How the file with these first bytes is packed."""
    if head[:4] in CAPTURE_MAGICS:
        return None
    return next((kind for kind in _FORMATS if re.match(kind.start, head, re.DOTALL)), None)


def _refusal(path: Path, what: str, command: str, remedy: str = "unpack it") -> InputError:
    """The error for a file that is ``what``, which that command unpacks."""
    return InputError(
        "unpack-by-hand", f"{path}: is {what}, which bench does not unpack; {remedy}: `{command}`, then move it away"
    )


class _Target:
    """The file that plain bytes go to; it refuses more than ``limit`` bytes, and any that are packed themselves."""

    def __init__(self, file: IO[bytes], path: Path, kind: _Format, limit: int) -> None:
        self.file, self.path, self.kind, self.limit = file, path, kind, limit  # path and kind are the source's
        self.size = 0

    def write(self, plain: bytes) -> None:
        """Append.  Raises InputError where the file is not what it may be, OSError where there is no room."""
        known, self.size = self.size, self.size + len(plain)
        if self.size > self.limit:
            raise InputError(
                "unpacks-too-large",
                f"{self.path}: unpacks to more than {self.limit:,} bytes, the limit ({LIMIT_BYTES:,} bytes, or "
                f"{LIMIT_RATIO} times the packed file where that is more); if you trust it, unpack it by hand: "
                f"`{self.kind.by_hand(self.path)}`, then move it away",
            )
        self.file.write(plain)
        if known < _HEAD:
            self._look()

    def cut(self, size: int) -> None:
        """Take back what goes beyond ``size`` bytes."""
        self.size = self.file.seek(size)
        self.file.truncate()

    def _look(self) -> None:
        """Refuse packed bytes as soon as they show: an archive may be large."""
        self.file.seek(0)
        inner = _format_of(self.file.read(_HEAD))
        self.file.seek(self.size)
        if inner:
            whole = inner is _TAR and self.kind is not _ZIP  # tar unpacks what its archive is packed by
            command = (inner if whole else self.kind).by_hand(self.path)
            raise _refusal(self.path, f"{inner.name} inside {self.kind.name}", command)


class _BrokenStream(Exception):
    """What cannot be unpacked, of any library."""


class _Member:
    """One member (stream, frame) of a compressed file, unpacked as it is fed."""

    def __init__(self, stream: _Stream) -> None:
        self.stream, self.inner = stream, stream.member()
        self.rest = b""  # of what it was fed, behind its end

    @property
    def eof(self) -> bool:
        """Whether it has ended."""
        return bool(self.inner.eof)

    def unpacked(self, packed: bytes) -> Iterator[bytes]:
        """What the next bytes give, in pieces of at most `_PIECE` bytes or what its `_Stream.read` can become.

        Raises _BrokenStream where they give nothing more; of the bytes with the fault nothing is given.
        """
        for start in range(0, len(packed), self.stream.read):
            end = start + self.stream.read
            plain = self._step(packed[start:end])
            while plain:
                yield plain
                plain = self._step(b"") if self.stream.stops and not self.eof else b""
            if self.eof:
                self.rest = self.inner.unused_data + packed[end:]
                return

    def _step(self, packed: bytes) -> bytes:
        """One call of the library; its errors are told from those of files, as bz2's are OSErrors."""
        try:
            plain: bytes = self.inner.decompress(packed, *([_PIECE] if self.stream.stops else []))
        except self.stream.error as error:
            raise _BrokenStream from error
        return plain


def _copy(source: BinaryIO, target: _Target, stream: _Stream) -> tuple[Damage, ...]:
    """Unpack all members (streams, frames) of ``source`` as far as they go; returns the damage."""
    member, chunk, start, kept = _Member(stream), b"", 0, 0  # the member's start in source and target
    while chunk := chunk or _read(source, _READ):
        if member.eof:
            if not (chunk := chunk.lstrip(b"\0")):  # padding
                continue
            member, start, kept = _Member(stream), source.tell() - len(chunk), target.size
        at = source.tell() - len(chunk)
        try:
            for plain in member.unpacked(chunk):
                target.write(plain)
        except _BrokenStream:
            source.seek(start)
            target.cut(kept)
            return (_salvage(source, target, stream, at - start),)
        chunk = member.rest
    return () if member.eof else (Damage(target.size, "the compressed stream ends early", 0),)


def _salvage(source: BinaryIO, target: _Target, stream: _Stream, sound: int) -> Damage:
    """Unpack the broken member at ``source`` again, up to its fault; its first ``sound`` bytes have none.

    A decompressor gives nothing of what it was fed with the fault, so bytes near the fault are fed one by one.
    """
    member, good = _Member(stream), source.tell()
    while piece := _read(source, min(sound, _READ) or 1):
        sound -= min(sound, len(piece))
        size = target.size
        try:
            for plain in member.unpacked(piece):
                target.write(plain)
        except _BrokenStream:
            target.cut(size)  # bzip2 first gives a block, then says that it is another than was packed
            break
        if target.size > size:
            good = source.tell()
    return Damage(target.size, "the compressed stream is broken", os.fstat(source.fileno()).st_size - good)


def _read(source: BinaryIO, size: int) -> bytes:
    """The next bytes of a capture."""
    with reading(source.name):
        return source.read(size)


def _unzip(source: BinaryIO, target: _Target) -> tuple[Damage, ...]:
    """Unpack a zip archive's only file; there is no damage.  Raises InputError for any other archive."""
    for plain in _only_file(source, target.path):
        target.write(plain)
    return ()


def _only_file(source: BinaryIO, path: Path) -> Iterator[bytes]:
    """The bytes of a zip archive's only file, at most `_PIECE` at once; what their taker raises is not met here."""
    with reading(path):
        try:
            with zipfile.ZipFile(source) as archive:
                _check_zip(archive, path)
                with archive.open(_files(archive)[0]) as packed:
                    while plain := packed.read(_PIECE):
                        yield plain
        except (*_BAD_ZIP, OSError) as error:
            if isinstance(error, OSError) and error.errno != errno.EINVAL:  # that: it points to before its start
                raise
            what = f"a damaged zip archive ({' '.join(str(error).split()) or 'it ends early'})"
            raise _refusal(path, what, f"7z x {shlex.quote(path.name)}", "get the file again, or unpack it") from error


def _files(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The files that somebody packed: folders have entries, too, and macOS adds a shadow of each file."""
    return [one for one in archive.infolist() if not re.match("__MACOSX/|.*/$", one.filename, re.DOTALL)]


def _check_zip(archive: zipfile.ZipFile, path: Path) -> None:
    """Refuse what is not one file that can be unpacked, with the number of files and the program that can."""
    files = _files(archive)
    encrypted = any(one.flag_bits & 1 for one in files)
    odd = sorted({one.compress_type for one in files} - set(_METHODS))
    if len(files) == 1 and not encrypted and not odd:
        return
    kind = "an encrypted zip archive" if encrypted else "a zip archive"
    count = f"of {len(files)} file{'s'[: len(files) != 1]}"
    how = f" packed by method {odd[0]}" if odd and not encrypted else ""
    # unzip knows neither AES nor Deflate64 (method 9, which Windows writes for files of more than 2 GB)
    by_hand = f"7z x {shlex.quote(path.name)}" if encrypted or odd else _ZIP.by_hand(path)
    raise _refusal(path, f"{kind} {count}{how}", by_hand)
