"""Compressed captures, unpacked once into a file that can be memory-mapped."""

import hashlib
import os
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, BinaryIO, Final

import zstandard

from bench.ingest.containers import Damage

_READ: Final = 1 << 13  # bounds what one read can blow up to: 8 MB (gzip), 256 MB (zstd)

#: first bytes -> suffix to drop, a decompressor of one member (or frame), and its error
_STREAMS: Final[dict[bytes, tuple[str, Callable[[], Any], type[Exception]]]] = {
    b"\x1f\x8b": (".gz", lambda: zlib.decompressobj(wbits=31), zlib.error),
    b"\x28\xb5\x2f\xfd": (".zst", lambda: zstandard.ZstdDecompressor().decompressobj(), zstandard.ZstdError),
}


def is_compressed(path: Path) -> bool:
    """Whether a file starts as gzip or zstd does, whatever its name."""
    return _stream(path) is not None


def unpack(path: Path, folder: Path) -> tuple[Path, tuple[Damage, ...]]:
    """Unpack a gzip or zstd file into ``folder``; returns the new file and the damage met.

    The file is named after its source and the SHA-256 of the source's bytes, is written aside and renamed, and
    takes the source's time of change: unpacking again changes nothing that a later look can see.  A stream that
    ends early or breaks is kept as far as it goes.
    """
    stream = _stream(path)
    if stream is None:
        raise ValueError(f"{path} is not compressed")
    suffix, decompressor, error = stream
    folder.mkdir(parents=True, exist_ok=True)
    with path.open("rb") as source, tempfile.NamedTemporaryFile(dir=folder, delete=False) as target:
        try:
            digest = hashlib.file_digest(source, "sha256").hexdigest()
            source.seek(0)
            damage = _copy(source, target, decompressor, error)
            changed = os.fstat(source.fileno()).st_mtime_ns
            target.close()
            os.utime(target.name, ns=(changed, changed))
            unpacked = folder / f"{digest[:16]}-{path.name.removesuffix(suffix)}"
            Path(target.name).replace(unpacked)
        except BaseException:
            Path(target.name).unlink(missing_ok=True)
            raise
    return unpacked, damage


def _stream(path: Path) -> tuple[str, Callable[[], Any], type[Exception]] | None:
    """What `_STREAMS` says of a file."""
    with path.open("rb") as source:
        magic = source.read(4)
    return _STREAMS.get(magic[:2]) or _STREAMS.get(magic)


def _copy(
    source: BinaryIO, target: IO[bytes], decompressor: Callable[[], Any], error: type[Exception]
) -> tuple[Damage, ...]:
    """Unpack all members (or frames) of ``source`` as far as they go; returns the damage."""
    member, chunk, written = decompressor(), b"", 0
    while chunk := chunk or source.read(_READ):
        if member.eof:
            if not chunk.strip(b"\0"):  # padding
                chunk = b""
                continue
            member = decompressor()
        try:
            written += target.write(member.decompress(chunk))
        except error:
            left = os.fstat(source.fileno()).st_size - source.tell() + len(chunk)
            return (Damage(written, "the compressed stream is broken", left),)
        chunk = member.unused_data
    return () if member.eof else (Damage(written, "the compressed stream ends early", 0),)
