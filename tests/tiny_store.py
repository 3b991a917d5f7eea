"""A store of sessions without captures, for tests of what becomes of runs."""

import json
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from bench.data.manifest import FORMAT
from bench.data.store import Store, write_columns
from bench.schema import PACKET_COLUMNS, SESSION_COLUMNS


def write_store(home: Path, name: str = "tiny", sessions: int = 120) -> Store:
    """Three classes, twelve captures of ten sessions, two packets each."""
    folder = home / "stores" / name
    folder.mkdir(parents=True)
    row = np.arange(sessions)
    values = {"capture": row // 10, "conversation": row, "first_packet": 2 * row, "start": row, "protocol": 6 + 0 * row}
    values |= {"packets": 2 + 0 * row, "payload_packets": 2 + 0 * row, "server_port": 443 + 0 * row}
    columns = {c: np.asarray(values.get(c, np.zeros(sessions))).astype(t) for c, t in SESSION_COLUMNS.items()}
    write_columns(folder / "sessions.arrow", columns | {"task:kind": (row // 10 % 3).astype(np.int16)})
    write_columns(folder / "packets.arrow", {c: np.zeros(2 * sessions, t) for c, t in PACKET_COLUMNS.items()})
    captures = [{"path": f"{c}.pcap", "group": str(c), "bytes": 0, "sha256": ""} for c in range(sessions // 10)]
    counts = {"packets": 2 * sessions, "sessions": sessions}
    manifest = {"format": FORMAT, "name": name, "card": "", "options": {}, "unreadable": []} | counts
    manifest |= {"default_task": "kind", "captures": captures}
    manifest["tasks"] = {"kind": {"classes": ["chat", "mail", "web"]}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return Store.open(folder)


@contextmanager
def tiny_home(factory, name):
    """A folder whose ``home`` has the store, as this and new processes see it while the block lasts."""
    with pytest.MonkeyPatch.context() as patch:
        folder = factory.mktemp(name)
        patch.setenv("BENCH_HOME", str(folder / "home"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        write_store(folder / "home")
        yield folder
