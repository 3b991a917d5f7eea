"""Archives as bytes, for tests of what is unpacked."""

import io
import tarfile
import zipfile


def zipped(*files, method=zipfile.ZIP_DEFLATED):
    """A zip archive of files: (name, data)."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", method) as packed:
        for name, data in files:
            packed.writestr(name, data)
    return archive.getvalue()


def tarred(*files, mode="w"):
    """A tar archive of files: (name, data)."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode=mode) as packed:
        for name, data in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            packed.addfile(entry, io.BytesIO(data))
    return archive.getvalue()


def patched(data, *bytes_at):
    """The same with other bytes: (place, value)."""
    other = bytearray(data)
    for place, value in bytes_at:
        other[place] = value
    return bytes(other)
