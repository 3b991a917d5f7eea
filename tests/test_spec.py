"""What is asked: one spelling, one digest, checked where it is made."""

import dataclasses
import shlex
from pathlib import Path

import pytest
from asked import SPLIT, changed, run_spec
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused

from bench.spec import (
    BALANCES,
    FILTERS,
    NEW_FIELDS,
    PAPER_PER_CLASS,
    RunSpec,
    Settings,
    SplitSpec,
    check_scheme,
    command_lines,
    named_seed,
    parse_filter,
)

splits = st.builds(
    SplitSpec,
    st.sampled_from(["session", "capture", "paper", "attribute:person"]),
    seed=st.integers(),
    max_per_class=st.none() | st.integers(1, 10**6),
    min_per_class=st.none() | st.integers(1, 100),
    filter=st.lists(st.sampled_from(FILTERS), min_size=1).map(",".join),
    sampling=st.sampled_from(["session", "window=4", "window=4,step=2", "window=45,stride=22,per_session=100"]),
    balance=st.none() | st.sampled_from(BALANCES),
).flatmap(
    lambda split: (
        st.just(split)
        | st.integers(2, 9).map(lambda folds: dataclasses.replace(split, folds=folds))
        | st.tuples(st.integers(0, 1), st.integers(2, 9)).map(
            lambda p: dataclasses.replace(split, fold=p[0], folds=p[1])
        )
    )
)
runs = st.builds(
    RunSpec,
    st.sampled_from(["forest", "atvitsc", "/x/mine.py:Mine"]),
    st.sampled_from(["demo", "iscx-vpn"]),
    st.just("service"),
    splits,
    st.dictionaries(st.sampled_from(["epochs", "temperature"]), st.integers(1, 50) | st.floats(0.1, 9)),
    st.just("0f" * 32),
    st.none() | st.just("ab" * 8),
)


@given(runs)
def test_a_run_is_read_as_it_was_written(run):
    assert RunSpec.from_dict(run.to_dict()) == run
    assert RunSpec.from_dict(run.to_dict()).digest == run.digest == run.to_dict()["digest"]


@given(runs, st.data())
def test_every_field_but_a_file_s_place_is_in_the_digest(run, data):
    name = data.draw(st.sampled_from(["method", "dataset", "task", "store", "source"]))
    assert dataclasses.replace(run, **{name: "other"}).digest != run.digest
    assert dataclasses.replace(run, parameters={**run.parameters, "x": 1}).digest != run.digest
    seed = dataclasses.replace(run.split, seed=run.split.seed + 1)
    assert dataclasses.replace(run, split=seed).digest != run.digest


def test_the_place_of_a_split_file_is_not_in_the_digest():
    one, two = (
        RunSpec("forest", "demo", "service", SplitSpec("file", file=f"/{x}.json", file_digest="0f")) for x in "ab"
    )
    assert one.digest == two.digest and one != two
    assert (
        RunSpec("forest", "demo", "service", SplitSpec("file", file="/a.json", file_digest="1f")).digest != one.digest
    )


def test_a_digest_that_was_given_once_stays():
    """Computed by hand from the canonical JSON of the fields; what was run before must stay found."""
    run = RunSpec("forest", "demo", "service", SplitSpec("capture", 3, 1, 5, 20), {"trees": 9}, "0f")
    text = (
        '{"dataset":"demo","fold":1,"folds":5,"max_per_class":20,"method":"forest","parameters":{"trees":9},"seed":3,'
        '"source":null,"split":"capture","split_digest":null,"store":"0f","task":"service"}'
    )
    import hashlib

    assert run.digest == hashlib.sha256(text.encode()).hexdigest()[:16]
    with_filter = dataclasses.replace(run, split=dataclasses.replace(run.split, filter="dns"))
    text = text.replace('"fold":1', '"filter":"dns","fold":1')
    assert with_filter.digest == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_what_is_as_usual_is_left_out_of_digests():
    assert SplitSpec().unusual == {} and SplitSpec("paper", balance="resample").balance is None
    assert SplitSpec(balance="keep") == SplitSpec() and SplitSpec("paper", balance="keep").balance == "keep"
    asked = SplitSpec(filter="dns", sampling="window=4", balance="undersample", min_per_class=2, min_groups=3).unusual
    assert asked == {
        **{"filter": "dns", "sampling": "window=4", "balance": "undersample", "min_per_class": 2, "min_groups": 3},
    }
    assert (
        SplitSpec("capture", min_groups=2) == SplitSpec("capture") and SplitSpec("session", min_groups=1).unusual == {}
    )
    assert list(asked) == list(NEW_FIELDS)


@pytest.mark.parametrize(
    ("code", "fields"),
    [
        ("unknown-split", {"scheme": "randomly"}),
        ("unknown-split", {"scheme": "attribute:"}),
        ("unknown-split", {"scheme": "session:x"}),
        ("unknown-filter", {"filter": "none,x"}),
        ("bad-sampling", {"sampling": "window"}),
        ("unknown-balance", {"balance": "even"}),
        ("bad-fold", {"fold": 0}),
        ("bad-fold", {"folds": 1}),
        ("bad-fold", {"fold": 3, "folds": 3}),
        ("bad-fold", {"fold": -1, "folds": 3}),
        ("bad-fold", {"scheme": "time", "folds": 3}),
        ("bad-fold", {"scheme": "file", "file": "x", "folds": 3}),
        ("bad-class-size", {"max_per_class": 0}),
        ("bad-class-size", {"min_per_class": 0}),
        ("bad-class-size", {"scheme": "file", "file": "x", "max_per_class": 1}),
        ("bad-options", {"scheme": "file", "file": "x", "filter": "dns"}),
        ("bad-options", {"file": "x"}),
    ],
)
def test_what_no_split_can_be(code, fields):
    with refused(code):
        SplitSpec(**fields)


def test_the_edges_of_what_a_split_can_be():
    SplitSpec(seed=0, max_per_class=1, min_per_class=1)
    SplitSpec(seed=-(2**70), fold=2, folds=3)  # any number is a seed: runs of before have some below 0
    SplitSpec(fold=0, folds=2)
    check_scheme("attribute:a:b")


def test_schemes_say_what_they_promise():
    session, capture, paper, person = (SplitSpec(s) for s in ("session", "capture", "paper", "attribute:person=x"))
    assert [s.leaky for s in (session, capture, paper, person)] == [False, False, True, False]
    assert [s.balancing for s in (session, paper)] == ["keep", "resample"]
    assert [s.attribute for s in (session, person)] == ["", "person=x"]
    assert [s.group_label for s in (session, capture, person)] == ["5-tuples", "capture groups", "values of person"]
    assert (session.path, SplitSpec("file", file="a.json").path) == (None, Path("a.json"))


def test_a_reduced_scale_is_one_below_the_paper_s_own():
    assert [SplitSpec(max_per_class=n).reduced for n in (None, 1, PAPER_PER_CLASS)] == [False, True, True]
    limits = (None, PAPER_PER_CLASS - 1, PAPER_PER_CLASS, PAPER_PER_CLASS + 1)
    assert [SplitSpec("paper", max_per_class=n).reduced for n in limits] == [False, True, False, False]


def test_folds_and_seeds_are_spelled_out():
    assert [spec.fold for spec in SplitSpec(folds=3).each_fold()] == [0, 1, 2]
    assert SplitSpec(fold=1, folds=3).each_fold() == [SplitSpec(fold=1, folds=3)] and SplitSpec().each_fold() == [
        SplitSpec()
    ]
    assert [spec.seed for spec in SplitSpec(seed=4).each_seed(2)] == [4, 5]


def test_labels_say_what_is_not_as_usual():
    assert SplitSpec().label == "auto" and SplitSpec().sample_labels == []
    spec = SplitSpec("paper", max_per_class=9, sampling="window=4", filter="dns", min_per_class=2)
    assert spec.sample_labels == ["window=4", "filter=dns", "min_per_class=2", "max_per_class=9"]
    assert SplitSpec("capture", folds=5, max_per_class=9).label == "capture, 5 folds"
    run = RunSpec("/x/mine.py:Mine", "demo", "t", SplitSpec("capture", 3, 1, 5, filter="dns"))
    assert run.name == "mine.py:Mine-capture-filter=dns-seed3-fold1of5"
    assert RunSpec("forest", "demo", "t").name == "forest-session-seed0"
    assert (run.place, run.but_place.place, run.but_place.split.folds) == ((3, 1), (0, None), 5)


def test_filters_are_in_one_order_and_each_once():
    assert parse_filter("tcp,dns, dns,none") == "dns,tcp" and parse_filter("none") == "none" == parse_filter(
        "none,none"
    )
    with refused("unknown-filter", "''"):
        parse_filter("dns,,tcp")


def test_a_seed_is_a_hash_of_its_names():
    seeds = {named_seed(*names) for names in ((0,), (1,), (0, 0), ("00",), ("0", "1"), ("01",), ("", "0"))}
    assert len(seeds) == 7 and all(0 <= seed < 2**63 for seed in seeds)
    assert named_seed(0, "demo") == named_seed("0", "demo") == 6550561213196245549  # of "0", NUL, "demo"


def test_command_lines_of_seeds_that_are_no_range_are_several():
    run = RunSpec("forest", "demo", "service", SplitSpec("capture", folds=2, filter="dns"), {"trees": 9})
    words = "--method forest --dataset demo --task service --split capture --folds 2"
    assert command_lines(run) == [f"bench run {words} --seed 0 --filter dns --set trees=9"]
    assert command_lines(run, [0, 1]) == [f"bench run {words} --seeds 2 --filter dns --set trees=9"]
    assert [shlex.split(line)[13] for line in command_lines(run, [4, 2, 4])] == ["2", "4"]


def test_settings_are_plain():
    assert Settings() == Settings(None, None, {}, None)


def test_digest_is_stable_and_ignores_only_the_place_of_the_split_file():
    base = run_spec("forest", "demo", "service", parameters={"b": 1, "a": 2.0}, store="0f")
    assert base.digest == "56ce89db4f7bd5c2"
    assert dataclasses.replace(base, parameters={"a": 2.0, "b": 1}).digest == base.digest
    given = changed(base, split="file", split_file="/here", split_digest="0f")
    assert changed(given, split_file="/elsewhere").digest == given.digest


@pytest.mark.parametrize(
    "change",
    [
        {"method": "knn"}, {"dataset": "d"}, {"task": "t"}, {"split": "time"}, {"seed": 1}, {"fold": 0, "folds": 5},
        {"folds": 5},
        {"parameters": {"trees": 10}}, {"max_per_class": 5}, {"store": "x"}, {"split_digest": "x"}, {"source": "x"},
        {"filter": "dns"}, {"sampling": "window=16"}, {"balance": "resample"}, {"min_per_class": 5},
        {"device": "cuda"}, {"precision": "bfloat16"}, {"tuned": "20 trials a fold"},
    ],
)  # fmt: skip
def test_digest_feels_every_field(change):
    base = run_spec("forest", "demo", "service")
    assert changed(base, **change).digest != base.digest


def test_every_field_of_the_spec_is_tried_above():
    tried = {"method", "dataset", "task", "split", "seed", "fold", "folds", "parameters"}
    tried |= {
        "max_per_class",
        "store",
        "split_digest",
        "source",
        "split_file",
        "device",
        "precision",
        "tuned",
        *NEW_FIELDS,
    }
    assert {f.name for f in dataclasses.fields(RunSpec)} | SPLIT | {"split_file", "split_digest"} == tried


@pytest.mark.parametrize(
    ("digest", "fields"),
    [
        ("b8abf184d7830a03", {}),
        ("9135e8068f1d54f0", {"split": "capture", "seed": 2, "fold": 1, "folds": 5, "parameters": {"trees": 10},
                              "max_per_class": 50, "store": "0f"}),
    ],
)  # fmt: skip
def test_digests_of_runs_without_the_later_options_stay(digest, fields):
    """As they were before there were filters, windows and balances, so that what was run stays done."""
    run = run_spec("forest", "demo", "service", **fields)
    assert run.digest == digest
    assert not set(run.to_dict()) & set(NEW_FIELDS)
    assert changed(run, **NEW_FIELDS).digest == digest
