"""What came of a study: in words and numbers, and as pictures.

Importance is asked for with all its arguments, because Optuna's defaults change.
"""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from bench.render.plots import save_figure
from bench.runs import registry
from bench.tuning.search import SAME, Look, Search
from bench.tuning.spaces import point_key


def summarise(search: Search, study: optuna.Study, of_default: optuna.Study | None = None) -> dict[str, Any]:
    """The study as one JSON object.

    ``default`` is None where the default parameters were not evaluated, ``best`` where no trial finished, or where all
    are ``equal`` (their value).  ``points`` are all that the space has, if there is an end of them.
    """
    look = Look(study.get_trials(deepcopy=False), 0)
    complete = look.of(TrialState.COMPLETE)
    best = max(complete, key=lambda t: (t.value, -t.number), default=None)
    is_equal = len(look.known) > 1 and len({(t.state, t.value) for t in look.finished}) == 1 and bool(best)
    default = _default_of(search, complete, of_default)
    return {
        "study": study.study_name,
        "method": search.spec.method,
        "dataset": search.spec.dataset,
        "objective": "validation macro_f1",
        "sampler": search.sampler,
        "default": default,
        "best": None if best is None or is_equal else _described(best),
        "difference": best.value - default["value"] if best and default else None,
        "equal": best.value if best is not None and is_equal else None,
        "points": search.points,
        "known": len(look.known),
        "seconds": [_seconds(t) for t in look.trials],  # beside the trials, which are the same for the same seed
        "trials": [
            {
                "number": t.number,
                "state": t.state.name.lower(),
                "value": t.value,
                "parameters": t.params,
                "same_as": t.user_attrs.get(SAME),
            }
            for t in look.trials
        ],
    }


def _seconds(trial: FrozenTrial) -> float:
    """How long a trial took; one that took another's value took no time."""
    return 0.0 if SAME in trial.user_attrs or trial.duration is None else trial.duration.total_seconds()


def _described(trial: FrozenTrial) -> dict[str, Any]:
    return {"value": trial.value, "trial": trial.number, "parameters": trial.params}


def _default_of(search: Search, complete: Sequence[FrozenTrial], aside: optuna.Study | None) -> dict[str, Any] | None:
    """The default parameters' evaluation, in the study or, with no number, aside of it."""
    if search.default is not None:
        own = (t for t in complete if point_key(t.params) == point_key(search.default))
        return next(map(_described, own), None)
    kept = [] if aside is None else aside.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    kind = registry.load(search.spec.method)
    parameters = kind.Parameters(**search.spec.parameters)
    values = {name: getattr(parameters, name) for name in search.spaces}
    return {"value": kept[0].value, "trial": None, "parameters": values} if kept else None


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
        with warnings.catch_warnings():  # that plots are experimental, since 2020, and that one trial has no range
            warnings.simplefilter("ignore")
            plot()
        save_figure(pyplot.gcf(), folder / f"{name}.png")
        pyplot.close("all")
