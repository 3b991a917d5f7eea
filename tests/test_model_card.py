"""What a saved model says of itself."""

import json

import pytest
from stored_runs import place_in

from bench.runs.model_card import model_card
from bench.runs.models import fitted


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of a shipped method."""
    with place_in(tmp_path_factory) as place:
        tracker = place.tracker()
        place.run(tracker, "majority", seeds=[0])
        (record,) = tracker.search()
        yield tracker.load(record.run_id)


def test_a_saved_model_has_its_card_and_still_loads(run):
    text = (run.folder / "model" / "README.md").read_text()
    assert text == model_card(run.result()) and "model/README.md" in run.files
    for told in (
        "# majority on tiny",
        "- chat\n",
        f"macro F1: {run.metrics['macro_f1']:.4f}",
        "bench run --method majority",
    ):
        assert told in text
    assert str(run.folder) not in text
    assert fitted(run).name == "majority"


def test_its_head_is_a_value_a_line(run):
    head = model_card(run.result()).split("---\n")[1]
    values = {name: json.loads(value) for name, _, value in (line.partition(": ") for line in head.splitlines())}
    (measured,) = values["model-index"][0]["results"]
    assert [one["type"] for one in measured["metrics"]] == values["metrics"] == ["f1", "accuracy"]


def test_the_hubs_own_reader_takes_it(run):
    hub = pytest.importorskip("huggingface_hub")
    card = hub.ModelCard(model_card(run.result()))
    (f1, accuracy) = card.data.eval_results
    assert (f1.metric_type, f1.dataset_type, accuracy.metric_value) == ("f1", "tiny", round(run.metrics["accuracy"], 6))
