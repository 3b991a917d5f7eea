"""A table or figure of the paper, from its declaration to what is printed and saved.

Published numbers need no data.  The modes ``paper`` and ``clean`` make runs, of which finished ones are never run
again, so a broken-off reproduction goes on where it stopped, and two exhibits of the same runs cost one.
"""

import dataclasses
import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.data.store import Store
from bench.paper.experiment_results import Found, Scene
from bench.paper.experiments import MODES, Experiment, Planned, Scale, chosen, plan
from bench.paper.published import names, published
from bench.paper.published import sheet as published_sheet
from bench.paper.tables_and_figures import Exhibit, exhibit
from bench.render.table import Sheet, render
from bench.runs.execute import Outcome, Progress, RunSpec, run_matrix, silent
from bench.runs.tracking import Record, Tracker

#: the columns that name an arm in a file of published numbers, by the kind of experiment
KEYS: Final = {
    "systems": ("id",),
    "timing": ("id",),
    "arms": ("arm",),
    "classes": ("class",),
    "grid": ("packets", "bytes"),
    "sweep": ("temperature",),
}


@dataclass(frozen=True)
class Request:
    """What is asked of an experiment."""

    experiment: Experiment
    modes: tuple[str, ...] = MODES
    scale: Scale = field(default_factory=Scale)
    store: Store | None = None  # None: published numbers only
    task: str | None = None
    missing: str = ""  # why there is no store

    @property
    def original(self) -> bool:
        """Whether the data are the paper's."""
        return self.store is None or (
            self.store.name == self.experiment.dataset and self.task in (None, self.store.default_task)
        )

    @property
    def unrun(self) -> str:
        """A note that says why nothing was run; empty where something could be."""
        return self.missing and f"not run: {self.missing}"

    @property
    def title(self) -> str:
        """What, on which data, at which scale."""
        head = f"{self.experiment.id}: {self.experiment.title}"
        if self.store is None or self.modes == ("published",):
            return head
        place = f"{self.store.name}/{self.task or self.store.default_task}"
        swapped = "" if self.original else " instead of the paper's data"
        words = ", ".join(self.scale.words(self.experiment))
        return " · ".join([head, f"{place}{swapped}", *([words] if words else [])])

    @property
    def name(self) -> str:
        """The folder of what is saved: the experiment, and all that makes it other than the full one."""
        if self.store is None or self.modes == ("published",):
            return f"{self.experiment.id}-published"
        asked = {
            "on": self.store.name if self.store.name != self.experiment.dataset else None,
            "task": self.task if self.task != self.store.default_task else None,
            "modes": "+".join(mode for mode in self.modes if mode != "published") if self.modes != MODES else None,
            **self.scale.asked,
        }
        words = [f"{key}-{value}" for key, value in asked.items() if value]
        return re.sub(r"[^\w.,=+-]+", "-", "-".join([self.experiment.id, *words])).strip("-")[:200]

    def plan(self) -> list[Planned]:
        """All runs, mode by mode."""
        if self.store is None:
            return []
        return [
            planned
            for mode in self.modes
            if mode != "published"
            for planned in plan(self.experiment, mode, self.store, self.scale, self.task)
        ]


def reproduce(
    request: Request,
    tracker: Tracker,
    *,
    jobs: int = 1,
    device: str = "cpu",
    progress: Progress = silent,
    told: Callable[[Outcome], None] = lambda outcome: None,
) -> Exhibit:
    """Run what is not done and show it all.  Table X is measured afresh each time: it has no runs."""
    planned = request.plan()
    if not planned and request.experiment.id in names():
        return Exhibit(published_sheet(request.experiment.id).noted(request.unrun))
    if request.experiment.kind == "timing":
        return Exhibit(timing(request, device))
    specs = list({spec.digest: spec for one in planned for spec in one.specs}.values())
    outcomes: dict[str, Outcome] = {}
    for outcome in run_matrix(specs, tracker, jobs=jobs, device=device, progress=progress):
        told(outcome)
        outcomes[outcome.spec.digest] = outcome
    found = [_found(one, outcomes, tracker) for one in planned]
    scene = Scene(
        request.experiment,
        found,
        [mode for mode in request.modes if mode == "published" or planned],
        tracker,
        request.store,
        request.original,
        request.title,
        printed_by_key(request.experiment),
    )
    shown = exhibit(scene)
    if request.experiment.kind == "sweep" and (studies := keep_studies(found, tracker)):
        note = f"as Optuna grid studies of validation macro-F1 in optuna.db: {', '.join(studies)}"
        return dataclasses.replace(shown, sheet=shown.sheet.noted(note))
    return dataclasses.replace(shown, sheet=shown.sheet.noted(request.unrun))


def _found(planned: Planned, outcomes: Mapping[str, Outcome], tracker: Tracker) -> Found:
    """An arm's finished runs with their artefacts, and what became of the others."""
    mine = [outcomes[spec.digest] for spec in planned.specs]
    done = [tracker.load(o.run_id) for o in mine if o.status in ("done", "cached") and o.run_id]
    problems = [f"seed {o.spec.seed} {o.status}, {o.reason}" for o in mine if o.status in ("failed", "skipped")]
    return Found(planned.arm, planned.mode, tuple(done), tuple(problems))


def keep_studies(found: Sequence[Found], tracker: Tracker) -> list[str]:
    """The sweep as Optuna grid studies of validation macro-F1, one a mode, seed and fold; their names."""
    from bench.runs.tuning import Search, keep_runs

    runs: dict[tuple[Any, ...], list[tuple[Mapping[str, Any], Record]]] = {}
    for one in found:
        for record in one.records:
            runs.setdefault((one.mode, record.spec["seed"], record.spec["fold"]), []).append((one.arm.values, record))
    storage, studies = f"sqlite:///{tracker.results / 'optuna.db'}", []
    for trials in runs.values():
        drawn, record = trials[0]
        fixed = {name: value for name, value in record.spec["parameters"].items() if name not in drawn}
        fields = {name: value for name, value in record.spec.items() if name != "digest"}
        spaces = {name: tuple(values[name] for values, _ in trials) for name in drawn}
        search = Search(RunSpec(**{**fields, "parameters": fixed}), spaces, "grid", prune=False)
        found_here = [(values, record.metrics["validation_macro_f1"], record.run_id) for values, record in trials]
        studies.append(keep_runs(search, found_here, storage))
    return studies


def printed_by_key(experiment: Experiment) -> dict[str, dict[str, str]]:
    """Published rows by what names their arm, metrics as columns; empty where the paper prints no numbers of arms."""
    columns = KEYS.get(experiment.kind)
    if columns is None or experiment.id not in names():
        return {}
    rows = published(experiment.id)
    if experiment.id == "table-XII":  # one row a metric, with its standard deviation
        variants: dict[str, dict[str, str]] = {}
        for row in rows:
            cells = variants.setdefault(row["variant"], {})
            cells |= {row["metric"]: row["mean"], f"{row['metric']}_sd": row["sd"]}
        return variants
    if experiment.kind in ("grid", "sweep"):  # digitised as shares
        rows = [{**row, "accuracy": f"{100 * float(row['accuracy']):.1f}"} for row in rows]
    return {",".join(row[name] for name in columns): row for row in rows}


def timing(request: Request, device: str) -> Sheet:
    """Table X: milliseconds of each system for one batch of the data set, beside the paper's."""
    from bench.runs.latency import timing_sheet, timings

    assert request.store is not None
    paper = {name: float(row["milliseconds"]) for name, row in printed_by_key(request.experiment).items()}
    wanted = [arm.method for arm in chosen(request.experiment, request.scale)]
    return dataclasses.replace(timing_sheet(timings(wanted, request.store, device=device), paper), title=request.title)


def save(shown: Exhibit, request: Request, command: str, folder: Path) -> Path:
    """Write ``sheet.json``, ``table.md`` and ``figure.svg`` under ``folder``; a new one takes the place of the old."""
    place = folder / request.name
    aside = folder / f".{request.name}.new"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    content = {**dataclasses.asdict(shown.sheet), "id": request.experiment.id, "command": command}
    (aside / "sheet.json").write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    picture = "\n\n![figure](figure.svg)" if shown.draw else ""
    (aside / "table.md").write_text(f"{render(shown.sheet, 'md')}\n\n`{command}`{picture}\n")
    if shown.draw:
        shown.draw(aside / "figure.svg")
    shutil.rmtree(place, ignore_errors=True)
    aside.rename(place)
    return place
