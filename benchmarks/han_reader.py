"""HAN's reading of packets with its gradient, by torch's own layers and by the scan that keeps little memory.

    OMP_NUM_THREADS=1 python benchmarks/han_reader.py

Both read the same random bytes, packets of a tenth to all of the length, in turns; the least of five times in ms, after
one that does not count.  A Markdown table.
"""

import time

import torch
from torch import Tensor

from methods.han import FEW, ByteReader, Parameters

TURNS = 5
SIZES = ((64, 40, 32), (128, 64, 32), (128, 64, 128), (160, 300, 128))  # packets, bytes, hidden


def packets(number: int, length: int) -> Tensor:
    """Bytes as HAN reads them, float32 ``[number, length, 1]``, zero behind each packet's end."""
    ends = torch.randint(length // 10, length + 1, (number, 1))
    return (torch.rand(number, length) * (torch.arange(length) < ends))[..., None]


def main() -> None:
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; torch's up to {FEW} states\n")
    print("| packets | bytes | hidden | the scan | torch's own layers | ratio |\n" + "|---" * 6 + "|")
    for number, length, hidden in SIZES:
        reader, steps = ByteReader(1, Parameters(hidden=hidden)), packets(number, length)
        ways = (reader.on_cpu, lambda read, reader=reader: reader.attention(reader.lstm(read)[0]))
        times: list[list[float]] = [[], []]
        for _ in range(TURNS + 1):
            for way, taken in zip(ways, times, strict=True):
                start = time.perf_counter()
                way(steps).sum().backward()
                taken.append(1e3 * (time.perf_counter() - start))
        scan, own = (min(taken[1:]) for taken in times)
        print(f"| {number} | {length} | {hidden} | {scan:.0f} | {own:.0f} | {scan / own:.1f} |", flush=True)


if __name__ == "__main__":
    main()
