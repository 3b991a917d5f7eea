"""Arrays of representations, kept: folds, seeds, trials and processes represent a session once.

Enters: a method, a store and samples.  Leaves: their arrays, by the method, or equal ones from an earlier attempt.
What an attempt represents is written aside at once, before `fit` can change it, and put in place when the attempt has
ended well.  An entry is a folder that is named by the digest of its list of contents, which has the digests of its
files: one that is damaged, half or foreign is no entry.
"""

import dataclasses
import hashlib
import itertools
import json
import math
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.data.manifest import bench_home
from bench.data.store import Store
from bench.environment import arithmetic
from bench.errors import InputError
from bench.files import begun_folder, file_sha256, is_of_machine, locked, mapped, plain, put_in_place, read_json
from bench.method import Inputs, Method, files_of, take
from bench.readers import Ragged, View, chunks, gathered, gathered_ragged, offsets_of
from bench.runs.guards import ASKED, ContractBroken, anew, arrays_of, chance_now, noted, noting, same_inputs, state_of
from bench.schema import Samples, drawn_order
from bench.spec import RunSpec, named_seed

FORMAT: Final = 1
LIMIT: Final = "BENCH_KEPT_ARRAYS"
LIMIT_GIB: Final = 4.0
WORTH_SECONDS = 0.2  # what takes less to represent, over all parts, is not worth a file
READ_BYTES = 64 << 20  # a second: arrays that are made more quickly are read, compared and put in order hardly sooner
LIST: Final = "entry.json"
CLASSES: Final = "number of classes"  # beside parameters, none of which has spaces in its name
WINDOW: Final = 3  # rows of a part's windows: session, first, count; the fourth are the packets that were read

Rows = NDArray[np.int64]


def limit() -> int:
    """Bytes that all kept arrays may take together.  Raises :class:`InputError` where the variable is no size."""
    word = os.environ.get(LIMIT) or str(LIMIT_GIB)
    try:
        size = float(word)
    except ValueError:
        size = math.nan
    if not 0 <= size < 1e6:
        raise InputError("bad-variable", f"{LIMIT}={word}: not a size; give GiB, such as 4, or 0 to keep no arrays")
    return int(size * 2**30)


def kept_path() -> Path:
    """The folder of all kept arrays."""
    return bench_home() / "represented"


@dataclass(frozen=True)
class Represented:
    """Samples as a method sees them, and what was read of them."""

    samples: Samples
    inputs: Inputs
    used: frozenset[str]  # names of `bench.readers.READS`
    packets: Rows  # that were read of each sample
    made: bool  # by the method, just now, and may be kept


# --- what an entry says of itself ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Part:
    """Samples that were represented together; their files are ``N.windows.npy``, ``N.I.npy``, ``N.I.offsets.npy``."""

    size: int
    stride: int
    used: list[str]
    inputs: dict[str, bool]  # name -> whether its rows are of unequal length


@dataclass(frozen=True)
class _List:
    """What an entry holds, and for whom."""

    key: str
    parameters: dict[str, str]  # that `represent` read -> value
    parts: list[_Part]
    files: dict[str, str]  # SHA-256 by name


class _Damaged(Exception):
    """An entry is not what was put in place."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self.folder = folder


#: files whose digest this process has compared -> the file as it was then
_VERIFIED: Final[dict[Path, tuple[int, int, int]]] = {}


@dataclass(frozen=True)
class _Kept:
    """A part of an entry, to be read."""

    folder: Path
    number: int
    about: _Part
    files: dict[str, str]

    def array(self, name: str) -> NDArray[Any]:
        """One of its files, mapped.  Raises _Damaged where it is not what was written."""
        path = self.folder / f"{self.number}.{name}.npy"
        try:
            seen = path.stat()
            state = seen.st_size, seen.st_mtime_ns, seen.st_ino
            if _VERIFIED.get(path) != state:
                if file_sha256(path) != self.files[path.name]:
                    raise _Damaged(self.folder)
                _VERIFIED[path] = state
            return np.asarray(np.load(mapped(path), mmap_mode="r", allow_pickle=False))
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise _Damaged(self.folder) from error

    def input(self, number: int) -> NDArray[Any] | Ragged:
        """One of its inputs, mapped: ``[samples, ...]``, int, float or bool."""
        if list(self.about.inputs.values())[number]:
            return Ragged(self.array(str(number)), self.array(f"{number}.offsets"))
        return self.array(str(number))


# --- an attempt's ---------------------------------------------------------------------------------------------------


class KeptArrays:
    """What an attempt finds of kept arrays, and what it adds to them.  Without a folder neither."""

    def __init__(self, folder: Path | None = None, room: int = 0) -> None:
        self._folder, self._room = folder, room
        self._open = folder is not None  # as long as what is represented may be kept
        self._aside: Path | None = None
        self._parts: list[_Part] = []
        self._files: dict[str, str] = {}
        self._bytes = 0
        self._seconds = 0.0
        self._represented = 0  # samples
        self._read: set[str] = set()  # parameters
        self._found_in: set[Path] = set()  # entries
        self._dropped: set[Path] = set()
        self.found = 0  # samples

    def represent(self, method: Method, store: Store, samples: Samples, *, learned: bool = False) -> Represented:
        """Arrays of the samples; of an object that has ``learned`` neither found nor kept.

        Such arrays could tell a later run, which trains on these samples, what this one knows of others.
        """
        if self._folder is not None and len(samples) and not learned:
            found = self._find(method, samples)
            if found is not None and self._is_right(method, store, found):
                self.found += len(samples)
                return found
        view = View(store, samples, method.reads)
        if not self._open or not len(samples) or learned:
            return Represented(samples, method.represent(view), view.used, view.packets_read, False)
        before = state_of(method), chance_now()
        started = time.perf_counter()
        with noting(method, self._read):
            inputs = method.represent(view)
        self._seconds += time.perf_counter() - started
        if (state_of(method), chance_now()) != before:
            self.close()  # `fit` may rest on more than arrays
        return Represented(samples, inputs, view.used, view.packets_read, True)

    def write(self, done: Sequence[Represented], of: int) -> None:
        """Write aside what the method just made, ``of`` so many samples in all."""
        made = [one for one in done if one.made and len(one.samples)]
        self._represented += sum(len(one.samples) for one in made)
        self._bytes += sum(array.nbytes for one in made for array in _arrays_in(one.inputs))
        if self._seconds < max(WORTH_SECONDS * self._represented / max(1, of), self._bytes / READ_BYTES):
            self.close()
        for one in made:
            if self._open:
                try:
                    self._write(one)
                except (OSError, InputError):  # no room, or a home that nobody may write to
                    self.close()

    def add(self, method: Method, store: Store, samples: Samples) -> None:
        """Keep what a new object makes of the samples, too, of which one that has learned was asked."""
        if self._open and (self._parts or self.found) and not self._has(method, samples):
            self.write([self.represent(anew(method), store, samples)], self._represented + len(samples))

    def confirm(self, method: Method, store: Store, samples: Samples, inputs: Inputs) -> None:
        """Keep nothing where an object of another seed and number of classes represents some samples otherwise.

        ``inputs`` are the arrays ``[samples, ...]``, int, float or bool, that this method's object has of them.
        """
        if not self._parts:
            return None
        if not len(samples):
            return self.close()
        rows = drawn_order(len(samples), named_seed(method.seed, "kept"))[:ASKED]
        parameters = noted(method.parameters, self._read)
        seed = named_seed(method.seed, "another")
        try:  # what `__init__` reads counts, too, and what objects read to which it hands its parameters
            other = type(method)(parameters, classes=method.classes + 1, seed=seed, device=method.device)
            again = other.represent(View(store, samples.take(rows), method.reads))
            same_inputs(take(inputs, rows), again, "of another seed")
        except Exception:  # of foreign code
            self.close()
        return None

    def keep(self, method: Method) -> None:
        """Put in place what was written."""
        if self._folder is None or self._aside is None:
            return
        with suppress(OSError, InputError, TypeError, ValueError):  # a parameter that is no JSON
            names = self._read if is_shipped(type(method)) else {*_fields(method)}  # another may hide what it reads
            values = _values_of(method, names)
            text = json.dumps(plain(_List(self._folder.name, values, self._parts, self._files)), indent=1)
            (self._aside / LIST).write_text(text, encoding="utf-8")
            place = self._folder / _name_of(text.encode())
            with locked(self._folder.parent):
                _make_room(self._folder.parent, self._room - self._bytes)
                self._folder.mkdir(exist_ok=True)
                put_in_place(self._aside, place)

    def _is_right(self, method: Method, store: Store, found: Represented) -> bool:
        """Whether a new object represents drawn samples as they were found; else the entries that gave them go."""
        rows = drawn_order(len(found.samples), named_seed(method.seed, "found"))[:ASKED]
        view = View(store, found.samples.take(rows), method.reads)
        try:
            same_inputs(take(found.inputs, rows), anew(method).represent(view), "of kept arrays")
        except ContractBroken:
            for folder in self._found_in:
                self._drop(folder)
            return False
        return True

    def close(self) -> None:
        """Keep nothing of this attempt."""
        self._open = False
        if self._aside is not None:
            shutil.rmtree(self._aside, ignore_errors=True)
        self._aside, self._parts = None, []

    def _write(self, one: Represented) -> None:
        """Write a part aside, if all of it can be."""
        assert self._folder is not None
        number = len(self._parts)
        arrays: dict[str, NDArray[Any]] = {}
        first = [arrays_of(values)[0] for values in one.inputs.values()]
        shared = any(np.may_share_memory(*pair) for pair in itertools.combinations(first, 2))  # fit sees through both
        if shared or not all(_can_be_kept(values, len(one.samples)) for values in one.inputs.values()):
            return self.close()
        for place, values in enumerate(one.inputs.values()):
            names = (str(place), f"{place}.offsets")
            arrays |= dict(zip(names, arrays_of(values), strict=False))
        windows = (one.samples.session, one.samples.first, one.samples.count, one.packets)
        arrays["windows"] = np.stack(windows).astype(np.int64)
        size = sum(array.nbytes for array in arrays.values())
        self._aside = self._aside or begun_folder(self._folder.parent / "begun")
        if self._bytes > self._room or shutil.disk_usage(self._aside).free < 2 * size:  # leave room for the run itself
            return self.close()
        for name, array in arrays.items():
            file = f"{number}.{name}.npy"
            self._files[file] = _save(self._aside / file, array)
        ragged = {name: isinstance(values, Ragged) for name, values in one.inputs.items()}
        self._parts.append(_Part(len(one.samples), one.samples.stride, sorted(one.used), ragged))
        return None

    def _find(self, method: Method, samples: Samples) -> Represented | None:
        """The samples' arrays, if all are kept."""
        while True:
            try:
                if (located := self._located(method, samples)) is None:
                    return None
                parts, part, row = located
                found = _gathered(parts, part, row, samples)
            except _Damaged as error:
                self._drop(error.folder)
                continue
            self._found_in |= (used := {parts[number].folder for number in np.unique(part)})
            for folder in used:
                with suppress(OSError):
                    os.utime(folder)  # the least recently used go first
            return found

    def _has(self, method: Method, samples: Samples) -> bool:
        try:
            return self._located(method, samples) is not None
        except _Damaged as error:
            self._drop(error.folder)
            return False

    def _drop(self, folder: Path) -> None:
        """Remove an entry, and do not look at it again where it cannot be removed."""
        self._dropped.add(folder)
        _drop(folder)

    def _located(self, method: Method, samples: Samples) -> tuple[list[_Kept], Rows, Rows] | None:
        """Parts of entries, and for each sample its part and its row there; None where one is in none."""
        assert self._folder is not None
        parts = [one for one in _parts_of(self._folder, method) if one.about.stride == samples.stride]
        parts = [one for one in parts if one.folder not in self._dropped]
        if not parts:
            return None
        windows = [one.array("windows")[:WINDOW] for one in parts]
        asked = np.stack([samples.session, samples.first, samples.count])
        found = _first_places(np.concatenate(windows, axis=1), asked)
        if found is None:
            return None
        begins = offsets_of(np.array([one.about.size for one in parts], np.int64))
        part = np.searchsorted(begins, found, side="right") - 1
        return parts, part, found - begins[part]


@contextmanager
def keeping(spec: RunSpec, store: Store, kind: type[Method], code: str, device: str) -> Iterator[KeptArrays]:
    """Kept arrays while an attempt lasts; what it wrote and did not put in place is removed.

    ``code`` is the digest of what decides the arrays; without it nothing is kept and nothing found.
    """
    room = limit()
    if not code or not room:
        yield KeptArrays()
        return
    about = [FORMAT, store.digest, spec.method, kind.__qualname__, code, device, *arithmetic()]
    key = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32]
    kept = KeptArrays(kept_path() / key, room)
    try:
        yield kept
    finally:
        kept.close()


def _values_of(method: Method, names: set[str]) -> dict[str, str]:
    """Parameters as JSON; of those that name a file its digest.  Raises InputError, TypeError or ValueError."""
    values = {name: getattr(method.parameters, name) for name in names}
    found = {name: json.dumps(value, sort_keys=True) for name, value in values.items()}
    found[CLASSES] = str(method.classes)  # which `represent` may look at, whatever it makes of it
    return found | files_of(type(method), values)


def is_shipped(kind: type[Method]) -> bool:
    """Whether a method is one of ours, of which a test says that it reads parameters through ``self.parameters``."""
    return kind.__module__.startswith("methods.")


def _fields(method: Method) -> list[str]:
    return [one.name for one in dataclasses.fields(method.Parameters)]


# --- files ------------------------------------------------------------------------------------------------------------


def _name_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _arrays_in(inputs: Inputs) -> Iterator[NDArray[Any]]:
    """What an input's values are that can be kept, and maybe others."""
    for values in inputs.values():
        yield from (one for one in arrays_of(values) if isinstance(one, np.ndarray))


def _can_be_kept(values: Any, size: int) -> bool:
    """Whether an input is of plain numbers that come back as they are."""
    if type(values) is Ragged:
        offsets = values.offsets
        ends = offsets.dtype == np.int64 and len(offsets) and (offsets[0], offsets[-1]) == (0, len(values.values))
        if not ends or (np.diff(offsets) < 0).any():
            return False
    numbers = all(
        type(one) in (np.ndarray, np.memmap) and one.dtype.kind in "biuf" and one.ndim and one.flags.c_contiguous
        for one in arrays_of(values)
    )
    return numbers and len(values) == size


def _save(path: Path, array: NDArray[Any]) -> str:
    """Write an array as .npy, a few rows at a time; its file's SHA-256."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        head = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": array.shape}
        np.lib.format.write_array_header_2_0(file, head)
        file.flush()
        digest.update(path.read_bytes())
        for rows in chunks(array, len(array)):
            content = array[rows].tobytes()
            digest.update(content)
            file.write(content)
    return digest.hexdigest()


def _parts_of(folder: Path, method: Method) -> Iterator[_Kept]:
    """The parts of all entries for the method's parameters, the entries in the order of their names."""
    places = []
    with suppress(OSError):
        places = sorted(folder.glob("[!.]*"))
    for place in places:
        try:
            text = (place / LIST).read_bytes() if (place / LIST).is_file() else b""
            if _name_of(text) != place.name or place.is_symlink():
                raise InputError("wrong-file", f"{place}: changed")
            about = read_json(place / LIST, _List, "a list of kept arrays", strict=True)
        except (OSError, InputError) as error:
            if not is_of_machine(error):
                _drop(place)
            continue
        if about.key == folder.name and _fits(about.parameters, method):
            yield from (_Kept(place, number, part, about.files) for number, part in enumerate(about.parts))


def _fits(values: dict[str, str], method: Method) -> bool:
    """Whether the method has these values of parameters."""
    try:
        names = values.keys() - {CLASSES}
        return names <= set(_fields(method)) and _values_of(method, set(names)) == values
    except (InputError, TypeError, ValueError):
        return False


def _first_places(known: Rows, asked: Rows) -> Rows | None:
    """Where each column of ``asked [3, A]`` first is among ``known [3, K]``: int64 ``[A]``; None where one is not."""
    both = np.concatenate([known, asked], axis=1)
    order = np.lexsort(both)  # stable: of equal ones the known stand first
    begins = np.ones(len(order), bool)
    begins[1:] = (both[:, order[1:]] != both[:, order[:-1]]).any(axis=0)
    leader = np.maximum.accumulate(np.where(begins, np.arange(len(order)), 0))
    found = np.empty(len(order), np.int64)
    found[order] = order[leader]
    found = found[known.shape[1] :]
    return None if (found >= known.shape[1]).any() else found


def _gathered(parts: list[_Kept], part: Rows, row: Rows, samples: Samples) -> Represented | None:
    """The samples' arrays, new and in their order; None where the parts have unlike ones."""
    needed = [(parts[number], np.flatnonzero(part == number)) for number in np.unique(part)]
    about = needed[0][0].about
    if any(list(one.about.inputs.items()) != list(about.inputs.items()) for one, _ in needed):
        return None
    inputs: Inputs = {}
    for number, (name, ragged) in enumerate(about.inputs.items()):
        pieces = [(one.input(number), places, row[places]) for one, places in needed]
        kinds = {(one.dtype, one.shape[1:]) for values, *_ in pieces for one in arrays_of(values)[:1]}
        if len(kinds) > 1:
            return None
        inputs[name] = gathered_ragged(pieces, len(samples)) if ragged else gathered(pieces, len(samples))
    packets = np.empty(len(samples), np.int64)
    for one, places in needed:
        packets[places] = one.array("windows")[WINDOW][row[places]]
    used = frozenset(name for one, _ in needed for name in one.about.used)
    return Represented(samples, inputs, used, packets, False)


def _drop(folder: Path) -> None:
    """Remove an entry, its list first: what is left of it meanwhile is none.  Of a link the link alone."""
    with suppress(OSError):
        if folder.is_symlink():
            return folder.unlink()
        (folder / LIST).unlink()
    shutil.rmtree(folder, ignore_errors=True)
    if folder.is_file():
        with suppress(OSError):
            folder.unlink()


def _make_room(folder: Path, room: int) -> None:
    """Remove the entries that were used least recently until the others take no more than ``room`` bytes."""
    entries = []
    for place in folder.glob("[!.]*/[!.]*"):
        with suppress(OSError):
            size = sum(file.stat().st_size for file in place.glob("*"))
            entries.append((place.stat().st_mtime_ns, size, place))
    total = sum(size for _, size, _ in entries)
    for _, size, place in sorted(entries):
        if total <= room:
            return
        _drop(place)
        total -= size
        with suppress(OSError):  # others are left for these arrays
            place.parent.rmdir()
