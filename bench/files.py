"""Files: written whole or not at all, locked, told apart by their content, and read into records.

Enters: paths, and dataclasses that say what a file holds (`bench.structure`).  Leaves: whole files, and records.
Every file of the harness is written and read here, so that a killed process leaves nothing that is taken for whole.
"""

import contextlib
import csv
import dataclasses
import errno
import hashlib
import json
import os
import platform
import secrets
import shutil
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bench.errors import InputError, some
from bench.structure import Record, structured

NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)  # no fault of what is read meanwhile


def is_of_machine(error: BaseException) -> bool:
    """Whether an error is a disk's, a limit's or a missing package's, whatever is read meanwhile."""
    ours = (*NO_ROOM, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE)
    return isinstance(error, ImportError) or (isinstance(error, OSError) and error.errno in ours)


def unreadable(path: Path, error: BaseException) -> InputError:
    """What to say of a file that this machine does not let us read: it may be whole."""
    reason = getattr(error, "strerror", None) or error
    remedy = remedy_of(error, "check its permissions, and this machine")
    return InputError("unreadable-file", f"{path}: cannot be read ({reason}); {remedy}")


def remedy_of(error: BaseException, otherwise: str) -> str:
    """What to do where the machine refuses: a limit of open files is no want of room or rights."""
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return "let a process open more files (`ulimit -n 4096`)"
    return otherwise


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """What the file system refuses in the block is that ``path`` cannot be read.  Raises :class:`InputError`."""
    try:
        yield
    except OSError as error:
        raise unreadable(path, error) from error


@contextlib.contextmanager
def placed(path: Path) -> Iterator[None]:
    """An OSError of the block names ``path`` where it names nothing, as that of a write on a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


@contextlib.contextmanager
def written(path: Path) -> Iterator[Path]:
    """A path to write to, with the suffix of ``path`` and in its folder; it takes that place when the block ends well.

    Raises :class:`InputError` where the file system refuses.
    """
    with writing(path), aside_of(path) as aside:
        yield aside


@contextlib.contextmanager
def writing(path: Path, *, only: Sequence[int] = ()) -> Iterator[None]:
    """What the file system refuses in the block is bad input that names ``path``; ``only`` for these errno, if any.

    Raises :class:`InputError` in place of OSError, and of UnicodeEncodeError for a name that is no UTF-8.
    """
    try:
        yield
    except OSError as error:
        if only and error.errno not in only:
            raise
        reason = os.strerror(error.errno) if error.errno else error
        remedy = remedy_of(error, "make room or name another place")
        raise InputError("unwritable-file", f"{path}: cannot be written ({reason}); {remedy}") from error
    except UnicodeEncodeError as error:  # Python reads bytes of a file's name that are no UTF-8 as such signs
        what = f"{error.object[max(0, error.start - 20) : error.end]!r} is not UTF-8"
        raise InputError("unwritable-file", f"{path}: cannot be written ({what}); rename what is so called") from error


@contextlib.contextmanager
def aside_of(path: Path) -> Iterator[Path]:
    """As :func:`written`, for those who tell themselves of what the file system refuses: OSError passes.

    A link stays, and the file that it leads to is written; a device or a pipe is written to as it is.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        yield path
        return
    path = path.resolve() if path.is_symlink() else path
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = _aside(path)
    try:
        yield aside
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


@contextlib.contextmanager
def written_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside ``path``, which takes its place, and that of what was there, when the block ends well.

    Between two renames there is nothing at ``path``, never half of something; who ends there leaves what was there
    beside, and the next call puts it back.  Raises :class:`InputError` where there is no room.
    """
    with writing(path, only=NO_ROOM):
        aside = begun_folder(path)
        try:
            yield aside
            put_in_place(aside, path)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def begun_folder(path: Path) -> Path:
    """A hidden empty folder beside ``path``, for :func:`put_in_place`; what killed processes left there is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    old = _old(path)
    if old.exists() and not path.exists():
        old.rename(path)
    shutil.rmtree(old, ignore_errors=True)
    aside = _aside(path)
    aside.mkdir()
    return aside


def put_in_place(aside: Path, path: Path) -> None:
    """Let a folder take the place of ``path`` and of what was there, which comes back where that goes wrong."""
    old = _old(path)
    try:
        if path.exists():
            path.rename(old)
        aside.rename(path)
    except BaseException:
        if old.exists() and not path.exists():
            old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _old(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text whole.  Raises :class:`InputError` where it cannot be."""
    with written(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any, *, indent: int | None = 1, allow_nan: bool = False) -> None:
    """Write JSON whole.  Raises :class:`InputError` where it cannot be written, ValueError for NaN: it is no JSON."""
    write_text(path, json.dumps(content, indent=indent, allow_nan=allow_nan) + "\n")


def _aside(path: Path) -> Path:
    """A hidden path beside ``path`` of this process alone; all that killed processes of this machine left goes."""
    name, host = (hashlib.sha256(os.fsencode(text)).hexdigest()[:12] for text in (path.name, _machine()))
    remove_left_behind(path.parent)
    return path.with_name(f".{name}-{host}-{os.getpid()}-{secrets.token_hex(4)}{path.suffix}")


def _machine() -> str:
    """Where a process number means one process: a machine, or a container of it."""
    with contextlib.suppress(OSError):
        return f"{platform.node()}/{Path('/proc/self/ns/pid').readlink()}"
    return platform.node()


def left_behind(folder: Path) -> list[Path]:
    """Hidden files and folders there that killed processes of this machine began and did not put in place."""
    host = hashlib.sha256(_machine().encode()).hexdigest()[:12]
    found = folder.glob(f".{'[0-9a-f]' * 12}-{host}-*")
    return sorted(path for path in found if not _is_alive(int(path.name.split("-")[2])))


def instead_of_file(path: Path) -> str:
    """What is at a path where no file is, in words."""
    if path.is_dir():
        return "is a folder"
    if path.is_symlink() and not path.exists():
        return "is a link that leads nowhere"
    return "is no file but a pipe or device" if path.exists() else "there is no such file"


def remove_left_behind(folder: Path) -> None:
    """Remove what :func:`left_behind` finds there."""
    for left in left_behind(folder):
        shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        pass
    return True


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the name of a file or folder against other processes; the lock ends with the process, however that ends.

    Where nothing can be written nobody writes, and no lock is needed to read.
    """
    from filelock import FileLock

    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError:
        if not path.parent.is_dir() or os.access(path.parent, os.W_OK):
            raise
    try:
        yield
    finally:
        lock.release()


_MAPPED: dict[Path, int] = {}  # size, bytes, when it was mapped
_HANDLERS: list[Any] = []  # that C knows by their addresses alone


def mapped(path: Path) -> Path:
    """Note a file that is about to be mapped into memory; returns it.

    Who reads a map behind the end of a file that was shortened since gets SIGBUS, and nothing can go on from there.
    From now on this process says so in a line and exits with status 2; what it began is taken up as that of any killed
    one.  Raises OSError where the file is gone.
    """
    _MAPPED[path.absolute()] = path.stat().st_size
    if not _HANDLERS:  # Python's own are called between two of its steps, of which there is none any more
        import ctypes
        import signal

        _HANDLERS.append(ctypes.CFUNCTYPE(None, ctypes.c_int)(_shortened))
        ctypes.CDLL(None).signal(int(signal.SIGBUS), _HANDLERS[0])
    return path


def _shortened(number: int) -> None:
    """End this process with the line that says which mapped file is not as long as it was."""
    with contextlib.suppress(Exception):
        lost = [str(path) for path, size in _MAPPED.items() if path.is_file() and path.stat().st_size < size]
        what = f"{some(lost, 1)}: was shortened" if lost else "a file cannot be read any more, perhaps a disk failed,"
        remedy = "put it back, or prepare it again, and start the command again"
        sys.stderr.write(f"bench: {what} while it was read; {remedy} [capture-changed]\n")
        sys.stderr.flush()
    os._exit(2)


def plain(value: Any) -> Any:
    """A record as JSON types: what :func:`structured` reads back.  A field's trailing underscore is not written."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {one.name.removesuffix("_"): plain(getattr(value, one.name)) for one in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def shipped_folder(name: str) -> Path:
    """A folder that is shipped beside the packages: in a checkout beside ``bench/``, else under the prefix's share."""
    beside = Path(__file__).resolve().parents[1] / name
    return beside if beside.is_dir() else Path(sys.prefix) / "share" / "etc-bench" / name


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV file that are not empty, each with the line at which it begins.

    Raises OSError, and ValueError for what is no such file in UTF-8, with the row where a NUL stands or a quote opens
    that does not close: else it would swallow what follows.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader, line = csv.reader(_without_nul(file), strict=True), 1
        try:
            for row in reader:
                if row:
                    yield line, row
                line = reader.line_num + 1
        except csv.Error as error:
            raise ValueError(f"row {line}: a quote does not close, or a text is too long ({error})") from None


def _without_nul(lines: Iterable[str]) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        if "\0" in line:
            raise ValueError(f"row {number}: holds a NUL byte, which no text does; write the file again as UTF-8")
        yield line


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file in UTF-8.  Raises OSError, and ValueError for what is none, on one line."""
    try:
        return tomllib.loads(_text_of(path))
    except ValueError as error:
        raise ValueError(" ".join(str(error).split())) from None
    except RecursionError:
        raise ValueError("brackets stand in brackets too deep") from None


def read_json(path: Path, kind: type[Record], what: str, *, strict: bool = False, code: str = "wrong-file") -> Record:
    """A JSON file as a record.  Raises :class:`InputError` naming the file where it is not ``what`` it should be.

    A key that appears twice in an object is refused.  See :func:`structured` for the rest.
    """
    try:
        content = json.loads(_text_of(path), object_pairs_hook=_once)
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(code, f"{path}: not {what} ({reason})") from error
    return structured(content, kind, f"{path}: not {what}", strict=strict, code=code)


def _text_of(path: Path) -> str:
    """All of a file in UTF-8.  Raises OSError also for a pipe or a device, which would be waited for."""
    if not path.is_file() and not path.is_dir() and path.exists():
        raise OSError(errno.EINVAL, instead_of_file(path))
    return path.read_text("utf-8-sig")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, which holds every key once: of two values nobody can say which one is meant."""
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in content if names.count(name) > 1)
        raise ValueError(f"key {twice!r:.40} appears twice; take one out")
    return content


def from_here(path: Path) -> Path:
    """An absolute path as it is seen from the working folder, where it lies below."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def typed_path(word: str | Path) -> Path:
    """A path as a user types it: ``~`` is the user's folder, where the system knows it."""
    try:
        return Path(word).expanduser()
    except RuntimeError:
        return Path(word)
