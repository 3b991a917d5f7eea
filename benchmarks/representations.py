"""Sessions a second of every representation, and against the obvious way to make it.

    python benchmarks/representations.py [--dataset demo] [--sessions N] [--method a,b]

The obvious ways do the same job session by session: scipy and numpy statistics for AppScanner, for BIND counters
filled by a packet loop and a row of the values that count (learned beforehand on both sides), numpy.histogram2d for
the pictures, a packet loop for the graphs, slices of the capture's bytes packet by packet for the methods that read
bytes.  Both sides end where a batch is ready for the network or the estimator, graphs included, in batches of the
method's own size; `represent` alone is told as well.  FlowPic's network takes the filled cells of its pictures;
`(drawn)` makes whole pictures of them all the same.  Both run on one thread and are timed by the
processor's clock, which other load disturbs less, best of three; the second over --obvious
sessions, drawn at random.  The store is in the page cache.
"""

import argparse
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import scipy.stats
import torch

from bench.data.prepare import open_dataset
from bench.data.store import Store
from bench.estimator import EstimatorMethod
from bench.method import Inputs, Method, Part, take
from bench.readers import View
from bench.runs import registry
from bench.schema import NO_CLASS, Samples
from bench.training.loop import TorchMethod

Session = dict[str, Any]  # lengths, directions, times of one session
#: BIND's families and how many values of each count; a pair is one of two of its families
BIND = {"packet": 512, "size": 512, "time": 512, "count": 512, "pair size": 1024, "pair time": 1024}


def samples_of(store: Store, most: int) -> Samples:
    """Whole sessions of the default task, drawn at random, in order."""
    usable = np.flatnonzero(store.labels(store.default_task) != NO_CLASS)
    session = np.sort(np.random.default_rng(0).permutation(usable)[:most])
    return Samples(session, np.zeros_like(session), np.asarray(store.session("packets"))[session].astype(np.int64))


def sessions_of(store: Store, samples: Samples) -> Iterator[Session]:
    """Each sample's series as small arrays."""
    columns = {name: np.asarray(store.packet(name)) for name in ("length", "direction", "time")}
    first = np.asarray(store.session("first_packet"))
    for session, count in zip(samples.session, samples.count, strict=True):
        rows = slice(first[session], first[session] + count)
        times = (columns["time"][rows] - columns["time"][rows][0]) * 1e-9
        yield {"lengths": columns["length"][rows], "directions": columns["direction"][rows], "times": times}


def appscanner(session: Session) -> list[float]:
    """54 statistics by scipy and numpy."""
    numbers = []
    lengths, directions = session["lengths"].astype(float), session["directions"]
    for values in (lengths[directions < 0], lengths[directions > 0], lengths):
        if not len(values):
            numbers += [0.0] * 18
            continue
        constant = values.std() == 0
        numbers += [values.min(), values.max(), values.mean(), scipy.stats.median_abs_deviation(values)]
        numbers += [values.std(), values.var(), 0.0 if constant else scipy.stats.skew(values)]
        numbers += [0.0 if constant else scipy.stats.kurtosis(values)]
        numbers += [*np.percentile(values, range(10, 100, 10)), len(values)]
    return numbers


def bind(session: Session) -> dict[str, Counter[tuple[int, ...]]]:
    """Counters of lengths, bursts (600 bytes and 1 ms to a bin, as BIND has them) and pairs of bursts."""
    families: dict[str, Counter[tuple[int, ...]]] = {name: Counter() for name in BIND}
    bursts: list[list[Any]] = []  # way, bytes, first time, last time, packets
    for length, way, at in zip(*(session[k].tolist() for k in ("lengths", "directions", "times")), strict=True):
        families["packet"][way, length] += 1
        if not bursts or bursts[-1][0] != way:
            bursts.append([way, 0, at, at, 0])
        bursts[-1][1] += length
        bursts[-1][3] = at
        bursts[-1][4] += 1
    sizes, times = [round(b[1] / 600) for b in bursts], [round((b[3] - b[2]) / 1e-3) for b in bursts]
    for (way, *_, packets), size, lasting in zip(bursts, sizes, times, strict=True):
        families["size"][way, size] += 1
        families["time"][way, lasting] += 1
        families["count"][way, packets] += 1
    for k, burst in enumerate(bursts[:-1]):
        families["pair size"][burst[0], sizes[k], sizes[k + 1]] += 1
        families["pair time"][burst[0], times[k], times[k + 1]] += 1
    return families


def bind_rows(sessions: list[Session]) -> Callable[[Session], np.ndarray]:
    """A function that makes a session's row of the values that count; they are learned here."""
    totals: dict[str, Counter[tuple[int, ...]]] = {name: Counter() for name in BIND}
    for session in sessions:
        for name, counter in bind(session).items():
            totals[name].update(counter)
    values = [(name, value) for name in BIND for value, _ in totals[name].most_common(BIND[name])]
    column = {pair: number for number, pair in enumerate(values)}

    def row(session: Session) -> np.ndarray:
        numbers = np.zeros(len(column))
        for name, counter in bind(session).items():
            for value, times in counter.items():
                if (at := column.get((name, value))) is not None:
                    numbers[at] = times
        return numbers

    return row


def picture(size: int, window: float) -> Callable[[Session], Any]:
    """One two-dimensional histogram, as a tensor."""

    def draw(session: Session) -> torch.Tensor:
        edges = [(0, 1500), (0, window)]
        counts, *_ = np.histogram2d(session["lengths"].clip(max=1500), session["times"], size, edges)
        return torch.from_numpy(counts.astype(np.float32))

    return draw


def interaction_graph(session: Session) -> tuple[torch.Tensor, torch.Tensor]:
    """GraphDApp's vertices and edges by a loop over the packets."""
    lengths, ways = session["lengths"][:100].tolist(), session["directions"][:100].tolist()
    vertices, edges = [], []
    bursts: list[list[int]] = []
    for i, (length, way) in enumerate(zip(lengths, ways, strict=True)):
        vertices.append(min(length, 1500) * way)
        if bursts and ways[bursts[-1][-1]] == way:
            edges += [(i - 1, i), (i, i - 1)]
            bursts[-1].append(i)
        else:
            bursts.append([i])
    for one, two in pairwise(bursts):
        for a, b in {(one[0], two[0]), (one[-1], two[-1])}:
            edges += [(a, b), (b, a)]
    return torch.tensor(vertices), torch.tensor(edges)


def complete_graph(session: Session) -> tuple[torch.Tensor, torch.Tensor]:
    """Flow-GNN's edges with their time differences, by a loop over pairs; its bytes are left out."""
    times, edges, gaps = session["times"][:100].tolist(), [], []
    for j in range(len(times)):
        for i in range(j):
            edges.append((i, j))
            gaps.append(times[j] - times[i])
    return torch.tensor(edges), torch.tensor(gaps)


def slices(store: Store, samples: Samples, packets: int, size: int, payload: bool) -> Iterator[torch.Tensor]:
    """The first bytes of each session's first packets, packet by packet; header fields are not masked."""
    columns = ("record", "ip", "payload", "captured", "payload_length")
    record, ip, offset, captured, length = (np.asarray(store.packet(name)) for name in columns)
    first, capture = np.asarray(store.session("first_packet")), np.asarray(store.session("capture"))
    for session, count in zip(samples.session, samples.count, strict=True):
        data, out, at = store.capture_bytes(int(capture[session])), np.zeros((packets, size), np.uint8), 0
        for row in range(first[session], first[session] + count):
            if payload and not length[row]:
                continue
            if at == packets:
                break
            begin = int(record[row]) + int(ip[row]) + (int(offset[row]) if payload else 0)
            held = int(captured[row]) - (int(offset[row]) if payload else 0)
            content = data[begin : begin + max(0, min(held, size))]
            out[at, : len(content)] = content
            at += 1
        yield torch.from_numpy(out)


OBVIOUS: dict[str, Callable[[Session], Any]] = {
    "appscanner": appscanner,
    "flowpic": picture(1500, 60.0),
    "mini-flowpic": picture(32, 15.0),
    "graphdapp": interaction_graph,
    "flowgnn": complete_graph,
}
BYTES = {  # packets, bytes, payload only
    "atvitsc": (16, 256, True),
    "attlstm": (10, 1500, False),
    "cmtsnn": (10, 1000, False),
    "deeppacket": (16, 1500, True),
    "deeppacket-sae": (16, 1500, True),
    "han": (10, 1500, False),
    "tscrnn": (15, 1500, False),
}


def assemble(method: Method, inputs: Inputs, count: int, drawn: bool) -> None:
    """The network's tensors, batch by batch, or an estimator's features at once.

    ``drawn``: and the pictures that FlowPic's network does without.
    """
    if isinstance(method, EstimatorMethod):
        method.features({"features": inputs["flows"].values} if "flows" in inputs else inputs)
    if not isinstance(method, TorchMethod):
        return
    size = method.parameters.batch_size
    for start in range(0, count, size):
        tensors = method.batch(take(inputs, np.arange(start, min(count, start + size))))
        if drawn:
            from methods.flowpic import pictures

            pictures(tensors["cells"], tensors["counts"], int(tensors["eligible"].sum()), method.parameters.resolution)


def rate(action: Callable[[], Any], sessions: int, times: int) -> float:
    """Sessions a second of processor time, the best of some times."""
    best = float("inf")
    for _ in range(times):
        start = time.process_time()
        action()
        best = min(best, time.process_time() - start)
    return sessions / best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="demo")
    parser.add_argument("--sessions", type=int, default=10_000, help="at most")
    parser.add_argument("--obvious", type=int, default=300, help="sessions for the obvious way, at most")
    parser.add_argument("--method", help="names, by comma; default: all")
    options = parser.parse_args()
    torch.set_num_threads(1)
    store = open_dataset(options.dataset)
    samples = samples_of(store, options.sessions)
    few = samples.take(np.sort(np.random.default_rng(1).permutation(len(samples))[: options.obvious]))
    packets = f"{np.median(samples.count):g} packets a session (median)"
    print(f"{options.dataset}: {len(samples)} sessions, {packets}; sessions a second, one thread")
    print(f"{'method':20} {'represent':>12} {'with batches':>13} {'obvious':>10} {'ratio':>9}")
    for name in options.method.split(",") if options.method else registry.names():
        report(name, store, samples, few)


def report(name: str, store: Store, samples: Samples, few: Samples) -> None:
    """Measure one method and print its line; a second one where pictures can be drawn or left as cells."""
    method = registry.load(name)(classes=2)

    def represent() -> Inputs:
        return method.represent(View(store, samples, method.reads))

    inputs = represent()
    if isinstance(method, EstimatorMethod):  # vocabularies and selection are learned, not represented
        rows = inputs["flows"].values if "flows" in inputs else None
        method.before_training(Part({"features": rows} if rows is not None else inputs, np.arange(len(samples)) % 2))
    alone = rate(represent, len(samples), 3)
    slow, sessions = 0.0, list(sessions_of(store, few))
    way = bind_rows(sessions) if name == "bind" else OBVIOUS.get(name)
    if way is not None:
        slow = rate(lambda: [way(s) for s in sessions], len(few), 3)
    elif name in BYTES:
        slow = rate(lambda: list(slices(store, few, *BYTES[name])), len(few), 3)
    for drawn in (False, True) if name.endswith("flowpic") else (False,):
        batches = rate(partial(assemble, method, inputs, len(samples), drawn), len(samples), 3)
        whole = 1 / (1 / alone + 1 / batches)
        line = f"{name + ' (drawn)' * drawn:20} {alone:12,.0f} {whole:13,.0f}"
        print(line + (f" {slow:10,.0f} {whole / slow:8,.1f}x" if slow else ""), flush=True)


if __name__ == "__main__":
    main()
