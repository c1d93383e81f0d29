"""What makes torch fast on a CPU, for the rest of the process.

Matrix products by oneDNN where torch would take MKL, which on processors not Intel's leaves half of
the vector unit idle: on an AMD EPYC with AVX-512, 98 against 210 GFLOP/s a core in float32. The
products are those of IEEE single precision either way. What oneDNN is slow at, or does not know,
goes to torch's own kernel as before. Products in bfloat16 are made in float32 and rounded where the
processor has no instructions for them: several times faster there, and what such instructions give
but for the order of the sums.

Memory that is freed is kept for the next step: the C library would give large pieces back and fault
their pages in again, a tenth to a third of a step's time.
"""

from __future__ import annotations

import ctypes
import sys
import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor

LEAST = 64 * 64 * 64  # multiplications from which the way through Python pays


def prepare() -> None:
    keep_memory()
    use_onednn()


def keep_memory() -> None:
    """glibc's M_MMAP_MAX = 0, M_TRIM_THRESHOLD as high as it goes and 64 MiB of M_TOP_PAD; nothing
    where there is another C library.
    """
    if (
        sys.platform == "linux"
        and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None
    ):
        for option, value in ((-4, 0), (-1, 2**31 - 1), (-2, 2**26)):
            mallopt(option, value)


def trim() -> None:
    """Gives back what is free after all: what a model's loading took, once."""
    if (
        sys.platform == "linux"
        and (malloc_trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None
    ):
        malloc_trim(0)


@cache
def use_onednn() -> torch.library.Library | None:
    """For the rest of the process; None where torch has no oneDNN."""
    if not torch.backends.mkldnn.is_available() or not hasattr(
        torch.ops.mkldnn, "_linear_pointwise"
    ):
        return None
    linear = torch.ops.mkldnn._linear_pointwise.default
    widens = torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2")
    plain_mm, plain_addmm = (
        torch.library.get_kernel("aten::mm", "CPU"),
        torch.library.get_kernel("aten::addmm", "CPU"),
    )

    def mm(keys: Any, a: Tensor, b: Tensor) -> Tensor:
        if widens and suited(a, b, torch.bfloat16):
            return linear(a.float(), dense(b).t().float(), None, "none", [], "").bfloat16()
        if not suited(a, b):
            return plain_mm.call_boxed(keys, a, b)
        return linear(a, dense(b).t(), None, "none", [], "")

    def addmm(
        keys: Any, bias: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1
    ) -> Tensor:
        simple = bias.dim() == 1 and beta == 1 and alpha == 1
        if widens and simple and suited(a, b, torch.bfloat16):
            return linear(a.float(), dense(b).t().float(), bias.float(), "none", [], "").bfloat16()
        if not simple or not suited(a, b):
            return plain_addmm.call_boxed(keys, bias, a, b, beta=beta, alpha=alpha)
        return linear(a, dense(b).t(), bias, "none", [], "")

    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there was a kernel before
        library.impl("mm", mm, "CPU", with_keyset=True, allow_override=True)
        library.impl("addmm", addmm, "CPU", with_keyset=True, allow_override=True)
    return library


def suited(a: Tensor, b: Tensor, dtype: torch.dtype = torch.float32) -> bool:
    return a.dtype == b.dtype == dtype and a.shape[0] * a.shape[1] * b.shape[1] >= LEAST


def dense(b: Tensor) -> Tensor:
    """A matrix without gaps between its rows or columns: with gaps oneDNN falls back to a loop of
    its own, 500 times slower.
    """
    return b if b.is_contiguous() or b.t().is_contiguous() else b.contiguous()
