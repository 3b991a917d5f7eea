"""A bundle: stored runs in one file, to be brought into another store.

A plain zip without compression, so that the same runs give the same bytes on any machine and nothing in it is larger
than the file itself: ``runs/NAME/`` holds what a run is while it waits for its store (`bench.tracking.writing`),
``ro-crate-metadata.json`` describes the whole for others' programs (`bench.render.crate`; nothing here reads it), and
``index.json``, the last member, names all runs and the SHA-256 of every other member.  Nothing in it is pickled, and
nothing of it is run.
"""

import hashlib
import re
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Final

from bench import __version__
from bench.environment import CPU, environment
from bench.errors import InputError
from bench.files import (
    begun_folder,
    file_sha256,
    instead_of_file,
    is_of_machine,
    placed,
    plain,
    put_in_place,
    read_json,
    write_json,
    written,
)
from bench.render.crate import CrateRun, crate
from bench.tracking.proof import check_files, proved
from bench.tracking.record import AGAIN, IMPORTED, SCORED, Record, status_of
from bench.tracking.results import Predictions, digests_of
from bench.tracking.selection import Stored, stored_runs
from bench.tracking.tracker import PROCESS, Tracker
from bench.tracking.writing import NOTE, UID, Content, experiment_of

INDEX: Final = "index.json"
CRATE: Final = "ro-crate-metadata.json"
FORMAT: Final = 2
BARE: Final = 1  # the format of bundles without `CRATE`
LICENCE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")  # an SPDX identifier
OWN: Final = (PROCESS, IMPORTED)  # tags that say something of one store alone
TEXTS: Final = 1 << 28  # bytes of a JSON file, which is read at once
ANSWERS: Final = 1 << 32  # bytes of the arrays of a run's answers
CHUNK: Final = 1 << 20
TOLD: Final = 100  # runs between two lines of progress
STAMP: Final = (1980, 1, 1, 0, 0, 0)  # the first that a zip can tell


@dataclass(frozen=True)
class Member:
    """A file in a bundle."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Listed:
    """A run in a bundle, with the digests of what it rests on; empty where it does not tell."""

    name: str  # what it is called in every store
    digest: str  # of its specification
    store: str
    split: str


@dataclass(frozen=True)
class Index:
    """What ``index.json`` holds."""

    bench: str  # version that wrote it
    packages: dict[str, str]
    runs: list[Listed]  # oldest first
    members: dict[str, Member]
    format: int = FORMAT


# --- writing -----------------------------------------------------------------------------------------------------


def in_order(names: Iterable[str]) -> list[str]:
    """Members in the order of a bundle, its index aside: files of runs, then what describes the whole."""
    return sorted(names, key=lambda name: (name == CRATE, name))


def write_bundle(
    tracker: Tracker, runs: Sequence[Stored], file: Path, *, models: bool = False, licence: str = ""
) -> Index:
    """Write runs into a new file, which is there whole or not at all; ``licence`` is an SPDX identifier, or empty.

    Raises :class:`InputError` where the file is there, a run still lasts, or a run's files are not those that it wrote.
    """
    check_new(file, licence)
    if lasting := [one for one in runs if one.record.status == "running"]:
        what = f"run {lasting[0].row.run_id[:8]} has not ended"
        raise InputError("bad-options", f"{what}; wait for it, or leave it out (--status done,failed,skipped,killed)")
    members: dict[str, Member] = {}
    listed: dict[str, Listed] = {}
    with written(file) as aside, zipfile.ZipFile(aside, "w", zipfile.ZIP_STORED) as target:
        for one in sorted(runs, key=lambda one: one.uid):
            content = content_of(tracker, one)
            with tracker.files.read(one.row) as folder, tempfile.TemporaryDirectory() as made:
                may_lack = not models or one.record.model or one.record.imported
                check_files(one.record, folder, without=("model/",) if may_lack else ())
                content.save(Path(made))
                paths = {"run.json": Path(made) / "run.json"} | _paths(folder, models)
                for name in sorted(paths):
                    members[f"runs/{one.uid}/{name}"] = _add(target, f"runs/{one.uid}/{name}", paths[name])
                listed[one.uid] = _listed(one, folder)
        with tempfile.TemporaryDirectory() as made:
            files = {name: (one.bytes, one.sha256) for name, one in members.items()}
            told = crate([_told(one) for one in runs], files, INDEX, version=__version__, licence=licence)
            write_json(Path(made) / CRATE, told)
            members[CRATE] = _add(target, CRATE, Path(made) / CRATE)
            index = Index(__version__, environment(CPU)["packages"], [listed[one.uid] for one in runs], members)
            write_json(Path(made) / INDEX, plain(index))
            _add(target, INDEX, Path(made) / INDEX)
    return index


def _told(one: Stored) -> CrateRun:
    spec = one.record.spec
    title = f"{spec.name} on {spec.dataset}, task {spec.task}"
    return CrateRun(
        one.uid, title, spec.method, spec.dataset, spec.store, one.record.status, one.row.started, one.row.ended
    )


def check_new(file: Path, licence: str = "") -> None:
    """Raises :class:`InputError` for what is no licence, and where the file is there: it may be all that is left."""
    if licence and not LICENCE.fullmatch(licence):
        raise InputError("bad-options", f"--licence {licence}: give an SPDX identifier, as CC-BY-4.0 or MIT")
    if file.exists():
        raise InputError("unwritable-file", f"{file}: already exists; name another file, or remove it")


def content_of(tracker: Tracker, one: Stored) -> Content:
    """All of a stored run but its files, alike in every store that has it."""
    row = one.row
    points, parameters = tracker.history(row)
    tags = {name: value for name, value in row.tags.items() if name not in OWN}
    tags = {name: value for name, value in tags.items() if not name.startswith("mlflow.") or name == NOTE}
    return Content(
        experiment=experiment_of(one.record.spec),
        name=row.name,
        started=row.started,
        store="",
        tags=dict(sorted((tags | {UID: one.uid}).items())),
        parameters=dict(sorted(parameters.items())),
        points=sorted(points, key=lambda point: (point[0], point[3], point[2], str(point[1]))),
        status=status_of(row),
        ended=row.ended,
    )


def _paths(folder: Path, models: bool) -> dict[str, Path]:
    """Files below a run's folder by their path there, without the model's unless that is asked for."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path for name, path in files.items() if models or not name.startswith("model/")}


def _listed(one: Stored, folder: Path) -> Listed:
    spec = one.record.spec
    result = folder / "result.json"
    split = replace(one.record, folder=folder).result().split.fields.get("digest", "") if result.is_file() else ""
    return Listed(one.uid, spec.digest, spec.store, str(split))


def _add(target: zipfile.ZipFile, name: str, path: Path) -> Member:
    """Add a file as nothing but its bytes."""
    info = zipfile.ZipInfo(name, STAMP)
    info.create_system, info.external_attr = 3, (stat.S_IFREG | 0o644) << 16
    info.file_size = path.stat().st_size  # whether the zip needs its larger numbers
    state, size = hashlib.sha256(), 0
    with path.open("rb") as source, target.open(info, "w") as place:
        while chunk := source.read(CHUNK):
            state.update(chunk)
            size += len(chunk)
            place.write(chunk)
    return Member(size, state.hexdigest())


# --- reading -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Checked:
    """A run of a bundle that is what it says."""

    #: its id is what it is called in every store; of its files no more than the digests, and always these
    record: Record
    questions: str  # `Predictions.questions`; empty: it kept no answers, from which its scores would follow
    answers: Predictions | None = field(default=None, compare=False, repr=False)


class Bundle:
    """A bundle that is open, with its index and members; see :func:`opened`."""

    def __init__(self, file: Path, source: zipfile.ZipFile) -> None:
        self.file, self._source = file, source
        self._infos = {info.filename: info for info in source.infolist()}
        self._of_run: dict[str, list[str]] = {}
        if INDEX not in self._infos:
            raise _damaged(f"there is no {INDEX} in it")
        with tempfile.TemporaryDirectory() as made:
            self._copy(INDEX, Path(made) / INDEX)
            self.index = read_json(Path(made) / INDEX, Index, "a bundle's index")
            self._check_members()
            if CRATE in self._infos and self._copy(CRATE, Path(made) / CRATE) != self.index.members[CRATE]:
                raise _damaged(f"{CRATE} is not what the index says")

    def _check_members(self) -> None:
        """That the members are those of the index, no more, no fewer, and lead nowhere else."""
        names, infos = [*in_order(self.index.members), INDEX], self._source.infolist()
        if self.index.format not in (BARE, FORMAT):
            raise _damaged(
                f"it is of format {self.index.format}, this version reads {BARE} and {FORMAT}; take a newer one"
            )
        if [info.filename for info in infos] != names or (CRATE in names) != (self.index.format != BARE):
            raise _damaged("its members are not those that its index names, in their order")
        if sum(info.file_size for info in infos) > self.file.stat().st_size:
            raise _damaged("its members are larger than the file")
        runs = [one.name for one in self.index.runs]
        homes = {name: name.split("/")[1] for name in self.index.members if _is_inside(name)}
        if (
            set(homes) != set(self.index.members) - {CRATE}
            or len(set(runs)) < len(runs)
            or set(homes.values()) != set(runs)
        ):
            raise _damaged("a member's name leads out of the folders of its runs, or a run has none")
        for name, run in homes.items():
            self._of_run.setdefault(run, []).append(name)

    def unpack(self, run: Listed, folder: Path) -> Content:
        """Write the files of a run into a folder, each held against the index.  Raises :class:`InputError`."""
        with _guarded(self.file):
            return self._unpack(run, folder)

    def _unpack(self, run: Listed, folder: Path) -> Content:
        for name in self._of_run[run.name]:
            path = folder / name.split("/", 2)[2]
            path.parent.mkdir(parents=True, exist_ok=True)
            if self._copy(name, path) != self.index.members[name]:
                raise _damaged(f"{name} is not what the index says")
        content = Content.load(folder)
        if content.tags.get(UID) != run.name:
            raise _damaged(f"runs/{run.name} holds another run")
        return content

    def checked(self, run: Listed) -> Checked:
        """A run, read in full and proved.  Raises :class:`InputError`."""
        with _guarded(self.file), tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            try:
                content = self._unpack(run, folder)
                _check_answers(folder / "predictions.npz")
                record = proved(content, folder)
                if (record.digest, record.spec.store) != (run.digest, run.store):
                    raise _damaged("the index has another specification or store")
                scored = all((folder / name).is_file() for name in SCORED)
                record = replace(record, files=record.files or self._digests_of(run))
                if not scored:
                    return Checked(replace(record, folder=None), "")
                answers = record.predictions()
                return Checked(replace(record, folder=None), answers.questions, answers)
            except InputError as error:
                text = str(error).replace(f"{folder}/", "").removeprefix(f"run {run.name[:8]}: ")
                raise _damaged(f"run {run.name[:8]}: {text.removesuffix(f'; {AGAIN}')}") from error

    def _digests_of(self, run: Listed) -> dict[str, str]:
        """SHA-256 of a run's files by path, of which it recorded none: else any of its name would be the same."""
        members = {name.split("/", 2)[2]: self.index.members[name].sha256 for name in self._of_run[run.name]}
        return {name: digest for name, digest in members.items() if name != "run.json"}

    def _copy(self, name: str, path: Path) -> Member:
        """Write a member into a file."""
        info = self._infos[name]
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise _damaged(f"{name} is packed, which no bundle's member is")
        if path.suffix == ".json" and info.file_size > TEXTS:
            raise _damaged(f"{name} has {info.file_size} bytes; {TEXTS} are the most")
        state, size = hashlib.sha256(), 0
        with placed(path), self._source.open(info) as source, path.open("xb") as place:
            while chunk := source.read(CHUNK):
                state.update(chunk)
                size += len(chunk)
                place.write(chunk)
        return Member(size, state.hexdigest())


def _damaged(what: str) -> InputError:
    return InputError("bad-bundle", what)


def _is_inside(name: str) -> bool:
    """Whether a member's name is a path below the folder of a run."""
    parts = name.split("/")
    plain_parts = all(part not in ("", ".", "..") and part.isprintable() and "\\" not in part for part in parts)
    return plain_parts and len(parts) > 2 and parts[0] == "runs" and PurePosixPath(name).as_posix() == name


def _check_answers(path: Path) -> None:
    """That the arrays of a run's answers, which are packed, have a size that a run can have."""
    if path.is_file():
        with zipfile.ZipFile(path) as arrays:
            if (size := sum(info.file_size for info in arrays.infolist())) > ANSWERS:
                raise _damaged(f"predictions.npz unpacks to {size} bytes; {ANSWERS} are the most")


@contextmanager
def _guarded(file: Path) -> Iterator[None]:
    """Whatever a foreign file brings about in this block is that it is no sound bundle; what is ours is not."""
    remedy = "nothing of it is used; ask for the file again, or export it again"
    try:
        yield
    except InputError as error:
        raise InputError("bad-bundle", f"{file}: {error}; {remedy}") from error
    except Exception as error:
        if is_of_machine(error):
            raise
        text = " ".join(str(error).split()) or type(error).__name__
        raise InputError("bad-bundle", f"{file}: damaged, or no bundle ({text:.200}); {remedy}") from error


#: what unpacks a packed bundle and leaves it where it is
UNPACK: Final = {".xz": "xz -dk", ".gz": "gzip -dk", ".zst": "zstd -dk", ".bz2": "bzip2 -dk"}


@contextmanager
def opened(file: Path) -> Iterator[Bundle]:
    """A bundle to read.  Raises :class:`InputError` where it is none."""
    if not file.is_file():
        raise InputError("missing-file", f"{file}: {instead_of_file(file)}; check the spelling of the path")
    if unpack := UNPACK.get(file.suffix.lower()):
        what = f"is packed; unpack it with `{unpack} {file.name}`, and name what comes out"
        raise InputError("bad-bundle", f"{file}: {what}")
    with ExitStack() as stack:
        with _guarded(file):
            bundle = Bundle(file, stack.enter_context(zipfile.ZipFile(file)))
        yield bundle


def checked_runs(file: Path) -> list[Checked]:
    """The runs of a bundle, oldest first, each read in full and proved.  Raises :class:`InputError`."""
    with opened(file) as bundle:
        return [bundle.checked(run) for run in bundle.index.runs]


# --- bringing it into a store ------------------------------------------------------------------------------------


@dataclass
class Arrivals:
    """What became of a bundle's runs."""

    imported: list[str] = field(default_factory=list)  # titles
    there: int = 0  # were in the store already, or are brought by another process
    unproved: int = 0  # kept no answers, so that nobody can tell whether their scores follow from them


def import_bundle(tracker: Tracker, file: Path, tell: Callable[[str], None] = lambda line: None) -> Arrivals:
    """Bring the runs of a bundle that a store does not have into it, each as it was; ``tell`` hears how it goes.

    All is read and proved before anything is written.  What was broken off goes on.  Raises :class:`InputError` where
    something is not as it should be, or a run of the same name that is there has other files.
    """
    with opened(file) as bundle:
        checked = [bundle.checked(run) for run in bundle.index.runs]
        known = {one.uid: one for one in stored_runs(tracker)}
        for one in checked:
            if (there := known.get(one.record.run_id)) is not None:
                _check_same(tracker, file, one.record, there)
        told = f"{file.name}, SHA-256 {file_sha256(file)[:16]}"
        arrived = Arrivals(unproved=sum(not one.questions for one in checked))
        for run in bundle.index.runs:
            there = known.get(run.name)
            if (there is not None and not _is_half(there)) or not _bring(tracker, bundle, run, told):
                arrived.there += 1
                continue
            arrived.imported.append(run.name)
            if len(arrived.imported) % TOLD == 0:
                tell(f"{len(arrived.imported) + arrived.there} of {len(checked)} runs")
    return arrived


def is_same(one: Record, other: Record) -> bool:
    """Whether two runs of one name are the same; either may have no model any more, ``one`` no files yet."""
    ours, theirs = (
        {name: digest for name, digest in record.files.items() if not name.startswith("model/")}
        for record in (one, other)
    )
    return one.digest == other.digest and (not ours or ours == theirs)


def _check_same(tracker: Tracker, file: Path, one: Record, known: Stored) -> None:
    """That a run which is here is that of the bundle."""
    there = replace(known.record, files={}) if _is_half(known) else known.record
    if not there.files and not _is_half(known):
        with tracker.files.read(known.row) as folder:
            there = replace(there, files=digests_of(folder))
    if not is_same(there, one):
        what = f"run {one.run_id[:8]} is not the one that the store has by this name"
        remedy = f"take the one that you trust: `bench results rm --run {known.row.run_id[:8]}` removes the store's"
        raise InputError("run-mismatch", f"{file}: {what}; {remedy}")


def _is_half(one: Stored) -> bool:
    """Whether an import of it was broken off."""
    return one.record.status == "running" and bool(one.record.imported)


def _bring(tracker: Tracker, bundle: Bundle, run: Listed, told: str) -> bool:
    """Bring one run, first whole into the folder of those that wait; whether another process did not do so."""
    if tracker.claims.take(run.name) is not None:
        return False
    try:
        if any(not _is_half(one) for one in stored_runs(tracker, (UID, run.name))):
            return False
        place = tracker.address.pending / run.name
        folder = begun_folder(place)
        try:
            content = bundle.unpack(run, folder)
            content.tags[IMPORTED], content.store = told, tracker.address.shown
            content.save(folder)
            put_in_place(folder, place)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        try:
            tracker.bring(place, content)
        except Exception as error:  # MLflow's own, SQLAlchemy's, a network's
            if is_of_machine(error):
                raise
            raise tracker.address.failed(error).with_remedy("import it again to continue") from None
        return True
    finally:
        tracker.claims.let_go(run.name)
