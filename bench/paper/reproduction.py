"""A table or figure of a paper, from its declaration to what is printed and saved.

Published numbers need no data.  The modes ``paper`` and ``clean`` make runs, of which finished ones are never run
again, so a broken-off reproduction continues where it stopped, and two tables of the same runs cost one.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.data.cards import shipped_name
from bench.data.names import find_card
from bench.data.store import Store
from bench.environment import CPU
from bench.files import written_folder
from bench.matrix.cells import run_matrix
from bench.paper.declaration import Experiment, Paper, find_paper
from bench.paper.experiment_results import ArmResult, ExperimentResults
from bench.paper.plan import MODES, PlannedArm, Scale, check_preset, chosen_arms, plan
from bench.paper.published import published_table, rows_by_key
from bench.paper.tables_and_figures import Reproduced, table_or_figure
from bench.render.table import Table, render
from bench.runs.execute import DEFAULT_OPTIONS, Outcome, RunOptions
from bench.spec import RunSpec
from bench.tracking.record import Record
from bench.tracking.tracker import Tracker


@dataclass(frozen=True)
class Request:
    """What is asked of an experiment."""

    paper: Paper
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
    def instead(self) -> str:
        """What the data are, where they are not the paper's."""
        name = "" if self.store is None else shipped_name(self.store.name)
        if name and find_card(name).like == self.experiment.dataset:
            return "(the paper's traffic as flow records, without bytes)"
        return "instead of the paper's data"

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
        swapped = "" if self.original else f" {self.instead}"
        words = ", ".join(self.scale.labels(self.experiment))
        return " · ".join([head, f"{place}{swapped}", *([words] if words else [])])

    @property
    def name(self) -> str:
        """The folder of what is saved: the experiment, and all that makes it other than the full one."""
        if self.store is None or self.modes == ("published",):
            return f"{self._id}-published"
        asked = {
            "on": self.store.name if self.store.name != self.experiment.dataset else None,
            "task": self.task if self.task != self.store.default_task else None,
            "modes": "+".join(mode for mode in self.modes if mode != "published") if self.modes != MODES else None,
            **self.scale.unusual,
        }
        words = [
            f"{key}-{'+'.join(value) if isinstance(value, tuple) else value}" for key, value in asked.items() if value
        ]
        return re.sub(r"[^\w.,=+-]+", "-", "-".join([self._id, *words])).strip("-")[:200]

    @property
    def _id(self) -> str:
        """The experiment's, and the paper's name before it where it is not the one that is meant without a name."""
        usual = find_paper().name == self.paper.name
        return self.experiment.id if usual else f"{self.paper.name}-{self.experiment.id}"

    def plan(self, device: str = CPU) -> list[PlannedArm]:
        """All runs, mode by mode, on a device."""
        if self.store is None:
            return []
        check_preset(self.paper, self.scale.preset)
        return [
            planned.on(device)
            for mode in self.modes
            if mode != "published"
            for planned in plan(self.experiment, mode, self.store, self.scale, self.task)
        ]


def reproduce(
    request: Request,
    tracker: Tracker,
    options: RunOptions = DEFAULT_OPTIONS,
    *,
    on_outcome: Callable[[Outcome], None] = lambda outcome: None,
) -> Reproduced:
    """Run what is not done and show it all.  A timing is measured afresh each time: it has no runs."""
    paper, experiment, planned = request.paper, request.experiment, request.plan(options.device)
    if not planned and paper.has_numbers(experiment.id):
        return Reproduced(published_table(paper, experiment.id).noted(request.unrun))
    if experiment.kind == "timing":
        return Reproduced(timing(request, options.device))
    specs = list({spec.digest: spec for one in planned for spec in one.specs}.values())
    outcomes: dict[str, Outcome] = {}
    for outcome in run_matrix(specs, tracker, options):
        on_outcome(outcome)
        outcomes[outcome.spec.digest] = outcome
    arm_results = [_result(one, outcomes, tracker) for one in planned]
    results = ExperimentResults(
        paper=paper,
        experiment=experiment,
        arm_results=arm_results,
        modes=[mode for mode in request.modes if mode == "published" or planned],
        tracker=tracker,
        store=request.store,
        original=request.original,
        title=request.title,
        printed=rows_by_key(paper, experiment),
    )
    shown = table_or_figure(results)
    if experiment.kind == "sweep" and (studies := keep_studies(arm_results, tracker)):
        note = f"as Optuna grid studies of validation macro-F1: {', '.join(studies)}"
        return dataclasses.replace(shown, table=shown.table.noted(note))
    return dataclasses.replace(shown, table=shown.table.noted(request.unrun))


def _result(planned: PlannedArm, outcomes: Mapping[str, Outcome], tracker: Tracker) -> ArmResult:
    """An arm's finished runs with their artefacts, and what became of the others."""
    mine = [outcomes[spec.digest] for spec in planned.specs]
    done = [tracker.load(o.run_id) for o in mine if o.status in ("done", "cached") and o.run_id]
    problems = [f"seed {o.spec.split.seed} {o.status}, {o.reason}" for o in mine if o.status in ("failed", "skipped")]
    return ArmResult(planned.arm, planned.mode, tuple(done), tuple(problems))


def keep_studies(arm_results: Sequence[ArmResult], tracker: Tracker) -> list[str]:
    """The sweep as Optuna grid studies of validation macro-F1, one a mode, seed and fold; their names."""
    from bench.tuning.search import Search
    from bench.tuning.studies import keep_runs, storage_of

    runs: dict[tuple[Any, ...], list[tuple[Mapping[str, Any], Record]]] = {}
    for one in arm_results:
        for record in one.records:
            runs.setdefault((one.mode, *record.spec.place), []).append((one.arm.values, record))
    storage, studies = storage_of(tracker), []
    for trials in runs.values():
        drawn, record = trials[0]
        fixed = {name: value for name, value in record.spec.parameters.items() if name not in drawn}
        spaces = {name: tuple(values[name] for values, _ in trials) for name in drawn}
        spec: RunSpec = dataclasses.replace(record.spec, parameters=fixed)
        search = Search(spec, spaces, "grid", prune=False)
        scored = [(values, record.metrics["validation_macro_f1"], record.run_id) for values, record in trials]
        studies.append(keep_runs(search, scored, storage))
    return studies


def timing(request: Request, device: str) -> Table:
    """Milliseconds of each system for one batch of the data set, beside the paper's."""
    from bench.analysis.latency import timing_table, timings

    assert request.store is not None
    rows = rows_by_key(request.paper, request.experiment)
    printed = {name: float(row["milliseconds"]) for name, row in rows.items()}
    wanted = [arm.method for arm in chosen_arms(request.experiment, request.scale)]
    measured = timings(wanted, request.store, device=device)
    return dataclasses.replace(timing_table(measured, printed), title=request.title)


def save(shown: Reproduced, request: Request, command: str, folder: Path) -> Path:
    """Write ``sheet.json``, ``table.md`` and ``figure.svg`` under ``folder``; a new one takes the place of the old."""
    place = folder / request.name
    with written_folder(place) as aside:
        content = {**dataclasses.asdict(shown.table), "id": request.experiment.id, "command": command}
        (aside / "sheet.json").write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
        picture = "\n\n![figure](figure.svg)" if shown.draw else ""
        (aside / "table.md").write_text(f"{render(shown.table, 'md')}\n\n`{command}`{picture}\n", "utf-8")
        if shown.draw:
            shown.draw(aside / "figure.svg")
    return place
