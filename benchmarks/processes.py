"""Measurements in processes of their own: in one with nothing imported or compiled before, or in several by turns."""

import json
import multiprocessing
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.environment import peak_memory


def in_new_process(job: Callable[..., None], *arguments: object) -> Any:
    """What `job` puts into its queue, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=job, args=(*arguments, answer))
    process.start()
    value = answer.get()
    process.join()
    return value


class Child:
    """A script's process that imports one checkout's packages and measures something once for each turn."""

    def __init__(self, script: str, checkout: Path, *words: str) -> None:
        command = [sys.executable, script, "--child", str(checkout), *words]
        environment = os.environ | {"PYTHONPATH": str(checkout)}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)
        self.values: list[float] = []
        self.mebibytes = 0.0

    def turn(self) -> None:
        """One measurement.  Raises OSError where the process has ended: it said why on standard error."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise OSError("ended")
        told = json.loads(answer)
        self.values.append(told["value"])
        self.mebibytes = told["memory"] / 2**20

    def end(self) -> None:
        """No further turn."""
        self.process.communicate()


def in_turns(children: Sequence[Child], turns: int) -> bool:
    """A turn of each that does not count, then ``turns``, every other one backwards; False where a process ended."""
    try:
        for turn in range(turns + 1):
            for one in children[:: -1 if turn % 2 else 1]:
                one.turn()
    except OSError:
        return False
    finally:
        for one in children:
            one.end()
    for one in children:
        del one.values[0]
    return True


def wait_for_a_turn() -> None:
    """In the child: until it is asked; the process ends where nobody asks any more."""
    if not sys.stdin.readline():
        raise SystemExit


def tell(value: float) -> None:
    """In the child: answer a turn, and wait for the next one."""
    print(json.dumps({"value": value, "memory": peak_memory()}), flush=True)
    wait_for_a_turn()


def ratios(numerators: Child, denominators: Child) -> str:
    """Of two children's values, turn by turn: the median ratio, the lowest and the highest."""
    found = [one / other for one, other in zip(numerators.values, denominators.values, strict=True)]
    return f"{statistics.median(found):.2f} ({min(found):.2f} … {max(found):.2f})"
