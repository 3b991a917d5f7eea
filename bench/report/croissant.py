"""A data set as others' programs read it: Croissant 1.0, JSON-LD of its card and, where it is prepared, of its store.

See https://docs.mlcommons.org/croissant/docs/croissant-spec.html.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np

from bench.data.cards import Card
from bench.data.manifest import Manifest
from bench.errors import counted
from bench.schema import PACKET_COLUMNS, SESSION_COLUMNS

CONTEXT: Final = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
KINDS: Final = {"zip": "application/zip", "tar": "application/x-tar", "": "application/octet-stream"}
ARROW: Final = "application/vnd.apache.arrow.file"
TABLES: Final = {  # a store's file of columns -> what a record of it is, and its columns
    "sessions.arrow": ("sessions", SESSION_COLUMNS),
    "packets.arrow": ("packets", PACKET_COLUMNS),
}


def croissant(card: Card, manifest: Manifest | None = None, digest: str = "") -> dict[str, Any]:
    """A card as Croissant has it: JSON types, the same for the same card and store, no path of a machine in it.

    With the ``manifest`` of its store, and the store's ``digest``, the tables of sessions and packets are described
    too: their files, checksums, columns and the classes of each task.
    """
    texts = {"license": card.licence, "url": card.home, "citeAs": card.citation}
    made: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": card.name,
        "description": "\n".join(filter(None, [card.title, card.notes.strip(), *_counts(manifest, digest)])),
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        **{name: text for name, text in texts.items() if text},
    }
    files = [*_downloads(card), *(_tables(manifest) if manifest else ())]
    sets = [*_records(manifest), *_classes(manifest)] if manifest else []
    return made | ({"distribution": files} if files else {}) | ({"recordSet": sets} if sets else {})


def _counts(manifest: Manifest | None, digest: str) -> list[str]:
    if manifest is None:
        return []
    size = f"{counted(manifest.sessions, 'session')}, {counted(manifest.packets, 'packet')}"
    return [f"Prepared by etc-bench: {size}, digest of the store {digest}."]


def _downloads(card: Card) -> Iterator[dict[str, Any]]:
    """Files that anybody may fetch."""
    for number, one in enumerate(card.downloads):
        yield {
            "@type": "cr:FileObject",
            "@id": f"download-{number}",
            "name": one.url.rpartition("/")[2] or one.path,
            "contentUrl": one.url,
            "encodingFormat": KINDS[one.unpack],
            "sha256": one.sha256,
            **({"contentSize": f"{one.bytes} B"} if one.bytes else {}),
        }


def _tables(manifest: Manifest) -> Iterator[dict[str, Any]]:
    """The store's files; one of earlier code, which kept no checksums, has none to tell."""
    for name in TABLES:
        if (file := manifest.columns.get(name)) is not None:
            head = {"@type": "cr:FileObject", "@id": name, "name": name, "contentUrl": name, "encodingFormat": ARROW}
            yield head | {"contentSize": f"{file.size} B", "sha256": file.sha256}


def _records(manifest: Manifest) -> Iterator[dict[str, Any]]:
    """A record a session and a packet, by the columns of their tables."""
    for file, (name, columns) in TABLES.items():
        if file not in manifest.columns:
            continue
        kinds: Mapping[str, np.dtype[Any]] = columns
        if name == "sessions":  # of classes the place, or -1 for a session that the task does not use
            kinds = {**columns, **{f"task:{task}": np.dtype("int16") for task in manifest.tasks}}
        fields = [
            {
                "@type": "cr:Field",
                "@id": f"{name}/{column}",
                "name": f"{name}/{column}",
                "dataType": "sc:Integer" if kind.kind in "iu" else "sc:Boolean" if kind.kind == "b" else "sc:Text",
                "source": {"fileObject": {"@id": file}, "extract": {"column": column}},
            }
            for column, kind in kinds.items()
        ]
        yield {"@type": "cr:RecordSet", "@id": name, "name": name, "field": fields}


def _classes(manifest: Manifest) -> Iterator[dict[str, Any]]:
    """The classes of each task, in the order of the numbers in the sessions' column ``task:NAME``."""
    for task, entry in manifest.tasks.items():
        name = f"classes-{task}"
        kinds = {"number": "sc:Integer", "class": "sc:Text", "sessions": "sc:Integer"}
        fields = [
            {"@type": "cr:Field", "@id": f"{name}/{field}", "name": f"{name}/{field}", "dataType": kind}
            for field, kind in kinds.items()
        ]
        sizes = entry.class_sessions or [0] * len(entry.classes)
        data = [
            {f"{name}/number": number, f"{name}/class": one, f"{name}/sessions": size}
            for number, (one, size) in enumerate(zip(entry.classes, sizes, strict=True))
        ]
        yield {"@type": "cr:RecordSet", "@id": name, "name": name, "field": fields, "data": data}
