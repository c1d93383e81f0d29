"""How weights and anchors are stored: as floats, in bfloat16, or, for anchors alone, in 4 bits.

Weights in bfloat16 take half of float32's memory. A step is mostly smaller than half the distance Δ
of two neighbouring numbers, so rounding to the nearest would undo it. Stochastic rounding goes up
with the probability of what is lost (Gupta et al. 2015, arXiv 1502.02551): it is right in the mean,
and adds a variance of at most Δ²/4 a step to the ε of the sampler's own noise.

An anchor in NF4 (Dettmers et al. 2023, arXiv 2305.14314) is the packed tensor that a model was
loaded with. A byte holds two weights, the first in its high half. Each weight is one of 16
quantiles of the normal distribution times a scale that consecutive weights share.

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

HALF = BLOCK // 8  # counters for a block's rounding: each gives eight 16-bit numbers
ROUNDING = 1 << 31  # added to a counter's tensor number, to keep rounding apart from the noise


@dataclass(frozen=True)
class NF4:
    """Weights in 4 bits.

    Attributes:
        packed: (⌈n/2⌉,) uint8.
        scale: (⌈n/per_scale⌉,) float32.
        code: the 16 quantiles, (16,) float32.
        per_scale: consecutive weights that share a scale; a divisor of a block.
        shape: of the unpacked tensor.
        dtype: to which unpacked weights are rounded, so that the anchor is exactly where a chain
            of that dtype starts.
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
    """Returns the precision in which weights of `dtype` are moved."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def dense(anchor: Anchor) -> Tensor:
    """Returns an anchor's values in its own shape and dtype."""
    return anchor.dense() if isinstance(anchor, NF4) else anchor


def stored(anchor: Anchor) -> tuple[Tensor, ...]:
    """Returns the tensors of which an anchor consists, as `unpack` takes them."""
    return (anchor,) if isinstance(anchor, Tensor) else (anchor.packed, anchor.scale, anchor.code)


def per_scale(anchor: Anchor) -> int:
    """Returns how many weights share a scale; 0 if the anchor is not in 4 bits."""
    return 0 if isinstance(anchor, Tensor) else anchor.per_scale


def unpack(anchor: tuple[Tensor, ...], size: int, per_scale: int, dtype: torch.dtype) -> Tensor:
    """Returns an anchor's values rounded to `dtype`, (size,) float32 or float64."""
    if len(anchor) == 1:
        return anchor[0].reshape(-1).to(compute_dtype(dtype))
    packed, scale, code = anchor
    index = torch.arange(size, device=packed.device)
    pair = packed[index // 2].int()
    values = code[torch.where(index % 2 == 0, pair >> 4, pair & 15)] * scale[index // per_scale]
    return values.to(dtype).float()


def store(w: Tensor, values: Tensor, place: Tensor) -> None:
    """Copies values (n,) into weights of n elements, rounded stochastically if those are bfloat16.

    Args:
        w: the weights.
        values: float32 or float64.
        place: fixes the rounding; see `noise.placed`.
    """
    if w.dtype == torch.bfloat16:
        bits = values.view(torch.int32) + rounding_bits(values.numel(), place).int()
        values = (bits & -65536).view(torch.float32)
    w.copy_(values.view_as(w))


def rounding_bits(size: int, place: Tensor) -> Tensor:
    """Returns what stochastic rounding adds below bfloat16's last bit: (size,) in [0, 2¹⁶)."""
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
    """Returns NumPy views for a compiled loop, which `widen` and `round_into` understand.

    They are (n,) floats; or (n,) uint16, the bits of bfloat16; or, for 4 bits, a tuple of what
    `NF4` holds.
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
    """Returns the values of `size` weights from `start` on, in numba.

    Floats are not copied: what the caller writes to the result is stored. Other formats are
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
    if to_bfloat16:  # to the nearest, ties to even
        for i in range(size):
            odd = (bits[i] >> uint32(16)) & uint32(1)
            bits[i] = (bits[i] + uint32(0x7FFF) + odd) & uint32(0xFFFF0000)
    return buffer[:size]


def round_into(
    flat: Any, start: int, values: Any, seed: int, step: int, tensor: int, block: int
) -> None:
    """Stores a block's values in numba, rounded stochastically if the weights are bfloat16.

    Nothing is left to do if the weights are floats, which the caller has changed in place.
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
