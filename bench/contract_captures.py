"""Captures for `bench check`: three services, each on a port and a subnet of its own and seen in windows of its own."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.data.names import folder_card
from bench.data.prepare import prepare_dataset
from bench.data.store import Store
from bench.generators import demo
from bench.schema import NO_CLASS, Samples

CLASSES: Final = 3
SESSIONS: Final = 30  # a class, about
STEP: Final = 8  # packets between the window starts of two services
END_POINTS: Final = ("start", "client_ip", "client_port", "server_ip", "server_port", "protocol")  # tell a session


def windows_of_services(store: Store) -> Samples:
    """One window a session, int64 ``[samples]``, the same whatever the addresses are: sorted by capture and start.

    A service's windows begin STEP packets later than those of the one before, so that handshakes alone
    give the first away.
    """
    label, start, packets = (store.labels(store.default_task), store.session("start"), store.session("packets"))
    order = np.lexsort((start, store.session("capture"))).astype(np.int64)
    first = STEP * label.astype(np.int64)
    session = order[(label[order] != NO_CLASS) & (packets[order] > first[order])]
    return Samples(session, first[session], packets[session] - first[session])


def three_services(folder: Path, **salted: Any) -> Store:
    """The store of three services in a folder; written once.

    ``salted`` are fields of `bench.generators.demo.Salt`, ``start`` in seconds after the demo's.
    """
    salt = demo.Salt(**{"start": 0.0, **salted})

    captures = folder / "captures"
    if not captures.is_dir():
        for number in range(CLASSES):
            own = dataclasses.replace(
                salt, start=demo.START + salt.start, subnet=salt.subnet + number, ports=salt.ports + number
            )
            demo.write(folder / str(number), own, seed=5, sessions=SESSIONS, captures=2, classes=number + 1)
        (folder / "aside").mkdir()
        for number, service in enumerate(sorted(path.name for path in (folder / str(CLASSES - 1)).iterdir())):
            (folder / str(number) / service).rename(folder / "aside" / service)
        (folder / "aside").rename(captures)
    return _prepared(captures, folder / "home")


def five_services(folder: Path) -> Store:
    """The demo's five services with 40 sessions each, whole and as they are: for what a method can be made to fit."""
    captures = folder / "captures"
    if not captures.is_dir():
        demo.write(captures, demo.UNSALTED, seed=5, sessions=40, captures=2, classes=5)
    return _prepared(captures, folder / "home")


def renamed_services(plain: Path, folder: Path) -> Store:
    """The captures of a folder once more, each class under the name of another, in a store of its own."""
    captures = folder / "captures"
    if not captures.is_dir():
        names = sorted(path.name for path in (plain / "captures").iterdir())
        for name, other in zip(names, [*names[1:], names[0]], strict=True):
            shutil.copytree(plain / "captures" / name, captures / f"other-{other}")
    return _prepared(captures, folder / "home")


def _prepared(captures: Path, home: Path) -> Store:
    card = folder_card(captures, home=home)
    return Store.open(prepare_dataset(card, captures, home=home).store_path)


def same_sessions(one: Store, other: Store) -> NDArray[np.int64]:
    """The row in ``other`` of each session of ``one``, of the same traffic in another order: int64 ``[sessions]``."""
    orders = [np.lexsort([store.session(name) for name in END_POINTS]) for store in (one, other)]
    row = np.empty(len(orders[0]), np.int64)
    row[orders[0]] = orders[1]
    return row
