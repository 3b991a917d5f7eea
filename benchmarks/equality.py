"""Whether fast code computes what the former did: logits and gradients of both on one real batch, with equal weights.

    python benchmarks/equality.py --against CHECKOUT [--method NAME ...] [--dataset iot-sentinel] [--samples 8]
    python benchmarks/equality.py --moved [--method NAME ...]

This code makes a network, represents a batch, and keeps weights, arrays, logits and gradients of a training step
without dropout.  A process that imports the other checkout loads the weights, makes its own tensors of the same arrays,
and compares.
"logits": largest difference over the largest logit; "gradients": norm of the difference over the norm, of all weights
together; "worst": of the one tensor, among those that hold a ten-thousandth of the norm, where they differ most.
"""

import argparse
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

#: smaller than the defaults where a whole batch is too much for a look
SIZES: dict[str, dict[str, Any]] = {
    "han": {"bytes": 200},
    "flowgnn": {"packets": 16},
    "deeppacket": {"packets": 2},
}
NAMES = ("atvitsc", "attlstm", "cmtsnn", "deeppacket", "flowgnn", "flowpic", "fsnet", "graphdapp", "han",
         "mini-flowpic", "tscrnn", "wang1d", "wang2d", "deeppacket-sae")  # fmt: skip
SMALL = 1e-4  # of the gradient's norm: tensors below are rounding themselves


def method_of(name: str, values: dict[str, Any]) -> Any:
    """A method of the code that this process imports, without dropout."""
    from bench.method import make_parameters
    from bench.runs import registry

    kind = registry.load(name)
    fields: Any = kind.Parameters.__dict__["__dataclass_fields__"]
    without = {field: 0.0 for field in fields if "dropout" in field and fields[field].type is not bool}
    known = {field: value for field, value in {**without, **values}.items() if field in fields}
    return kind(make_parameters(kind, known), classes=12)


def step(method: Any, tensors: Any, labels: Any) -> tuple[Any, dict[str, Any]]:
    """Logits and gradients of a training step."""
    method.model.train().zero_grad(set_to_none=True)  # what was trained before the first step left its own
    logits = method.model(**tensors)
    method.loss(logits.float(), labels).backward()
    gradients = {name: one.grad for name, one in method.model.named_parameters() if one.grad is not None}
    return logits.detach(), gradients


def ready(name: str, dataset: str, samples: int | None = None) -> tuple[Any, Any]:
    """A method with a fresh network, and so many samples to train it on; None: a batch of its own."""
    from bench.data.prepare import open_dataset
    from bench.method import Part, take
    from bench.runs.attempt import represent_parts
    from bench.spec import SplitSpec
    from bench.splits.split import make_split
    from bench.training.units import PacketMethod, packets_of

    torch.manual_seed(0)
    store = open_dataset(dataset)
    split = make_split(store, store.default_task, SplitSpec(max_per_class=40))
    method = method_of(name, SIZES.get(name, {}))
    whole = represent_parts(method, store, split, ["train"])["train"]
    rows = np.flatnonzero(method.can_classify(whole.inputs))[: samples or method.parameters.batch_size]
    part = Part(take(whole.inputs, rows), whole.labels[rows])
    if isinstance(method, PacketMethod):
        part = packets_of(part)
        filled = np.flatnonzero(part.inputs["eligible"][:, 0])
        part = Part(take(part.inputs, filled), part.labels[filled])
    method.model = method._made().train()
    if name != "flowpic":
        method.before_training(method.model, part, np.arange(len(part)))
    return method, part


def here(name: str, dataset: str, samples: int) -> dict[str, Any]:
    """What this code computes, with all that the other one needs to do the same."""
    method, part = ready(name, dataset, samples)
    state = {key: value.clone() for key, value in method.model.state_dict().items()}
    labels = torch.from_numpy(part.labels)
    logits, gradients = step(method, method.batch(part.inputs), labels)
    return {"inputs": part.inputs, "labels": labels, "state": state, "logits": logits, "gradients": gradients}


def there(name: str, kept: dict[str, Any]) -> str:
    """A line of the table: how far the code that this process imports is from what was kept."""
    method = method_of(name, SIZES.get(name, {}))
    method.model = method.network()
    method.model.load_state_dict(kept["state"], strict=False)
    logits, gradients = step(method, method.batch(kept["inputs"]), kept["labels"])
    norms = {key: float(value.norm()) for key, value in gradients.items()}
    apart = {key: float((kept["gradients"][key] - value).norm()) for key, value in gradients.items()}
    total = float(np.linalg.norm([*norms.values()]))
    worst = max((apart[key] / norm, key) for key, norm in norms.items() if norm > SMALL * total)
    of_logits = float((kept["logits"] - logits).abs().max() / logits.abs().max())
    of_all = float(np.linalg.norm([*apart.values()])) / total
    return f"| {name} | {len(kept['labels'])} | {of_logits:.0e} | {of_all:.0e} | {worst[0]:.0e} | {worst[1]} |"


def moved(values: torch.Tensor) -> torch.Tensor:
    """The same numbers, each a rounding error larger or smaller."""
    if not values.dtype.is_floating_point:
        return values
    return values * (1 + torch.finfo(torch.float32).eps / 2 * torch.randn_like(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, default=Path.cwd())
    parser.add_argument("--method", nargs="+", default=NAMES)
    parser.add_argument("--dataset", default="iot-sentinel")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--moved", action="store_true", help="against this code with weights moved by their last bit")
    parser.add_argument("--kept", type=Path, help=argparse.SUPPRESS)  # of the process that imports the other code
    options = parser.parse_args()
    if options.kept:
        print(there(options.method[0], pickle.loads(options.kept.read_bytes())))
        return
    print("| method | samples | logits | gradients | worst | which is |\n|---|---|---|---|---|---|", flush=True)
    for name in options.method:
        kept = here(name, options.dataset, options.samples)
        if options.moved:
            kept["state"] = {key: moved(value) for key, value in kept["state"].items()}
            print(there(name, kept), flush=True)
            continue
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "kept.pickle"
            file.write_bytes(pickle.dumps(kept))
            words = [sys.executable, __file__, "--against", str(options.against), "--method", name, "--kept", str(file)]
            environment = os.environ | {"PYTHONPATH": str(options.against.resolve())}
            subprocess.run(words, env=environment, cwd=options.against, check=True)


if __name__ == "__main__":
    main()
