"""The fitted method of a finished run: by code that the user has or names, from files that the run wrote.

A folder of results may come from anywhere, and what it says of a run is data.  A shipped or installed method is the
user's own; a ``FILE.py:CLASS`` in a run's record is a path that somebody wrote there, so that file is opened only where
the user names it, too, and then only if it is the one that the run was made by.
"""

import shlex
from collections.abc import Sequence

from bench.errors import InputError
from bench.files import is_of_machine
from bench.method import Method
from bench.runs import registry
from bench.spec import RunSpec
from bench.tracking.record import Record


def method_of(spec: RunSpec, named: Sequence[str] = ()) -> str:
    """The name under which a finished run's method may be described and loaded.

    ``named`` are methods that the user named on the command line.  Raises :class:`InputError` for a file that is not
    among them, or is among them with another digest than the run recorded.
    """
    if not registry.is_file(spec.method):
        return spec.method
    wanted, digests = spec.method.rpartition(":")[2], {}
    for name in named:
        if registry.is_file(name) and name.rpartition(":")[2] == wanted:
            digests[name] = registry.digest_of(name)
    same = [name for name, digest in digests.items() if digest == spec.source]
    if same:
        return same[0]
    made = f"the run was made by {spec.source or 'a file without a recorded digest'}"
    if digests:
        name, digest = next(iter(digests.items()))
        remedy = "name the file that it was made by, or run it again with this one"
        raise InputError("other-code", f"{name}: has digest {digest}, {made}; {remedy}")
    remedy = f"look at it and, if it may run, name it: --method {shlex.quote(spec.method)}"
    raise InputError("unnamed-code", f"{spec.method}: only stored results name this file, so it is not run; {remedy}")


def fitted(record: Record, named: Sequence[str] = (), *, device: str = "cpu") -> Method:
    """The method of a run that `Tracker.load` gave, as it was fitted.

    Raises :class:`InputError` as :func:`method_of` does, and for files that are not there, changed or unreadable.
    """
    folder = record.model_folder()  # first: of a run without a model no file needs to be named
    kind = registry.load(method_of(record.spec, named))
    try:
        return kind.load(folder, device=device)
    except InputError as error:
        raise error.within(f"run {record.run_id[:8]}") from error
    except Exception as error:  # of JSON, of tensors, of a foreign method's own format
        if is_of_machine(error):
            raise
        raise record.damaged("its model cannot be read", error) from error
