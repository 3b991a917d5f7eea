"""What graph methods share: torch-geometric, an optional extra of the package."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, ClassVar

from bench.training import TorchMethod


class GraphMethod(TorchMethod):
    """A torch method whose network is made of torch-geometric layers, imported where the network is made.

    :meth:`batch` builds the graphs of one batch: node values ``[N, ...]``, ``edges`` int64 ``[2, E]`` and the
    graph of each node, ``graph`` int64 ``[N]``.
    """

    family: ClassVar[str] = "graph"

    @classmethod
    def skip(cls, manifest: Mapping[str, Any]) -> str | None:
        """Says how to install torch-geometric where it is missing."""
        if find_spec("torch_geometric") is not None:
            return None
        return "needs torch-geometric; install it with: pip install 'etc-bench[graphs]'"
