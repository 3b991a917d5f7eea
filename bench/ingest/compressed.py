"""Compressed captures, unpacked once into a file that can be memory-mapped."""

import hashlib
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, Final

import zstandard

from bench.errors import InputError
from bench.files import aside_of
from bench.ingest.containers import Damage

_READ: Final = 1 << 13  # bounds what one read can blow up to: 8 MB (gzip), 256 MB (zstd)
_WINDOW: Final = 1 << 31  # the largest that zstd knows (--long=31); by itself it refuses more than 128 MB

#: a decompressor of one member (or frame), and its error
_Stream = tuple[Callable[[], Any], type[Exception]]

#: by first bytes
_STREAMS: Final[dict[bytes, _Stream]] = {
    b"\x1f\x8b": (lambda: zlib.decompressobj(wbits=31), zlib.error),
    b"\x28\xb5\x2f\xfd": (
        lambda: zstandard.ZstdDecompressor(max_window_size=_WINDOW).decompressobj(),
        zstandard.ZstdError,
    ),
}


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
    """Whether a file starts as gzip or zstd does, whatever its name."""
    return _stream(path) is not None


def unpack(path: Path, folder: Path) -> tuple[Path, tuple[Damage, ...]]:
    """Unpack a gzip or zstd file into ``folder``; returns the new file and the damage met.

    The file is named by the SHA-256 of the source's bytes (the source's own name may leave no room for more), is
    written aside and renamed, and takes the source's time of change: unpacking again changes nothing that a later
    look can see.  A stream that ends early or breaks is kept as far as it goes.

    Raises InputError where the source cannot be read, OSError where the new file cannot be written.
    """
    with reading(path):
        stream, source = _stream(path), path.open("rb")
    with source:
        if stream is None:
            raise ValueError(f"{path} is not compressed")
        with reading(path):
            digest = hashlib.file_digest(source, "sha256").hexdigest()
            source.seek(0)
            changed = os.fstat(source.fileno()).st_mtime_ns
        with aside_of(folder / digest) as aside, aside.open("w+b") as target:
            damage = _copy(source, target, stream)
            target.close()
            os.utime(aside, ns=(changed, changed))
    return folder / digest, damage


def _stream(path: Path) -> _Stream | None:
    """What `_STREAMS` says of a file."""
    with path.open("rb") as source:
        magic = source.read(4)
    return _STREAMS.get(magic[:2]) or _STREAMS.get(magic)


def _copy(source: BinaryIO, target: IO[bytes], stream: _Stream) -> tuple[Damage, ...]:
    """Unpack all members (or frames) of ``source`` as far as they go; returns the damage."""
    decompressor, error = stream
    member, chunk, start, kept = decompressor(), b"", 0, 0  # the member's start in source and target
    while chunk := chunk or _read(source, _READ):
        at = source.tell() - len(chunk)
        if member.eof:
            if not chunk.strip(b"\0"):  # padding
                chunk = b""
                continue
            member, start, kept = decompressor(), at, target.tell()
        try:
            plain = member.decompress(chunk)
        except error:
            source.seek(start)
            target.seek(kept)
            target.truncate()
            return (_salvage(source, target, stream, at - start),)
        target.write(plain)
        chunk = member.unused_data
    return () if member.eof else (Damage(target.tell(), "the compressed stream ends early", 0),)


def _salvage(source: BinaryIO, target: IO[bytes], stream: _Stream, sound: int) -> Damage:
    """Unpack the broken member at ``source`` again, up to its fault; its first ``sound`` bytes have none.

    A decompressor gives nothing of what it was fed with the fault, so bytes near the fault are fed one by one.
    """
    decompressor, error = stream
    member, good = decompressor(), source.tell()
    while piece := _read(source, min(sound, _READ) or 1):
        sound -= min(sound, len(piece))
        try:
            plain = member.decompress(piece)
        except error:
            break
        if plain:
            target.write(plain)
            good = source.tell()
    return Damage(target.tell(), "the compressed stream is broken", os.fstat(source.fileno()).st_size - good)


def _read(source: BinaryIO, size: int) -> bytes:
    """The next bytes of a capture."""
    with reading(source.name):
        return source.read(size)
