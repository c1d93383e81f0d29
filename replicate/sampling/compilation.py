"""Compiles the samplers' arithmetic, with numba for CPUs and with torch for GPUs, and losses."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from numba import config, njit  # pyright: ignore[reportPrivateImportUsage]
from torch import Tensor

from replicate.errors import UserError

# Numba reuses a compiled kernel until the kernel's own file changes, although functions that it
# inlines from other files may have changed. So the cache's folder is named by a hash of all files.
_HERE = Path(__file__).parent
_SOURCES = sha256(b"".join(file.read_bytes() for file in sorted(_HERE.rglob("*.py"))))
setattr(config, "CACHE_DIR", str(_HERE / "__pycache__" / _SOURCES.hexdigest()[:16]))  # noqa: B010

_MATHS: dict[str, Any] = {
    "fastmath": {"contract", "nsz"},
    "error_model": "numpy",
    "boundscheck": False,
}
_ANY_ORDER: dict[str, Any] = {"fastmath": {"contract", "nsz", "reassoc"}}
compiled = njit(nogil=True, cache=True, **_MATHS)
inlined = njit(inline="always", **_MATHS)
summed = njit(nogil=True, cache=True, **(_MATHS | _ANY_ORDER))
"""Decorates a function that sums over an array, in whatever order the processor does it fastest."""


@cache
def fused(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles a function of tensors into one GPU kernel that works for any size.

    Without a GPU or without gcc, it returns the function itself.
    """
    if torch.cuda.is_available() and shutil.which("gcc"):
        # The samplers share this code. With isolation, each has its own limit of recompilations.
        return torch.compile(function, dynamic=True, isolate_recompiles=True)  # pyright: ignore
    return function


def compiled_loss(
    loss: Callable[[Tensor], Tensor], device: torch.device, backend: str | Callable = "inductor"
) -> Callable[[Tensor], Tensor]:
    """Compiles the forward and the backward pass of a loss, once for each number of examples.

    Both passes round where they round when they are not compiled. All gradients are there at once
    when the backward pass ends. `capture` makes a CUDA graph of them with the move of the weights;
    torch's own graphs are not used, because they own the gradients, which microbatches add to.

    Args:
        loss: takes indices of examples and returns their losses.
        device: where it is computed.
        backend: that of `torch.compile`.

    Raises:
        UserError: there is no compiler for the device, or torch is where it cannot be used.
    """
    variable, usual = ("CC", "gcc") if device.type == "cuda" else ("CXX", "g++")
    compiler = os.environ.get(variable, usual)
    if backend == "inductor" and not shutil.which(compiler):
        raise UserError(f"compiled: needs {compiler}; install it, or leave compiled out")
    if backend == "inductor" and device.type == "cpu" and " " in torch.__file__:
        remedy = f"move {Path(torch.__file__).parent}, or leave compiled out"
        raise UserError(f"compiled: for a CPU torch's path must have no blanks; {remedy}")
    options = {"emulate_precision_casts": True} if backend == "inductor" else None
    return torch.compile(loss, dynamic=False, backend=backend, options=options)  # pyright: ignore


def sweep(loop: Callable[..., Any], blocks: int, *arguments: Any) -> None:
    """Runs a loop over all blocks, divided among at most as many threads as torch uses.

    Args:
        loop: a compiled function. `loop(*arguments, first, last)` works on the blocks from `first`
            to `last` − 1.
        blocks: the number of blocks.
        *arguments: the arguments before `first` and `last`.
    """
    count = min(torch.get_num_threads(), -(-blocks // 16))
    if count <= 1:
        loop(*arguments, 0, blocks)
        return
    bounds = [blocks * i // count for i in range(count + 1)]
    for done in [_threads(count).submit(loop, *arguments, *pair) for pair in pairwise(bounds)]:
        done.result()


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, "sweep")
