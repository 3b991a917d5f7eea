"""The commands that messages propose are typed as they stand, for a folder with a blank in its name."""

import html
import json
import os
import re
import shlex
import shutil

import pytest

from bench.data.manifest import Options
from bench.generators import demo

COMMAND = re.compile(r"`bench ([^`]+)`")


@pytest.fixture
def place(tmp_path):
    demo.write(tmp_path / "my captures", sessions=20, captures=4, classes=3)
    return tmp_path


@pytest.fixture
def bench(place, bench_in):
    call = bench_in(place)
    return lambda line: call(*shlex.split(line))


def proposed(text):
    """The one command in a text."""
    (command,) = set(COMMAND.findall(text))
    return command


def test_what_is_not_prepared_is_prepared_by_the_command_that_is_told(bench):
    run = "run --method majority --dataset 'my captures' --dry-run"
    status, out, err = bench(run)
    assert (status, out) == (2, "") and "[not-prepared]" in err
    assert bench(proposed(err))[0] == 0 and bench(run)[0] == 0


def test_two_folders_of_one_name_in_one_command_are_told_before_anything_is_made(bench, place):
    demo.write(place / "other" / "my captures", sessions=4, captures=2, classes=2)
    run = "run --method majority --split session --dataset 'my captures','other/my captures'"
    status, out, err = bench(run)
    assert (status, out) == (2, "") and "[same-name]" in err and not (place / "home" / "stores").exists()
    assert bench(proposed(err).replace("NAME", "second"))[0] == 0 and bench(run)[0] == 0


def test_a_store_of_other_code_is_made_anew_as_it_was_made(bench, place):
    assert bench("prepare 'my captures' --idle-timeout 2.5 --client ports --filter keepalives --by-vlan")[0] == 0
    path = place / "home" / "stores" / "my-captures" / "manifest.json"
    was = json.loads(path.read_text())
    path.write_text(json.dumps(was | {"code": "other"}))
    status, _, err = bench("split 'my captures' --split session")
    assert status == 0 and "made by other code" in err
    assert bench(proposed(err))[0] == 0
    assert json.loads(path.read_text()) == was  # no option was lost
    path.write_text(json.dumps(was | {"code": "other"}))
    assert bench(proposed(bench("split my-captures --split session")[2]))[0] == 0  # by its name
    assert json.loads(path.read_text()) == was


def test_damage_is_mended_by_the_command_that_is_told(bench, place):
    assert bench("prepare 'my captures'")[0] == 0
    store = place / "home" / "stores" / "my-captures"
    content = (store / "sessions.arrow").read_bytes()
    (store / "sessions.arrow").write_bytes(content[:-9])
    status, _, err = bench("prepare 'my captures' --verify")
    assert status == 2 and "[store-damaged]" in err
    assert bench(proposed(err))[0] == 0 and (store / "sessions.arrow").read_bytes() == content


def test_a_capture_that_changed_is_read_again_by_the_command_that_is_told(bench, place):
    assert bench("prepare 'my captures'")[0] == 0
    one, other = sorted((place / "my captures").glob("*/*.pcap"))[:2]
    shutil.copy(other, one)
    os.utime(one, (1, 1))
    status, _, err = bench("prepare 'my captures' --verify")
    assert status == 2 and "[capture-changed]" in err
    assert bench(proposed(err))[0] == 0 and bench("prepare 'my captures' --verify")[0] == 0


def test_the_commands_of_the_page_and_of_a_study_run(bench, place):
    assert bench("run --method majority --dataset 'my captures' --split session --seed 3")[0] == 0
    assert bench("report")[0] == 0
    page = html.unescape((place / "results" / "report.html").read_text())
    (line,) = {one for one in re.findall(r"<code>bench (run [^<]+)</code>", page) if "--suite" not in one}
    status, out, _ = bench(f"{line} --json")
    assert status == 0 and [run["status"] for run in json.loads(out)["runs"]] == ["cached"]
    study = "tune --method knn --dataset 'my captures' --split session --param neighbours=1,3 --sampler grid"
    status, out, _ = bench(study)
    line = next(line for line in out.splitlines() if line.startswith("bench run"))
    status, out, _ = bench(f"{line.removeprefix('bench ')} --json")
    assert status == 0 and [run["status"] for run in json.loads(out)["runs"]] == ["done"]


def test_every_option_of_a_preparation_can_be_typed_again():
    options = Options(decap=("gre", "vxlan"), drop_copies=1.5, sessions="5tuple", switches={"a": "b"})
    assert shlex.join(options.words) == "--sessions 5tuple --decap gre,vxlan --drop-copies 1.5 --switch a=b"
    assert Options(join_captures=True).words == ["--join-captures"]
    assert Options().words == [] and Options(asked_to_join=False).words == ["--no-join-records"]
