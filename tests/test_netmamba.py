"""NetMamba: sizes, the scan against a loop, what the encoder sees while tokens are hidden, the authors' tensors."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from trained import sizes

from bench.method import Monitor, Part, learn, make_parameters
from methods.netmamba import CHUNK, MaskedMamba, NetMamba, Parameters, TrafficMamba, selective_scan, strides_of

pytestmark = pytest.mark.usefixtures("torch_seeded")


def make(classes=3, **values):
    return NetMamba(make_parameters(NetMamba, dict(NetMamba.tiny) | values), classes=classes, seed=3)


def bytes_like(count, seed=2):
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 40, 40), dtype=torch.uint8, generator=draw)


def test_parameter_counts_are_those_of_the_authors_code():
    """Counted in their models, which were made for that: see docs/pretraining.md."""
    with torch.device("meta"):
        network, before = TrafficMamba(Parameters(), 7, 0.02), MaskedMamba(Parameters())
    assert sizes(network) == 1_856_512 + 7 * 257 == 1_858_311
    assert sizes(before) == 2_174_724


def inputs_of_a_scan(steps, samples, channels, states):
    def some(*shape):
        return torch.randn(*shape, dtype=torch.float64, requires_grad=True)

    pace = torch.rand(steps, samples, channels, dtype=torch.float64, requires_grad=True)
    rate = (-torch.rand(channels, states, dtype=torch.float64) * 3).requires_grad_()
    return (
        pace,
        some(steps, samples, channels),
        rate,
        some(steps, samples, states),
        some(steps, samples, states),
    )


def by_a_loop(pace, drive, rate, write, read):
    state, answers = torch.zeros(*pace.shape[1:], rate.shape[1], dtype=pace.dtype), []
    for step in range(len(pace)):
        state = torch.exp(pace[step, :, :, None] * rate) * state + drive[step, :, :, None] * write[step, :, None]
        answers.append((state * read[step, :, None]).sum(-1))
    return torch.stack(answers)


@pytest.mark.parametrize("steps", [1, 2, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 5])
@pytest.mark.parametrize(("samples", "channels", "states"), [(1, 1, 1), (3, 4, 2), (2, 1, 3)])
def test_the_scan_is_the_loop(steps, samples, channels, states):
    given = inputs_of_a_scan(steps, samples, channels, states)
    found, expected = selective_scan(*given), by_a_loop(*given)
    assert torch.allclose(found, expected, atol=1e-12)
    weights = torch.randn_like(found)
    for ours, theirs in zip(
        torch.autograd.grad((found * weights).sum(), given),
        torch.autograd.grad((expected * weights).sum(), given),
        strict=True,
    ):
        assert torch.allclose(ours, theirs, atol=1e-10)


def test_a_state_by_hand():
    """Half of it is kept at each step: 1, then 1/2 + 2, then 5/4 + 0; the answer is three times that."""
    one = torch.ones(3, 1, 1)
    drive = torch.tensor([1.0, 2.0, 0.0]).reshape(3, 1, 1)
    rate = torch.full((1, 1), -np.log(2.0))
    assert selective_scan(one, drive, rate, one, 3 * one).flatten().tolist() == pytest.approx([3, 7.5, 3.75])


def test_the_scan_stays_out_of_mixed_precision():
    given = [values.detach().float() for values in inputs_of_a_scan(20, 2, 3, 2)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = selective_scan(*(values.bfloat16() for values in given))
    rounded = [values.bfloat16().float() for values in given]
    assert found.dtype == torch.float32 and torch.allclose(found, by_a_loop(*rounded), atol=1e-5)


def test_tokens_are_four_bytes_in_their_order():
    matrix = torch.zeros(1, 40, 40, dtype=torch.uint8)
    matrix[0, 0, 4:8] = torch.tensor([255, 0, 255, 51])
    found = strides_of(matrix / 255)
    assert found.shape == (1, 400, 4)
    assert found[0, 1].tolist() == pytest.approx([1, -1, 1, -0.6]) and (found[0, 2:] == -1).all()


def test_a_layer_never_looks_ahead():
    network = make(layers=2).network().eval()
    tokens = torch.randn(2, 30, 16)
    changed = tokens.clone()
    changed[:, 20:] = torch.randn(2, 10, 16)
    before, after = network.encoder.blocks(tokens), network.encoder.blocks(changed)
    assert torch.allclose(before[:, :20], after[:, :20], atol=1e-6)
    assert not torch.allclose(before[:, 20:], after[:, 20:], atol=1e-3)


def test_the_class_token_stands_last_and_reads_every_byte():
    network = make(layers=2).network().eval()
    matrix = bytes_like(1)
    answer = network(matrix)
    for place in (0, 700, 1599):  # the first, one in the middle, the last
        changed = matrix.clone()
        changed.reshape(-1)[place] ^= 255
        assert not torch.equal(network(changed), answer)


def test_the_encoder_sees_a_tenth_of_the_tokens_and_the_class_token():
    network = MaskedMamba(make().parameters)
    heard = []
    network.encoder.blocks[0].register_forward_pre_hook(lambda module, given: heard.append(given[0]))
    network(bytes_like(2))
    assert heard[0].shape == (2, 39 + 1, 16)  # int(400 * (1 - 0.9)), as the authors' code counts


def test_the_loss_is_over_hidden_tokens():
    network = MaskedMamba(make(mask_ratio=0.5).parameters)
    network.bytes.weight.data.zero_()
    network.bytes.bias.data.fill_(1.0)  # whatever is seen, it answers 255
    matrix = torch.zeros(1, 40, 40, dtype=torch.uint8)
    matrix[:, :20] = 255
    torch.manual_seed(4)
    loss = network(matrix).item()
    torch.manual_seed(4)
    seen = torch.rand(1, 400).argsort(1)[0, :200].tolist()
    assert loss == pytest.approx(4 * np.mean(np.array(sorted(set(range(400)) - set(seen))) >= 200))


def test_steps_are_smaller_below_and_the_last_norm_takes_the_heads():
    method = make(layers=3, layer_decay=0.5)
    network = method.network()
    groups = {id(group["params"][0]): group for group in method.optimiser(network).param_groups}
    named = {name: groups[id(one)] for name, one in network.named_parameters()}
    assert named["head.weight"]["share"] == named["encoder.norm.weight"]["share"] == 1
    assert named["encoder.blocks.2.out.weight"]["share"] == 0.5
    assert named["encoder.blocks.0.out.weight"]["share"] == 0.125 and named["encoder.patch.weight"]["share"] == 0.0625
    assert named["encoder.blocks.0.log_rate"]["weight_decay"] == 0.05  # as theirs
    for name in ("head.bias", "encoder.position", "encoder.token", "encoder.blocks.0.direct"):
        assert named[name]["weight_decay"] == 0


def theirs(settings):
    """Tensors as the authors' checkpoint has them."""
    draw, width, channels = torch.Generator().manual_seed(2), settings.width, 2 * settings.width
    ranks = -(-width // 16)
    shapes = {"cls_token": (1, 1, width), "pos_embed": (1, 401, width), "patch_embed.proj.weight": (width, 1, 4)}
    shapes |= {"patch_embed.proj.bias": (width,), "norm_f.weight": (width,), "mask_token": (1, 1, 8)}
    for number in range(settings.layers):
        layer = {"norm.weight": (width,), "mixer.in_proj.weight": (2 * channels, width), "mixer.D": (channels,)}
        layer |= {"mixer.conv1d.weight": (channels, 1, 4), "mixer.conv1d.bias": (channels,)}
        layer |= {"mixer.x_proj.weight": (ranks + 2 * settings.states, channels)}
        layer |= {"mixer.dt_proj.weight": (channels, ranks), "mixer.dt_proj.bias": (channels,)}
        layer |= {"mixer.A_log": (channels, settings.states), "mixer.out_proj.weight": (width, channels)}
        shapes |= {f"blocks.{number}.{name}": shape for name, shape in layer.items()}
    return {name: torch.randn(shape, generator=draw) for name, shape in shapes.items()}


def test_the_authors_checkpoint_is_read(tmp_path):
    method = make(layers=2, weights=str(tmp_path / "netmamba.pth"), weights_licence="unknown")
    tensors = theirs(method.parameters)
    torch.save({"model": tensors}, tmp_path / "netmamba.pth")
    method.pretrain({}, Monitor())
    assert torch.equal(method.encoded["blocks.1.both.weight"], tensors["blocks.1.mixer.in_proj.weight"])
    assert torch.equal(method.encoded["norm.weight"], tensors["norm_f.weight"])
    matrix = bytes_like(2)
    convolved = F.conv1d(matrix.flatten(1)[:, None] / 127.5 - 1, tensors["patch_embed.proj.weight"], stride=4)
    found = strides_of(matrix / 255) @ method.encoded["patch.weight"].T
    assert torch.allclose(found, convolved.transpose(1, 2), atol=1e-5)


def test_it_fits_a_small_set_after_pretraining():
    labels = np.arange(24) % 3
    matrix = bytes_like(24).numpy()
    matrix[:, 2, :8] = 80 * labels[:, None]
    part = Part({"matrix": matrix}, labels)
    method = learn(make(epochs=40, batch_size=8), part, part, Monitor())
    assert (method.predict_proba(part.inputs).argmax(1) == labels).mean() > 0.9
