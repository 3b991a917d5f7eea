"""A bundle of runs as others' programs read it: RO-Crate 1.1, JSON-LD of its files, its runs and what made them.

See https://www.researchobject.org/ro-crate/specification/1.1/.  It depends on the runs alone, so that the same runs
give the same text on any machine: its date is that of the last run's end.  It names no author: nobody told one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

CONTEXT: Final = ["https://w3id.org/ro/crate/1.1/context", {"sha256": "http://schema.org/sha256"}]
PROFILE: Final = "https://w3id.org/ro/crate/1.1"
SOFTWARE: Final = "https://github.com/etc-bench/etc-bench"
SPDX: Final = "https://spdx.org/licenses/"
KINDS: Final = {".json": "application/json", ".md": "text/markdown", ".txt": "text/plain", ".npz": "application/zip"}
ENDS: Final = {"failed": "http://schema.org/FailedActionStatus"}  # other runs came to an end of their own
COMPLETED: Final = "http://schema.org/CompletedActionStatus"


@dataclass(frozen=True)
class CrateRun:
    """A run as a crate tells it."""

    name: str  # of its folder below runs/
    title: str
    method: str
    dataset: str
    store: str  # digest
    status: str
    started: int  # milliseconds since the epoch
    ended: int | None


def crate(
    runs: Sequence[CrateRun], files: Mapping[str, tuple[int, str]], index: str, *, version: str, licence: str = ""
) -> dict[str, Any]:
    """JSON-LD of a bundle of these runs and ``files``, by path their bytes and SHA-256; ``index`` is described without.

    ``version`` is that of the software that writes it, ``licence`` an SPDX identifier, empty where none is stated.
    """
    last = max((one.ended or one.started for one in runs), default=0)
    about = sorted({one.dataset for one in runs})
    root = {
        "@id": "./",
        "@type": "Dataset",
        "name": f"Runs of {', '.join(sorted({one.method for one in runs}))} on {', '.join(about)}",
        "description": f"{len(runs)} runs of encrypted-traffic classifiers: for each its record, scores and answers. "
        "`bench results import` checks and reads it.",
        "datePublished": _time(last)[:10],
        "license": {"@id": f"{SPDX}{licence}" if licence else "#licence"},
        "hasPart": [_of(index), *(_of(f"runs/{one.name}/") for one in runs)],
        "mentions": [_of(f"#{one.name}") for one in runs],
    }
    head = {
        "@id": "ro-crate-metadata.json",
        "@type": "CreativeWork",
        "conformsTo": {"@id": PROFILE},
        "about": _of("./"),
    }
    listed = {"@id": index, "@type": "File", "name": "index", "encodingFormat": KINDS[".json"]}
    listed |= {"description": "versions, and the digests of every run and of every other file"}
    return {
        "@context": CONTEXT,
        "@graph": [head, root, _licence(licence), _software(version), listed, *_sets(runs), *_entities(runs, files)],
    }


def _entities(runs: Sequence[CrateRun], files: Mapping[str, tuple[int, str]]) -> Iterator[dict[str, Any]]:
    """Of each run its folder, what made it, and its files."""
    for one in runs:
        home = f"runs/{one.name}/"
        own = {name: files[name] for name in sorted(files) if name.startswith(home)}
        yield {"@id": home, "@type": "Dataset", "name": one.title, "hasPart": [_of(name) for name in own]}
        made: dict[str, Any] = {"@id": f"#{one.name}", "@type": "CreateAction", "name": one.title}
        made |= {"instrument": {"@id": SOFTWARE}, "object": _of(_set_of(one)), "result": _of(home)}
        made |= {"actionStatus": {"@id": ENDS.get(one.status, COMPLETED)}, "startTime": _time(one.started)}
        yield made | ({} if one.ended is None else {"endTime": _time(one.ended)})
        for name, (size, digest) in own.items():
            path = name.removeprefix(home)
            suffix = path[path.rfind(".") :] if "." in path else ""
            file = {"@id": quote(name), "@type": "File", "name": path, "contentSize": str(size), "sha256": digest}
            yield file | {"encodingFormat": KINDS.get(suffix, "application/octet-stream")}


def _sets(runs: Sequence[CrateRun]) -> Iterator[dict[str, Any]]:
    """The states of data sets that the runs rest on, each once."""
    for place, one in {_set_of(one): one for one in runs}.items():
        what = f"data set {one.dataset}, as it was prepared; the identifier is its store's digest"
        yield {"@id": quote(place, safe="#"), "@type": "CreativeWork", "name": one.dataset, "description": what,
               "identifier": one.store}  # fmt: skip


def _set_of(one: CrateRun) -> str:
    return f"#{one.dataset}-{one.store[:16]}"


def _software(version: str) -> dict[str, Any]:
    what = "made the runs and this file; each result.json names the versions that its run was made with"
    return {"@id": SOFTWARE, "@type": "SoftwareApplication", "name": "etc-bench", "url": SOFTWARE,
            "softwareVersion": version, "license": f"{SPDX}MIT", "description": what}  # fmt: skip


def _licence(licence: str) -> dict[str, Any]:
    if licence:
        return {"@id": f"{SPDX}{licence}", "@type": "CreativeWork", "name": licence,
                "description": f"SPDX licence {licence}"}  # fmt: skip
    what = "whoever wrote this file stated no licence; ask them"
    return {"@id": "#licence", "@type": "CreativeWork", "name": "not stated", "description": what}


def _of(place: str) -> dict[str, str]:
    return {"@id": quote(place, safe="/#")}


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
