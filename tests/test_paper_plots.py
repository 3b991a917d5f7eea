"""Pictures of experiments: what an SVG says as text, that it parses, that the same data give the same bytes."""

import struct
import xml.etree.ElementTree as ElementTree

import matplotlib
import numpy as np
import pytest
from refusals import refused

from bench.render import plots

SVG = "{http://www.w3.org/2000/svg}"
TITLE = "fig-0: Something\non demo, 20 samples a class †"
GRID = ("packets a session", "bytes")


def texts(path):
    """What a picture says, piece by piece; fails where it is no XML."""
    root = ElementTree.parse(path).getroot()
    assert root.tag == f"{SVG}svg"
    return [t for element in root.iter(f"{SVG}text") if (t := "".join(element.itertext()).strip())]


def curve(points, level=0.5):
    steps = np.arange(1, points + 1)
    mean = np.full(points, level)
    return steps, mean, mean - 0.1, mean + 0.2


DRAWINGS = {
    "grid": lambda path: plots.draw_grid(
        {(4, 16): (0.7, 0.6, 0.8), (4, 36): (0.9, 0.85, 0.95)}, {(9, 16): 0.8}, path, title=TITLE, labels=GRID
    ),
    "sweep": lambda path: plots.draw_sweep(
        [(21.0, 0.8, 0.7, 0.9), (1.0, 0.5, 0.4, 0.6)], [(1.0, 0.77)], path, title=TITLE, labels=("τ", "accuracy")
    ),
    "series": lambda path: plots.draw_series(
        {"global": curve(900), "local": curve(5, 0.2)}, path, title=TITLE, labels=("step", "weight")
    ),
    "attention": lambda path: plots.draw_attention(
        np.array([[[0.35, 0.15], [0.25, 0.25]]] * 2), (0, 2), path, title=TITLE, filled=3
    ),
    "shares": lambda path: plots.draw_shares(
        np.array([[0.875, 0.125, 0], [0.25, 0.25, 0.5]]), ["mail", "voip"], ["mail", "voip", "abstained"], path,
        title=TITLE, published={("mail", "mail"): 0.59, ("mail", "abstained"): 0.07},
    ),
}  # fmt: skip
SAYS = {
    "grid": {"packets a session", "accuracy (share)", "4", "9", "16 bytes", "36 bytes", "paper"},
    "sweep": {"τ", "accuracy", "measured", "paper"},
    "series": {"step", "weight", "global", "local"},
    "attention": {"35.0 %", "15.0 %", "25.0 %", "padding", "query: packet 1", "query: packet 3", "attention (share)"},
    "shares": {"mail", "voip", "abstained", "0.88", "(0.59)", "0.12", "0.00", "(0.07)", "0.25", "0.50", "truth"},
}


@pytest.mark.parametrize("kind", DRAWINGS)
def test_it_says_what_it_shows_in_words(kind, tmp_path):
    DRAWINGS[kind](tmp_path / "picture.svg")
    said = texts(tmp_path / "picture.svg")
    assert SAYS[kind] | set(TITLE.splitlines()) <= set(said)
    root = ElementTree.parse(tmp_path / "picture.svg").getroot()
    assert root.findtext(f"{SVG}title") == " ".join(TITLE.splitlines())
    assert [file.name for file in tmp_path.iterdir()] == ["picture.svg"]


@pytest.mark.parametrize(("kind", "form"), [*((kind, "svg") for kind in DRAWINGS), ("grid", "png")])
def test_the_same_data_give_the_same_bytes(kind, form, tmp_path):
    before = dict(matplotlib.rcParams)
    for name in ("one", "two"):
        DRAWINGS[kind](tmp_path / f"{name}.{form}")
    assert (tmp_path / f"one.{form}").read_bytes() == (tmp_path / f"two.{form}").read_bytes()
    assert dict(matplotlib.rcParams) == before


def test_ink_follows_the_page_and_the_background_is_transparent(tmp_path):
    DRAWINGS["sweep"](tmp_path / "picture.svg")
    text = (tmp_path / "picture.svg").read_text()
    assert "prefers-color-scheme:dark" in text and "currentColor" in text
    assert plots.INK not in text.replace(plots.THEME, "")
    root = ElementTree.fromstring(text)
    assert next(root.iter(f"{SVG}path")).get("style") == "fill: none"


def test_a_png_is_a_png(tmp_path):
    DRAWINGS["grid"](tmp_path / "picture.png")
    head = (tmp_path / "picture.png").read_bytes()[:26]
    assert head.startswith(b"\x89PNG") and min(struct.unpack(">II", head[16:24])) > 300
    assert head[25] == 6  # colours with transparency


def test_another_suffix_is_bad_input(tmp_path):
    with refused("bad-picture", "picture.gif"):
        DRAWINGS["grid"](tmp_path / "picture.gif")
    assert not list(tmp_path.iterdir())


def test_names_from_data_are_text_and_no_markup(tmp_path):
    names = ["<b>&", "$x^2$ and $y$"]
    plots.draw_shares(np.eye(2), names, names, tmp_path / "picture.svg", title="a & <b>")
    assert {*names, "a & <b>"} <= set(texts(tmp_path / "picture.svg"))


def test_only_the_papers_points_and_only_ours(tmp_path):
    path = tmp_path / "picture.svg"
    plots.draw_grid({}, {(4, 16): 0.7}, path, title="t", labels=GRID)
    assert "paper" in texts(path) and "16 bytes" not in texts(path)
    plots.draw_grid({(4, 16): (0.7, 0.7, 0.7)}, {}, path, title="t", labels=GRID)
    assert "paper" not in texts(path) and "16 bytes" in texts(path)
    plots.draw_sweep([], [(1.0, 0.5)], path, title="t", labels=("x", "y"))
    assert "measured" not in texts(path)


def test_a_long_title_is_broken_into_lines(tmp_path):
    plots.draw_series({"a": curve(3)}, tmp_path / "picture.svg", title="word " * 60, labels=("x", "y"))
    said = texts(tmp_path / "picture.svg")
    assert sum(line.startswith("word") for line in said) > 2
    assert max(map(len, said)) < 100


def test_a_long_curve_keeps_means_and_extremes():
    draw = np.random.default_rng(0)
    mean = draw.random(1001)
    low, high = mean - draw.random(1001), mean + draw.random(1001)
    steps, *found = plots.thinned((np.arange(1001), mean, low, high), most=100)
    assert len(steps) == 91 and (np.diff(steps) == 11).all()
    for at, start in enumerate(steps):
        some = slice(start, start + 11)
        assert np.allclose([f[at] for f in found], [mean[some].mean(), low[some].min(), high[some].max()])
    assert all(len(values) == 5 for values in plots.thinned(curve(5)))
