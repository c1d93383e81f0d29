"""Lets a GPU repeat the work of a step as one CUDA graph.

For a step of any size the host takes some milliseconds, in which Python and PyTorch launch several
kernels for each tensor that moves. A graph of the step is launched whole. It repeats the same
kernels on the same memory, so all that changes from step to step must be on the device: the indices
of the minibatch are copied there, and samplers count their steps there (`Sampler.step`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor

from replicate.errors import UserError

WARM = 2  # calls before the capture, in which torch compiles and reserves what it needs
Found = tuple[Tensor, ...]
Work = Callable[[Tensor], Found]


class Repeated:
    """Calls some work, and lets the GPU repeat it from the third call on.

    Args:
        work: a function of one tensor, always of one shape, that depends on nothing else on the
            host. What it returns is overwritten by the next call.
        pool: identifies the memory of the graph; works that share it must not run at one time.
    """

    def __init__(self, work: Work, pool: Any) -> None:
        self.work, self.pool, self.calls = work, pool, 0
        self.given: Tensor | None = None

    def __call__(self, given: Tensor) -> Found:
        """Does the work.

        Raises:
            UserError: it cannot be captured.
        """
        self.calls += 1
        if self.calls <= WARM:
            return self.work(given)
        if self.given is None:
            self.given = given.clone()
            self.replay, self.found = captured(self.work, self.given, self.pool)
        self.given.copy_(given)
        self.replay()
        return self.found


def captured(work: Work, given: Tensor, pool: Any) -> tuple[Callable[[], None], Found]:
    """Captures some work in a CUDA graph, without doing it.

    Args:
        work: what to capture.
        given: its argument; each replay reads what is there then.
        pool: what `stream` yielded.

    Returns:
        A function that does the work, and the tensors in which it leaves its results.

    Raises:
        UserError: the work waits for the GPU, or does something else that a graph cannot repeat.
    """
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, pool=pool, stream=torch.cuda.current_stream()):
            found = work(given)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"compiled: a step cannot be captured ({reason}); write false") from None
    return graph.replay, found


@contextmanager
def stream(device: torch.device) -> Iterator[Any]:
    """Runs what is inside on a stream of its own, as captures must be; yields a pool of memory.

    All chains use one stream, because PyTorch reserves memory for each.
    """
    own = _own(device)
    own.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(own):
        yield torch.cuda.graph_pool_handle()
    torch.cuda.current_stream(device).wait_stream(own)


@cache
def _own(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
