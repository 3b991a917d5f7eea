"""Pictures of a run."""

import struct

import numpy as np

from bench.render.plots import draw_confusion, draw_curves
from bench.scores.metrics import evaluate


def size(path):
    """Width and height of a PNG, pixels."""
    head = path.read_bytes()[:24]
    assert head.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", head[16:24])


def test_confusion_grows_with_the_classes_and_shows_abstentions(tmp_path):
    for classes in (2, 20):
        truth = np.arange(60) % classes
        answers = np.eye(classes, dtype=np.float32)[truth]
        answers[:3] = np.nan
        draw_confusion(evaluate(truth, answers, [f"class {c}" for c in range(classes)]), tmp_path / f"{classes}.png")
    small, large = size(tmp_path / "2.png"), size(tmp_path / "20.png")
    assert large[0] > small[0] and large[1] > small[1]


def test_curves_are_drawn_where_there_are_epochs(tmp_path):
    epochs = [(e, {"loss": 1 / e, "validation_macro_f1": 0.1 * e, "samples_a_second": 5.0}) for e in (1, 2, 3)]
    draw_curves(epochs, tmp_path / "curves.png")
    assert min(size(tmp_path / "curves.png")) > 200
    draw_curves([(1, {"loss": 0.5})], tmp_path / "loss.png")
    size(tmp_path / "loss.png")
    draw_curves([], tmp_path / "none.png")
    draw_curves([(1, {"samples_a_second": 5.0})], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
