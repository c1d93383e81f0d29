"""Converts the formats of weights and anchors (w*).

Weights and anchors are floats (float32 or float64) or bfloat16; an anchor can also be in 4 bits.

Weights in bfloat16 take half the memory of float32. Most steps are smaller than half the distance Δ
between two neighbouring numbers, so rounding to the nearest one would undo them. Stochastic
rounding moves away from 0 with a probability equal to the fraction that is cut off (Gupta et al.
2015, arXiv 1502.02551). Its mean error is 0. It adds a variance of at most Δ²/4 per step to the
variance ε of the sampler's own noise.

An anchor in NF4 (Dettmers et al. 2023, arXiv 2305.14314) is the packed tensor that a model was
loaded with. A byte holds two weights, the first in its high half. Each weight is one of 16
quantiles of the normal distribution, multiplied by a scale that consecutive weights share.

On CPUs, `widen` and `round_into` convert one block at a time inside the samplers' loop. On GPUs,
`unpack` and `store` convert whole tensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numba import types, uint32, uint64
from numba.extending import overload
from torch import Tensor

from replicate.sampling.noise import BLOCK, MASK, philox, words

HALF = BLOCK // 8  # number of counters for the rounding of a block: each gives eight 16-bit numbers
ROUNDING = 1 << 31  # is added to the tensor's index, so that rounding and noise differ


@dataclass(frozen=True)
class NF4:
    """Holds a tensor of n weights in 4 bits.

    Attributes:
        packed: two weights in each byte, (⌈n/2⌉,) uint8.
        scale: the shared scales, (⌈n/per_scale⌉,) float32.
        code: the 16 quantiles, (16,) float32.
        per_scale: the number of consecutive weights that share a scale; it divides `BLOCK`.
        shape: the shape of the unpacked tensor.
        dtype: the dtype to which unpacked weights are rounded. It is the dtype of the chain, so
            the anchor equals the start of the chain exactly.
    """

    packed: Tensor
    scale: Tensor
    code: Tensor
    per_scale: int
    shape: torch.Size
    dtype: torch.dtype

    def dense(self) -> Tensor:
        """Returns the values in `shape` and `dtype`."""
        values = unpack(stored(self), self.shape.numel(), self.per_scale, self.dtype)
        return values.view(self.shape).to(self.dtype)


Anchor = Tensor | NF4


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """Returns the dtype in which steps of weights of `dtype` are computed."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def dense(anchor: Anchor) -> Tensor:
    """Returns an anchor's values in its own shape and dtype."""
    return anchor.dense() if isinstance(anchor, NF4) else anchor


def stored(anchor: Anchor) -> tuple[Tensor, ...]:
    """Returns the tensors that make up an anchor, in the form that `unpack` takes."""
    return (anchor,) if isinstance(anchor, Tensor) else (anchor.packed, anchor.scale, anchor.code)


def per_scale(anchor: Anchor) -> int:
    """Returns how many weights share a scale; 0 if the anchor is not in 4 bits."""
    return 0 if isinstance(anchor, Tensor) else anchor.per_scale


def unpack(anchor: tuple[Tensor, ...], size: int, per_scale: int, dtype: torch.dtype) -> Tensor:
    """Returns an anchor's values, (size,), in the dtype in which steps are computed.

    Values in 4 bits are first rounded to `dtype`.

    Args:
        anchor: what `stored` returns.
        size: the number of weights.
        per_scale: the number of weights that share a scale; unused if the anchor is not in 4 bits.
        dtype: the dtype of the weights.
    """
    if len(anchor) == 1:
        return anchor[0].reshape(-1).to(compute_dtype(dtype))
    packed, scale, code = anchor
    index = torch.arange(size, device=packed.device)
    pair = packed[index // 2].int()
    values = code[torch.where(index % 2 == 0, pair >> 4, pair & 15)] * scale[index // per_scale]
    return values.to(dtype).float()


def store(w: Tensor, values: Tensor, place: Tensor) -> None:
    """Copies values into weights, with stochastic rounding if the weights are bfloat16.

    Args:
        w: the weights, n elements.
        values: the new values, (n,) float32 or float64.
        place: what `noise.placed` returns; it determines the random numbers of the rounding.
    """
    if w.dtype == torch.bfloat16:
        bits = values.view(torch.int32) + rounding_bits(values.numel(), place).int()
        values = (bits & -65536).view(torch.float32)
    w.copy_(values.view_as(w))


def rounding_bits(size: int, place: Tensor) -> Tensor:
    """Returns the random numbers that stochastic rounding adds, (size,) in [0, 2¹⁶).

    They are added to the 16 bits of float32 that bfloat16 lacks.
    """
    index = torch.arange(size, device=place.device)
    low, high, step, tensor = place.unbind()
    lane = index & (HALF - 1)
    row = index >> HALF.bit_length() - 1 & 7
    block = index >> BLOCK.bit_length() - 1
    counter = lane, block, step.expand_as(lane), (tensor + ROUNDING).expand_as(lane)
    c0, c1, c2, c3 = philox(counter, (low, high))
    word = torch.where(row < 4, torch.where(row < 2, c0, c1), torch.where(row < 6, c2, c3))
    return torch.where(row % 2 == 0, word & 0xFFFF, (word & MASK) >> 16)


def flat(tensor: Anchor) -> Any:
    """Returns a tensor as NumPy views, in the form that `widen` and `round_into` take.

    Floats become (n,) floats. A bfloat16 tensor becomes its bits, (n,) uint16. A tensor in 4 bits
    becomes a tuple of its arrays, `per_scale`, and whether its dtype is bfloat16.
    """
    if isinstance(tensor, NF4):
        return (
            tensor.packed.numpy(),
            tensor.scale.numpy(),
            tensor.code.numpy(),
            np.int64(tensor.per_scale),
            tensor.dtype == torch.bfloat16,
        )
    if tensor.dtype == torch.bfloat16:
        return tensor.detach().reshape(-1).view(torch.int16).numpy().view(np.uint16)
    return tensor.detach().reshape(-1).numpy()


def widen(flat: Any, start: int, size: int, buffer: Any) -> Any:
    """Returns the values of `size` weights from index `start`. Only numba can call it.

    For floats the result is a view, so writing to it changes the weights. Other formats are
    converted into `buffer`, (BLOCK,) float32.
    """


@overload(widen, inline="always")
def _widen(flat, start, size, buffer):
    if isinstance(flat, types.BaseTuple):
        return _widen_nf4
    return _widen_bfloat16 if flat.dtype == types.uint16 else _view_floats


def _view_floats(flat, start, size, buffer):
    return flat[start : start + size]


def _widen_bfloat16(flat, start, size, buffer):
    bits = buffer.view(np.uint32)
    for i in range(size):
        bits[i] = uint32(flat[start + i]) << uint32(16)
    return buffer[:size]


def _widen_nf4(flat, start, size, buffer):
    packed, scale, code, per_scale, to_bfloat16 = flat
    bits = buffer.view(np.uint32)
    for first in range(0, size, per_scale):
        factor = scale[(start + first) // per_scale]
        for i in range(first, min(first + per_scale, size) - 1, 2):
            pair = packed[(start + i) >> 1]
            buffer[i] = code[pair >> 4] * factor
            buffer[i + 1] = code[pair & 15] * factor
    if size & 1:
        last = start + size - 1
        buffer[size - 1] = code[packed[(last + 1) >> 1] >> 4] * scale[last // per_scale]
    if to_bfloat16:  # round to the nearest bfloat16, ties to even
        for i in range(size):
            odd = (bits[i] >> uint32(16)) & uint32(1)
            bits[i] = (bits[i] + uint32(0x7FFF) + odd) & uint32(0xFFFF0000)
    return buffer[:size]


def round_into(
    flat: Any, start: int, values: Any, seed: int, step: int, tensor: int, block: int
) -> None:
    """Stores a block's values, with stochastic rounding if the weights are bfloat16.

    If the weights are floats, this does nothing, because the caller has already changed them in
    place. Only numba can call it.
    """


@overload(round_into, inline="always")
def _round_into(flat, start, values, seed, step, tensor, block):
    return _round_to_bfloat16 if flat.dtype == types.uint16 else _leave


def _leave(flat, start, values, seed, step, tensor, block):
    pass


def _round_to_bfloat16(flat, start, values, seed, step, tensor, block):
    bits, random = values.view(np.uint32), np.empty((4, HALF), np.uint32)
    for lane in range(HALF):
        w0, w1, w2, w3 = words(lane, block, step, uint64(tensor) + uint64(ROUNDING), seed)
        random[0, lane], random[1, lane] = uint32(w0), uint32(w1)
        random[2, lane], random[3, lane] = uint32(w2), uint32(w3)
    for row in range(8):
        first, shift = row * HALF, uint32(16 * (row & 1))
        for lane in range(min(HALF, values.size - first)):
            added = (random[row >> 1, lane] >> shift) & uint32(0xFFFF)
            flat[start + first + lane] = (bits[first + lane] + added) >> uint32(16)
