"""What is asked of a method: each question is a function of a :class:`Case`, whose docstring says what it asks.

It raises, or returns nothing or a number in words.
"""

import copy
import dataclasses
import difflib
import inspect
import random
import re
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from bench.conformance.case import Case
from bench.contract_captures import CLASSES, renamed_services, same_sessions, three_services, windows_of_services
from bench.method import Method, Monitor, Part, Range, learn, make_parameters, one_pass, take
from bench.readers import READS
from bench.runs.guards import ContractBroken, arrays_of, same_answers, same_inputs, state_of
from bench.spec import FOREST_ON

TOLERANCE: Final = 1e-5  # of probabilities between two orders of summation
MARGIN: Final = 0.15  # accuracy above majority's that shows learning
LARGE: Final = 20_000_000  # weights of a network that a check does not train: minutes a step on two cores
SEED: Final = 20_261_201  # of the global generators while a fit must leave them alone
ALIKE: Final = 0.85  # of two names, as difflib has it: `befor_training` is meant to be a hook
FAMILIES: Final = ("baseline", "features", "deep", "graph")


class Question(Protocol):
    """One of the functions below."""

    __name__: str
    hook: str  # of the method, where an author looks first; empty: the class itself
    needs: tuple[str, ...]  # names of questions without which it says nothing

    def __call__(self, case: Case, /) -> str | None:
        """Raises where the answer is no."""


def about(hook: str, *needs: str) -> Callable[[Callable[[Case], str | None]], Question]:
    """Mark a question by what it is about, and the questions that come first."""

    def mark(function: Any) -> Question:
        function.hook, function.needs = hook, needs
        return cast(Question, function)

    return mark


# --- declarations ---------------------------------------------------------------------------------------------


@about("")
def declares_itself(case: Case) -> None:
    """Name, reference, family, unit, reads and deviations are there and of the kinds that listings need."""
    method = case.method
    missing = [name for name in ("name", "reads") if not hasattr(method, name)]
    _demand(not missing, f"declare {', '.join(missing)}")
    _demand(not (left := sorted(method.__abstractmethods__)), f"write {', '.join(left)}")
    plain = method.name.removeprefix(FOREST_ON)
    _demand(bool(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", plain)), f"name {method.name!r}: use a-z, 0-9 and '-'")
    package, _, stem = method.__module__.rpartition(".")
    _demand(package != "methods" or stem.replace("_", "-") == method.name, f"name {method.name!r} in file {stem}.py")
    _demand(package != "methods" or method.reference != Method.reference, "declare reference")
    _demand(bool(method.reference.strip()) and bool(method.__doc__), "reference or docstring is empty")
    _demand(method.family in FAMILIES, f"family {method.family!r}: one of {', '.join(FAMILIES)}")
    _demand(method.unit in ("session", "packet"), f"unit {method.unit!r}: session or packet")
    unknown = sorted(set(method.reads) - set(READS))
    _demand(isinstance(method.reads, frozenset), f"reads: a frozenset, not a {type(method.reads).__name__}")
    _demand(not unknown, f"reads: {', '.join(map(repr, unknown))} is nothing that can be read")
    for name, hook in _nearly_hooks(method):
        _demand(False, f"{name}: nothing calls it; did you mean {hook}?")
    _demand(all(isinstance(line, str) for line in method.deviations), "deviations: a tuple of sentences")
    reason = method.skip(case.store.traits)
    _demand(reason is None or isinstance(reason, str), "skip: None or a sentence")


@about("Parameters")
def documents_its_parameters(case: Case) -> None:
    """Parameters are a frozen dataclass, every field with default, help and source; presets are valid."""
    kind = case.method.Parameters
    _demand(dataclasses.is_dataclass(kind), "Parameters: a frozen dataclass")
    _demand(kind.__dataclass_params__.frozen, "Parameters: frozen=True is missing")  # type: ignore[attr-defined]
    for field in dataclasses.fields(kind):
        _demand(field.default is not dataclasses.MISSING, f"parameter {field.name}: no default")
        documented = all(field.metadata.get(key) for key in ("help", "source"))
        _demand(documented, f"parameter {field.name}: made without `parameter(default, help, source)`")
        search, default = field.metadata.get("search"), cast(Any, field.default)
        ends = (search.low, search.high) if isinstance(search, Range) else ()
        inside = search is None or default is None or (ends[0] <= default <= ends[1] if ends else default in search)
        _demand(inside, f"parameter {field.name}: default {default} lies outside its search space")
    hash(kind())
    for values in (*case.method.presets.values(), case.method.tiny):
        make_parameters(case.method, values)


@about("", "declares_itself")
def is_listed_as_it_is(case: Case) -> None:
    """What listings read from its source without importing it is what the class has."""
    from bench.runs.declarations import NotPlain, SourceFile

    try:
        file = inspect.getsourcefile(case.method)
        declared = SourceFile(Path(file or "")).declarations(case.method.__name__)
    except (NotPlain, OSError, TypeError):  # imported for listings, too, or made where there is no file
        return
    if case.method.name.startswith(FOREST_ON):  # listed by what the method under it declares
        return
    for name in ("name", "reference", "family", "unit", "transductive", "reads", "deviations", "presets"):
        listed, own = (getattr(kind, name, None) for kind in (declared, case.method))
        _demand(listed == own, f"{name}: listed as {listed!r}, the class has {own!r}")
    listed, own = (
        [(field.name, field.default, dict(field.metadata)) for field in dataclasses.fields(kind.Parameters)]
        for kind in (declared, case.method)
    )
    changed = [name for (name, *_), other in zip(listed, own, strict=False) if (name, *_) != other]
    _demand(listed == own, f"parameter {', '.join(changed) or 'list'}: listed otherwise than the class has it")


# --- representation -------------------------------------------------------------------------------------------


@about("represent", "declares_itself", "documents_its_parameters")
def represents_samples(case: Case) -> None:
    """Arrays of numbers without NaN or infinity, whose first axis counts the samples."""
    _demand(bool(case.inputs), "represent: no array")
    for name, values in case.inputs.items():
        _demand(len(values) == len(case.samples), f"{name}: {len(values)} rows for {len(case.samples)} samples")
        for array in arrays_of(values):
            _demand(array.dtype.kind in "biuf", f"{name}: dtype {array.dtype} is not a number")
            _demand(bool(np.isfinite(array).all()), f"{name}: holds NaN or infinity")


@about("represent", "represents_samples")
def represents_purely(case: Case) -> None:
    """A second time gives equal arrays; a subset's, in any order, are the subset of the arrays."""
    same_inputs(case.inputs, case.represent(case.samples), "called twice")
    some = np.random.default_rng(2).permutation(len(case.samples))[: len(case.samples) // 2]
    same_inputs(take(case.inputs, some), case.represent(case.samples.take(some)), "of a subset")


@about("represent", "represents_samples", "documents_its_parameters")
def reads_what_it_declares(case: Case) -> None:
    """Nothing undeclared (the view refuses) and nothing declared in vain."""
    view = case.view(case.samples)
    for preset in ({}, *case.method.presets.values()):
        case.make(preset=preset).represent(view)
    vain = sorted(case.method.reads - view.used)
    _demand(not vain, f"reads: {', '.join(vain)} declared but not used")


@about("represent", "represents_samples", "represents_purely", "documents_its_parameters")
def ignores_what_it_does_not_read(case: Case) -> None:
    """Other addresses, ports, checksums and another date give equal arrays, unless they are read; in every preset."""
    for name, preset in {"": {}, **case.method.presets}.items():
        method, view = case.make(preset=preset), case.view(case.samples)
        expected = method.represent(view)
        other = three_services(
            case.folder / "-".join(["moved", *sorted({"addresses", "ports", "checksums"} & view.used)]),
            start=86_400.0 * 37 + 0.25,
            subnet=0 if "addresses" in view.used else 100,
            ports=0 if "ports" in view.used else 11,
            corrupt_checksums="checksums" not in view.used,
        )
        arrays = method.represent(case.view(windows_of_services(other), other))
        same_inputs(
            expected, arrays, f"of captures with other addresses, ports, checksums or dates {name and f'({name})'}"
        )


@about("represent", "represents_samples", "represents_purely")
def sees_no_labels(case: Case) -> None:
    """The same captures in class folders of other names and in another order give equal arrays."""
    renamed = renamed_services(case.folder / "plain", case.folder / "renamed")
    samples = dataclasses.replace(case.samples, session=same_sessions(case.store, renamed)[case.samples.session])
    same_inputs(case.inputs, case.represent(samples, renamed), "of captures in class folders of other names")


@about("represent", "answers_with_probabilities")
def keeps_nothing_represented(case: Case) -> None:
    """`represent` leaves the fitted object as it was."""
    before = state_of(case.fitted)
    case.fitted.represent(case.view(case.samples.take(case.rows[2])))
    _demand(state_of(case.fitted) == before, "represent: changes the object")


@about("represent", "answers_with_probabilities")
def takes_edge_cases(case: Case) -> None:
    """No sample, one sample, windows of one packet and windows without payload: arrays and probabilities."""
    single = dataclasses.replace(case.samples, count=np.ones_like(case.samples.count))
    for what, samples in {
        "no sample": case.samples.take(np.arange(0)),
        "one sample": case.samples.take(np.arange(1)),
        "windows of one packet, some without payload": single,
    }.items():
        inputs = case.represent(samples)
        rows = {len(values) for values in inputs.values()}
        _demand(rows == {len(samples)}, f"{what}: arrays of {rows} rows for {len(samples)} samples")
        _are_probabilities(case.fitted.predict_proba(inputs), len(samples), what)


# --- learning -------------------------------------------------------------------------------------------------


@about("fit", "answers_with_probabilities")
def fits_without_side_effects(case: Case) -> None:
    """`fit` returns self and leaves its arguments and the global random state alone."""
    method = case.make()
    train, validation = (Part(take(case.inputs, rows), case.labels[rows]) for rows in case.rows[:2])
    parts = [(part, copy.deepcopy(part.inputs), part.labels.copy()) for part in (train, validation)]
    with _random_state_kept():
        _demand(learn(method, train, validation, Monitor()) is method, "fit: does not return self")
        method.predict_proba(validation.inputs)
    for part, inputs, labels in parts:
        same_inputs(inputs, part.inputs, "changed by fit or pretrain")
        _demand(np.array_equal(labels, part.labels), "fit: changes the labels")
    _equal(
        case.probabilities,
        method.predict_proba(take(case.inputs, case.rows[2])),
        0,
        "the same seed gives other answers",
    )


@about("fit", "answers_with_probabilities", "fits_without_side_effects")
def fits_afresh(case: Case) -> None:
    """A second `fit` forgets the first; one on shuffled labels is no better than chance."""
    labels = np.random.default_rng(3).permutation(case.labels)
    method = case.fit(case.make(), labels)
    accuracy, chance = _accuracy(method, case, labels), _majority(labels)
    allowed = chance + 4 * np.sqrt(chance * (1 - chance) / len(case.rows[2]))
    _demand(accuracy <= allowed, f"accuracy {accuracy:.2f} on shuffled labels, at most {allowed:.2f} is chance: a leak")
    test = take(case.inputs, case.rows[2])
    _equal(
        case.probabilities, case.fit(method, case.labels).predict_proba(test), 0, "a second fit differs from a first"
    )


@about("fit", "answers_with_probabilities")
def learns(case: Case) -> None:
    """Better than the most frequent class on three services that differ in all that can be read."""
    if not case.method.reads:
        return  # nothing read, nothing to learn from
    accuracy, least = _accuracy(case.fitted, case, case.labels), _majority(case.labels) + MARGIN
    _demand(accuracy >= least, f"accuracy {accuracy:.2f} on a separable task, at least {least:.2f} expected")


@about("network", "answers_with_probabilities")
def fits_its_training_samples(case: Case) -> str | None:
    """A torch method reaches an accuracy of 0.95 on what it is trained on, 5 x 40 sessions of the demo; tells when."""
    if not _is_torch(case.method):
        return None
    from bench.training.fitting import FITTED, steps_on_demo

    steps, accuracy = steps_on_demo(case.method, case.method.tiny, case.folder / "five", device=case.device)
    complaint = f"accuracy {accuracy:.3f} on training samples after {steps} steps, {FITTED} expected"
    _demand(accuracy >= FITTED, f"{complaint}; dropout, noise and small batches may stand in its way: `tiny` sets them")
    return f"accuracy {accuracy:.2f} on 5 x 40 training sessions after {steps} steps"


@about("predict_proba", "represents_samples")
def answers_with_probabilities(case: Case) -> None:
    """Float32 ``[samples, classes]``, rows that sum to 1 or are NaN, not all NaN."""
    _are_probabilities(case.probabilities, len(case.rows[2]), "test rows")
    _demand(not np.isnan(case.probabilities).all(), "every row is an abstention")


@about("predict_proba", "answers_with_probabilities")
def answers_rows_independently(case: Case) -> None:
    """A row's answer depends neither on the order nor on the other rows; not asked of a transductive method."""
    if case.method.transductive:
        return
    test = take(case.inputs, case.rows[2])
    same_answers(case.fitted, test, case.probabilities, np.arange(len(case.rows[2]))[::-1], close=TOLERANCE)


@about("fit", "answers_with_probabilities")
def takes_an_absent_class(case: Case) -> None:
    """A class without training samples has its column all the same; so with an empty validation part."""
    train = case.rows[0][case.labels[case.rows[0]] < CLASSES - 1]
    empty = Part(take(case.inputs, train[:0]), case.labels[:0])
    method = learn(case.make(), Part(take(case.inputs, train), case.labels[train]), empty, Monitor())
    _are_probabilities(method.predict_proba(take(case.inputs, case.rows[2])), len(case.rows[2]), "class absent")


@about("save_state", "answers_with_probabilities")
def saves_and_loads(case: Case) -> None:
    """What is loaded answers as what was saved; no file is a pickle."""
    with tempfile.TemporaryDirectory() as name:
        case.fitted.save(Path(name))
        pickles = [path.name for path in Path(name).rglob("*") if path.is_file() and _is_pickle(path)]
        _demand(not pickles, f"save: {', '.join(pickles)} is a pickle")
        loaded = case.method.load(Path(name), device=case.device)
    _demand(loaded.parameters == case.fitted.parameters, "load: other parameters than saved")
    _equal(case.probabilities, loaded.predict_proba(take(case.inputs, case.rows[2])), TOLERANCE, "loaded differs")


@about("presets", "documents_its_parameters", "saves_and_loads")
def fits_every_preset(case: Case) -> None:
    """Every preset over ``tiny`` fits for one epoch, answers, saves and loads; a large network is made, not trained."""
    for name, preset in case.method.presets.items():
        parameters = make_parameters(case.method, {**case.method.tiny, **preset, **one_pass(case.method)})
        method = case.method(parameters, classes=CLASSES, seed=7, device=case.device)
        if _weights(method) > LARGE:
            continue
        train, test = (method.represent(case.view(case.samples.take(case.rows[part]))) for part in (0, 2))
        part = Part(train, case.labels[case.rows[0]])
        expected = learn(method, part, part, Monitor()).predict_proba(test)
        _are_probabilities(expected, len(case.rows[2]), f"preset {name}")
        with tempfile.TemporaryDirectory() as folder:
            method.save(Path(folder))
            loaded = case.method.load(Path(folder), device=case.device)
        _equal(expected, loaded.predict_proba(test), TOLERANCE, f"preset {name}: loaded differs")


@about("network", "answers_with_probabilities")
def trains_every_weight(case: Case) -> None:
    """Every trainable tensor of a torch method has a finite gradient after the last step, and its optimiser has it."""
    if not _is_torch(case.method):
        return
    fitted: Any = case.fitted
    known = {id(weight) for group in fitted.optimiser(fitted.model).param_groups for weight in group["params"]}
    for name, weight in fitted.model.named_parameters():
        if weight.requires_grad:
            _demand(weight.grad is not None, f"{name}: no gradient")
            _demand(bool(weight.grad.isfinite().all()), f"{name}: gradient is not finite")
            _demand(id(weight) in known, f"{name}: optimiser does not have it, so that no step changes it")


@about("loss_divisor", "answers_with_probabilities")
def divides_its_loss_as_it_says(case: Case) -> None:
    """The loss of a batch is that of its parts, each times its `loss_divisor`, over the batch's; else it is None."""
    if not _is_torch(case.method):
        return
    import torch

    method: Any = case.fitted
    labels = torch.from_numpy(np.sort(case.labels[case.rows[0]])).to(case.device)  # parts of other classes each
    logits = torch.linspace(-1, 1, len(labels) * CLASSES, device=case.device).view(-1, CLASSES).sin()
    parts = labels.split(max(1, len(labels) // 3)), logits.split(max(1, len(labels) // 3))
    with torch.no_grad():
        if (whole := method.loss_divisor(labels)) is None:
            return
        shares = [method.loss(two, one) * method.loss_divisor(one) for one, two in zip(*parts, strict=True)]
        expected, found = float(method.loss(logits, labels) * whole), float(sum(shares))
    complaint = f"times it the loss of a batch is {expected:.6g}, of its parts {found:.6g}: micro_batch changes scores"
    _demand(abs(expected - found) <= 1e-4 * abs(expected) + 1e-6, f"{complaint}; say what `loss` divides by, or None")


CHECKS: Final[tuple[Question, ...]] = (
    declares_itself,
    documents_its_parameters,
    is_listed_as_it_is,
    represents_samples,
    represents_purely,
    sees_no_labels,
    reads_what_it_declares,
    ignores_what_it_does_not_read,
    answers_with_probabilities,
    answers_rows_independently,
    keeps_nothing_represented,
    fits_without_side_effects,
    fits_afresh,
    learns,
    fits_its_training_samples,
    takes_an_absent_class,
    takes_edge_cases,
    saves_and_loads,
    fits_every_preset,
    trains_every_weight,
    divides_its_loss_as_it_says,
)


# --- helpers --------------------------------------------------------------------------------------------------


def _nearly_hooks(method: type[Method]) -> Iterator[tuple[str, str]]:
    """Public names that a class gives itself and that are nearly a hook of what it inherits, each with that hook."""
    ours = {name for kind in method.__mro__ if kind.__module__.startswith("bench.") for name in vars(kind)}
    hooks = sorted(name for name in ours if not name.startswith("_"))
    for kind in method.__mro__:
        own = () if kind.__module__.startswith("bench.") else (name for name in vars(kind) if name not in ours)
        for name in own:
            if not name.startswith("_") and (near := difflib.get_close_matches(name, hooks, 1, ALIKE)):
                yield name, near[0]


def _is_torch(method: type[Method]) -> bool:
    loop = sys.modules.get("bench.training.loop")  # not loaded: it cannot be a torch method
    return loop is not None and issubclass(method, loop.TorchMethod)


def _weights(method: Method) -> int:
    """Weights of a torch method's network; 0 for another method."""
    if not _is_torch(type(method)):
        return 0
    import torch

    with torch.random.fork_rng(devices=[]):
        return sum(weights.numel() for weights in cast(Any, method).network().parameters())


def _demand(condition: bool, complaint: str) -> None:
    if not condition:
        raise ContractBroken(complaint)


def _equal(expected: NDArray[Any], values: NDArray[Any], tolerance: float, complaint: str) -> None:
    _demand(expected.shape == values.shape, f"{complaint}: shape {values.shape}, not {expected.shape}")
    close = np.allclose(expected, values, rtol=0, atol=tolerance, equal_nan=True)
    _demand(close, f"{complaint} (by up to {np.nanmax(np.abs(expected - values), initial=0):.2g})")


def _are_probabilities(probabilities: NDArray[Any], samples: int, what: str) -> None:
    _demand(probabilities.shape == (samples, CLASSES), f"{what}: shape {probabilities.shape}, not {(samples, CLASSES)}")
    _demand(probabilities.dtype == np.float32, f"{what}: dtype {probabilities.dtype}, not float32")
    absent = np.isnan(probabilities)
    _demand(bool((absent.any(axis=1) == absent.all(axis=1)).all()), f"{what}: a row is NaN in part")
    answered = probabilities[~absent.any(axis=1)]
    _demand(bool(((answered >= 0) & (answered <= 1 + TOLERANCE)).all()), f"{what}: probabilities outside 0 ... 1")
    _demand(np.allclose(answered.sum(axis=1), 1, rtol=0, atol=TOLERANCE), f"{what}: rows do not sum to 1")


def _accuracy(method: Method, case: Case, labels: NDArray[np.int64]) -> float:
    """On the test rows; an abstention is an error."""
    probabilities = np.nan_to_num(method.predict_proba(take(case.inputs, case.rows[2])), nan=-1.0)
    right = (probabilities.argmax(axis=1) == labels[case.rows[2]]) & (probabilities[:, 0] >= 0)
    return float(right.mean())


def _majority(labels: NDArray[np.int64]) -> float:
    return float(np.bincount(labels).max() / len(labels))


@contextmanager
def _random_state_kept() -> Iterator[None]:
    """Complains where the global generators of Python, NumPy or torch are not left as they were."""

    def states() -> list[Any]:
        torch = sys.modules.get("torch")
        legacy = np.random.get_state(legacy=False)  # noqa: NPY002 (what others may have used)
        return [random.getstate(), repr(legacy), [] if torch is None else torch.get_rng_state().tolist()]

    torch = sys.modules.get("torch")
    put_back: list[tuple[Any, Any]] = [
        (random.setstate, random.getstate()),
        (np.random.set_state, np.random.get_state()),  # noqa: NPY002
    ]
    put_back += [(torch.set_rng_state, torch.get_rng_state())] if torch else []
    random.seed(SEED)  # a state of its own: one that an earlier fit left would hide that this one leaves it, too
    np.random.seed(SEED)  # noqa: NPY002
    if torch:
        torch.random.default_generator.manual_seed(SEED)
    before = states()
    try:
        yield
        after = states()
    finally:
        for put, state in put_back:
            put(state)
    changed = [name for name, one, two in zip(("random", "numpy", "torch"), before, after, strict=True) if one != two]
    _demand(not changed, f"the global random state of {', '.join(changed)} is changed")


def _is_pickle(path: Path) -> bool:
    if zipfile.is_zipfile(path):  # torch.save
        return any(name.endswith(".pkl") for name in zipfile.ZipFile(path).namelist())
    head = path.read_bytes()[:2]
    return head[:1] == b"\x80" and 2 <= head[-1] <= 5
