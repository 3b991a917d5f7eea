"""What the audit finds, counted by hand on small tables and read off the demo through the command line."""

import dataclasses
import json

import numpy as np
import pytest
from refusals import refused
from small_captures import pcap, talk
from split_tables import split_of

from bench.analysis import audit, data_quality
from bench.analysis.audit_record import METRICS, Audit, Ceiling, Duplicates
from bench.analysis.audit_tables import _score_cells, _scores, audit_tables, audit_text
from bench.analysis.setup_features import ALL, FEATURES
from bench.cli import cli
from bench.readers import Ragged
from bench.render.table import FORMATS, render
from bench.runs.execute import Outcome
from bench.spec import RunSpec, SplitSpec
from bench.structure import structured
from bench.tracking.record import Record


def test_rows_are_equal_where_all_their_arrays_are():
    ragged = Ragged(np.array([1, 2, 3, 1, 2, 3, 1, 2]), np.array([0, 3, 5, 6, 8]))  # 123 12 3 12
    same = np.array([[5, 6], [7, 8], [5, 6], [7, 8]])
    keys = data_quality.equal_input_keys({"a": ragged, "b": same})
    assert keys[1] == keys[3] and len(set(keys)) == 3
    assert len(set(data_quality.equal_input_keys({"a": ragged, "b": same + np.arange(4)[:, None]}))) == 4
    shifted = Ragged(np.array([1, 2, 3]), np.array([0, 1, 3]))  # 1 | 23 is not 12 | 3
    assert len(set(data_quality.equal_input_keys({"a": shifted, "b": np.array([[2], [2]])}))) == 2


def test_the_ceiling_is_the_best_rule_of_equal_answers():
    keys, labels = np.array([0, 0, 0, 1, 1, 2]), np.array([4, 4, 1, 0, 2, 3])
    assert data_quality.ceiling(keys, labels) == (2 + 1 + 1) / 6
    found = data_quality.find_duplicates(keys, labels)
    assert found == Duplicates("all", samples=6, repeated=5 / 6, of_several_classes=5 / 6, ceiling=4 / 6)
    found = data_quality.find_duplicates(np.arange(4), np.zeros(4, int))
    assert found == Duplicates("all", samples=4, repeated=0, of_several_classes=0, ceiling=1)
    nothing = data_quality.find_duplicates(np.zeros(0, int), np.zeros(0, int))
    assert nothing == Duplicates("all", samples=0, repeated=0, of_several_classes=0, ceiling=None)


def test_conversations_under_two_labels_are_counted(make_store):
    store = make_store({"conversation": [5, 5, 6, 6, 7], "capture": [0, 1, 1, 1, 2]}, labels=[0, 1, 1, 1, 0])
    assert data_quality.groups_of_several_classes(data_quality.Pool.of(store, "task", SplitSpec())) == {
        "conversations": 1,
        "captures": 0,
    }


def test_parts_stand_in_the_pool_window_for_window(make_store):
    packets = [9, 4, 9, 6, 5, 9, 7, 3, 8, 9, 9, 9]
    store = make_store(
        {"packets": packets, "first_packet": np.cumsum([0, *packets[:-1]]), "conversation": np.arange(12)},
        {"payload_length": np.ones(sum(packets))},
        labels=[0, 0, 1, 1, 0, 1, 0, 1, 0, 1, 0, 1],
        classes=["a", "b"],
    )
    asked = {"sampling": "window=3,step=2", "max_per_class": 9}
    split = split_of(store, "task", "paper", **asked)
    pool = data_quality.Pool.of(store, "task", SplitSpec(sampling=asked["sampling"]))
    assert len(pool.samples) > 12
    for part in split.parts.values():
        there = pool.samples.take(pool.rows(part))
        assert (there.session == part.session).all() and (there.first == part.first).all()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_HOME", str(tmp_path_factory.mktemp("home")))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield tmp_path_factory.getbasetemp() / "results"  # that of other tests: making one takes seconds


def read(found):
    """What is saved as JSON, as the record that it was."""
    return structured(found, Audit, "the audit")


def asked(home, capsys, *words, options=""):
    """What `bench audit demo` finds, as JSON; ``options``: those that the file's name ends in."""
    cli.main(["audit", "demo", *words, "--results", str(home), "--json"], standalone_mode=False)
    told = capsys.readouterr()
    saved = home / "audits" / f"demo-service{options}.json"
    assert f"saved as {saved}" in told.err and json.loads(saved.read_text()) == json.loads(told.out)
    return json.loads(told.out)


def test_the_demo_through_the_command_line(home, capsys):
    found = asked(home, capsys, "--split", "session,capture", "--method", "atvitsc,graphdapp,ports", "--no-runs")
    assert found["samples"] == sum(row["sessions"] for row in found["classes"])
    assert all(row["few"] and row["captures"] == 6 for row in found["classes"])
    assert found["of_several_classes"] == {"conversations": 0, "captures": 0}
    assert sum(found["content"].values()) == pytest.approx(1)
    ceilings = {row["method"]: row for row in found["ceilings"] if not row["parameters"]}
    assert found["duplicates"][0]["ceiling"] == ceilings["atvitsc"]["all"] == 1  # payload is random
    assert ceilings["ports"]["all"] < 0.5  # one service port for all
    assert all(0 < ceilings["ports"]["test"][split] < 1 for split in ("session", "capture"))
    for row, kind in zip(found["splits"], ("conversations", "capture_groups"), strict=True):
        assert row["test_in_training_sessions"] == row[f"test_in_training_{kind}"] == 0
        assert row["test_in_training_payload"] == row["repeated_test"] == 0 and row["proof"] and not row["leaky"]


def test_windows_under_the_papers_order_show_what_they_leak(home, capsys):
    words = ["--split", "paper", "--sampling", "window=4,step=1,per_session=5", "--max-per-class", "40", "--no-runs"]
    name = "-window=4,step=1,per_session=5-filter=dns-balance=undersample-min_per_class=2-max_per_class=40"
    words += ["--min-per-class", "2", "--filter", "dns", "--balance", "undersample"]
    found = asked(home, capsys, *words, options=name)
    (row,) = found["splits"]
    assert row["leaky"] and row["reduced"] and row["train"] + row["validation"] + row["test"] <= 40 * 20
    leaked = [row[f"test_in_training_{kind}"] for kind in ("windows", "overlapping_windows", "neighbours", "sessions")]
    assert leaked == sorted(leaked) and 0 < leaked[1] and leaked[3] <= row["test"]
    assert found["sampling"] == "window=4,step=1,per_session=5" and found["filter"] == "dns"
    text = audit_text(read(found))
    assert "paper *†" in text and "max_per_class=40" in text and f"{leaked[3] / row['test']:.1%}" in text


def test_what_cannot_be_is_told_beside_what_can(home, capsys):
    found = asked(home, capsys, "--split", "time,attribute:x", "--no-runs")
    assert [row["split"] for row in found["splits"] if not row["impossible"]] == ["time"]
    assert "split attribute:x: " in audit_text(read(found))


def test_no_audit_overwrites_one_of_other_samples(home, capsys):
    words = ("--split", "session", "--no-runs")
    files = {
        "": (),
        "-seed=1": ("--seed", "1"),
        "-filter=dns-max_per_class=9": ("--max-per-class", "9", "--filter", "dns"),
    }
    found = [asked(home, capsys, *words, *more, options=options) for options, more in files.items()]
    assert [" · ".join(read(one).labels) for one in found] == [
        "demo · service", "demo · service · seed=1", "demo · service · filter=dns · max_per_class=9"
    ]  # fmt: skip
    before = {path: path.read_bytes() for path in (home / "audits").iterdir()}
    with refused("split-impossible", "task service", "min_per_class"):
        asked(home, capsys, "--split", "session,time", "--no-runs", "--min-per-class", "100000")
    assert before == {p: p.read_bytes() for p in (home / "audits").iterdir()}


def test_a_file_name_is_safe_whatever_the_options_are(tmp_path):
    path = audit.save(Audit("d", "t", "0f", filter="a/b c"), tmp_path)
    assert path == tmp_path / "audits" / "d-t-filter=a_b_c.json" and path.is_file()


def test_the_capture_set_up_is_told_and_scored(home, capsys):
    found = asked(home, capsys, "--split", "session,capture", "--no-runs")
    assert [row["name"] for row in found["capture_set_up"]] == [row["class"] for row in found["classes"]]
    assert {row["captures"] for row in found["capture_set_up"]} == {6} and found["silent_captures"] == 0
    of = {(row["split"], row["feature"]): row for row in found["set_up_scores"]}
    assert of.keys() == {(split, name) for split in ("session", "capture") for name in (*FEATURES, ALL)}
    # a capture is of one class: sessions of one whose length is known are told by it, those of a new one are not
    assert of["session", "capture length"]["macro_f1"] == 1 and of["capture", "capture length"]["macro_f1"] < 0.2
    constant = of["capture", "snap length"]
    assert constant["values"] == 1 and constant["accuracy"] == constant["chance_accuracy"] < 0.25
    assert set(constant["f1"]) == {row["class"] for row in found["classes"]}
    text = audit_text(read(found))
    assert "capture set-up by class" in text and "of the way" in text and "100% !" in text
    assert "split session, the same in all training samples: link type, snap length" in text


def test_differing_set_ups_are_lines_on_standard_error(command_line, tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name, cut in {"a\nb": 60, "c": 400}.items():
        (tmp_path / "traffic" / name).mkdir(parents=True)
        for number in range(6):
            talks = [talk(1000 * number + port, bytes([port]) * 300, 100.0 * number + port) for port in range(1, 9)]
            cuts = [[(time, frame[:cut]) for time, frame in one] for one in talks]
            (tmp_path / "traffic" / name / f"{number}.pcap").write_bytes(pcap([p for one in cuts for p in one]))
    status, out, err = command_line(
        "audit", tmp_path / "traffic", "--split", "session,capture", "--no-runs", "--results", tmp_path / "r", "--json"
    )
    lines = [line for line in err.splitlines() if "capture set-up" in line]  # one each, whatever is in a name
    differing = "the capture set-up differs by class: packets with payload that is cut: 0 % (c) to 100 % (a\\nb)"
    assert status == 0 and lines[0] == f"WARNING: traffic: {differing}"
    assert [line.partition(" (chance")[0] for line in lines[1:]] == [
        f"WARNING: traffic: split {split}: the capture set-up alone reveals classes: "
        f"macro-F1 cut packets 1.000, {ALL} 1.000"
        for split in ("session", "capture")
    ]
    assert len(json.loads(out)["capture_set_up"]) == 2
    _, _, err = command_line("split", "traffic", "--split", "capture")  # who never types `prepare` reads it here
    assert "WARNING: traffic: the capture set-up differs by class (1 way): `bench prepare" in err
    assert "`bench audit traffic` measures what they reveal" in err


def test_an_audit_of_before_says_what_it_did_not_look_at(home, capsys):
    found = asked(home, capsys, "--split", "session", "--no-runs")
    for name in ("capture_set_up", "silent_captures", "set_up_scores"):
        del found[name]
    text = audit_text(read(found))
    assert "capture set-up: the version that made this audit did not look at it" in text
    assert "scores of the capture set-up: the version that made this audit did not compute them" in text


def test_a_pattern_keeps_its_commas(home, capsys, monkeypatch):
    schemes = []
    found = asked(home, capsys, "--split", "session", "--no-runs")
    monkeypatch.setattr(audit, "audit_dataset", lambda *given: schemes.extend(given[3].schemes) or read(found))
    asked(
        home,
        capsys,
        "--split",
        "session,attribute:v=a(\\d{1,2})",
        "--split",
        "attribute:w=b,c",
        "--split",
        "paper, time",
    )
    assert schemes == ["session", "attribute:v=a(\\d{1,2})", "attribute:w=b,c", "paper", "time"]


def test_runs_are_set_against_their_ceilings(home, monkeypatch, capsys):
    monkeypatch.setattr(audit, "baselines", lambda: [("majority", {}), ("ports", {})])
    wide = asked(home, capsys, "--split", "session,capture", "--max-per-class", "20", options="-max_per_class=20")
    for scheme in ("session", "capture"):
        scores = {row["method"]: row for row in wide["scores"] if row["split"] == scheme}
        assert scores.keys() == {"majority", "ports"}  # nobody else's: of another scale
        best = max(scores.values(), key=lambda row: row["macro_f1"])
        (told,) = (r for r in wide["set_up_scores"] if (r["split"], r["feature"]) == (scheme, ALL))
        above = best["macro_f1"] > told["chance_macro_f1"]
        assert (told["best"], told["best_method"]) == ((best["macro_f1"], best["method"]) if above else (None, ""))
        for row in scores.values():
            assert row["status"] == "done" and row["scale"] == "max_per_class=20"
            assert row["accuracy_low"] <= row["accuracy"] <= row["ceiling"]
            assert row["gap"] == row["ceiling"] - row["accuracy"]
            (known,) = (c for c in wide["ceilings"] if c["method"] == row["method"])
            assert known["test"][scheme] == row["ceiling"]
    again = asked(home, capsys, "--split", "session,capture", "--max-per-class", "20", "--no-runs",
                  options="-max_per_class=20")  # fmt: skip
    assert again["scores"] == wide["scores"]  # finished runs are told without any new one
    others = {"-max_per_class=21": ["--max-per-class", "21"]}
    others["-min_groups=3-max_per_class=20"] = ["--max-per-class", "20", "--min-groups", "3"]
    others["-min_per_class=3-max_per_class=20"] = ["--max-per-class", "20", "--min-per-class", "3"]
    for options, other in others.items():
        assert asked(home, capsys, "--split", "session", "--no-runs", *other, options=options)["scores"] == []


@pytest.fixture
def record():
    def make(method, parameters=None, status="done", split="session", **other):
        names = [f"{name}{end}" for name in METRICS for end in ("", "_low", "_high")]
        scores = {name: 0.5 for name in names} | {"abstentions": 3.0, "interval_groups": 4.0}
        scores = scores if status == "done" else {}
        spec = RunSpec(method, "d", "t", SplitSpec(split), parameters or {})
        return Record("f00", status, metrics=scores, spec=spec, **{"reason": "", **other})

    return make


def test_a_line_says_what_was_taken_away_and_what_became_of_it(record):
    best = Ceiling("any", {}, test={"session": 0.75})
    rows = [
        audit.scored(record("forest"), best),
        audit.scored(record("forest", {"leave_out": "lengths"}), best),
        audit.scored(record("forest", {"leave_out": "times"}), best),
        audit.scored(record("first-bytes", {"mask_server_name": True}), best),
        audit.scored(record("first-bytes", status="skipped", reason="no payload here"), None),
        audit.scored(record("gone.py:Gone", status="failed", reason="OSError: no"), None),
        audit.scored(record("majority", scale="epochs=3", deviations=("reconstructed: all",), leaky=True), best),
    ]
    cells = [_score_cells(row) for row in rows]
    assert [line[1:4] for line in cells] == [
        ("forest", "directions, lengths, times", "payload"),
        ("forest (no-lengths)", "directions, times", "payload, lengths"),
        ("forest (no-times)", "directions, lengths", "payload, times"),
        ("first-bytes (no-server-name)", "payload", "server name"),
        ("first-bytes", "payload", "–"),
        ("gone.py:Gone (file without a digest)", "not known", "–"),
        ("majority †‡", "nothing", "–"),
    ]
    assert cells[0][4:] == ("0.500 [0.500, 0.500]", "0.500 [0.500, 0.500]", "0.7500", "0.2500", "3", "done")
    assert cells[4][4:] == ("–", "–", "–", "–", "–", "skipped: no payload here")
    assert cells[5][-1] == "failed: OSError: no" and cells[6][0] == "session *"


def test_marks_are_told_of_what_is_marked_and_not_of_text(record):
    rows = [audit.scored(record("gone.py:Gone*", {"x": "†"}, status="failed", reason="no"), None)]
    told = _scores(Audit("d", "t", "0f", scores=rows))
    assert told.rows[0][1] == "gone.py:Gone* (x=†, file without a digest)" and len(told.notes) == 1
    rows = [dataclasses.replace(rows[0], scale="epochs=1", leaky=True)]
    assert [note[0] for note in _scores(Audit("d", "t", "0f", scores=rows)).notes[1:]] == ["*", "†"]


def test_what_the_floor_cannot_run_is_told_at_once(monkeypatch, make_store):
    def refuse(specs, tracker, options):
        return (Outcome(spec, "skipped", "no packets here") for spec in specs)

    monkeypatch.setattr(audit, "run_matrix", refuse)
    monkeypatch.setattr(audit, "baselines", lambda: [("majority", {})])
    store, told = make_store({"conversation": [0, 1]}, labels=[0, 1]), []
    audit.run_baselines(store, "task", SplitSpec("session"), None, told.append)
    assert told == ["split session: majority: skipped: no packets here"]


def test_a_ceiling_that_cannot_be_says_why(make_store, monkeypatch):
    store = make_store({"conversation": [0, 1]}, labels=[0, 0])
    pool = data_quality.Pool.of(store, "task", SplitSpec())
    row = audit.ceiling_of(pool, {"session": np.array([0])}, RunSpec("gone.py:Gone", "d", "t"), ["gone.py:Gone"])
    assert row.all is None and row.test == {"session": None} and "gone.py" in row.reason


def test_every_sheet_prints_in_every_format(home, capsys):
    found = asked(home, capsys, "--split", "session,paper,attribute:x", "--method", "ports", "--no-runs")
    sheets = audit_tables(read(found))
    assert len(sheets) == 7 and all(sheet.title.startswith("demo, task service: ") for sheet in sheets)
    for sheet in sheets:
        assert all(len(row) == len(sheet.head) for row in sheet.rows)
        assert all(render(sheet, form) for form in FORMATS if sheet.records or form != "csv")
    assert all(sheet.title in audit_text(read(found)) for sheet in sheets if sheet.rows)


def test_the_floor_is_what_methods_declare():
    found = audit.baselines()
    assert ("majority", {}) in found and ("first-bytes", {"mask_server_name": True}) in found
    assert ("forest", {"leave_out": "times"}) in found and not any("packets" in values for _, values in found)


@pytest.mark.parametrize("scheme", ["nonsense", "file", "file:x.json", "attribute", "time:x"])
def test_a_split_that_cannot_be_audited_is_bad_input(home, scheme):
    with refused("unknown-split", scheme, "session", "paper"):
        cli.main(["audit", "demo", "--split", f"session,{scheme}", "--no-runs"], standalone_mode=False)


def test_two_data_sets_and_tasks_of_one_name_together_keep_an_audit_each(tmp_path):
    one, other = Audit("iscx", "vpn-app", "s"), Audit("iscx-vpn", "app", "s")
    paths = [audit.save(found, tmp_path) for found in (one, other, one, other)]
    assert [path.name for path in paths] == ["iscx-vpn-app.json", "iscx-vpn,app.json"] * 2
    assert [Audit.load(path).labels for path in paths[:2]] == [one.labels, other.labels]
    paths[0].write_text("damaged")
    assert audit.save(one, tmp_path) == paths[0]
