"""The cards of the paper's data sets from stand-ins to splits: nothing here needs the data."""

import csv
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from refusals import refused
from split_tables import split_of
from synthetic_captures import PREFIX, write_synthetic_captures

from bench.data.cards import read_card
from bench.data.file_list import capture_key
from bench.data.names import find_card
from bench.data.prepare import PrepareOptions, prepare_dataset
from bench.data.store import Store

SPECS = Path(__file__).parents[2] / "shared" / "specs" / "cards"
needs_specs = pytest.mark.skipif(not SPECS.is_dir(), reason="needs the shared lists, which are not in the project")
NDPI = Path(__file__).parents[2] / "shared" / "data" / "ndpi"

#: name -> the shared list, documented defects, captures read, classes of each task
SETS = {
    "iscx-vpn": (
        "iscx_vpn",
        {"pcapng": "vpn_hangouts_audio2", "raw": "^vpn_(?!voipbuster1b|sftp_A)"},
        141,
        {"paper": 12, "paper-11": 11, "service": 6, "app": 16, "encapsulation": 2},
    ),
    "iscx-tor": ("iscx_tor", {}, 75, {"paper": 16, "service": 8, "app": 15, "encapsulation": 2}),
    "ustc-tfc": ("ustc_tfc", {}, 24, {"paper": 20, "service": 2}),
    "cross-platform": ("cross_platform", {"pcapng": ""}, 59, {"paper": 59}),
}
every_set = pytest.mark.parametrize("name", SETS)


@dataclass
class Standins:
    card: Path
    captures: Path
    home: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Synthetic captures of a set with all files, prepared once; tests do not change them."""
    known = {}

    def make(name):
        if name not in known:
            folder = tmp_path_factory.mktemp(name)
            card = write_synthetic_captures(name, folder, **SETS[name][1])
            known[name] = Standins(card, folder / "captures", folder / "home")
            prepare_dataset(read_card(card), known[name].captures, PrepareOptions(strict=True), home=known[name].home)
        return known[name]

    return make


@pytest.fixture
def bench(tmp_path, monkeypatch, command_line):
    """Call `bench` with words in a place of its own; gives exit status, standard output and standard error."""
    monkeypatch.setenv("BENCH_HOME", str(tmp_path / "home"))
    return command_line


@pytest.fixture
def own(made, tmp_path):
    """Synthetic captures of a set that a test may change."""

    def copy(name):
        shutil.copytree(made(name).captures, tmp_path / "captures")
        return Standins(made(name).card, tmp_path / "captures", tmp_path / "home")

    return copy


def specs(name, file=""):
    with (SPECS / f"{SETS[name][0]}{file}.csv").open(newline="") as text:
        return list(csv.DictReader(text))


def stem(name, file):
    """What of a listed path names a capture: Cross-Platform has one of a package in each country."""
    key = capture_key(file)
    return key if name == "cross-platform" else key[-1:]


def class_map(store, task):
    """Capture's path -> classes of its sessions."""
    labels, capture = np.asarray(store.labels(task)), np.asarray(store.session("capture"))
    classes = store.classes(task)
    return {
        entry.path: {classes[c] for c in np.unique(labels[capture == i]) if c >= 0}
        for i, entry in enumerate(store.manifest.captures)
    }


@every_set
def test_all_files_give_the_classes_and_nothing_to_report(made, name):
    _, _, captures, classes = SETS[name]
    manifest = Store.find(PREFIX + name, made(name).home).manifest
    assert len(manifest.captures) == captures
    assert {task: len(entry.classes) for task, entry in manifest.tasks.items()} == classes
    assert manifest.unexpected == manifest.unreadable == []
    told = {"listed", "copies_skipped", "left_out", "damage_expected"}
    assert {key: value for key, value in vars(manifest.files).items() if value and key not in told} == {}


@needs_specs
@every_set
def test_files_have_the_classes_of_the_shared_list(made, name):
    wanted = {stem(name, row["file"]): row["label_paper"] for row in specs(name)}
    store = Store.find(PREFIX + name, made(name).home)
    skipped = {stem(name, path) for path in store.manifest.files.copies_skipped}
    found = {stem(name, path): classes for path, classes in class_map(store, "paper").items()}
    assert found == {key: {label} for key, label in wanted.items() if label and key not in skipped}


@needs_specs
@pytest.mark.parametrize("name", ["iscx-vpn", "iscx-tor", "ustc-tfc"])
def test_the_lists_restate_packets_copies_and_damage(name):
    mine = {stem(name, one.file): one for one in find_card(name).labels.table.files}
    for row in specs(name, "_files"):
        one = mine[stem(name, row["file"])]
        assert str(one.packets or "") == (row.get("packets") or row.get("complete_packets") or "")
        assert one.copy_of == row.get("identical_to", "")
        assert (one.damaged == "yes") == bool(row.get("usable_bytes_before_damage"))
        assert one.labels["day"] == row["first_packet_utc"][:10]
    assert len(mine) == len(specs(name))


@needs_specs
@every_set
def test_other_columns_are_those_of_the_shared_list(name):
    columns = {"encapsulation": "encapsulation", "service": "label_service", "app": "label_app"}
    columns = columns if name != "cross-platform" else {"app": "label_paper", "package": "label_app"}
    rows = {stem(name, row["file"]): row for row in specs(name)}
    for one in find_card(name).labels.table.files:
        row = rows[stem(name, one.file)]
        assert {c: one.labels[c] for c in columns if c in one.labels} == {
            c: row[theirs] for c, theirs in columns.items() if c in one.labels
        }


def test_documented_defects_are_met(made):
    tor, vpn = (Store.find(PREFIX + name, made(name).home).manifest for name in ("iscx-tor", "iscx-vpn"))
    assert len(tor.files.copies_skipped) == len(tor.files.left_out) == 10
    assert tor.files.copies_skipped["browsing2-1.pcap"] == "browsing.pcap"
    assert len(tor.files.damage_expected) == 8  # two of the ten are copies
    captures = {one.path: one for one in vpn.captures}
    assert captures["vpn_hangouts_audio2.pcap"].format == "pcapng"
    assert [captures[name].link_types for name in ("vpn_email2a.pcap", "email2a.pcap")] == [["raw IP"], ["Ethernet"]]
    cross = Store.find(PREFIX + "cross-platform", made("cross-platform").home).manifest.captures
    assert {one.format for one in cross} == {"pcapng"}


def test_names_that_differ_in_case_up_to_a_point_stay_apart(made):
    found = class_map(Store.find(PREFIX + "cross-platform", made("cross-platform").home), "paper")
    assert found["us/android/com.colorjoy.Learn.to.draw.glow.c.pcap"] == {"learntodrawglow.c"}
    assert found["us/android/com.colorjoy.learn.to.draw.glow.comics.pcap"] == {"drawglowgomics"}


@every_set
def test_no_group_in_two_parts(made, name):
    store = Store.find(PREFIX + name, made(name).home)
    groups = {"session": np.asarray(store.session("conversation")), "capture": store.capture_group()}
    for scheme, group in groups.items():
        if scheme == "capture" and name in ("ustc-tfc", "cross-platform"):
            with refused("split-impossible"):
                split_of(store, "paper", scheme)
            continue
        for seed in range(3):
            parts = split_of(store, "paper", scheme, seed=seed).parts.values()
            inside = [set(group[part.session].tolist()) for part in parts]
            assert sum(map(len, inside)) == len(set.union(*inside))


def test_twins_pairs_and_copies_are_one_group(made):
    vpn, tor = (
        {capture_key(one.file)[-1]: one.group for one in find_card(name).labels.table.files}
        for name in ("iscx-vpn", "iscx-tor")
    )
    assert vpn["facebook_audio1a"] == vpn["facebook_audio1b"] != vpn["facebook_audio2a"]
    assert vpn["hangouts_chat_4a"] == vpn["hangout_chat_4b"]
    assert vpn["skype_file1"] == vpn["skype_file5"]  # both ends, by their starts
    assert tor["video_vimeo_gateway"] == tor["vimeo_workstation"]
    assert tor["tor_p2p_vuze-2-1"] == tor["p2p_tor_p2p_vuze"] == tor["p2p_vuze"]
    store = Store.find(PREFIX + "iscx-tor", made("iscx-tor").home)
    group = {c.path: c.group for c in store.manifest.captures}
    assert group["AIM_Chat.pcap"] == group["CHAT_aimchatgateway.pcap"]


def test_split_by_day_uses_the_list(made):
    store = Store.find(PREFIX + "iscx-vpn", made("iscx-vpn").home)
    split = split_of(store, "encapsulation", "attribute:day")
    day = store.capture_attribute("day")
    assert not set(day[split.train.session].tolist()) & set(day[split.test.session].tolist())


@pytest.mark.parametrize(
    ("name", "switch", "choice", "files", "label"),
    [
        ("iscx-vpn", "gmailchat", "email", ["gmailchat1", "gmailchat2", "gmailchat3"], {"Mail"}),
        ("iscx-vpn", "gmailchat", "drop", ["gmailchat1", "gmailchat2", "gmailchat3"], None),
        ("iscx-vpn", "video_calls", "voip", 11, {"Voip"}),
        ("iscx-vpn", "video_calls", "drop", 11, None),
        ("iscx-vpn", "netflix_spotify", "drop", 10, None),
        ("iscx-vpn", "voipbuster", "drop", 7, None),
        ("iscx-vpn", "torrent01", "no", ["Torrent01"], None),
        ("iscx-vpn", "sides", "a", 31, None),
        ("iscx-tor", "unprefixed_tor", "service", 10, {"TorBROWSING", "TorVIDEO", "TorP2P"}),
    ],
)
def test_a_switch_changes_exactly_its_files(made, tmp_path, name, switch, choice, files, label):
    """``label``: the classes they then have together; None: they are not read."""
    place = made(name)
    before = class_map(Store.find(PREFIX + name, place.home), "paper")
    done = prepare_dataset(
        read_card(place.card), place.captures, PrepareOptions(switches={switch: choice}, strict=True), home=tmp_path
    )
    store = Store.open(done.store_path)
    after = class_map(store, "paper")
    changed = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
    if isinstance(files, list):
        assert [Path(path).stem for path in changed] == files
    assert len(changed) == (files if isinstance(files, int) else len(files))
    if label is None:
        assert not set(changed) & set(after)
        assert set(store.manifest.files.left_out) == set(changed)
    else:
        assert set().union(*(after[path] for path in changed)) == label
    assert store.manifest.options.switches[switch] == choice
    assert store.manifest.unexpected == []  # the card counts its default reading


def test_the_b_side_goes_where_there_is_an_a_side():
    card = find_card("iscx-vpn")
    names = {capture_key(one.file)[-1].replace("hangout_", "hangouts_") for one in card.labels.table.files}
    _, out = card.listed(card.choose({"sides": "a"}))
    assert {capture_key(one.file)[-1].replace("hangout_", "hangouts_") for one in out} == {
        name for name in names if name[-2].isdigit() and name[-1] == "b" and name[:-1] + "a" in names
    }


def test_the_store_is_left_alone_where_nothing_changed(made, bench, own):
    place = own("ustc-tfc")
    words = ("prepare", place.card, "--source", place.captures, "--strict", "--json")
    first, second = bench(*words), bench(*words)
    assert (first[0], second[0]) == (0, 0)
    assert [json.loads(out)["unchanged"] for _, out, _ in (first, second)] == [False, True]
    (place.captures / "other.pcap").write_bytes((place.captures / "Zeus.pcap").read_bytes())
    status, out, _ = bench(*words[:-2], "--json")
    assert (status, json.loads(out)["unchanged"], json.loads(out)["files"]["unknown"]) == (0, False, ["other.pcap"])
    assert not list((place.home / "stores").glob(".*.new"))


def test_without_torrent01_the_user_is_told_what_to_do(bench, own):
    place = own("iscx-vpn")
    (place.captures / "Torrent01.pcapng").unlink()
    words = ("prepare", place.card, "--source", place.captures)
    status, out, err = bench(*words)
    assert status == 0
    remedy = "without Torrent01 take task paper-11 or --switch torrent01=no"
    assert f"lacks P2P: missing: Torrent01.pcapng (Tor archive of ISCXTor2016); {remedy}" in err
    assert "classes of task paper, expected 12, found 11" in out
    status, _, err = bench(*words, "--strict")
    assert status == 2
    assert f"Torrent01.pcapng is missing (Tor archive of ISCXTor2016; {remedy})" in err
    status, out, err = bench(*words, "--strict", "--switch", "torrent01=no", "--json")
    assert (status, err.count("lacks")) == (0, 0)
    assert len(json.loads(out)["tasks"]["paper"]["classes"]) == 11


def renamed(folder):
    """Other case, other suffix, blanks, deeper folders: still the same captures."""
    (folder / "AIMchat1.pcapng").rename(folder / "aimchat1.PCAP")
    (folder / "vpn_ftps_A.pcap").rename(folder / "VPN_FTPS _a.pcapng")
    (folder / "NonVPN-PCAPs-01").mkdir()
    (folder / "email1a.pcap").rename(folder / "NonVPN-PCAPs-01" / "email1a.pcap")
    (folder / "NonVPN-PCAPs-01" / "Email1b.cap").symlink_to(folder / "email1b.pcap")


def test_renamed_captures_are_known(bench, own):
    place = own("iscx-vpn")
    renamed(place.captures)
    status, out, _ = bench("prepare", place.card, "--source", place.captures, "--json")
    files = json.loads(out)["files"]
    assert (status, files["missing"], files["unknown"]) == (0, [], [])
    assert files["double"] == [
        {"file": "email1b.pcap", "taken": "NonVPN-PCAPs-01/Email1b.cap", "ignored": ["email1b.pcap"]}
    ]
    assert len(json.loads(out)["tasks"]["paper"]["classes"]) == 12


def cut(folder):
    path = folder / "POP_filetransfer.pcap"
    path.write_bytes(path.read_bytes()[:-5])


def shorten(folder):
    shutil.copyfile(folder / "AIM_Chat.pcap", folder / "ICQ_Chat.pcap")


@pytest.mark.parametrize(
    ("change", "key", "named", "reason"),
    [
        (lambda f: (f / "aimchat.pcap").unlink(), "missing", "aimchat.pcap", "aimchat.pcap is missing (NonTor)"),
        (lambda f: shutil.copyfile(f / "ssl.pcap", f / "new.pcap"), "unknown", "new.pcap", "new.pcap is not in the"),
        (lambda f: shutil.copyfile(f / "ssl.pcap", f / "SSL.cap"), "double", "SSL.cap", "ssl.pcap is there twice"),
        (cut, "damage_unexpected", "POP_filetransfer.pcap", "POP_filetransfer.pcap is damaged"),
        (shorten, "packets_differ", "ICQ_Chat.pcap", "ICQ_Chat.pcap has"),
        (lambda f: (f / "ssl.pcap").write_text("no capture"), "", "ssl.pcap", "ssl.pcap: could not be read"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_and_strict_refuses_it(bench, own, change, key, named, reason):
    place = own("iscx-tor")
    change(place.captures)
    words = ("prepare", place.card, "--source", place.captures, "--json")
    status, out, err = bench(*words, "--strict")
    assert (status, out) == (2, "")
    lines = [line for line in err.splitlines() if "captures," not in line]  # progress
    assert len(lines) == 1
    assert reason in lines[0]
    assert not (place.home / "stores" / f"{PREFIX}iscx-tor").exists()
    status, out, _ = bench(*words)
    report = json.loads(out)
    assert status == 0
    assert named in json.dumps(report["files"][key] if key else report["unreadable"])
    assert bench(*words, "--strict")[0] == 2  # of a store that is there, too


def test_a_copy_stands_in_for_its_original(bench, own):
    place = own("iscx-tor")
    (place.captures / "browsing.pcap").unlink()
    (place.captures / "spotify2-2.pcap").unlink()  # a copy that nobody needs
    status, out, _ = bench("prepare", place.card, "--source", place.captures, "--strict", "--json")
    files = json.loads(out)["files"]
    assert status == 0
    assert files["copies_used"] == {"browsing.pcap": "browsing2-1.pcap"}
    assert len(files["copies_skipped"]) == 8


def test_packed_archives_are_named_with_their_command(bench, tmp_path):
    folder = tmp_path / "packed"
    folder.mkdir()
    for name in ("VPN-PCAPS-01.zip", "NonTor.tar.xz"):
        (folder / name).write_bytes(b"PK")
    status, _, err = bench("prepare", "iscx-vpn", "--source", folder)
    assert status == 2
    assert "unpack the archives there, first `tar xf NonTor.tar.xz`" in err


def test_a_class_without_captures_is_told_loudly(bench, own):
    place = own("iscx-vpn")
    for path in place.captures.glob("vpn_*"):
        path.unlink()
    status, _, err = bench("prepare", place.card, "--source", place.captures)
    assert status == 0
    assert (
        "task paper lacks VPNChat, VPNFile, VPNMail, VPNP2P, VPNStreaming, VPNVoip: missing: vpn_aim_chat1a.pcap" in err
    )
    assert "VPN-PCAPS-01.zip, VPN-PCAPs-02.zip" in err


def test_wrong_switches_are_one_line(bench, own):
    place = own("ustc-tfc")
    for word in ("gmailchat=email", "gmailchat"):
        status, out, err = bench("prepare", place.card, "--source", place.captures, "--switch", word)
        assert (status, out, len(err.splitlines())) == (2, "", 1)


def test_stand_ins_of_a_card_given_by_its_path(tmp_path):
    card = tmp_path / "mine.toml"
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "all.csv").write_text("file,copy_of,kind\na/x.pcap,,one\nb/y.pcapng,,two\nz,A/X.cap,one\n")
    card.write_text(
        'name = "mine"\ntitle = "t"\nlabels = {kind = "files", table = "lists/all.csv"}\ntasks.k = {label = "kind"}\n'
    )
    copy = write_synthetic_captures(card, tmp_path / "made")
    done = prepare_dataset(
        read_card(copy), tmp_path / "made" / "captures", PrepareOptions(strict=True), home=tmp_path / "home"
    )
    assert class_map(Store.open(done.store_path), "k") == {"a/x.pcap": {"one"}, "b/y.pcapng": {"two"}}
    assert done.report["files"]["copies_skipped"] == {"z": "a/x.pcap"}
    with refused("bad-card"):
        write_synthetic_captures(card, tmp_path)
    (tmp_path / "sub").mkdir()
    away = tmp_path / "sub" / "mine.toml"
    away.write_text(card.read_text().replace("lists/all", "../lists/all"))
    with refused("bad-card"):
        write_synthetic_captures(away, tmp_path / "other")
    for name in ("demo", tmp_path):
        with refused("bad-card"):
            write_synthetic_captures(name, tmp_path / "other")


@pytest.mark.parametrize("switch", ["gmailchat", "video_calls", "netflix_spotify", "voipbuster"])
def test_what_is_dropped_is_in_no_task(switch):
    """Neither for what it is, nor for its application or its tunnel."""
    card = find_card("iscx-vpn")
    kept, out = card.listed(card.choose({switch: "drop"}))
    assert out and {one.file for one in out} == {
        one.file for one in (*kept, *out) if card.switches[switch].concerns(one)
    }


@pytest.mark.skipif(not NDPI.is_dir(), reason="needs the shared captures, which are not in the project")
def test_ndpi_services(tmp_path):
    done = prepare_dataset(find_card("ndpi-services"), NDPI, PrepareOptions(strict=True), home=tmp_path)
    store = Store.open(done.store_path)
    assert [len(store.classes(task)) for task in ("encrypted", "all")] == [7, 10]
    assert store.default_task == "encrypted"
    assert done.report["unexpected"] == []
    split = split_of(store, "encrypted", "capture")
    assert split.shared["shared_capture_groups"] == 0
    assert min(split.counts[name]["test"] for name in split.counts) > 0
