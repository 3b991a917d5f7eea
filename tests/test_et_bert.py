"""ET-BERT: sizes, tokens by hand, pairs of half bursts, masks, the vocabulary, names of the authors' tensors."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from capture_bytes import ipv4
from refusals import refused
from trained import sizes

from bench.method import Monitor, Part, learn, make_parameters
from bench.readers import View
from bench.schema import Samples
from methods.et_bert import (
    BIGRAMS,
    CLS,
    MASK,
    PAD,
    SEP,
    SPECIAL,
    UNKNOWN,
    BurstModel,
    Classifier,
    EtBert,
    bigrams_of,
    listed,
    most_frequent,
)

pytestmark = pytest.mark.usefixtures("torch_seeded")


def make(classes=3, **values):
    return EtBert(make_parameters(EtBert, dict(EtBert.tiny) | values), classes=classes, seed=3)


def test_parameter_counts_of_the_papers_size_are_those_of_the_authors_code():
    paper = make_parameters(EtBert, EtBert.presets["paper"])
    with torch.device("meta"):  # nothing of it is held in memory
        network, before = Classifier(paper, 120), BurstModel(paper)
    layer = 4 * (768 * 768 + 768) + 2 * 768 * 3072 + 3072 + 768 + 4 * 768
    encoder = (60_005 + 512 + 3) * 768 + 2 * 768 + 12 * layer
    assert sizes(network.encoder) == encoder == 131_535_360
    assert sizes(network) == encoder + 769 * 768 + 769 * 120 == 132_218_232
    assert sizes(before) == encoder + 769 * 768 + 2 * 768 + 769 * 60_005 + 769 * 768 + 2 * 769
    assert sizes(Classifier(make_parameters(EtBert, {}), 7)) == 1_005_063  # the default


def test_tokens_are_what_the_bytes_say():
    packets = [ipv4(payload=b"\xaa\xbb\xcc"), ipv4(payload=b""), ipv4(protocol=17, payload=b"")]
    captured = np.zeros((1, 4, 24 + 6), np.uint8)
    lengths = np.zeros((1, 4), np.int32)
    for number, packet in enumerate(packets):
        captured[0, number, : min(30, len(packet))] = list(packet[:30])
        lengths[0, number] = len(packet)
    captured[0, 2, 28:] = 9  # behind the packet's end
    captured, lengths = captured[:, :, 24:], lengths - 24  # behind the ports
    cut = bigrams_of(captured, np.array([[2, 0, 0, 0]]), np.array([[1, -1, -1, 0]], np.int8), 16)
    assert cut["bigrams"][0].tolist() == [0, *[-1] * 15]  # what the capture cut off gives no tokens
    found = bigrams_of(captured, lengths, np.array([[1, -1, -1, 0]], np.int8), 16)
    tcp = [0x0000, 0x0000, 0x0001, 0x0100, 0x0000]  # sequence number 1, then acknowledgement 2: 00 00 00 01 00 00
    udp = [0x0008, 0x0800, 0x0000]  # length 8, no checksum
    assert found["bigrams"][0].tolist() == [*tcp, *tcp, *udp, -1, -1, -1]
    assert found["bursts"][0].tolist() == [0] * 5 + [1] * 8 + [-1] * 3
    assert found["bigrams"].dtype == np.int32 and found["bursts"].dtype == np.int16
    short = bigrams_of(captured, lengths, np.array([[1, -1, -1, 0]], np.int8), 7)
    assert short["bigrams"][0].tolist() == [*tcp, *tcp[:2]] and short["bigrams"].shape == (1, 7)


def test_bytes_that_the_capture_cut_off_are_no_tokens(make_store):
    packet = np.array([*ipv4(payload=b"\xaa\xbb\xcc")], np.uint8)
    columns = {"record": [0, 0], "ip": [0, 0], "length": [len(packet)] * 2, "captured": [len(packet), 27],
               "payload": [40, 40], "payload_length": [3, 3], "direction": [1, 1]}  # fmt: skip
    sessions = {"packets": [1, 1], "first_packet": [0, 1], "protocol": [6, 6], "capture": [0, 0]}
    store = make_store(sessions, columns, [packet])
    two = np.arange(2)
    samples = Samples(two, np.zeros(2, np.int64), np.ones(2, np.int64))
    found = make().represent(View(store, samples, EtBert.reads))["bigrams"]
    assert (found >= 0).sum(1).tolist() == [len(packet) - 25, 2]
    whole = make(headers=True).represent(View(store, samples, EtBert.reads))["bigrams"]
    assert (whole >= 0).sum(1).tolist() == [min(len(packet) - 1, 95), 26]
    assert whole[1, :26].tolist() == [int(first) * 256 + int(second) for first, second in pairwise(packet[:27])]


def test_the_most_frequent_bigrams_have_tokens():
    table = most_frequent(np.array([[7, 7, 9, -1], [9, 7, 300, 2]], np.int32), 3)
    assert (table[7], table[9], table[2]) == (SPECIAL, SPECIAL + 1, SPECIAL + 2)  # of equal ones the lower
    assert table[300] == UNKNOWN and table.shape == (BIGRAMS,) and (table == UNKNOWN).sum() == BIGRAMS - 3


def test_the_authors_list_is_read(tmp_path):
    path = tmp_path / "vocabulary.txt"
    path.write_text("\n".join(["[PAD]", "[SEP]", "[CLS]", "[UNK]", "[MASK]", "0", "00ff", "##ff", "abcd"]))
    table = listed(path, 4)
    assert table[0x00FF] == 6 and table[0xABCD] == 8 and (table != UNKNOWN).sum() == 2
    with refused("bad-weights", "set vocabulary=4", str(path)):
        listed(path, 5)
    with refused("bad-weights", "cannot be read"):
        listed(tmp_path / "none", 5)


def test_padding_changes_nothing():
    network = make().network().eval()
    network.encoder.table.copy_(torch.arange(BIGRAMS) % 500 + SPECIAL)
    bigrams = torch.randint(0, BIGRAMS, (2, 20), dtype=torch.int32)
    bigrams[1, 8:] = -1
    alone = network(bigrams[1:, :8], None)
    assert torch.allclose(network(bigrams, None)[1:], alone, atol=1e-5)


def test_pairs_are_halves_of_one_burst_or_of_two():
    model = BurstModel(make().parameters)
    tokens = torch.arange(SPECIAL, SPECIAL + 40).reshape(2, 20)
    bursts = torch.zeros(2, 20, dtype=torch.int16)
    bursts[0, 7:], bursts[1, 12:] = 1, -1
    tokens[1, 12:] = PAD
    parts = {(0, True): 7, (0, False): 13}
    seen = set()
    for seed in range(20):
        torch.manual_seed(seed)
        pair, segments, other = model.pairs(tokens, bursts)
        for row in range(2):
            at = (pair[row] == SEP).nonzero()[:, 0].tolist()
            first, second = pair[row, 1 : at[0]].tolist(), pair[row, at[0] + 1 : at[1]].tolist()
            assert pair[row, 0] == CLS and (pair[row, at[1] + 1 :] == PAD).all()
            assert segments[row].tolist() == [1] * (at[0] + 1) + [2] * (at[1] - at[0]) + [0] * (
                len(pair[row]) - at[1] - 1
            )
            same = tokens[row].tolist()
            assert first[0] in (same[0], same[7]) and set(first) <= set(same)
            if row == 0:
                assert len(first) == (parts[0, first[0] == same[0]] + 1) // 2
            assert set(second) <= set(tokens[1 - row if other[row] else row].tolist())
            if not other[row]:
                assert second[0] == first[-1] + 1  # where the first half ends, the second begins
            seen.add(int(other[row]))
    assert seen == {0, 1}


def test_a_burst_of_one_bigram_makes_a_pair():
    pair, segments, _ = BurstModel(make().parameters).pairs(torch.tensor([[9, 0]]), torch.tensor([[0, -1]]).short())
    assert pair.tolist() == [[CLS, 9, SEP, SEP]] and segments.tolist() == [[1, 1, 1, 2]]


def test_masks_are_drawn_from_bigrams_alone():
    model = BurstModel(make(masked=0.5).parameters)
    tokens = torch.randint(SPECIAL, 500, (50, 60))
    tokens[:, 0], tokens[:, 30], tokens[:, 50:] = CLS, SEP, PAD
    asked, given = model.hide(tokens)
    assert not asked[:, [0, 30, *range(50, 60)]].any()
    assert asked.float().sum() / (50 * 48) == pytest.approx(0.5, abs=0.05)
    assert torch.equal(given[~asked], tokens[~asked])
    assert (given[asked] == MASK).float().mean() == pytest.approx(0.8, abs=0.04)
    assert (given[asked] == tokens[asked]).float().mean() == pytest.approx(0.1, abs=0.03)
    assert (given[asked] >= MASK).all()


def theirs(width=32, feedforward=64, rows=9):
    """Tensors as the authors' file has them."""
    names = {"embedding.word_embedding.weight": (rows, width), "embedding.position_embedding.weight": (512, width)}
    names |= {"embedding.segment_embedding.weight": (3, width), "target.mlm_linear_1.weight": (width, width)}
    square = [f"self_attn.linear_layers.{number}" for number in range(3)] + ["self_attn.final_linear"]
    for name in square:
        names |= {
            f"encoder.transformer.0.{name}.weight": (width, width),
            f"encoder.transformer.0.{name}.bias": (width,),
        }
    names |= {"encoder.transformer.0.feed_forward.linear_1.weight": (feedforward, width)}
    names |= {"encoder.transformer.0.feed_forward.linear_2.weight": (width, feedforward)}
    names |= {"encoder.transformer.0.feed_forward.linear_1.bias": (feedforward,)}
    names |= {"encoder.transformer.0.feed_forward.linear_2.bias": (width,)}
    norms = ("embedding.layer_norm", *(f"encoder.transformer.0.layer_norm_{number}" for number in (1, 2)))
    names |= {f"{norm}.{kind}": (width,) for norm in norms for kind in ("gamma", "beta")}
    draw = torch.Generator().manual_seed(2)
    return {name: torch.randn(shape, generator=draw) for name, shape in names.items()}


def test_the_authors_weights_are_read_with_their_list(tmp_path):
    (tmp_path / "list.txt").write_text("[PAD]\n[SEP]\n[CLS]\n[UNK]\n[MASK]\n0\n00ff\n##ff\nabcd\n")
    torch.save(theirs(), tmp_path / "et-bert.bin")
    given = {"weights": str(tmp_path / "et-bert.bin"), "weights_licence": "MIT"}
    method = make(vocabulary=4, vocabulary_file=str(tmp_path / "list.txt"), **given)
    method.pretrain({"bigrams": np.zeros((0, 95), np.int32)}, Monitor())
    assert method.encoded["table"][0xABCD] == 8
    for own, other in (("key.bias", "self_attn.linear_layers.1.bias"), ("out_norm.weight", "layer_norm_2.gamma")):
        assert torch.equal(method.encoded[f"blocks.0.{own}"], theirs()[f"encoder.transformer.0.{other}"])
    with refused("bad-parameter", "set vocabulary_file, too"):
        make(**given)


@pytest.mark.parametrize("how", ["scratch", "fine-tuned"])
def test_it_fits_a_small_set(how):
    draw = np.random.default_rng(5)
    labels = np.arange(24) % 3
    bigrams = draw.integers(0, 40, (24, 95)).astype(np.int32)
    bigrams[:, 3:23] = 1000 + labels[:, None]
    part = Part({"bigrams": bigrams, "bursts": np.zeros((24, 95), np.int16)}, labels)
    method = learn(make(epochs=120, batch_size=8, pretraining=how), part, part, Monitor())
    assert (method.predict_proba(part.inputs).argmax(1) == labels).mean() > 0.9
    assert (method.model.encoder.table != UNKNOWN).sum() == 43


def test_a_session_without_a_bigram_is_an_abstention():
    assert make().can_classify({"bigrams": np.array([[-1, -1], [5, -1]])}).tolist() == [False, True]


@pytest.mark.parametrize("values", [{"tokens": 513}, {"vocabulary": 70_000}, {"width": 15}, {"masked": 1.0}])
def test_parameters_out_of_range_are_bad_input(values):
    with refused("bad-parameter", next(iter(values))):
        make(**values)
