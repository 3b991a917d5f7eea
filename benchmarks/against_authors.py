"""NetMamba beside its authors' own modules, weights copied: outputs and gradients.

    git clone https://github.com/wangtz19/NetMamba CHECKOUT && pip install einops
    python benchmarks/against_authors.py CHECKOUT

Theirs run on the CPU with the reference scan that their copy of Mamba holds.  What is not theirs and needs CUDA or timm
is stood in for here: the norm, initialisers, and skipped layers, which are off.
"""

import argparse
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from methods.netmamba import MaskedMamba, NetMamba, Parameters, TrafficMamba

CLASSES = 7
#: our names outside encoder and decoder layers
OTHERS = {
    "head.weight": "head.weight",
    "head.bias": "head.bias",
    "narrow.weight": "decoder_embed.weight",
    "narrow.bias": "decoder_embed.bias",
    "hidden": "mask_token",
    "position": "decoder_pos_embed",
    "last.weight": "decoder_norm_f.weight",
    "bytes.weight": "decoder_pred.weight",
    "bytes.bias": "decoder_pred.bias",
}


class Norm(nn.Module):
    """In place of Triton's RMSNorm."""

    def __init__(self, width: int, eps: float = 1e-5, **_: Any) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps
        self.register_parameter("bias", None)


def norm(hidden: Tensor, weight: Tensor, bias: None, residual: Tensor | None = None, eps: float = 1e-6,
         prenorm: bool = False, residual_in_fp32: bool = False) -> Any:  # fmt: skip
    """In place of Triton's fused addition and norm."""
    total = hidden if residual is None else hidden + residual
    result = total * torch.rsqrt(total.square().mean(-1, keepdim=True) + eps) * weight
    return (result, total) if prenorm else result


def stand_in(name: str, **content: Any) -> None:
    module = ModuleType(name)
    module.__dict__.update(content, __path__=[])
    sys.modules[name] = module


def load(name: str, path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def authors(checkout: Path) -> Any:
    """Their module of networks."""
    stand_in("timm")
    stand_in("timm.models")
    initial = {"trunc_normal_": nn.init.trunc_normal_, "lecun_normal_": nn.init.normal_}
    stand_in("timm.models.layers", DropPath=lambda _: nn.Identity(), **initial)
    stand_in("causal_conv1d", causal_conv1d_fn=None, causal_conv1d_update=None)
    for name in ("causal_conv1d_cuda", "selective_scan_cuda", "mamba_ssm", "mamba_ssm.modules", "mamba_ssm.ops"):
        stand_in(name)
    stand_in("mamba_ssm.ops.triton")
    stand_in("mamba_ssm.ops.triton.layernorm", RMSNorm=Norm, layer_norm_fn=None, rms_norm_fn=norm)
    stand_in("mamba_ssm.ops.triton.selective_state_update", selective_state_update=None)
    mamba = checkout / "mamba-1p1p1" / "mamba_ssm"
    scans = load("mamba_ssm.ops.selective_scan_interface", mamba / "ops" / "selective_scan_interface.py")
    layers = load("mamba_ssm.modules.mamba_simple", mamba / "modules" / "mamba_simple.py")
    layers.selective_scan_fn = scans.selective_scan_ref
    load("models_mamba", checkout / "src" / "models_mamba.py")
    return load("models_net_mamba", checkout / "src" / "models_net_mamba.py")


def their_name(name: str) -> str:
    part, _, rest = name.partition(".")
    method = NetMamba.__new__(NetMamba)
    if part == "encoder":
        return method.authors_name(rest)
    return "decoder_" + method.authors_name(name) if part == "blocks" else OTHERS[name]


def compare(theirs: Any, ours: nn.Module, matrix: Tensor) -> str:
    """Both networks' answers and gradients after ours took their weights."""
    for layer in theirs.modules():
        if hasattr(layer, "use_fast_path"):
            layer.use_fast_path = False
    given = dict(theirs.named_parameters())
    pairs = [(values, given.pop(their_name(name))) for name, values in ours.named_parameters()]
    assert not given, f"left of theirs: {sorted(given)}"
    for mine, other in pairs:
        mine.data = other.data.reshape(mine.shape).clone()
    answers = []
    for network, pixels in ((theirs.eval(), (matrix[:, None].float() / 255 - 0.5) / 0.5), (ours.eval(), matrix)):
        torch.manual_seed(1)  # the same tokens are hidden
        answer = network(pixels)
        answers.append(answer[0] if isinstance(answer, tuple) else answer)
        answers[-1].square().sum().backward()
    apart = [float((mine.grad - other.grad.reshape(mine.shape)).norm() / other.grad.norm()) for mine, other in pairs]
    count = sum(mine.numel() for mine, _ in pairs)
    most = float((answers[0] - answers[1]).abs().max())
    return f"{count} parameters, outputs differ by at most {most:.1e}, gradients by {max(apart):.1e} of their norm"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    networks = authors(parser.parse_args().checkout)
    torch.manual_seed(0)
    matrix = torch.randint(0, 256, (3, 40, 40), dtype=torch.uint8)
    classifier = networks.net_mamba_classifier(num_classes=CLASSES)
    print("classifier:", compare(classifier, TrafficMamba(Parameters(), CLASSES, 0.02), matrix))
    print("pre-training:", compare(networks.net_mamba_pretrain(), MaskedMamba(Parameters()), matrix))


if __name__ == "__main__":
    main()
