"""Splits as files."""

import json
from dataclasses import replace

import numpy as np
from refusals import refused
from split_tables import split_of

from bench.splits.assignment import PARTS
from bench.splits.split import Split


def test_saved_and_loaded(table_store, simple, tmp_path):
    store, path = table_store(simple), tmp_path / "split.json"
    split = split_of(store, "task", "session", fold=1, folds=4, max_per_class=15)
    split.save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["split.json"]
    loaded = split_of(store, "task", "file", file=path)
    assert loaded.digest == split.digest and loaded.summary() == split.summary()
    assert (loaded.spec.fold, loaded.spec.folds, loaded.spec.scheme) == (1, 4, "session")
    with refused("wrong-split-file", "split.json"):
        Split.load(path, replace(store, digest="1" * 64))


def test_files_that_are_refused(table_store, simple, tmp_path):
    store, path = table_store(simple), tmp_path / "split.json"
    split_of(store, "task", "session").save(path)
    good = json.loads(path.read_text())

    def load(**changes):
        path.write_text(json.dumps(good | changes))
        return Split.load(path, store)

    def doubled(name, other):
        return {name: {k: [*v, good[other][k][0]] for k, v in good[name].items()}}

    one = {"session": [0], "first": [0], "count": [1]}
    wrong, violated = "wrong-split-file", "split-violation"
    for code, named, changes in [
        (violated, "session 0", {"test": one, "train": one}),
        (violated, "packet 0", doubled("train", "train")),
        (violated, "two parts", doubled("train", "test")),
        (wrong, "changed", {"seed": 5}),
        ("unknown-task", "'other'", {"task": "other"}),
        (violated, "session 40", {"test": one | {"session": [40]}}),
        (violated, "session -1", {"test": one | {"session": [-1]}}),
        (wrong, "test.first", {"test": {"session": [1]}}),
        (wrong, "test.session", {"test": {"session": [1, 2], "first": [0], "count": [1]}}),
        (wrong, "test = []", {"test": []}),
        (wrong, "test.weight", {"test": one | {"weight": [1]}}),
        (wrong, "note", {"note": "mine"}),
        (wrong, "'x'", {"format": "x"}),
        (violated, "packet -1 of session 0", {"test": one | {"first": [-1]}}),
        (violated, "2 packets from packet 0", {"test": one | {"count": [2]}}),
        (violated, "0 packets", {"test": one | {"count": [0]}}),
        (violated, "9223372036854775807", {"test": one | {"count": [2**63 - 1]}}),
        (violated, "the test part is empty", {"test": {"session": [], "first": [], "count": []}}),
        (wrong, "seed = True", {"seed": True}),
        (wrong, r"dataset = 'a\nb'", {"dataset": "a\nb"}),
        (wrong, "another store of other, store fake", {"dataset": "other", "store": "1" * 64}),
        ("bad-fold", "fold 3 of 3", {"fold": 3, "folds": 3}),
        (wrong, "fold = 0", {"fold": 0}),
        ("bad-class-size", "max-per-class", {"max_per_class": 0}),
        (wrong, "shares = [0.5, 0.5]", {"shares": [0.5, 0.5]}),
        (wrong, "dropped", {"dropped": {"x": -1}}),
        ("unknown-filter", "'x'", {"filter": "x"}),
        ("unknown-balance", "'x'", {"balance": "x"}),
        ("bad-sampling", "'x'", {"sampling": "x"}),
    ]:
        with refused(code, f"{path}: ", named):
            load(**changes)
    for number in (1.5, "1", None, True, [1]):
        with refused(wrong, "test.session[0]"):
            load(test=one | {"session": [number]})
    with refused(wrong, path):
        load(test=one | {"session": [2**70]})
    for text in ('{"seed": 0, ' + json.dumps(good)[1:], json.dumps(good).replace('"first"', '"session"', 1)):
        path.write_text(text)
        with refused(wrong, path, "appears twice"):
            Split.load(path, store)
    (tmp_path / "file").touch()
    with refused("unwritable-file", "split.json"):
        split_of(store, "task", "session").save(tmp_path / "file" / "split.json")
    for text in ("", "[]", "{}", "\0", "[" * 100_000, "1" * 5000):
        path.write_text(text)
        with refused(wrong, path):
            Split.load(path, store)
    with refused("missing-file", tmp_path / "none"):
        Split.load(tmp_path / "none", store)


def test_a_file_may_begin_with_a_byte_order_mark(table_store, simple, tmp_path):
    store, path = table_store(simple), tmp_path / "split.json"
    split = split_of(store, "task", "session", seed=2**63 - 1)
    split.save(path)
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert Split.load(path, store).digest == split.digest


def test_a_hand_made_file_may_part_conversations_but_says_so(table_store, simple, tmp_path):
    path, store = tmp_path / "mine.json", table_store(simple)
    parts = [np.arange(0, 40, 2), np.arange(1, 20, 2), np.arange(21, 40, 2)]
    lists = {
        n: {"session": p.tolist(), "first": [0] * len(p), "count": [1] * len(p)}
        for n, p in zip(PARTS, parts, strict=True)
    }
    head = {"format": "bench-split-1", "store": store.digest, "dataset": "fake", "task": "task", "scheme": "file"}
    path.write_text(json.dumps(head | lists))
    split = split_of(store, "task", "file", file=path)
    assert split.spec.scheme == "file" and split.summary()["shared_conversations"] == 20
    assert (split.test.session == parts[2]).all()
