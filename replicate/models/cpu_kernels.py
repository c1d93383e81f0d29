"""Faster torch on a CPU, inside `with fast_cpu():` alone.

oneDNN computes matrix products instead of MKL, which leaves half of the vector unit idle on
processors that are not Intel's. On an AMD EPYC with AVX-512, oneDNN reaches 210 GFLOP/s a core in
float32, and MKL 98. The products are those of IEEE single precision either way. torch's own kernel
computes what oneDNN is slow at or does not know. On a processor without instructions for bfloat16,
products in bfloat16 are computed in float32 and rounded. This is several times faster there, and
equals what such instructions give but for the order of the sums.

Freed memory is kept for the next step. Otherwise the C library gives large pieces back to the
system and has to fetch them page by page, which takes a tenth to a third of the time of a step.
"""

from __future__ import annotations

import ctypes
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

LEAST = 64 * 64 * 64  # multiplications, from which the way through Python pays


@contextmanager
def fast_cpu() -> Iterator[None]:
    """Makes products and the reuse of memory fast, and puts both back at the end."""
    library = _use_onednn()
    _set_malloc(mmap_max=0, trim_threshold=2**31 - 1, top_pad=2**26)
    try:
        yield
    finally:
        _set_malloc(mmap_max=2**16, trim_threshold=2**17, top_pad=2**17)  # glibc's own
        trim()
        if library is not None:
            library._destroy()


def _set_malloc(*, mmap_max: int, trim_threshold: int, top_pad: int) -> None:
    """Tells glibc how much freed memory to keep; does nothing with another C library."""
    for option, value in ((-4, mmap_max), (-1, trim_threshold), (-2, top_pad)):
        _call_libc("mallopt", option, value)


def trim() -> None:
    """Gives free memory back to the system, as is worth while once a model is loaded."""
    _call_libc("malloc_trim", 0)


def _call_libc(function: str, *arguments: int) -> None:
    found = getattr(ctypes.CDLL(None), function, None) if sys.platform == "linux" else None
    if found is not None:
        found(*arguments)


def has_onednn() -> bool:
    """Tells whether torch can use oneDNN here."""
    return hasattr(torch.ops.mkldnn, "_linear_pointwise") and torch.backends.mkldnn.is_available()


def _use_onednn() -> torch.library.Library | None:
    """Replaces torch's products as long as the library that is returned lives; None without."""
    if not has_onednn():
        return None
    linear = torch.ops.mkldnn._linear_pointwise.default
    widens = torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2")
    plain_mm = torch.library.get_kernel("aten::mm", "CPU")
    plain_addmm = torch.library.get_kernel("aten::addmm", "CPU")

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
        warnings.simplefilter("ignore")  # torch warns that there was a kernel before
        library.impl("mm", mm, "CPU", with_keyset=True, allow_override=True)
        library.impl("addmm", addmm, "CPU", with_keyset=True, allow_override=True)
    return library


def suited(a: Tensor, b: Tensor, dtype: torch.dtype = torch.float32) -> bool:
    return a.dtype == b.dtype == dtype and a.shape[0] * a.shape[1] * b.shape[1] >= LEAST


def dense(b: Tensor) -> Tensor:
    """Returns the matrix without gaps between its rows or columns, which oneDNN is slow with.

    It would use a plain loop, which is 500 times slower.
    """
    return b if b.is_contiguous() or b.t().is_contiguous() else b.contiguous()
