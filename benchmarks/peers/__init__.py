"""What one would pick otherwise, a module each.

`model(work)` loads what is sampled, before the clock runs; `run(work, steps)` does the work and
gives the minibatch losses, shape (chains, steps).
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import Protocol, cast

from numpy.typing import ArrayLike
from transformers import PreTrainedModel

from benchmarks.work import Work

NAMES = ("devinterp", "canonical-interp", "posteriors")


class Adapter(Protocol):
    @staticmethod
    def model(work: Work) -> PreTrainedModel: ...
    @staticmethod
    def run(work: Work, steps: int) -> ArrayLike: ...


def adapter(name: str) -> Adapter:
    """Ours, or a peer's.

    Raises:
        ImportError: the peer is not installed, or cannot be imported here.
    """
    return cast(
        Adapter,
        import_module(
            "benchmarks.ours" if name == "ours" else f"benchmarks.peers.{name.replace('-', '_')}"
        ),
    )


def version(name: str) -> str | None:
    """Of an installed peer; None where it is not."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
