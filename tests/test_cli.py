"""The command line as a user types it."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from capture_bytes import CLIENT, SERVER, enhanced, ether, interface, ipv4, section

from bench.cli import cli, main
from bench.cli.text import outcome_table
from bench.generators import demo
from bench.runs.execute import Outcome
from bench.spec import RunSpec

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working folder with captures of three classes in it."""
    folder = tmp_path_factory.mktemp("cli")
    demo.write(folder / "traffic", sessions=20, captures=4, classes=3)
    return folder


@pytest.fixture
def bench(place, bench_in):
    return bench_in(place)


@pytest.fixture
def prepared(bench):
    """The same, where the first command need not prepare the captures and tell of it."""
    assert bench("prepare", "traffic")[0] == 0
    return bench


def run_forest(bench, *more):
    return bench("run", "--method", "majority,forest", "--dataset", "traffic", "--set", "trees=20", *more)


def test_run_trains_then_answers_from_the_store(bench):
    status, out, err = run_forest(bench, "--json", "--rerun")
    runs = json.loads(out)["runs"]
    assert status == 0
    assert [r["spec"]["method"] for r in runs] == ["majority", "forest"]
    assert {r["status"] for r in runs} == {"done"}
    assert runs[1]["metrics"]["macro_f1"] > runs[0]["metrics"]["macro_f1"]
    assert "forest" in err

    status, out, _ = run_forest(bench, "--json")
    again = json.loads(out)["runs"]
    assert status == 0
    assert {r["status"] for r in again} == {"cached"}
    assert [r["run_id"] for r in again] == [r["run_id"] for r in runs]
    assert [r["metrics"]["accuracy"] for r in again] == [r["metrics"]["accuracy"] for r in runs]


def test_tables_and_comparisons_read_what_runs_wrote(bench):
    run_forest(bench)
    status, text, _ = bench("table", "--dataset", "traffic")
    assert status == 0
    assert "forest" in text and "majority" in text
    status, out, _ = bench("table", "--dataset", "traffic", "--format", "csv", "--method", "forest")
    assert status == 0
    assert out.count("\n") == 2

    ids = {r["spec"]["method"]: r["run_id"] for r in json.loads(run_forest(bench, "--json")[1])["runs"]}
    status, out, _ = bench("compare", ids["forest"], ids["majority"], "--json")
    compared = json.loads(out)
    assert status == 0
    assert compared["macro_f1"]["difference"] > 0
    p = compared["permutation"]["p"]
    assert p is None or 0 <= p <= 1


def test_classify_labels_a_new_capture(bench, place):
    run_id = json.loads(run_forest(bench, "--json")[1])["runs"][1]["run_id"]
    demo.write(place / "new", seed=5, sessions=12, captures=1, classes=3)
    found = {}
    for capture in (place / "new").glob("*/*.pcap"):
        status, out, _ = bench("classify", capture, "--run", run_id[:12], "--json")
        assert status == 0
        rows = json.loads(out)["sessions"]
        assert all(0 < row["probability"] <= 1 for row in rows)
        found[capture.parent.name] = [row["class"] == capture.parent.name for row in rows]
    right = [hit for hits in found.values() for hit in hits]
    assert sum(right) / len(right) > 0.5  # three classes
    status, text, _ = bench("classify", capture, "--run", run_id)
    assert text.count("\n") == len(rows) + 1


def test_classify_looks_at_its_capture_alone(bench, place, monkeypatch):
    run_id = json.loads(run_forest(bench, "--json")[1])["runs"][1]["run_id"]
    folder = place / "crowded"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "flow*.pcap").write_text("no capture")
    listed = Path.iterdir

    def iterdir(path):
        if folder in (path, *path.parents):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    capture = next((place / "traffic").glob("*/*.pcap"))
    monkeypatch.setattr(Path, "iterdir", iterdir)
    rows = []
    for name in ("flow*.pcap", ".hidden", "plain.txt.gz"):  # the bytes tell what it is
        (folder / name).write_bytes(capture.read_bytes())
        status, out, _ = bench("classify", folder / name, "--run", run_id, "--json")
        assert status == 0
        rows.append(json.loads(out)["sessions"])
    assert rows[0] and rows[0] == rows[1] == rows[2]
    (folder / "empty.pcap").write_bytes(capture.read_bytes()[:24])
    status, out, err = bench("classify", folder / "empty.pcap", "--run", run_id)
    assert (status, out) == (2, "")
    assert "empty.pcap: no TCP or UDP session with payload" in err


@pytest.mark.parametrize(
    "words",
    [
        ("--split", "time", "--folds", 3),
        ("--split", "file"),
        ("--folds", 10**12),
        ("--split", "paper", "--folds", 10**12),
        ("--split", "file:nowhere.json"),
        ("--split", "attribute:day"),
        ("--split", "attribute:x=("),
    ],
)
def test_what_no_run_can_be_is_told_before_any(prepared, words):
    status, out, err = prepared("run", "--method", "majority", "--dataset", "traffic", *words)
    assert (status, out, len(err.splitlines())) == (2, "", 1)


def test_a_bound_under_paper_is_told_before_any_run(prepared):
    words = ("--dataset", "traffic", "--split", "paper", "--sampling", "window=2", "--max-per-class")
    status, out, err = prepared("run", "--method", "majority", *words, 10**12)
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    status, out, _ = prepared("run", "--method", "majority", *words, 30)
    assert (status, out.splitlines()[1].count("max_per_class=30")) == (0, 1)


def test_folds_and_seeds_multiply_the_matrix(bench):
    status, out, _ = bench("run", "--method", "majority", "--dataset", "traffic", "--split", "capture", "--folds", 2,
                           "--seeds", 2, "--json")  # fmt: skip
    runs = json.loads(out)["runs"]
    assert status == 0
    assert [(r["spec"]["seed"], r["spec"]["fold"]) for r in runs] == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_split_can_be_saved_and_used(bench, place):
    status, out, _ = bench("split", "traffic", "--save", place / "split.json", "--json")
    assert status == 0
    assert json.loads(out)["scheme"] == "capture"
    words = ("run", "--method", "majority", "--dataset", "traffic", "--split", f"file:{place / 'split.json'}", "--json")
    status, out, _ = bench(*words)
    assert status == 0
    assert json.loads(out)["runs"][0]["status"] == "done"


def test_a_reduced_scale_stays_marked_through_a_saved_split(bench, place):
    assert bench("split", "traffic", "--max-per-class", 8, "--save", place / "small.json")[0] == 0
    assert (
        bench("run", "--method", "majority", "--dataset", "traffic", "--split", f"file:{place / 'small.json'}")[0] == 0
    )
    rows = json.loads(bench("table", "--split", "file", "--json")[1])["rows"]
    assert "max_per_class=8" in [row["scale"] for row in rows]


@pytest.mark.parametrize("wrong", [{"shares": 5}, {"dropped": {"a": None}}, {"fold": "x"}, {"seed": [1]}])
def test_a_split_file_with_a_wrong_value_is_refused(bench, place, wrong):
    bench("split", "traffic", "--save", place / "split.json")
    content = json.loads((place / "split.json").read_text()) | wrong
    del content["digest"]
    (place / "edited.json").write_text(json.dumps(content))
    status, _, err = bench("run", "--method", "majority", "--dataset", "traffic", "--split", "file:edited.json")
    assert status == 2
    assert next(iter(wrong)) in err.splitlines()[-1]


def test_tune_finds_parameters_that_run_takes(bench):
    words = ("tune", "--method", "knn", "--dataset", "traffic", "--param", "neighbours=1,3", "--sampler", "grid")
    status, out, _ = bench(*words, "--json")
    study = json.loads(out)
    assert status == 0
    assert sorted(t["parameters"]["neighbours"] for t in study["trials"]) == [1, 3]
    assert study["best"]["value"] == max(t["value"] for t in study["trials"])

    status, out, _ = bench(*words, "--json")
    assert len(json.loads(out)["trials"]) == 2  # the study is finished: nothing is tried again

    status, out, _ = bench("run", "--method", "knn", "--dataset", "traffic", "--params", study["file"], "--json")
    assert status == 0
    run = json.loads(out)["runs"][0]
    best = study["best"]["parameters"]["neighbours"]
    assert run["spec"]["parameters"].get("neighbours", best) == best
    assert run["metrics"]["validation_macro_f1"] == pytest.approx(study["best"]["value"])


def test_the_next_command_of_a_study_asks_for_what_the_study_asked(bench, place):
    words = ("--split", "capture", "--folds", 2, "--filter", "dns", "--sampling", "window=4", "--max-per-class", 30)
    words = ("--method", "knn", "--dataset", "traffic", *words, "--results", "their results")
    space = ("--param", "neighbours=1,3", "--sampler", "grid")
    status, out, _ = bench("tune", *words, "--seed", 2, "--fold", 1, *space)
    assert status == 0
    command = shlex.split(out.splitlines()[-1])
    assert command[:2] == ["bench", "run"]
    status, out, _ = bench(*command[1:], "--json")
    runs = [run["spec"] for run in json.loads(out)["runs"]]
    kept = json.loads((place / "their results" / "params").glob("*.json").__next__().read_text())
    assert status == 0 and [run["fold"] for run in runs] == [0, 1]
    tuned = runs[1]
    for name in ("seed", "fold", "folds", "filter", "sampling", "max_per_class"):
        assert tuned[name] == kept["split"][name], name
    assert (tuned["split"], tuned["store"], tuned["task"]) == (kept["split"]["scheme"], kept["store"], kept["task"])
    assert tuned["parameters"] == {k: v for k, v in kept["parameters"].items() if k in tuned["parameters"]}


def test_a_store_is_verified_on_request(bench, place):
    assert bench("prepare", "traffic")[0] == 0
    status, out, _ = bench("prepare", "traffic", "--verify")
    assert status == 0 and "columns and" in out and "captures are as they were prepared" in out
    packets = place / "home" / "stores" / "traffic" / "packets.arrow"
    was, times = packets.read_bytes(), packets.stat()
    packets.write_bytes(was[:-2000] + bytes([was[-2000] ^ 1]) + was[-1999:])
    os.utime(packets, ns=(times.st_atime_ns, times.st_mtime_ns))
    status, out, err = bench("prepare", "traffic", "--verify")
    assert (status, out, len(err.splitlines())) == (2, "", 1) and "[store-damaged]" in err
    assert bench("prepare", "traffic", "--verify", "--rebuild")[0] == 2
    assert bench("prepare", "traffic", "--rebuild")[0] == 0
    assert packets.read_bytes() == was and bench("prepare", "traffic", "--verify")[0] == 0
    packets.write_bytes(was[:-2000] + bytes([was[-2000] ^ 1]) + was[-1999:])  # its time tells that it changed
    status, _, err = bench("split", "traffic")
    assert status == 0 and f"was damaged and is made again: {packets}: changed" in err and packets.read_bytes() == was
    packets.write_bytes(was[:99])
    status, out, err = bench("prepare", "traffic", "--json")
    assert json.loads(out)["unchanged"] is False and "made again" in err and packets.read_bytes() == was
    assert "made again" not in bench("prepare", "traffic", "--rebuild")[2]


def test_a_store_without_checksums_is_read_and_told(bench, place):
    assert bench("prepare", "traffic")[0] == 0
    path = place / "home" / "stores" / "traffic" / "manifest.json"
    manifest = path.read_text()
    content = json.loads(manifest)
    path.write_text(
        json.dumps({name: value for name, value in content.items() if name not in ("columns", "code", "sha256")})
    )
    status, _, err = bench("split", "traffic")
    assert status == 0 and "no checksums of its columns" in err and "--rebuild" in err
    status, out, _ = bench("prepare", "traffic", "--verify")
    assert status == 0 and "bounds alone" in out
    path.write_text(manifest)


def test_a_failed_run_gives_status_1_and_the_others_go_on(bench, place):
    (place / "broken.py").write_text(
        "from bench.method import Method\n\n\n"
        "class Broken(Method):\n"
        '    """Always fails."""\n\n'
        '    name, reference, family, reads = "broken", "none", "baseline", frozenset()\n\n'
        "    def represent(self, view): return {}\n"
        '    def fit(self, train, validation, monitor): raise ValueError("on purpose")\n'
        "    def predict_proba(self, inputs): ...\n"
        "    def save_state(self, folder): ...\n"
        "    def load_state(self, folder): ...\n"
    )
    status, out, err = bench("run", "--method", "broken.py:Broken,majority", "--dataset", "traffic", "--json")
    runs = json.loads(out)["runs"]
    assert status == 1
    assert runs[0]["status"] == "failed"
    assert runs[1]["status"] in ("done", "cached")
    assert "on purpose" in runs[0]["reason"]
    assert "Traceback" not in err


def test_a_file_that_is_no_capture_is_refused(bench, place):
    (place / "text.pcap").write_text("this is no capture at all, whatever its name says")
    status, _, err = bench("inspect", "text.pcap")
    assert status == 2
    assert "text.pcap" in err


def test_inspect_agrees_with_the_truth_of_a_damaged_capture(bench):
    path = SHARED / "captures" / "files" / "ng_cut.pcapng"
    if not path.exists():
        pytest.skip(f"{path} is missing: the shared captures are not beside this checkout")
    status, out, _ = bench("inspect", path, "--json")
    seen = json.loads(out)["captures"][0]
    assert status == 0
    assert (seen["packets"], seen["tcp_conversations"], seen["udp_conversations"]) == (301, 7, 1)
    assert (seen["conversations_with_payload"], seen["payload_bytes"]) == (7, 176051)
    assert len(seen["damage"]) == 1


@pytest.mark.parametrize("order", "<>")
def test_inspect_tells_where_a_made_capture_is_cut(bench, place, order):
    """What the test above holds on a real capture, everywhere."""
    frames = [ether(ipv4(payload=b"abc")), ether(ipv4(SERVER, CLIENT, payload=b"de")), ether(ipv4(payload=b"f"))]
    blocks = [enhanced(order, frame, ticks) for ticks, frame in enumerate(frames)]
    head = section(order) + interface(order)
    (place / "cut.pcapng").write_bytes(head + b"".join(blocks)[:-5])
    status, out, _ = bench("inspect", "cut.pcapng", "--json")
    seen = json.loads(out)["captures"][0]
    assert status == 0
    assert (seen["packets"], seen["tcp_conversations"], seen["udp_conversations"]) == (2, 1, 0)
    assert (seen["conversations_with_payload"], seen["payload_bytes"]) == (1, 5)
    assert len(seen["damage"]) == 1 and seen["damage"][0]["offset"] == len(head + b"".join(blocks[:2]))


def test_prepare_twice_does_nothing_the_second_time(bench):
    assert bench("prepare", "traffic")[0] == 0
    status, out, _ = bench("prepare", "traffic", "--json")
    assert status == 0
    assert json.loads(out)["unchanged"] is True


def test_the_installed_command_lists(place):
    command = Path(sys.executable).with_name("bench")
    for words in (["--help"], ["methods"], ["datasets"], ["methods", "atvitsc"], ["datasets", "demo"]):
        done = subprocess.run([command, *words], capture_output=True, text=True, check=False, cwd=place)
        assert (done.returncode, done.stderr) == (0, "")
    assert "temperature" in subprocess.run([command, "methods", "atvitsc"], capture_output=True, text=True).stdout


def test_a_card_of_a_thousand_downloads_is_a_page_to_read_and_whole_as_json(bench):
    _, out, _ = bench("datasets", "ndpi-services")
    assert len(out.splitlines()) < 60 and "\n\n" not in out and "\\n" not in out
    head, more = out.split("downloads:\n")[1].split("\nkind: captures")[0].splitlines()[-2:]
    assert "url https://" in head and more == "  - 1081 more; --json lists all"
    assert len(json.loads(bench("datasets", "ndpi-services", "--json")[1])["downloads"]) == 1086
    assert "\n\n" not in bench("datasets", "iscx-vpn")[1]  # a choice that sets nothing


@pytest.mark.parametrize(("package", "known"), [("torch_geometric", True), ("bench.gone", False)])
def test_a_missing_package_is_one_line_and_a_missing_module_of_ours_a_trace(monkeypatch, capsys, package, known):
    def fail(**_):
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)

    monkeypatch.setattr(cli, "main", fail)
    with pytest.raises(SystemExit if known else ModuleNotFoundError) as stopped:
        main()
    if known:
        line = capsys.readouterr().err
        assert stopped.value.code == 2 and line.count("\n") == 1 and "torch_geometric" in line and "install" in line


def test_an_interval_over_few_groups_is_marked_where_runs_end():
    ends = {"accuracy": 0.8, "macro_f1": 0.7, "macro_f1_low": 0.5, "macro_f1_high": 0.9, "seconds": 1.0}
    spec = RunSpec("forest", "demo", "service")
    outcomes = [Outcome(spec, "done", metrics=ends | more) for more in ({"interval_groups": 2.0}, {})]
    outcomes.append(Outcome(spec, "done", metrics=ends | {"interval_groups": 3.0}))
    _, few, earlier, trusted, *notes = outcome_table(outcomes).splitlines()
    assert "0.500-0.900 §" in few and "0.500-0.900 ¶" in earlier and "0.500-0.900  " in trusted
    assert [note[0] for note in notes] == ["§", "¶"]


def test_a_preset_shows_the_default_that_it_takes_away(bench):
    status, text, _ = bench("methods", "wang1d")
    assert status == 0 and "  adam:\n    optimiser: adam\n    learning_rate: 0.001\n    steps: none\n" in text
    assert json.loads(bench("methods", "wang1d", "--json")[1])["presets"]["adam"]["steps"] is None


def test_a_run_says_how_well_training_was_fitted_and_when(bench):
    words = ("--set", "steps=6", "--set", "epochs=2", "--set", "resolution=32", "--set", "batch_size=8")
    methods = ("--method", "mini-flowpic,forest-on:mini-flowpic", "--dataset", "traffic")
    status, text, err = bench("run", *methods, *words)
    assert status == 0, err
    network, forest = (next(line for line in text.splitlines() if line.startswith(name)) for name in ("mini", "forest"))
    assert re.search(r" [01]\.\d\d at [36] of 6 ", network) and re.search(r" 1\.00 ", forest), text
    rows = json.loads(bench("table", *methods, "--format", "json")[1])["rows"]
    found = {row["method"]: row for row in rows}
    assert found["mini-flowpic"]["chosen_step"] in (3, 6) and "chosen_step" not in found["forest-on:mini-flowpic"]
    assert all("training_accuracy" in row for row in rows)
