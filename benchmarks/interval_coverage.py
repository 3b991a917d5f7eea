"""How often 95 % intervals hold the truth, and how often tests find a difference between equal methods.

    python benchmarks/interval_coverage.py [--quick] [--worlds 500] [--seed 0] [--csv results/coverage.csv]

Prints Markdown.  Simulated test parts of five classes that are right in 90, 85, 80, 70 and 60 % of their sessions
(*near-perfect*: 99.9 to 97 %); wrong answers of a group go to one other class in six of ten cases.  A class has G
groups, of 20 sessions on average (coefficient of variation 0.7).  Group effect: the chance of being right is drawn for
each group, with an intraclass correlation of 0 (none), 0.1 (medium) or 0.3 (strong).  Layouts: *equal*; *sizes*,
classes of 80, 40, 20, 10 and 5 sessions a group; *rare*, one class of G groups and four of fifty; *shared*, each of G
groups holds all classes.  The truth is the score of the expected confusion matrix.  About ten minutes on a slow core.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import beta, binomtest, norm, t

from bench.scores.jackknife import GroupJackknife
from bench.scores.metrics import MACRO, precision_recall_f1
from bench.scores.significance import LEVEL, corrected_t, holm, permute_groups

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

USUAL: Final = np.array([0.9, 0.85, 0.8, 0.7, 0.6])  # the classes' chance of being right
NEAR_PERFECT: Final = np.array([0.999, 0.995, 0.99, 0.98, 0.97])
CLASSES: Final = len(USUAL)
GROUPS: Final = (2, 3, 5, 10, 50)
EFFECTS: Final = {"none": 0.0, "medium": 0.1, "strong": 0.3}  # intraclass correlation
LAYOUTS: Final = ("equal", "sizes", "rare", "shared")
SPREAD: Final = 2.0  # shape of the gamma distribution of group sizes
METRICS: Final = ("accuracy", "macro_f1")
DRAWS: Final = 400  # of a bootstrap
FOLDS: Final = 5
TRAINING_LUCK: Final = 0.1  # of a method in a fold, standard deviation of the normal score of its chance


@dataclass(frozen=True)
class World:
    """Kinds of test parts that are drawn alike."""

    groups: int  # of a class; in layout `rare` of the rare one
    effect: str = "medium"
    layout: str = "equal"
    near_perfect: bool = False

    @property
    def right(self) -> Floats:
        """Each class's chance."""
        return NEAR_PERFECT if self.near_perfect else USUAL

    @property
    def place(self) -> dict[str, Any]:
        """What tells it from others, for a row."""
        right = "near-perfect" if self.near_perfect else "usual"
        return {"right": right, "layout": self.layout, "effect": self.effect, "groups": self.groups}

    def cells(self) -> tuple[Ints, Ints, Floats]:
        """Class and group of each pair that goes together, and its mean number of sessions."""
        number = np.array([50] * 4 + [self.groups]) if self.layout == "rare" else np.full(CLASSES, self.groups)
        kind = np.repeat(np.arange(CLASSES), number)
        group = np.tile(np.arange(self.groups), CLASSES) if self.layout == "shared" else np.arange(len(kind))
        return (
            kind,
            group,
            (np.array([80.0, 40, 20, 10, 5]) if self.layout == "sizes" else np.full(CLASSES, 20.0))[kind],
        )

    def truth(self) -> dict[str, float]:
        """The metrics of the expected confusion matrix."""
        kind, _, mean = self.cells()
        sessions = np.bincount(kind, mean)
        wrong = (1 - self.right) * sessions / (CLASSES - 1)
        hits, predicted = self.right * sessions, self.right * sessions + wrong.sum() - wrong
        f1 = precision_recall_f1(hits, predicted, sessions)[2].mean()
        return {"accuracy": float(hits.sum() / sessions.sum()), "macro_f1": float(f1)}

    def draw(self, rng: np.random.Generator, methods: int = 1, luck: Floats | float = 0.0) -> "Part":
        """A test part with the answers of equal methods; ``luck [methods]`` shifts their chances, on a normal scale."""
        kind, group, mean = self.cells()
        size = 1 + rng.poisson(rng.gamma(SPREAD, 1 / SPREAD, len(kind)) * (mean - 1))
        chance = self._chances(rng, kind, group, methods)
        if np.any(luck):
            chance = norm.cdf(norm.ppf(chance) + luck)
        favourite = (kind + rng.integers(1, CLASSES, len(kind))) % CLASSES
        cell = np.repeat(np.arange(len(kind)), size)
        truth, answers = kind[cell], []
        for number in range(methods):
            other = (truth + rng.integers(1, CLASSES, len(truth))) % CLASSES
            wrong = np.where(rng.random(len(truth)) < 0.6, favourite[cell], other)
            answers.append(np.where(rng.random(len(truth)) < chance[cell, number], truth, wrong))
        return Part(truth, group[cell], answers)

    def _chances(self, rng: np.random.Generator, kind: Ints, group: Ints, methods: int) -> Floats:
        """Of each cell and method: half of a group's luck is common to all methods, and all of it to its classes."""
        correlation = EFFECTS[self.effect]
        if not correlation:
            return np.repeat(self.right[kind][:, None], methods, axis=1)
        number = group.max() + 1
        luck = np.sqrt(0.5) * (rng.normal(size=(number, 1)) + rng.normal(size=(number, methods)))
        count = 1 / correlation - 1
        right = self.right[kind][:, None]
        return np.asarray(beta.ppf(norm.cdf(luck[group]), right * count, (1 - right) * count), np.float64)


@dataclass(frozen=True)
class Part:
    """A drawn test part: arrays are ``[sessions]``."""

    truth: Ints
    groups: Ints
    answers: Sequence[Ints]  # of each method

    def tables(self) -> Floats:
        """Hits, answers and sessions of each group, method and class: ``[groups, methods, 3, classes]``."""
        number, out = int(self.groups.max()) + 1, []
        for answers in self.answers:
            right = answers == self.truth
            for rows, column in ((right, self.truth), (slice(None), answers), (slice(None), self.truth)):
                flat = np.bincount(self.groups[rows] * CLASSES + column[rows], minlength=number * CLASSES)
                out.append(flat.reshape(number, CLASSES))
        return np.stack(out, axis=1).reshape(number, len(self.answers), 3, CLASSES).astype(np.float64)


def score(metric: str, totals: Floats) -> Floats:
    """A metric of ``[…, 3, classes]``; a class that a draw lacks is left out of that draw's mean, as it used to be."""
    hits, predicted, support = (totals[..., row, :] for row in range(3))
    if metric == "accuracy":
        return np.asarray(hits.sum(axis=-1) / support.sum(axis=-1), np.float64)
    values, drawn = precision_recall_f1(hits, predicted, support)[MACRO.index(metric) - 1], support > 0
    return np.asarray((values * drawn).sum(axis=-1) / drawn.sum(axis=-1), np.float64)


def draw_groups(rng: np.random.Generator, groups: int) -> Floats:
    """How often each group is drawn: ``[draws, groups]``."""
    drawn = rng.integers(0, groups, (DRAWS, groups)) + groups * np.arange(DRAWS)[:, None]
    return np.bincount(drawn.ravel(), minlength=DRAWS * groups).reshape(DRAWS, groups).astype(np.float64)


def linear_error(metric: str, tables: Floats, times: Floats, totals: Floats) -> Floats:
    """Standard error by the groups' first-order influence on each draw's score: ``[draws]``; one method."""
    hits, predicted, support = (totals[:, row] for row in range(3))
    zero = np.zeros_like(hits)
    if metric == "accuracy":
        size, value = support.sum(axis=1, keepdims=True), score(metric, totals)[:, None]
        slope = np.stack((zero + 1 / size, zero, zero - value / size), axis=1)
    else:
        size = np.maximum(predicted + support, 1)
        slope = np.stack((2 / size, -2 * hits / size**2, -2 * hits / size**2), axis=1) / CLASSES
    influence = np.tensordot(slope.reshape(len(slope), -1), tables.reshape(len(tables), -1).T, 1)
    return np.asarray(np.sqrt((times * influence**2).sum(axis=1)), np.float64)


def interval_ends(part: Part, metric: str, times: Floats) -> dict[str, tuple[float, float]]:
    """The interval of each kind of the first method's score, with groups drawn so many ``times [draws, groups]``."""
    tables = part.tables()[:, 0]
    number, total, totals = len(tables), tables.sum(axis=0), np.tensordot(times, tables, 1)
    value, drawn, without = float(score(metric, total)), score(metric, totals), score(metric, total - tables)
    apart = without.mean() - without
    quantile = t.ppf(0.975, number - 1)
    half = quantile * np.sqrt((number - 1) / number * (apart**2).sum())
    ends = {"percentile bootstrap": tuple(np.percentile(drawn, (2.5, 97.5)))}
    ends["BCa"] = corrected_and_accelerated(drawn, value, apart)
    pivot = np.percentile((drawn - value) / np.maximum(linear_error(metric, tables, times, totals), 1e-9), (2.5, 97.5))
    around = float(linear_error(metric, tables, np.ones((1, number)), total[None])[0])
    ends["studentised bootstrap"] = value - pivot[1] * around, value - pivot[0] * around
    ends["jackknife, t(G − 1)"] = value - half, value + half
    if metric == "accuracy":
        half = quantile * around * np.sqrt(number / (number - 1))
        ends["clustered binomial"] = value - half, value + half
    return {name: (max(float(low), 0.0), min(float(high), 1.0)) for name, (low, high) in ends.items()}


def corrected_and_accelerated(drawn: Floats, value: float, apart: Floats) -> tuple[float, float]:
    """Efron's BCa interval, by the draws and by what leaving out each group does."""
    shift = norm.ppf(np.clip((np.mean(drawn < value) + np.mean(drawn <= value)) / 2, 1 / DRAWS, 1 - 1 / DRAWS))
    spread = (apart**2).sum() ** 1.5
    speed = (apart**3).sum() / (6 * spread) if spread else 0.0
    moved = shift + norm.ppf([0.025, 0.975])
    low, high = np.quantile(drawn, norm.cdf(shift + moved / (1 - speed * moved)))
    return float(low), float(high)


def coverage(world: World, worlds: int, seed: int) -> list[dict[str, Any]]:
    """Coverage and mean width of each kind of interval, and of the paired difference of two equal methods."""
    rng, truth, found = np.random.default_rng(seed), world.truth(), []
    for _ in range(worlds):
        part = world.draw(rng, methods=2)
        times = draw_groups(rng, int(part.groups.max()) + 1)
        jackknife = GroupJackknife(part.truth, part.answers, part.groups, classes=CLASSES)
        for metric in METRICS:
            ends = interval_ends(part, metric, times) | {"taken here": jackknife.score(0, metric).score_interval()}
            for kind, (low, high) in ends.items():
                found.append((metric, kind, low <= truth[metric] <= high, high - low))
            low, high = jackknife.difference(0, 1, metric).interval()
            found.append((metric, "difference, taken here", low <= 0 <= high, high - low))
    means = pd.DataFrame(found, columns=["metric", "interval", "coverage", "width"]).groupby(
        ["metric", "interval"], sort=False
    )
    rows: list[dict[str, Any]] = means.mean().reset_index().to_dict("records")  # type: ignore[assignment, unused-ignore]
    return [{"table": "coverage", **world.place, **row} for row in rows]


def separable(part: Part, rng: np.random.Generator, best: int | None = None) -> dict[str, NDArray[np.bool_]]:
    """Methods whose intervals of macro-F1 part them from the best, by the old rule and the new: ``[methods]`` each."""
    tables, metric = part.tables(), "macro_f1"
    values = score(metric, tables.sum(axis=0))
    drawn = score(metric, np.tensordot(draw_groups(rng, len(tables)), tables, 1))
    best = int(values.argmax()) if best is None else best
    low, high = np.percentile(drawn, (2.5, 97.5), axis=0)
    apart_low, apart_high = np.percentile(drawn - drawn[:, [best]], (2.5, 97.5), axis=0)
    level = (apart_low <= 0) & (apart_high >= 0)
    level |= ((low[best] <= values) & (values <= high[best])) | ((low <= values[best]) & (values[best] <= high))
    every = GroupJackknife(part.truth, part.answers, part.groups, classes=CLASSES)
    ends = np.array([every.difference(number, best, metric).interval(len(values)) for number in range(len(values))])
    other = np.arange(len(values)) != best
    return {"old": ~level & other, "new": ((ends[:, 0] > 0) | (ends[:, 1] < 0)) & other}


def false_separations(world: World, methods: int, worlds: int, seed: int) -> list[dict[str, Any]]:
    """How often any of equal methods is parted from the best, on one test part (two are pooled to one)."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(worlds):
        answer = separable(world.draw(rng, methods), rng)
        found.append([answer["old"].any(), answer["new"].any()])
    return _false(
        world, f"{methods} methods, one or two blocks, macro-F1", ("bootstrap intervals alone", "taken here"), found
    )


def false_separations_of_folds(world: World, methods: int, worlds: int, seed: int) -> list[dict[str, Any]]:
    """The same where five folds are tested, too: a method's luck in training is new in each, a fifth of it common."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(worlds):
        common, scores, parts = rng.normal(size=methods), [], []
        for _ in range(FOLDS):
            luck = TRAINING_LUCK * (np.sqrt(0.2) * common + np.sqrt(0.8) * rng.normal(size=methods))
            parts.append(world.draw(rng, methods, luck))
            scores.append(score("macro_f1", parts[-1].tables().sum(axis=0)))
        table, step = np.array(scores), max(int(part.groups.max()) + 1 for part in parts)
        pooled = Part(
            np.concatenate([part.truth for part in parts]),
            np.concatenate([part.groups + step * number for number, part in enumerate(parts)]),
            [np.concatenate([part.answers[number] for part in parts]) for number in range(methods)],
        )
        best = int(table.mean(axis=0).argmax())
        others = np.delete(np.arange(methods), best)
        p = holm(corrected_t(table[:, others] - table[:, [best]], np.array([1 / (FOLDS - 1)])))
        answer = separable(pooled, rng, best)
        tested = p < LEVEL
        found.append([tested.any(), (tested & answer["old"][others]).any(), (tested & answer["new"][others]).any()])
    rules = ("corrected t with Holm alone", "and bootstrap intervals", "taken here")
    return _false(world, f"{methods} methods, five blocks, macro-F1", rules, found)


def false_pairs(world: World, worlds: int, seed: int) -> list[dict[str, Any]]:
    """How often two equal methods differ by McNemar's test and by the permutation of groups."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(worlds):
        part = world.draw(rng, 2)
        right = [answers == part.truth for answers in part.answers]
        only = [int((one & ~other).sum()) for one, other in (right, right[::-1])]
        p = permute_groups(right[0], right[1], part.groups)["p"]
        found.append([binomtest(only[0], max(sum(only), 1)).pvalue < LEVEL, p is not None and p < LEVEL])
    return _false(world, "two runs, accuracy", ("McNemar", "taken here"), found)


def _false(world: World, what: str, rules: Sequence[str], found: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
    shares = np.mean(np.array(found, np.float64), axis=0)
    return [
        {"table": "false findings", **world.place, "what": what, "rule": rule, "share": float(share)}
        for rule, share in zip(rules, shares, strict=True)
    ]


def simulate(worlds: int, seed: int, quick: bool) -> Iterator[list[dict[str, Any]]]:
    """The rows of every cell, seeded each by its place; comparisons cost more and take two fifths of the worlds."""
    groups, layouts, few = ((2, 5), ("equal",), (2, 5)) if quick else (GROUPS, LAYOUTS, (3, 5, 10))
    cells = [World(number, effect, layout) for layout in layouts for effect in EFFECTS for number in groups]
    cells += [World(number, effect, near_perfect=True) for effect in EFFECTS for number in groups]
    for number, world in enumerate(cells):
        yield coverage(world, worlds, seed + number)
    fewer = max(2 * worlds // 5, 1)
    for effect in EFFECTS:
        for number in few:
            for methods in (5, 20)[: 1 if quick else 2]:
                yield false_separations(World(number, effect), methods, fewer, seed)
                if number < 10:
                    yield false_separations_of_folds(World(number, effect), methods, fewer, seed)
        for number in groups:
            yield false_pairs(World(number, effect), worlds, seed)


def markdown(rows: pd.DataFrame, worlds: int, command: str) -> str:
    """The tables, with what they are of."""
    lines = [
        "# Coverage and false findings, simulated", "", f"`{command}`", "",
        *(__doc__ or "").split("\n\n", 2)[2].strip().splitlines(), "",
        f"Share of {worlds} worlds in which the 95 % interval holds the truth (standard error "
        f"{np.sqrt(0.95 * 0.05 / worlds):.3f}), and its mean width behind a slash.", "",
    ]  # fmt: skip
    coverages = rows[rows.table == "coverage"]
    lines += ["## Lowest and highest coverage, by groups a class", "", *_extremes(coverages)]
    for metric in METRICS:
        mine = coverages[coverages.metric == metric]
        text = mine.coverage.map("{:.3f}".format) + " / " + mine.width.map("{:.2f}".format)
        lines += [f"## {metric}", "", *_pivot(mine.assign(text=text), "interval")]
    false = rows[rows.table == "false findings"]
    lines += [
        "## False findings", "",
        "Share of worlds of equal methods in which any difference is found (nominal 0.05).",
        "",
    ]  # fmt: skip
    for what, mine in false.groupby("what", sort=False):
        lines += [f"### {what}", "", *_pivot(mine.assign(text=mine.share.map("{:.3f}".format)), "rule")]
    return "\n".join(lines)


def _extremes(rows: pd.DataFrame) -> list[str]:
    """Over effects and layouts, a line a kind of interval."""
    keys, groups = ["right", "metric", "interval"], list(dict.fromkeys(rows.groups))
    lines = [f"| {' | '.join([*keys, *map(str, groups)])} |", "|" + "---|" * (len(keys) + len(groups))]
    for key, mine in rows.groupby(keys, sort=False):
        ends = mine.groupby("groups").coverage.agg(["min", "max"])
        texts = [f"{low:.2f}–{high:.2f}" for low, high in ends.loc[groups].itertuples(index=False)]
        lines.append(f"| {' | '.join([*map(str, key), *texts])} |")
    return [*lines, ""]


def _pivot(rows: pd.DataFrame, across: str) -> list[str]:
    keys, columns = ["right", "layout", "effect", "groups"], list(dict.fromkeys(rows[across]))
    lines = [f"| {' | '.join([*keys, *columns])} |", "|" + "---|" * (len(keys) + len(columns))]
    for key, cell in rows.groupby(keys, sort=False):
        texts = dict(zip(cell[across], cell.text, strict=True))
        lines.append(f"| {' | '.join([*map(str, key), *(texts[name] for name in columns)])} |")
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=500, help="a cell")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="few cells and 10 worlds, to see that it runs")
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    worlds, rows = 10 if options.quick else options.worlds, []
    for cell in simulate(worlds, options.seed, options.quick):
        rows += cell
        told = {name: cell[0][name] for name in ("table", "right", "layout", "effect", "groups")}
        print(*told.values(), cell[0].get("what", ""), file=sys.stderr)
    frame = pd.DataFrame(rows)
    if options.csv:
        frame.to_csv(options.csv, index=False, float_format="%.4f", lineterminator="\n")
    print(markdown(frame, worlds, "python " + " ".join(["benchmarks/interval_coverage.py", *sys.argv[1:]])))


if __name__ == "__main__":
    main()
