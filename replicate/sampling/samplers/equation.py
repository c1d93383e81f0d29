"""Makes one equation usable by numba, for a single weight, and by torch, for a tensor."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba.extending import overload, register_jitable

equation = register_jitable(inline="always")
"""Decorates a function that computes with numbers or tensors, so that numba can inline it.

In numba, 2 * x is float64 if x is float32, so equations write x + x instead.
"""


def sqrt(x: Any) -> Any:
    """Returns √x."""
    return x.sqrt()


@overload(sqrt, inline="always")
def _sqrt(x):
    return lambda x: np.sqrt(x)


def where(condition: Any, value: Any, constant: float) -> Any:
    """Returns `value` where the condition holds, else the constant, in the dtype of `value`."""
    return torch.where(condition, value, constant)


@overload(where, inline="always")
def _where(condition, value, constant):
    number = value
    return lambda condition, value, constant: value if condition else number(constant)
