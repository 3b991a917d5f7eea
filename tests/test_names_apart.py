"""Two things have two names: classes in a run's numbers, classes of a joint label; and a sample counts once."""

import numpy as np
import pytest
from refusals import refused
from small_captures import packet, pcap

from bench.analysis.data_quality import payload_kinds
from bench.data.card_tables import Task
from bench.data.labels import row_classes
from bench.data.prepare import open_dataset
from bench.runs import registry
from bench.scores.metrics import evaluate
from bench.spec import RunSpec, SplitSpec
from bench.splits.split import make_split
from bench.stress.refits import Refits


def test_classes_of_other_signs_have_numbers_of_their_own():
    names = ["C++", "C##", "web", "w" * 300, "w" * 301]
    truth = np.arange(5)
    found = evaluate(truth, np.eye(5, dtype=np.float32)[[0, 0, 2, 3, 4]], names).f1_by_class
    assert len(found) == 5 and found["f1/web"] == 1.0
    assert all(len(name) <= 250 for name in found) and sum(name.startswith("f1/C__-") for name in found) == 2


def test_a_bundle_of_such_classes_comes_back(bench_in, tmp_path):
    folder = tmp_path / "traffic"
    for place, name in enumerate(["C++", "C##", "w" * 240]):
        (folder / name).mkdir(parents=True)
        for number in range(6):
            talk = [packet(number * 100 + i, (f"10.{place}.0.{number}", 999), ("10.9.0.1", 443), b"x" * (place + 1))
                    for i in range(3)]  # fmt: skip
            (folder / name / f"{number}.pcap").write_bytes(pcap(talk))
    bench = bench_in(tmp_path)
    assert bench("run", "--dataset", folder, "--method", "majority", "--split", "session", "--results", "one")[0] == 0
    assert bench("results", "export", "z.zip", "--results", "one")[0] == 0
    status, _, told = bench("results", "import", "z.zip", "--results", "two")
    assert status == 0, told


def test_two_rows_of_one_joint_name_are_refused():
    columns = {"app": ["a-b", "a", "x"], "mode": ["c", "b-c", "{app}"]}
    with refused("bad-card", "'a-b-c' of a-b and c, and of a and b-c", "another sign"):
        row_classes(Task(label="{app}-{mode}"), columns)
    assert row_classes(Task(label="{app}/{mode}"), columns) == ["a-b/c", "a/b-c", "x/{app}"]
    assert row_classes(Task(label="{app}-{mode}", where={"app": ("a",)}), columns) == ["", "a-b-c", ""]


@pytest.mark.parametrize("cut", [None, 70, 42])
def test_readable_payload_of_cut_captures_is_readable(tmp_path, cut):
    (tmp_path / "caps" / "web").mkdir(parents=True)
    talk = [packet(i, ("10.0.0.1", 999), ("10.9.0.1", 80), b"GET / HTTP/1.1 and more words" * 2) for i in range(3)]
    for number in range(2):
        (tmp_path / "caps" / "web" / f"{number}.pcap").write_bytes(_cut(pcap(talk), cut))
    store = open_dataset(str(tmp_path / "caps"), home=tmp_path / "home")
    kinds = payload_kinds(store, np.arange(store.manifest.sessions))
    assert {name for name, share in kinds.items() if share} == (
        set() if cut == 42 else {"text"}
    )  # 42: it lacks payload


def _cut(capture: bytes, length: int | None) -> bytes:
    """A little-endian capture with a snap length."""
    if length is None:
        return capture
    out, place = capture[:24], 24
    while place < len(capture):
        held = int.from_bytes(capture[place + 8 : place + 12], "little")
        kept = min(held, length)
        out += capture[place : place + 8] + kept.to_bytes(4, "little") + capture[place + 12 : place + 16]
        out += capture[place + 16 : place + 16 + kept]
        place += 16 + held
    return out


def test_labels_of_repeated_samples_count_once(tmp_path):
    store = open_dataset("demo", home=tmp_path)
    spec = RunSpec("majority", "demo", "service", SplitSpec("session", balance="resample", max_per_class=200))
    split = make_split(store, "service", spec.split)
    refits = Refits.of(spec, registry.load("majority"), store, split, "cpu")
    train = split.parts["train"].take(split.order("train"))
    keys = np.stack([train.session, train.first])
    assert len(refits.distinct) == len(np.unique(keys, axis=1).T) < len(train)
    some = refits.few_labels(10, lambda answers: {})
    assert some.samples == 10 * len(refits.classes)
