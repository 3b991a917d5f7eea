"""Hyper-parameter search: one Optuna study of one method on one split, judged on validation macro-F1.

The test part is neither represented nor scored.  Every trial is a nested MLflow run under the study's own run.
Sampler, pruner and importance are named with all their arguments, because Optuna's defaults change.
"""

import dataclasses
import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from sqlalchemy.exc import SQLAlchemyError

from bench.errors import InputError
from bench.method import Monitor, Range, Space, make_parameters, reason_to_skip, search_spaces, typed_values
from bench.render.plots import save_figure
from bench.runs import registry
from bench.runs.attempt import fit_and_validate
from bench.runs.execute import store_of
from bench.runs.plan import ParameterFile
from bench.spec import RunSpec, named_seed
from bench.tracking.address import Address

if TYPE_CHECKING:
    from bench.tracking.tracker import Tracker

SAMPLERS = ("tpe", "grid")
HEARTBEAT_S = 20  # a trial without a sign of life for three times that was killed
_DONE = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)


@dataclass(frozen=True)
class Search:
    """What a study asks: the run that it varies, the space, how to draw, whether to prune.

    ``spec.parameters`` stay fixed in every trial; ``spaces`` maps a parameter to a range or choices.
    """

    spec: RunSpec
    spaces: Mapping[str, Space]
    sampler: str = "tpe"
    prune: bool = True

    @property
    def name(self) -> str:
        """Readable, and different for every different question, so that a study resumes only itself."""
        spaces = {name: _jsonable(space) for name, space in sorted(self.spaces.items())}
        asked = json.dumps([self.spec.digest, spaces, self.sampler, self.prune], sort_keys=True)
        return f"{Path(self.spec.method).name}-{self.spec.dataset}-{sha256(asked.encode()).hexdigest()[:10]}"


def _jsonable(space: Space) -> Any:
    return dataclasses.asdict(space) if isinstance(space, Range) else list(space)


def parse_space(name: str, text: str) -> Space:
    """A search space from the command line.

    ``4,9,16,25`` are choices; ``1:800:20`` is a range with a step (1, 21, … 781); ``0.1:0.6`` a plain and
    ``1e-4:1e-3:log`` a logarithmic one.  Raises :class:`InputError` for anything else.

    >>> parse_space("packets", "4,9,16"), parse_space("temperature", "1:800:20")
    ((4, 9, 16), Range(low=1, high=781, step=20, log=False))
    """
    try:
        if ":" not in text:
            return tuple(_value(choice) for choice in text.split(","))
        low, high, *rest = text.split(":")
        ends = float(low), float(high)
        if len(rest) > 1 or not (math.isfinite(ends[0]) and ends[0] < ends[1] < math.inf):
            raise ValueError
        if rest == ["log"]:
            if ends[0] <= 0:
                raise ValueError
            return Range(_number(low), _number(high), log=True)
        if not rest:
            return Range(_number(low), _number(high))
        return _stepped(_number(low), ends[1], _number(rest[0]))
    except ValueError:
        raise InputError(
            "bad-space",
            f"--param {name}={text}: expected choices (4,9,16), a range (0.1:0.6, 1e-4:1e-3:log) or steps (1:800:20)",
        ) from None


def _stepped(low: float, high: float, step: float) -> Range:
    """The range whose upper end is the last value that the steps reach."""
    if step <= 0:
        raise ValueError
    return Range(low, low + math.floor((high - low) / step + 1e-9) * step, step=step)


def _number(text: str) -> float:
    number = float(text)
    return int(number) if number.is_integer() and "e" not in text.lower() and "." not in text else number


def _value(text: str) -> Any:
    """A choice: a number where it reads as one, else the text (`true` and `none` keep their text's meaning)."""
    word = text.strip()
    if word.lower() in ("true", "false"):
        return word.lower() == "true"
    if word.lower() == "none":
        return None
    try:
        return _number(word)
    except ValueError:
        if not word:
            raise
        return word


def spaces_for(name: str, asked: Mapping[str, str], fixed: Mapping[str, Any]) -> dict[str, Space]:
    """The spaces that ``--param`` names, or the method's own of what is not ``fixed`` where it names none.

    Raises :class:`InputError` where an end or a choice is no value that the parameter can take.
    """
    method = registry.describe(name)
    if not asked:
        spaces = {name: space for name, space in search_spaces(method).items() if name not in fixed}
        if not spaces:
            raise InputError(
                "bad-space", f"{method.name} has no search space of its own: name one with --param NAME=SPACE"
            )
        return spaces
    parsed = {name: parse_space(name, text) for name, text in asked.items()}
    for name, space in parsed.items():
        if isinstance(space, Range) and space.step is None:
            values = [space.low, space.high]
        else:
            values = grid_values({name: space})[name]
        for value in values:
            make_parameters(method, {name: value})
    return parsed


def grid_values(spaces: Mapping[str, Space]) -> dict[str, list[Any]]:
    """Every value of each space.  Raises :class:`InputError` for a range without a step.

    >>> grid_values({"packets": (4, 9), "rate": Range(0.5, 1.0, step=0.25)})
    {'packets': [4, 9], 'rate': [0.5, 0.75, 1.0]}
    """
    grid: dict[str, list[Any]] = {}
    for name, space in spaces.items():
        if not isinstance(space, Range):
            grid[name] = list(space)
        elif space.step is None:
            raise InputError(
                "bad-space", f"the grid sampler needs choices or a step for {name}: --param {name}=LOW:HIGH:STEP"
            )
        else:
            count = round((space.high - space.low) / space.step) + 1
            grid[name] = [space.low + i * space.step for i in range(count)]
    return grid


def suggest(trial: optuna.Trial, spaces: Mapping[str, Space]) -> dict[str, Any]:
    """Draw one value a name from a trial; an integer range gives integers."""
    drawn: dict[str, Any] = {}
    for name, space in spaces.items():
        if not isinstance(space, Range):
            drawn[name] = trial.suggest_categorical(name, list(space))
        elif all(isinstance(end, int) for end in (space.low, space.high)):
            drawn[name] = trial.suggest_int(name, space.low, space.high, step=int(space.step or 1), log=space.log)
        else:
            drawn[name] = trial.suggest_float(name, space.low, space.high, step=space.step, log=space.log)
    return drawn


class TrialMonitor(Monitor):
    """Reports each epoch's validation macro-F1 to Optuna, which may end the trial."""

    def __init__(self, trial: optuna.Trial) -> None:
        super().__init__()
        self._trial = trial
        self.last = float("nan")  # the newest validation macro-F1

    def epoch(self, epoch: int, epochs: int, **values: float) -> None:
        """See :class:`bench.method.Monitor`."""
        self.last = values.get("validation_macro_f1", self.last)
        if math.isnan(self.last):  # a method that does not tell it cannot be pruned
            return
        self._trial.report(self.last, epoch)
        if self._trial.should_prune():
            raise optuna.TrialPruned(f"below the median at epoch {epoch} of {epochs}")


def open_study(search: Search, storage: str) -> optuna.Study:
    """The search's study in `storage` (a database URL), made or taken up again.

    Several processes may work on it.  A trial whose process was killed is closed as failed and tried once more,
    when its sign of life has been missing for a minute.  Raises :class:`InputError` for a database that cannot be
    opened and a sampler that there is not.
    """
    address = Address(storage)
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # it prints a trace for every interrupt
    pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2, interval_steps=1, n_min_trials=3)
    try:
        with warnings.catch_warnings():  # Optuna has called the heartbeat experimental since 2021
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            database = optuna.storages.RDBStorage(
                address.url,
                heartbeat_interval=HEARTBEAT_S,
                grace_period=3 * HEARTBEAT_S,
                heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=1),
            )
        study = optuna.create_study(
            study_name=search.name,
            storage=database,
            direction="maximize",
            load_if_exists=True,
            pruner=pruner if search.prune else optuna.pruners.NopPruner(),
        )
    except (ValueError, ImportError, SQLAlchemyError) as error:
        reason = address.without_secret(str(error.__cause__ or error).splitlines()[0])
        raise InputError(
            "storage-failed", f"--storage {address.shown}: cannot be opened ({reason}); give a database URL"
        ) from None
    study.sampler = _sampler(search, len(study.get_trials(deepcopy=False)))
    return study


def _sampler(search: Search, seen: int) -> optuna.samplers.BaseSampler:
    """The search's sampler, for a study that has `seen` trials already.

    The grid's seed is the study's alone, since it fixes which number means which cell; the other one takes in
    the number of trials, so that a study taken up again does not repeat its first draws.
    """
    seed = named_seed(search.spec.split.seed, search.name, "sampler") % 2**32
    if search.sampler == "grid":
        return optuna.samplers.GridSampler(grid_values(search.spaces), seed=seed)
    return optuna.samplers.TPESampler(
        n_startup_trials=10,
        n_ei_candidates=24,
        multivariate=True,
        group=False,
        constant_liar=False,
        seed=(seed + seen) % 2**32,
    )


@dataclass(frozen=True)
class TuneOptions:
    """How a study is executed."""

    storage: str  # a database URL
    results: Path  # folder of the parameter file
    trials: int | None = None  # finished ones to reach; None: 20, or the whole grid
    device: str = "cpu"
    progress: Callable[[str], None] = lambda line: None


def tune(search: Search, tracker: "Tracker", options: TuneOptions) -> dict[str, Any]:
    """Bring the study to its finished trials and describe it.

    Returns the study's name, the best parameters and value, all trials and the parameter file's path.  Raises
    :class:`InputError` as :func:`open_study` does, and where no trial can be made.
    """
    if search.sampler not in SAMPLERS:
        raise InputError("unknown-sampler", f"--sampler {search.sampler!r}: choose {' or '.join(SAMPLERS)}")
    wanted = options.trials or (
        math.prod(len(v) for v in grid_values(search.spaces).values()) if search.sampler == "grid" else 20
    )
    study = open_study(search, options.storage)
    with tracker.study(search.name, search.spec) as run:
        left = wanted - len(study.get_trials(deepcopy=False, states=_DONE))
        if left > 0:
            # a trial that fails is a result; the search goes on without it
            study.optimize(lambda t: _objective(t, search, run, options), n_trials=left, catch=Exception)
        summary = summarise(study, search)
        if best := summary["best"]:
            path = options.results / "params" / f"{search.name}.json"
            parameter_file(search, best).save(path)
            summary["file"] = str(path)
        with run.artefacts() as folder:
            write_plots(study, folder)
            (folder / "study.json").write_text(json.dumps(summary, indent=1) + "\n")
    return summary


def check_runs(spec: RunSpec) -> None:
    """Raises :class:`InputError` for a method that cannot run on the data set: every trial would fail."""
    kind = registry.load(spec.method)
    if reason := reason_to_skip(kind, kind.Parameters(**spec.parameters), store_of(spec)):
        raise InputError("method-cannot-run", f"{spec.method} on {spec.dataset}: {reason}; take another method")


def parameter_file(search: Search, best: Mapping[str, Any]) -> ParameterFile:
    """The best parameters of a study, and all that they are the best of."""
    spec = search.spec
    return ParameterFile(
        method=spec.method,
        parameters={**spec.parameters, **best["parameters"]},
        study=search.name,
        dataset=spec.dataset,
        task=spec.task,
        store=spec.store,
        split=spec.split,
        validation_macro_f1=best["value"],
    )


def keep_runs(search: Search, scored: Sequence[tuple[Mapping[str, Any], float, str]], storage: str) -> str:
    """Put finished runs into the search's study as trials, each once; returns the study's name.

    ``scored`` has for each run its drawn parameters, its validation macro-F1 and its id.  A later `bench tune` of the
    same question finds these trials done.
    """
    study = open_study(search, storage)
    known = [trial.params for trial in study.get_trials(deepcopy=False, states=_DONE)]
    choices = {name: optuna.distributions.CategoricalDistribution(v) for name, v in grid_values(search.spaces).items()}
    for drawn, value, run_id in scored:
        if drawn not in known:
            study.add_trial(
                optuna.trial.create_trial(
                    params=dict(drawn), distributions=choices, value=value, user_attrs={"run": run_id}
                )
            )
    result: str = study.study_name
    return result


def _objective(trial: optuna.Trial, search: Search, run: Any, options: TuneOptions) -> float:
    """One trial: draw, fit on the training part, score the validation part, log a nested run."""
    drawn = suggest(trial, search.spaces)
    values = ", ".join(f"{n} {v:.6g}" if isinstance(v, float) else f"{n} {v}" for n, v in drawn.items())
    kind = registry.load(search.spec.method)
    spec = dataclasses.replace(search.spec, parameters=typed_values(kind, {**search.spec.parameters, **drawn}))
    monitor = TrialMonitor(trial)
    with run.trial(trial.number, drawn) as log:
        try:
            value = fit_and_validate(spec, store_of(spec), kind, monitor, device=options.device).macro_f1
        except optuna.TrialPruned:
            value = None
        except Exception as error:
            options.progress(f"trial {trial.number}: failed, {type(error).__name__}: {error} ({values})")
            raise
        log({"pruned": float(value is None), "validation_macro_f1": monitor.last if value is None else value})
    if value is None:
        options.progress(f"trial {trial.number}: pruned at validation macro-F1 {monitor.last:.4f} ({values})")
        raise optuna.TrialPruned
    options.progress(f"trial {trial.number}: validation macro-F1 {value:.4f} ({values})")
    return value


def summarise(study: optuna.Study, search: Search) -> dict[str, Any]:
    """The study as one JSON object; ``best`` is None where no trial finished."""
    finished = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    best = max(finished, key=lambda t: (t.value, -t.number), default=None)
    return {
        "study": study.study_name,
        "method": search.spec.method,
        "dataset": search.spec.dataset,
        "objective": "validation macro_f1",
        "sampler": search.sampler,
        "best": None if best is None else {"value": best.value, "trial": best.number, "parameters": best.params},
        "trials": [
            {"number": t.number, "state": t.state.name.lower(), "value": t.value, "parameters": t.params}
            for t in study.get_trials(deepcopy=False)
        ],
    }


def write_plots(study: optuna.Study, folder: Path) -> None:
    """Slice plot, history and parameter importance as PNG; importance needs four finished trials that differ."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    finished = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if not finished:
        return
    plots: dict[str, Callable[[], Any]] = {
        "slice": lambda: optuna.visualization.matplotlib.plot_slice(study),
        "history": lambda: optuna.visualization.matplotlib.plot_optimization_history(study),
    }
    if len(finished) >= 4 and len({t.value for t in finished}) > 1:
        evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=64, max_depth=64, seed=0)
        plots["importance"] = lambda: optuna.visualization.matplotlib.plot_param_importances(study, evaluator=evaluator)
    for name, plot in plots.items():
        with warnings.catch_warnings():  # Optuna calls its plots experimental since 2020
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            plot()
        save_figure(pyplot.gcf(), folder / f"{name}.png")
        pyplot.close("all")
