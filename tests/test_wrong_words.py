"""Wrong words: one line each, which names the word and tells what there is, or what was most likely meant."""

import os
import shlex

import pytest
from working_folder import write_working_folder

from bench.errors import instead, near


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working folder with captures of three classes, a method of one's own, and files that are none of these."""
    folder = write_working_folder(tmp_path_factory.mktemp("words"), others={"sessions": 4, "captures": 2})
    (folder / "wrong.py").write_text(
        "import no_such_package\n\n\nclass Wrong(no_such_package.Base):\n    name = 'wrong'\n"
    )
    os.mkfifo(folder / "pipe")
    os.mkfifo(folder / "pipe.toml")  # beside which words for data sets are looked up
    (folder / "list.json").write_text('{"method": "knn", "parameters": {"packets": [4]}}')
    return folder


@pytest.fixture
def bench(place, bench_in):
    return bench_in(place)


@pytest.fixture
def filled(bench, place):
    """The same with runs of a shipped and of an own method on the folder."""
    if not (place / "results").exists():
        words = ("--method", "majority,mine.py:Mine", "--dataset", "my captures", "--split", "session")
        assert bench("run", *words)[0] == 0
    return bench


RUN = "run --method forest --dataset 'my captures'"
TUNE = "tune --method knn --dataset 'my captures'"
#: a command, the words that its line has
WRONG = [
    ("nonsense", "nonsense", "run"),
    ("tabel", "tabel", "did you mean table?"),
    ("table --method ''", "--method is empty", "leave it out"),
    ("table --method=", "--method is empty", "leave it out"),
    ("table --method ,", "--method ',' names nothing", "leave it out"),
    ("inspect ''", "an argument is empty", "leave it out"),
    ("results show ''", "an argument is empty", "leave it out"),
    ("results remove", "remove", "there are: export"),
    ("datasets iot_sentinel", "iot_sentinel", "did you mean iot-sentinel?"),
    ("datasets iscx", "iscx", "did you mean iscx-"),
    ("methods forrest", "forrest", "did you mean forest?"),
    ("check nothing", "nothing", "there are: appscanner"),
    ("check nowhere.py:Mine", "nowhere.py", "FILE.py:CLASS"),
    ("check mine.py:Mein", "mine.py: there is no class 'Mein'", "did you mean Mine?"),
    ("check wrong.py:Wrong", "wrong.py", "no_such_package"),
    ("run --method forrest --dataset 'my captures'", "forrest", "did you mean forest?"),
    ("run --method wrong.py:Wrong --dataset 'my captures'", "wrong.py", "no_such_package"),
    ("run --method forest --dataset nowhere", "nowhere", "there are: cesnet"),
    ("run --method forest --dataset 'othr/my capture'", "othr/my capture", "did you mean my-captures?"),
    ("prepare 'other/my captrues'", "my captrues", "did you mean the folder 'other/my captures'?"),
    ("run --method forest --dataset my-captures,dmo", "dmo", "did you mean demo?"),
    ("run --method forest --dataset iot-sentinel", "not prepared", "bench prepare iot-sentinel"),
    ("run --method forest", "--dataset", "Missing option"),
    ("run --methods forest --dataset demo", "--methods", "--method"),
    ("classify 'my captures/a/1.pcap' --run", "--run", "classify --help"),
    (f"{RUN} --split sesion", "sesion", "did you mean session?"),
    (f"{RUN} --split attribute:day", "day", "attribute"),
    (f"{RUN} --task apps", "apps", "there is: label"),
    (f"{RUN} --filter sugr", "sugr", "did you mean sugar?"),
    (f"{RUN} --sampling windw=3", "windw=3", "expected session, or window=16"),
    (f"{RUN} --balance undersampel", "undersampel", "did you mean undersample?"),
    (f"{RUN} --set treees=3", "treees", "did you mean trees?"),
    (f"{RUN} --set trees=many", "trees", "many"),
    (f"{RUN} --set trees", "trees", "name=value"),
    (f"{RUN} --set max_features=0", "max_features", "forest"),
    (f"{RUN} --preset shard", "shard", "did you mean shared?"),
    (f"{RUN} --seed 1 --seeds 2", "--seed", "exclude each other"),
    (f"{RUN} --folds 3 --fold 7", "fold 7", "counted from 0"),
    (f"{RUN} --params none.json", "none.json", "bench tune"),
    (f"{RUN} --device gpu", "gpu", "did you mean cuda?"),
    (f"{RUN} --device meta", "meta", "give cpu, cuda or cuda:N"),
    (f"{RUN} --budget 8", "8", "8h, 90m"),
    (f"{RUN} --keep-models beste", "beste", "did you mean best?"),
    (f"{RUN} --results mine.py/x", "mine.py/x", "does not open"),
    ("run --method knn --dataset 'my captures' --params list.json", "packets", "[4]"),
    ("run --method knn --dataset 'my captures' --set neighbours=0", "neighbours", "0"),
    (f"{RUN},'other/my captures'", "other/my captures", "bench prepare 'other/my captures' --name NAME"),
    (f"{TUNE} --param neighbours=4:1", "neighbours", "4:1"),
    (f"{TUNE} --param neigbours=1,2", "neigbours", "did you mean neighbours?"),
    (f"{TUNE} --sampler gird", "gird", "did you mean grid?"),
    ("tune --method majority --dataset 'my captures'", "majority", "search space"),
    ("tune --method forest --dataset 'my captures' --sampler grid", "grid", "--param"),
    ("prepare iot-sentinel --source nowhere", "nowhere", "no such folder"),
    ("prepare 'my captures' --sessions 5tupel", "5tupel", "did you mean 5tuple?"),
    ("prepare 'my captures' --decap vxlna", "vxlna", "did you mean vxlan?"),
    ("prepare 'my captures' --filter keepalive", "keepalive", "did you mean keepalives?"),
    ("prepare iscx-tor --source . --switch x=1", "'x'", "there "),
    ("prepare 'my captures' --name demo", "demo", "--name NAME"),
    ("prepare demo --name other", "other", "is for a folder"),
    ("inspect nowhere.pcap", "nowhere.pcap", "no such capture"),
    ("split 'my captures' --folds 3 --fold 7", "fold 7", "counted from 0"),
    ("split 'my captures' --save nowhere/split.json", "nowhere", "make it"),
    ("split 'my captures' --save .", "--save", "is a directory"),
    ("split 'my captures' --samples .", "--samples", "is a directory"),
    ("split 'my captures' --split file:pipe", "pipe", "is no file but a pipe"),
    ("audit 'my captures' --split ,", "--split ',' names nothing", "leave it out"),
    ("stress abc --labels ,", "--labels ',' names nothing", "leave it out"),
    ("results rm --status , --yes", "--status ',' names nothing", "leave it out"),
    (f"{RUN} --params pipe", "pipe", "is no file but a pipe"),
    (f"{RUN} --set trees=3 --set trees=4", "trees is there twice", "give it once"),
    (f"{RUN} --seed 1 --seed 2", "--seed is there twice", "give it once"),
    ("table --format md --format=csv", "--format is there twice", "give it once"),
    (f"{TUNE} --param neighbours=1,2 --param neighbours=3,4", "neighbours is there twice", "give it once"),
    ("audit 'my captures' --split sesion", "sesion", "did you mean session?"),
    ("table --dataset tpyo", "tpyo", "there is: my-captures"),
    ("table --dataset demo", "demo", "there is: my-captures"),
    ("table --method majorty", "majorty", "did you mean majority?"),
    ("table --task lable", "lable", "did you mean label?"),
    ("table --split sesion", "sesion", "did you mean session?"),
    ("table --metric f2", "f2", "macro_f1"),
    ("table --columns tasks", "tasks", "did you mean task?"),
    ("table --format markdown", "markdown", "there are: text, md"),
    ("compare abc def", "abc", "bench"),
    ("compare --dataset tpyo", "tpyo", "there is: my-captures"),
    ("compare --dataset my-captures --metric f2", "f2", "macro_f1"),
    ("report --dataset tpyo", "tpyo", "there is: my-captures"),
    ("results show --status finished", "finished", "there are: done"),
    ("results rm --method forest --yes", "forest", "there are: majority, mine.py:Mine"),
    ("results prune --dataset my-capture --yes", "my-capture", "did you mean my-captures?"),
    ("results export --task x runs.zip", "'x'", "there is: label"),
    ("classify nowhere.pcap --run abc", "nowhere.pcap", "no such capture"),
    ("classify mine.py --run abc", "abc", "bench"),
    ("classify mine.py --run abc --method nix.py:Nix", "nix.py", "FILE.py:CLASS"),
    ("published --dataset demo", "demo", "iscx-vpn"),
    ("published --method appscaner", "appscaner", "did you mean appscanner?"),
    ("published --metric acuracy", "acuracy", "did you mean accuracy?"),
    ("reproduce tabel-VI", "tabel-VI", "did you mean table-VI?"),
    ("reproduce table 99", "table-99", "table-II"),
    ("reproduce table-VI --mode clan", "clan", "did you mean clean?"),
    ("reproduce table-VI --method forrest", "forrest", "did you mean forest?"),
    ("reproduce table-VI --preset shard", "shard", "did you mean shared?"),
    ("reproduce table-VI --paper atvits", "atvits", "did you mean"),
]  # fmt: skip


@pytest.mark.parametrize(("command", "word", "offered"), WRONG, ids=[command for command, *_ in WRONG])
def test_a_wrong_word_gets_one_helpful_line(filled, command, word, offered):
    status, out, err = filled(*shlex.split(command))
    lines = [line for line in err.splitlines() if line.startswith("bench:")]
    assert (status, out, len(lines), "Traceback" in err) == (2, "", 1, False), err
    assert word in lines[0] and offered in lines[0], lines[0]


def test_there_are_more_than_forty():
    assert len({command for command, *_ in WRONG}) > 40


def test_a_word_is_near_what_it_is_but_for_case_and_signs():
    assert near("Table_6", ["table-VI", "table-6"]) == "table-6" and near("", ["x"]) is None
    assert instead("x", []) == "there are none" and instead("x", ["demo"]) == "there is: demo"
    assert instead("ab", [f"a{number}" for number in range(30)]).count(",") >= 11
