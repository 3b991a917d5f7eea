"""How many small faults the tests notice, module by module, and which they do not.

    pip install cosmic-ray
    python benchmarks/mutation.py [--module bench/splits/checks.py ...] [--sample 40] [--jobs 2] [--named]

cosmic-ray makes the mutants (one operator, number, comparison, condition or loop changed) and runs, for each, the tests
that the module answers to, in a copy of the checkout.  A sample of each is drawn, the same under one
--seed; annotations and docstrings are left alone.  A mutant that no test notices survives; one that runs into the time
limit counts as noticed.  --named tries the mutants of `NAMED` alone, which once survived: each must be noticed.
docs/testing.md has the scores.
"""

import argparse
import ast
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIMIT = 120  # seconds of one mutant's tests

#: module -> the test files that it answers to
MODULES = {
    "bench/splits/split.py": "test_splits.py test_split_files.py test_split_groups.py test_split_windows.py "
    "test_filters.py",
    "bench/splits/assignment.py": "test_assignment.py test_splits.py test_split_windows.py",
    "bench/splits/assignment_kernel.py": "test_assignment.py",
    "bench/splits/groups.py": "test_split_groups.py",
    "bench/splits/checks.py": "test_splits.py test_split_groups.py test_split_files.py test_split_windows.py",
    "bench/splits/sampling.py": "test_sampling.py test_split_windows.py",
    "bench/splits/filters.py": "test_filters.py",
    "bench/spec.py": "test_spec.py test_sampling.py test_splits.py",
    "bench/scores/metrics.py": "test_metrics.py",
    "bench/scores/jackknife.py": "test_jackknife.py",
    "bench/scores/significance.py": "test_significance.py test_metrics.py",
    "bench/ingest/sessions.py": "test_ingest.py",
    "bench/runs/guards.py": "test_cheats.py test_memory.py",
    "bench/training/loop.py": "test_training.py test_han.py test_deeppacket.py",
}

OPERATORS = {
    *("ReplaceBinaryOperator_Add_Sub", "ReplaceBinaryOperator_Sub_Add", "ReplaceBinaryOperator_Mul_Div"),
    *("ReplaceBinaryOperator_Div_Mul", "ReplaceBinaryOperator_FloorDiv_Mul", "ReplaceBinaryOperator_Mod_Add"),
    *("ReplaceBinaryOperator_Pow_Mul", "ReplaceBinaryOperator_BitAnd_BitOr", "ReplaceBinaryOperator_BitOr_BitAnd"),
    *("ReplaceComparisonOperator_Eq_NotEq", "ReplaceComparisonOperator_NotEq_Eq", "ReplaceComparisonOperator_Lt_LtE"),
    *("ReplaceComparisonOperator_LtE_Lt", "ReplaceComparisonOperator_Gt_GtE", "ReplaceComparisonOperator_GtE_Gt"),
    *("ReplaceComparisonOperator_Is_IsNot", "ReplaceComparisonOperator_IsNot_Is"),
    *("ReplaceUnaryOperator_USub_UAdd", "ReplaceUnaryOperator_Delete_Not", "ReplaceUnaryOperator_Delete_Invert"),
    *("AddNot", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceAndWithOr", "ReplaceOrWithAnd"),
    *("ReplaceBreakWithContinue", "ReplaceContinueWithBreak", "NumberReplacer", "ZeroIterationForLoop"),
}


@dataclass(frozen=True)
class Named:
    """A mutant that somebody thought of."""

    what: str
    path: str
    old: str
    new: str
    tests: str


#: those that survived the tests of November 2026
NAMED = (
    Named("the same shuffle in every epoch", "bench/training/budget.py",
          "draw.permutation(rows)",
          "np.sort(rows)", "test_training.py"),
    Named("ties go to the last epoch", "bench/training/loop.py",
          "if score > self.score:\n", "if score >= self.score:\n", "test_training.py"),
    Named("the fold is left out of the fit's seed", "bench/runs/attempt.py",
          "split.scheme, split.fold, spec.method, \"fit\"", "split.scheme, spec.method, \"fit\"", "test_runs.py"),
    Named("the two surest calibration bins are one", "bench/scores/metrics.py",
          "np.ceil(confidence * BINS).astype(np.int64) - 1", "np.ceil(confidence * BINS).astype(np.int64)",
          "test_metrics.py"),
    Named("a time split may share its border", "bench/splits/checks.py",
          "early.max() >= late.min()", "early.max() > late.min()", "test_splits.py"),
    Named("one assignment instead of eight", "bench/splits/assignment.py",
          "STARTS: Final = 8", "STARTS: Final = 1", "test_assignment.py"),
    Named("one sweep instead of four", "bench/splits/assignment.py",
          "SWEEPS: Final = 4", "SWEEPS: Final = 1", "test_assignment.py"),
    Named("a leaking split file has no mark", "bench/runs/execute.py",
          "if unproved or split.spec.leaky:", "if split.spec.leaky:", "test_runs.py"),
    Named("ATVITSC's bytes over 256", "methods/atvitsc.py",
          "packets = payload.float() / 255", "packets = payload.float() / 256", "test_methods.py"),
    Named("an audit forgets how its splits balance", "bench/analysis/audit.py",
          "r.spec.split == split.spec and", "r.spec.split.scheme == split.spec.scheme and", "test_audit.py"),
    Named("a module is missing from the digest of code", "bench/environment.py",
          "waiting += [(other, _source_of(other)) for other in _imports(path)]",
          "waiting += [(o, _source_of(o)) for o in _imports(path) if o != 'bench.scores.metrics']",
          "test_environment.py"),
)  # fmt: skip


@dataclass(frozen=True)
class Score:
    """What became of one module's mutants."""

    name: str
    killed: int
    tried: int
    there: int  # mutants that there are in all
    survivors: tuple[str, ...]

    def __str__(self) -> str:
        share = f"{100 * self.killed / max(self.tried, 1):.0f} %"
        return f"{self.name:36} {self.killed:4} of {self.tried:4} noticed ({share:>5}), {self.there} in all"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--module", nargs="+", choices=MODULES, metavar="MODULE", help="all by default")
    parser.add_argument("--sample", type=int, default=40, help="mutants of a module; 0: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="modules at once, each in a copy of the checkout")
    parser.add_argument("--named", action="store_true", help="only the mutants that once survived")
    options = parser.parse_args()
    if options.named:
        sys.exit(any([not is_noticed(named) for named in NAMED]))
    with ThreadPoolExecutor(options.jobs) as pool:
        work = {m: pool.submit(score_of, m, options.sample, options.seed) for m in options.module or MODULES}
        scores = []
        for task in work.values():
            scores.append(task.result())
            print(scores[-1], flush=True)
            print("".join(f"    {line}\n" for line in scores[-1].survivors), end="", flush=True)
    killed, tried = sum(s.killed for s in scores), sum(s.tried for s in scores)
    print(Score("all", killed, tried, sum(s.there for s in scores), ()))


def copied(folder: Path) -> Path:
    """The tracked and new files of the checkout, beside what tests look for beside it."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard", "-z"], capture_output=True, check=True
    )
    place = folder / "checkout"
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, place / name)
    if (ROOT.parent / "shared").is_dir():
        (folder / "shared").symlink_to(ROOT.parent / "shared")
    return place


def command_of(tests: str) -> list[str]:
    """The words that run test files in the copy where they are started."""
    return [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        *(f"tests/{t}" for t in tests.split()),
    ]


def is_noticed(named: Named) -> bool:
    """Whether the tests notice a named mutant; told on standard output."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        place = copied(Path(folder))
        path = place / named.path
        text = path.read_text()
        if text.count(named.old) != 1:
            raise SystemExit(f"{named.what}: {named.path} holds {named.old!r} {text.count(named.old)} times, not once")
        path.write_text(text.replace(named.old, named.new))
        done = subprocess.run(command_of(named.tests), cwd=place, capture_output=True, text=True, timeout=10 * LIMIT)
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    print(
        f"{'noticed ' if failed else 'SURVIVED'}  {named.what}: {(failed or [''])[0].partition(' - ')[0]}", flush=True
    )
    return bool(failed)


def score_of(module: str, sample: int, seed: int) -> Score:
    """Mutate one module of a copy, mutant by mutant."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        place = copied(Path(folder))
        session, config = Path(folder) / "session.sqlite", Path(folder) / "config.toml"
        words = " ".join(f'"{word}"' for word in command_of(MODULES[module]))
        config.write_text(
            f'[cosmic-ray]\nmodule-path = "{module}"\ntimeout = {LIMIT}.0\nexcluded-modules = []\n'
            f"test-command = '{words}'\n[cosmic-ray.distributor]\nname = \"local\"\n"
        )
        baseline = subprocess.run(command_of(MODULES[module]), cwd=place, capture_output=True, text=True, check=False)
        if baseline.returncode:
            raise SystemExit(f"{module}: its tests fail without a mutant\n{baseline.stdout[-2000:]}")
        _cosmic_ray(place, "init", config, session)
        there = choose(session, place / module, sample, seed)
        _cosmic_ray(place, "exec", config, session)
        return counted(module, session, there, (place / module).read_text().splitlines())


def _cosmic_ray(place: Path, *words: object) -> None:
    command = [str(Path(sys.executable).with_name("cosmic-ray")), *map(str, words)]
    subprocess.run(command, cwd=place, check=True, capture_output=True)


def choose(session: Path, source: Path, sample: int, seed: int) -> int:
    """Skip all mutants of a session but those of a sample; how many there would have been."""
    from cosmic_ray.work_db import WorkDB, use_db
    from cosmic_ray.work_item import WorkerOutcome, WorkResult

    silent = set(_silent_lines(ast.parse(source.read_text())))
    with use_db(str(session), WorkDB.Mode.open) as work:
        jobs = {}
        for item in work.work_items:
            (mutation,) = item.mutations
            if mutation.operator_name.removeprefix("core/") in OPERATORS and mutation.start_pos not in silent:
                jobs[item.job_id] = (mutation.start_pos, mutation.operator_name, mutation.occurrence)
        order = sorted(jobs, key=lambda job: jobs[job])
        chosen = set(random.Random(seed).sample(order, min(sample or len(order), len(order))))
        skipped = WorkResult(WorkerOutcome.SKIPPED)
        for item in list(work.work_items):
            if item.job_id not in chosen:
                work.set_result(item.job_id, skipped)
    return len(order)


def _silent_lines(tree: ast.Module) -> Iterator[tuple[int, int]]:
    """Positions (line, column) within annotations, which change nothing."""
    for node in ast.walk(tree):
        parts = [getattr(node, name, None) for name in ("annotation", "returns")]
        for part in (p for p in parts if isinstance(p, ast.expr)):
            for inner in ast.walk(part):
                if isinstance(inner, ast.expr):
                    end = inner.end_col_offset or 0
                    yield from ((inner.lineno, column) for column in range(inner.col_offset, end))


def counted(module: str, session: Path, there: int, lines: list[str]) -> Score:
    """The score of a session that is through."""
    from cosmic_ray.work_db import WorkDB, use_db
    from cosmic_ray.work_item import WorkerOutcome

    killed, survivors = 0, []
    with use_db(str(session), WorkDB.Mode.open) as work:
        mutations = {item.job_id: item.mutations[0] for item in work.work_items}
        for job, result in work.results:
            if result.worker_outcome == WorkerOutcome.SKIPPED:
                continue
            killed += result.is_killed
            if not result.is_killed:
                line = mutations[job].start_pos[0]
                operator = mutations[job].operator_name.removeprefix("core/")
                survivors.append((line, f"{module}:{line} {operator}: {lines[line - 1].strip()}"))
    told = tuple(text for _, text in sorted(survivors))
    return Score(module, killed, killed + len(survivors), there, told)


if __name__ == "__main__":
    main()
