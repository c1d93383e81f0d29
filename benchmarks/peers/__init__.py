"""The peers, a module each.

`model(work)` loads what is sampled, before the clock runs; `run(work, steps)` runs the chains and
returns the minibatch losses (chains, steps).
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import Protocol, cast

from numpy.typing import ArrayLike
from transformers import PreTrainedModel

from benchmarks.work import PEERS as NAMES
from benchmarks.work import Work

__all__ = ["NAMES", "Adapter", "adapter", "version"]


class Adapter(Protocol):
    @staticmethod
    def model(work: Work) -> PreTrainedModel: ...
    @staticmethod
    def run(work: Work, steps: int) -> ArrayLike: ...


def adapter(name: str) -> Adapter:
    """Imports the adapter of ours, or of a peer.

    Raises:
        ImportError: the peer is not installed, or cannot be imported here.
    """
    module = "ours" if name == "ours" else f"peers.{name.replace('-', '_')}"
    return cast(Adapter, import_module(f"benchmarks.{module}"))


def version(name: str) -> str | None:
    """Returns the version of a peer, None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
