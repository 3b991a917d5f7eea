"""The files of runs, wherever a store keeps them: read, measured and removed."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from bench.errors import InputError
from bench.tracking.address import Address, local
from bench.tracking.database import Row
from bench.tracking.record import MODEL, Record


class RunFiles:
    """Files of the runs at an address.

    ``client`` gives MLflow's, which is made only where files lie elsewhere or something is removed; a block of
    ``answering`` turns what that raises into bad input.
    """

    def __init__(
        self, address: Address, client: Callable[[], Any], answering: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._address, self._client, self._answering = address, client, answering

    def folder(self, row: Row | Record) -> Path:
        """A local folder with the run's artefacts, fetched where they lie elsewhere."""
        if (here := self._local(row)) is not None:
            return here
        with self._answering():
            return Path(self._client().download_artifacts(row.run_id, "", tempfile.mkdtemp()))

    def _local(self, row: Row | Record) -> Path | None:
        """The run's own folder on this machine; a database and its artefacts may have been moved or copied together."""
        if (recorded := local(row.artefacts)) is None:
            return None
        beside = self._address.folder / "artifacts" / row.run_id / "artifacts"
        return beside if self._address.is_database and (beside.is_dir() or not recorded.is_dir()) else recorded

    @contextmanager
    def read(self, row: Row) -> Iterator[Path]:
        """The folder of a run's artefacts while the block lasts; what was fetched for it is removed."""
        folder = self.folder(row)
        try:
            yield folder
        finally:
            if folder != self._local(row):
                shutil.rmtree(folder, ignore_errors=True)

    def sizes(self, row: Row) -> dict[str, int]:
        """Bytes of every file of a run, by its path among its artefacts."""
        if (folder := self._local(row)) is not None:
            paths = sorted(path for path in folder.rglob("*") if path.is_file())
            return {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths}
        found, waiting = {}, [""]
        while waiting:
            for one in self._client().list_artifacts(row.run_id, waiting.pop()):
                if one.is_dir:
                    waiting.append(one.path)
                else:
                    found[one.path] = int(one.file_size or 0)
        return found

    def remove(self, row: Row) -> None:
        """Remove a run with its files for good, or from a server into its bin, which `mlflow gc` there empties.

        Nobody sees it from the first step on; one that is in the bin is taken out of it for good, too.
        """
        folder = self._removable(row)
        with self._answering():
            self._client().delete_run(row.run_id)
        self._remove_files(row, folder, "")
        if self._address.is_database:
            with self._answering():
                self._client()._tracking_client.store._hard_delete_run(row.run_id)

    def remove_model(self, row: Row, why: str) -> None:
        """Remove the fitted method of a run, whose record says so first: it is never taken for lost."""
        folder = self._removable(row)
        with self._answering():
            self._client().set_tag(row.run_id, MODEL, why)
        self._remove_files(row, folder, "model")

    def _removable(self, row: Row) -> Path | None:
        """The run's own folder on this machine, if it is here, for removing it.

        Raises :class:`InputError` where the record names one that is no run's, or, of a copied file, another store's.
        """
        folder = self._local(row)
        if folder is None or not folder.exists():
            return folder
        ours = not self._address.is_sqlite or folder.is_relative_to(self._address.folder)
        if folder.parts[-2:] != (row.run_id, "artifacts") or not ours:
            what = f"its files are said to be in {folder}, which is no folder of this store"
            raise InputError("run-damaged", f"run {row.run_id[:8]}: {what}; remove the run by hand")
        return folder

    def _remove_files(self, row: Row, folder: Path | None, part: str) -> None:
        """Remove a run's folder, or a part of its artefacts."""
        if folder is None:
            with self._answering():
                self._client()._tracking_client._get_artifact_repo(row.run_id).delete_artifacts(part or None)
        elif (gone := folder / part if part else folder.parent).exists():
            shutil.rmtree(gone)
