"""The paper's numbers: the same cells as the originals, and what follows from them."""

import csv
import json
import shutil
from decimal import Decimal
from pathlib import Path

import pytest
from refusals import refused

from bench import files
from bench.paper import published, recompute
from bench.paper.declaration import find_paper, paper_folders, read_paper
from bench.paper.published import published_table
from bench.paper.recompute import COPIED, DIFFERS, HOLDS, IMPOSSIBLE, WITHIN, faults, findings, findings_table
from bench.render.table import FORMATS, render

ROOT = Path(__file__).parents[1]
ORIGINALS = ROOT.parent / "shared" / "specs" / "published"
COMPARISONS = ("table-II", "table-IV", "table-VI", "table-VIII")
PAPER = find_paper()
FOLDER = Path(PAPER.folder)
NAMES = [one.id for one in PAPER.published]
FILES = {one.id: one.file for one in PAPER.published}
CLASSES = {"table-II": "table-III", "table-IV": "table-V", "table-VI": "table-VII", "table-VIII": "table-IX"}


@pytest.fixture
def copy(tmp_path):
    """A copy of the numbers in which a cell is changed: `copy(file, old line, new line)` gives the paper."""
    place = shutil.copytree(FOLDER, tmp_path / "paper")

    def change(file, old, new):
        text = (place / f"{file}.csv").read_text()
        assert text.count(f"\n{old}\n") == 1
        (place / f"{file}.csv").write_text(text.replace(f"\n{old}\n", f"\n{new}\n"))
        return read_paper(place)

    return change


def found(check, paper=PAPER, **others):
    return [
        one
        for one in findings(paper)
        if one.check == check and all(getattr(one, key) == value for key, value in others.items())
    ]


@pytest.mark.skipif(not ORIGINALS.is_dir(), reason="the originals (shared/specs/published) are not here")
@pytest.mark.parametrize("name", NAMES)
def test_every_cell_is_the_originals(name):
    original = ORIGINALS / f"{FILES[name]}.csv"
    if name in ("fig-9", "fig-10", "fig-11"):
        assert not original.exists()  # words of the specification, which has no file of them
        return
    with original.open(newline="") as lines:
        assert PAPER.rows(name) == list(csv.DictReader(lines))
    assert (FOLDER / original.name).read_text() == original.read_text()


def test_names_are_the_papers_and_every_file_has_one():
    numerals = ("I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII")
    assert NAMES == [f"table-{n}" for n in numerals] + [f"fig-{n}" for n in (6, 7, 9, 10, 11, 12, 13)]
    assert {FILES[name] for name in NAMES} | {"et_bert"} == {p.stem for p in FOLDER.glob("*.csv")}


def test_a_figure_without_numbers_is_refused_in_one_line():
    with refused("unknown-experiment", "'fig-8'", "table-I", "fig-9"):
        published_table(PAPER, "fig-8")


@pytest.mark.parametrize(
    ("text", "value"),
    [("98.79", 98.79), ("70%", 70.0), ("16", 16.0), ("-", None), ("", None), ("0.97-0.98", None), ("2 layers", None)],
)
def test_numbers_of_cells(text, value):
    assert published.number(text) == value


@pytest.mark.parametrize("name", NAMES)
def test_every_sheet_prints_every_cell(name):
    text, replaced = render(published_table(PAPER, name)), ("id", "note")  # a note gives way to what was recomputed
    assert [v for row in PAPER.rows(name) for key, v in row.items() if key not in replaced and v not in text] == []


@pytest.mark.parametrize("form", FORMATS)
def test_a_sheet_prints_in_every_format(form):
    assert "GraphDApp" in render(published_table(PAPER, "table-II"), form)
    assert "GraphDApp" not in render(findings_table(PAPER), form)


def test_a_sheet_prints_cells_as_they_are_and_gives_numbers():
    sheet = published_table(PAPER, "table-IV")
    assert sheet.title.startswith("Table IV of the paper: eleven systems on ISCX-Tor2016")
    assert ["TSCRNN", "94.90", "94.80", "94.80", "95.00", "copied:et-bert"] in sheet.rows
    record = json.loads(render(sheet, "json"))["rows"][0]
    assert record["precision"] == 37.56 and record["provenance"] == "copied:et-bert"


def test_a_sheets_notes_say_provenance_and_what_does_not_add_up_once():
    notes = published_table(PAPER, "table-VI").notes
    assert sum("ET-BERT's Tables 2 and 3" in note for note in notes) == 1
    slip = "AppScanner: source of precision: 73.99; 73.39 in ET-BERT: differs"
    assert [note for note in notes if "AppScanner" in note] == [slip]
    assert "TSCRNN: accuracy is TSCRNN's own; ET-BERT prints none" in notes
    assert any("10 of 11 rows" in note for note in notes)
    assert sum("impossible" in note for note in published_table(PAPER, "table-IV").notes) == 1
    assert sum(note.endswith("impossible") for note in published_table(PAPER, "table-XII").notes) == 4
    assert published_table(PAPER, "fig-6").notes[0] == "read off the figure: ± 0.003"


def test_provenance_is_of_known_kinds():
    for name in COMPARISONS:
        assert {row["provenance"] for row in PAPER.rows(name)} <= set(PAPER.provenance)
        assert [row["name"] for row in PAPER.rows(name) if row["provenance"] == "own"] == ["ATVITSC"]


def test_impossible_macro_f1_are_these_four_and_rounding_explains_the_rest():
    verdicts = {(one.exhibit, one.where): one.verdict for one in found("macro F1") if one.verdict != HOLDS}
    assert {key for key, verdict in verdicts.items() if verdict == IMPOSSIBLE} == {
        ("table-II", "FlowPic"),
        ("table-IV", "FlowPic"),
        ("table-VIII", "HAN"),
        ("table-VIII", "DeepPacket"),
    }
    assert {key for key, verdict in verdicts.items() if verdict == WITHIN} == {
        ("table-II", "TSCRNN"),
        ("table-II", "CMTSNN"),
        ("table-II", "ATVITSC"),
        ("table-II", "DeepPacket"),
        ("table-IV", "Flow-GNN"),
    }


def test_the_files_own_notes_name_the_same_impossible_rows():
    noted = {(n, row["name"]) for n in COMPARISONS for row in PAPER.rows(n) if "impossible" in row["note"]}
    assert noted == {(one.exhibit, one.where) for one in found("macro F1", verdict=IMPOSSIBLE)}


def test_class_f1_follow_from_precision_and_recall():
    findings = found("class F1")
    assert [(one.printed, one.verdict) for one in findings] == [
        ("20 of 20", HOLDS),
        ("16 of 16", HOLDS),
        ("12 of 12", HOLDS),
        ("59 of 59", HOLDS),
    ]
    assert [int(one.expected.split(": ")[1].split()[0]) for one in findings] == [16, 12, 11, 53]


def test_class_means_are_the_own_rows_cut_not_rounded():
    assert [one.verdict for one in found("P, R, F1")] == [HOLDS] * 4
    rounded = 0
    for name, classes in CLASSES.items():
        rows = PAPER.rows(classes)
        own = next(row for row in PAPER.rows(name) if row["provenance"] == "own")
        for column in recompute.MACRO:
            mean = sum(Decimal(row[column]) for row in rows) / len(rows)
            assert 0 <= mean - Decimal(own[column]) < Decimal("0.01")
            rounded += round(mean, 2) != Decimal(own[column])
    assert rounded == 7


def test_copied_rows_are_et_berts_but_for_one_cell():
    assert [(one.printed, one.verdict) for one in found("source of rows")] == [
        ("23 of 23 cells equal, in 6 rows", COPIED),
        ("23 of 23 cells equal, in 6 rows", COPIED),
        ("22 of 23 cells equal, in 6 rows", COPIED),
        ("0 of 20 cells equal, in 0 rows", HOLDS),
    ]
    (slip,) = [one for one in findings(PAPER) if one.check.startswith("source of p")]
    assert (slip.exhibit, slip.where, slip.printed, slip.verdict) == ("table-VI", "AppScanner", "73.99", DIFFERS)
    assert slip.expected == "73.39 in ET-BERT"


def test_et_berts_deep_packet_is_impossible_too():
    row = next(r for r in PAPER.read("et_bert") if r["dataset"].startswith("Cross") and r["id"] == "deeppacket")
    assert 2 * float(row["f1"]) > float(row["precision"]) + float(row["recall"]) + 0.07


def test_test_sets_have_2000_samples_a_class():
    tor, vpn = found("recall")
    assert (tor.printed, tor.verdict) == ("16 of 16 are multiples of 0.05", HOLDS)
    assert tor.expected == "classes of 1998–2002, 3996–4000 test samples (of up to 4000)"
    assert (vpn.printed, vpn.verdict) == ("12 of 12 are multiples of 0.05", HOLDS)
    assert vpn.expected == "classes of 2000, 3999–4000 test samples (of up to 4000)"
    assert [(one.printed, one.verdict) for one in found("predictions at 2000 a class")] == [
        ("32000", HOLDS),
        ("24000", HOLDS),
    ]


def test_class_sizes_of_shares_that_are_known():
    assert 3 in recompute.class_sizes(
        (
            3333,
            6667,
        )
    ) and 4 not in recompute.class_sizes((3333,))
    assert recompute.class_sizes(
        (
            0,
            10000,
        )
    ) == list(range(1, recompute.LARGEST_CLASS + 1))
    assert recompute.class_sizes((9999,)) == []  # needs 6,667 samples


def test_baselines_had_other_test_sets():
    assert [(one.exhibit, one.where, one.verdict) for one in found("accuracy")] == [
        ("table-IV", "10 of 11 rows", DIFFERS),
        ("table-VI", "10 of 11 rows", DIFFERS),
    ]
    assert found("accuracy")[0].printed == "differs from macro recall by up to 26.70"


def test_the_ablations_accuracies_cannot_be():
    findings = found("accuracy and recall")
    assert [one.where for one in findings] == ["PVT", "STFE", "PVT+STFE", "PVT+STFE+DW"]
    assert {one.verdict for one in findings} == {IMPOSSIBLE}
    (whole,) = found("P, R, F1, accuracy")
    assert (whole.printed, whole.verdict) == ("98.80 98.79 98.79 98.79", HOLDS)


def test_the_sheet_of_findings_shows_them_all():
    sheet = findings_table(PAPER)
    assert len(sheet.rows) == len(findings(PAPER)) == len(sheet.records)
    assert "8 impossible" in sheet.notes[0] and "3 differs" in sheet.notes[0]
    assert {one.verdict for one in faults(PAPER)} == {IMPOSSIBLE, DIFFERS}


@pytest.mark.parametrize(
    ("file", "old", "new", "check", "verdict"),
    [
        ("table_III", "Neris,98.46,100.00,99.22", "Neris,98.46,100.00,99.32", "class F1", IMPOSSIBLE),
        ("table_V", "MAIL,99.85,99.55,99.70", "MAIL,99.35,99.55,99.45", "P, R, F1", DIFFERS),
        ("table_VII", "Chat,97.64,99.25,98.44", "Chat,97.64,99.27,98.45", "recall", DIFFERS),
        ("table_VII", "Voip,92.39,86.80,89.51", "Voip,91.39,86.80,89.04", "predictions at 2000 a class", DIFFERS),
        (
            "table_VI",
            "bind,BIND,75.83,74.88,74.20,75.34,copied:et-bert,",
            "bind,BIND,75.83,74.88,76.20,75.34,copied:et-bert,",
            "macro F1",
            IMPOSSIBLE,
        ),
        (
            "table_IV",
            "bind,BIND,45.98,45.15,45.11,71.85,copied:et-bert,",
            "bind,BIND,45.98,45.15,45.11,71.85,unknown,",
            "source of rows",
            DIFFERS,
        ),
        (
            "table_II",
            "bind,BIND,86.81,83.82,83.96,84.57,copied:et-bert,",
            "bind,BIND,86.81,83.82,83.96,84.75,copied:et-bert,",
            "source of accuracy",
            DIFFERS,
        ),
        ("table_XII", "PVT+STFE+DW,f1,98.79,0.32", "PVT+STFE+DW,f1,98.97,0.32", "P, R, F1, accuracy", DIFFERS),
    ],
)
def test_a_wrong_cell_is_caught(copy, file, old, new, check, verdict):
    before = len(found(check, verdict=verdict))
    assert len(found(check, copy(file, old, new), verdict=verdict)) > before


def test_an_ablation_that_could_be_passes(copy):
    paper = copy("table_XII", "PVT,recall,94.70,1.05", "PVT,recall,95.85,1.23")
    assert [one.verdict for one in found("accuracy and recall", paper)].count(HOLDS) == 1


def test_numbers_are_found_beside_the_package_or_in_the_environment(tmp_path, monkeypatch):
    assert FOLDER == ROOT / "results" / "paper"
    monkeypatch.setattr(files, "__file__", str(tmp_path / "site" / "bench" / "files.py"))
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    assert files.shipped_folder("results") == tmp_path / "share" / "etc-bench" / "results"
    assert paper_folders() == {}
