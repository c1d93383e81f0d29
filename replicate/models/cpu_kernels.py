"""Makes torch faster on a CPU, inside `with fast_cpu():` only.

On AMD's processors with AVX-512, oneDNN computes matrix products instead of MKL, because MKL leaves
half of the vector unit idle there: an AMD EPYC reaches 210 GFLOP/s per core in float32 instead of
98. Both compute in IEEE single precision. On other processors MKL stays, which is up to twice as
fast with AVX2. On a processor without AVX-512, products in bfloat16 are computed in float32 and
rounded, which is several times faster there. The result differs from that of bfloat16 instructions
only by the order of summation.

The process reuses freed memory in the next step. Otherwise the C library returns large blocks to
the system and requests them again page by page, which takes a tenth to a third of a step's time.
"""

from __future__ import annotations

import ctypes
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import llvmlite.binding as llvm
import torch
from torch import Tensor

LEAST = 64 * 64 * 64  # multiplications; for smaller products, the call of Python costs too much


@contextmanager
def fast_cpu() -> Iterator[None]:
    """Uses the fastest matrix products and reuses freed memory; undoes both at the end."""
    library = _replace_products()
    _set_malloc(mmap_max=0, trim_threshold=2**31 - 1, top_pad=2**26)
    try:
        yield
    finally:
        _set_malloc(mmap_max=2**16, trim_threshold=2**17, top_pad=2**17)  # glibc's defaults
        trim()
        if library is not None:
            library._destroy()


def _set_malloc(*, mmap_max: int, trim_threshold: int, top_pad: int) -> None:
    """Tells glibc how much freed memory to reuse; does nothing with another C library."""
    for option, value in ((-4, mmap_max), (-1, trim_threshold), (-2, top_pad)):
        _call_libc("mallopt", option, value)


def trim() -> None:
    """Returns free memory to the system; this is useful after a model has been loaded."""
    _call_libc("malloc_trim", 0)


def _call_libc(function: str, *arguments: int) -> None:
    found = getattr(ctypes.CDLL(None), function, None) if sys.platform == "linux" else None
    if found is not None:
        found(*arguments)


def has_onednn() -> bool:
    """Tells whether torch can use oneDNN here."""
    return hasattr(torch.ops.mkldnn, "_linear_pointwise") and torch.backends.mkldnn.is_available()


def prefers_onednn() -> bool:
    """Tells whether oneDNN is faster than MKL here: on AMD's processors with AVX-512."""
    amd = llvm.get_host_cpu_name().startswith("znver")
    return amd and torch.backends.cpu.get_cpu_capability() == "AVX512" and has_onednn()


def _replace_products() -> torch.library.Library | None:
    """Replaces torch's products until the returned library is destroyed.

    If torch's products are already the fastest here, it changes nothing and returns None.
    """
    onednn = prefers_onednn()
    widens = torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2")
    if not onednn and not widens:
        return None
    linear = torch.ops.mkldnn._linear_pointwise.default if onednn else None
    plain_mm = torch.library.get_kernel("aten::mm", "CPU")
    plain_addmm = torch.library.get_kernel("aten::addmm", "CPU")

    def mm(keys: Any, a: Tensor, b: Tensor) -> Tensor:
        if widens and suited(a, b, torch.bfloat16):
            return plain_mm.call_boxed(keys, a.float(), b.float()).bfloat16()
        if linear is None or not suited(a, b):
            return plain_mm.call_boxed(keys, a, b)
        return linear(a, dense(b).t(), None, "none", [], "")

    def addmm(
        keys: Any, bias: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1
    ) -> Tensor:
        scales = {"beta": beta, "alpha": alpha}
        if widens and suited(a, b, torch.bfloat16):
            wide = plain_addmm.call_boxed(keys, bias.float(), a.float(), b.float(), **scales)
            return wide.bfloat16()
        if linear is None or bias.dim() != 1 or beta != 1 or alpha != 1 or not suited(a, b):
            return plain_addmm.call_boxed(keys, bias, a, b, **scales)
        return linear(a, dense(b).t(), bias, "none", [], "")

    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that there was a kernel before
        library.impl("mm", mm, "CPU", with_keyset=True, allow_override=True)
        library.impl("addmm", addmm, "CPU", with_keyset=True, allow_override=True)
    return library


def suited(a: Tensor, b: Tensor, dtype: torch.dtype = torch.float32) -> bool:
    """Tells whether both matrices have this dtype and their product has `LEAST` multiplications."""
    return a.dtype == b.dtype == dtype and a.shape[0] * a.shape[1] * b.shape[1] >= LEAST


def dense(b: Tensor) -> Tensor:
    """Returns the matrix, copied if there are gaps between its rows or columns in memory.

    With gaps, oneDNN would use a plain loop, which is 500 times slower.
    """
    return b if b.is_contiguous() or b.t().is_contiguous() else b.contiguous()
