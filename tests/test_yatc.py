"""YaTC: sizes, the matrix by hand, what the encoder sees while patches are hidden, names of the authors' tensors."""

import numpy as np
import pytest
import torch
from capture_bytes import CLIENT, SERVER, ipv4
from refusals import refused
from trained import sizes

from bench.method import Monitor, Part, learn, make_parameters
from methods.yatc import (
    HEADER,
    LONGEST,
    PACKETS,
    PAYLOAD,
    MaskedAutoencoder,
    Parameters,
    TrafficTransformer,
    Yatc,
    flow_matrix,
    grid_positions,
    patches,
)

pytestmark = pytest.mark.usefixtures("torch_seeded")


def make(classes=3, **values):
    return Yatc(make_parameters(Yatc, dict(Yatc.tiny) | values), classes=classes, seed=3)


def test_parameter_counts_are_those_of_the_authors_code():
    with torch.device("meta"):
        network, before = TrafficTransformer(Parameters(), 7), MaskedAutoencoder(Parameters())
    assert sizes(network, "head", "encoder.position") == 1_780_992  # the 1.8 M
    assert sizes(network) == 1_780_992 + 401 * 192 + 7 * 193
    assert sizes(before) == 2_331_460


def test_the_matrix_is_what_the_bytes_say():
    payload = bytes(range(1, 201)) * 2
    packets = [
        ipv4(payload=payload[:3]),  # 20 bytes of IP, 20 of TCP
        ipv4(SERVER, CLIENT, payload=payload),
        ipv4(protocol=17, payload=b"\xaa"),
        ipv4(options=bytes([7] * 40), payload=payload[:5]),  # 80 bytes of headers
    ]
    captured = np.zeros((1, PACKETS, LONGEST + PAYLOAD), np.uint8)
    headers, bytes_ = np.zeros((2, 1, PACKETS), np.int32)
    for number, (packet, size) in enumerate(zip(packets, (3, 400, 1, 5), strict=True)):
        kept = packet[: LONGEST + PAYLOAD]
        captured[0, number, : len(kept)] = list(kept)
        headers[0, number], bytes_[0, number] = len(packet) - size, size
    captured[0, 0, 43:60] = 99  # padding of the frame behind the packet
    found = flow_matrix(captured, headers, bytes_)
    assert found.shape == (1, 40, 40) and found.dtype == np.uint8
    rows = found.reshape(PACKETS, 8, 40)
    assert bytes(rows[0, 0]) == packets[0][:40] and not rows[0, 1].any()  # headers end in their row's last byte
    assert bytes(rows[0, 2, :3]) == b"\x01\x02\x03" and rows[0, 2:].sum() == 6
    assert bytes(rows[1, 2:].reshape(-1)) == payload[:240]
    assert bytes(rows[2, 0, :28]) == packets[2][:28] and not rows[2, 0, 28:].any() and rows[2, 2, 0] == 0xAA
    assert bytes(rows[3, :2].reshape(-1)) == packets[3][:80] and bytes(rows[3, 2, :5]) == payload[:5]
    assert not rows[4].any()
    assert HEADER + PAYLOAD == 8 * 40


def test_patches_are_squares_of_two_row_after_row():
    matrix = torch.arange(1600.0).reshape(1, 40, 40)
    found = patches(matrix)
    assert found.shape == (1, 400, 4)
    assert found[0, 0].tolist() == [0, 1, 40, 41] and found[0, 19].tolist() == [38, 39, 78, 79]
    assert found[0, 20].tolist() == [80, 81, 120, 121]


def test_positions_are_columns_then_rows():
    codes = grid_positions(8)
    assert codes.shape == (401, 8) and not codes[0].any()
    column, row = 3, 5
    angles = np.array([1.0, 1 / 100])
    expected = [np.sin(column * angles), np.cos(column * angles), np.sin(row * angles), np.cos(row * angles)]
    assert np.allclose(codes[1 + row * 20 + column], np.concatenate(expected), atol=1e-6)


def test_the_encoder_sees_visible_patches_alone_and_a_tenth_of_them():
    network = MaskedAutoencoder(make().parameters)
    heard = []
    network.encoder.blocks[0].register_forward_pre_hook(lambda module, given: heard.append(given[0]))
    matrix = torch.randint(0, 256, (2, 40, 40), dtype=torch.uint8)
    torch.manual_seed(1)
    network(matrix)
    assert heard[0].shape == (2, 1 + 39, 24)  # the class token and 39 of 400: int(400 * (1 - 0.9)), as theirs
    torch.manual_seed(1)
    tokens = network.encoder.embedded(matrix.float() / 255)
    seen, place = network.visible(tokens)
    assert all(len(set(row.tolist())) == 39 for row in place) and place[0].tolist() != place[1].tolist()
    assert torch.equal(seen[1, 7], tokens[1, place[1, 7]])
    assert torch.allclose(heard[0][:, 1:], seen)


def test_the_loss_is_over_hidden_patches():
    network = MaskedAutoencoder(make(mask_ratio=0.5).parameters)
    network.bytes.weight.data.zero_()  # whatever is seen, it answers 0
    matrix = torch.zeros(1, 40, 40, dtype=torch.uint8)  # -1 everywhere
    matrix[:, :20] = 255  # and 1: off by 1 as well
    assert network(matrix).item() == pytest.approx(1.0)
    network.bytes.bias.data.fill_(1.0)
    torch.manual_seed(4)
    loss = network(matrix).item()
    torch.manual_seed(4)
    _, place = network.visible(network.encoder.embedded(matrix.float() / 255))
    hidden = sorted(set(range(400)) - set(place[0].tolist()))
    assert loss == pytest.approx(4 * np.mean(np.array(hidden) >= 200))


def test_a_packets_place_in_the_flow_counts():
    network = make().network().eval()
    matrix = torch.randint(0, 256, (2, 40, 40), dtype=torch.uint8)
    swapped = matrix.reshape(2, 5, 8, 40)[:, [1, 0, 2, 3, 4]].reshape(2, 40, 40)
    assert network(matrix).shape == (2, 3)
    assert not torch.allclose(network(matrix), network(swapped), atol=1e-5)


def test_steps_are_smaller_below_and_norms_do_not_decay():
    method = make(layers=3, layer_decay=0.5)
    network = method.network()
    groups = {id(group["params"][0]): group for group in method.optimiser(network).param_groups}
    named = {name: groups[id(one)] for name, one in network.named_parameters()}
    assert named["head.weight"]["share"] == 1 and named["encoder.blocks.2.wide.weight"]["share"] == 0.5
    assert named["encoder.blocks.0.wide.weight"]["share"] == 0.125 and named["encoder.patch.weight"]["share"] == 0.0625
    assert named["head.weight"]["weight_decay"] == 0.05
    for name in ("head.bias", "norm.weight", "encoder.position", "encoder.token"):
        assert named[name]["weight_decay"] == 0


def theirs(settings):
    """Tensors as the authors' checkpoint has them."""
    draw, width = torch.Generator().manual_seed(2), settings.width
    shapes = {"cls_token": (1, 1, width), "pos_embed": (1, 401, width), "patch_embed.proj.weight": (width, 1, 2, 2)}
    shapes |= {"patch_embed.proj.bias": (width,), "norm.weight": (width,), "mask_token": (1, 1, 8)}
    for number in range(settings.layers):
        block = {"norm1": (width,), "attn.qkv": (3 * width, width), "attn.proj": (width, width), "norm2": (width,)}
        block |= {"mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width)}
        for name, shape in block.items():
            shapes |= {f"blocks.{number}.{name}.weight": shape, f"blocks.{number}.{name}.bias": shape[:1]}
    return {name: torch.randn(shape, generator=draw) for name, shape in shapes.items()}


def test_the_authors_checkpoint_is_read(tmp_path):
    method = make(layers=2, weights=str(tmp_path / "yatc.pth"), weights_licence="unknown")
    tensors = theirs(method.parameters)
    torch.save({"model": tensors}, tmp_path / "yatc.pth")
    method.pretrain({}, Monitor())
    assert torch.equal(method.encoded["blocks.1.mixed.weight"], tensors["blocks.1.attn.qkv.weight"])
    assert method.network().head.weight.std().item() == pytest.approx(2e-5, rel=0.3)  # near 0 beside layers that know
    assert make(pretraining="scratch").network().head.weight.std().item() > 0.01
    kernel = tensors["patch_embed.proj.weight"]
    image = torch.randn(1, 40, 40)
    convolved = torch.nn.functional.conv2d(image[:, None], kernel, stride=2).flatten(2).transpose(1, 2)
    assert torch.allclose(patches(image) @ method.encoded["patch.weight"].T, convolved, atol=1e-5)


def test_it_fits_a_small_set_after_pretraining():
    draw = np.random.default_rng(5)
    labels = np.arange(24) % 3
    matrix = draw.integers(0, 256, (24, 40, 40), dtype=np.uint8)
    matrix[:, 2, :8] = 80 * labels[:, None]
    part = Part({"matrix": matrix}, labels)
    method = learn(make(epochs=80, batch_size=8), part, part, Monitor())
    assert (method.predict_proba(part.inputs).argmax(1) == labels).mean() > 0.9


def test_a_session_without_bytes_is_an_abstention():
    matrix = np.zeros((2, 40, 40), np.uint8)
    matrix[1, 0, 0] = 1
    assert make().can_classify({"matrix": matrix}).tolist() == [False, True]


@pytest.mark.parametrize("values", [{"width": 30}, {"decoder_width": 6}, {"mask_ratio": 0.0}, {"mask": "ports"}])
def test_parameters_out_of_range_are_bad_input(values):
    with refused("bad-parameter", next(iter(values))):
        make(**values)
