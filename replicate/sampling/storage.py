"""How weights and anchors lie in memory: as floats, in bfloat16, an anchor also in 4 bits; a block
of them is widened where it is used.

A chain's weights in bfloat16 take half of float32's room, but a step is mostly smaller than half
the distance Δ of two neighbours, and rounding to the nearest would undo it. Stochastic rounding
goes up with the probability of what was lost (Gupta et al. 2015, arXiv 1502.02551): right in the
mean, with a variance of at most Δ²/4 a step, beside ε of the sampler's own noise.

An anchor in NF4 (Dettmers et al. 2023, arXiv 2305.14314) is the packed weights that a model was
loaded with: two to a byte, the first in the high half, each one of 16 quantiles of the normal
distribution, times the largest absolute value of its stretch.
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

HALF = BLOCK // 8  # counters for a block's rounding: eight 16-bit numbers each
ROUNDING = 1 << 31  # in a counter's tensor number: apart from the noise's


@dataclass(frozen=True)
class NF4:
    """Weights of `shape` in 4 bits: packed (⌈n/2⌉,) uint8, scale (⌈n/stretch⌉,) float32, code (16,)
    float32; `stretch` divides a block. `dtype`: what they are rounded to when they are widened, so
    that an anchor is where its chain starts.
    """

    packed: Tensor
    scale: Tensor
    code: Tensor
    stretch: int
    shape: torch.Size
    dtype: torch.dtype

    def dense(self) -> Tensor:
        return (
            opened(
                (self.packed, self.scale, self.code), self.shape.numel(), self.stretch, self.dtype
            )
            .view(self.shape)
            .to(self.dtype)
        )


Anchor = Tensor | NF4


def dense(anchor: Anchor) -> Tensor:
    return anchor.dense() if isinstance(anchor, NF4) else anchor


def flat(tensor: Anchor) -> Any:
    """NumPy views for a compiled loop: (n,) of floats; (n,) uint16 of bfloat16; packed, scale, code
    and stretch of 4 bits.
    """
    if isinstance(tensor, NF4):
        return (
            tensor.packed.numpy(),
            tensor.scale.numpy(),
            tensor.code.numpy(),
            np.int64(tensor.stretch),
            tensor.dtype == torch.bfloat16,
        )
    if tensor.dtype == torch.bfloat16:
        return tensor.detach().reshape(-1).view(torch.int16).numpy().view(np.uint16)
    return tensor.detach().reshape(-1).numpy()


def precise(dtype: torch.dtype) -> torch.dtype:
    """That in which weights of `dtype` are moved."""
    return torch.float64 if dtype == torch.float64 else torch.float32


# In torch, for a GPU's compiler: whole tensors, of which nothing is stored.


def parts(anchor: Anchor) -> tuple[Tensor, ...]:
    """What a kernel is given of an anchor."""
    return (anchor.packed, anchor.scale, anchor.code) if isinstance(anchor, NF4) else (anchor,)


def stretch(anchor: Anchor) -> int:
    """Weights that share a scale; 0 where the anchor is not in 4 bits."""
    return anchor.stretch if isinstance(anchor, NF4) else 0


def opened(anchor: tuple[Tensor, ...], size: int, stretch: int, dtype: torch.dtype) -> Tensor:
    """An anchor's values, (size,) float32 or float64, rounded to `dtype`."""
    if len(anchor) == 1:
        return anchor[0].reshape(-1).to(precise(dtype))
    packed, scale, code = anchor
    index = torch.arange(size, device=packed.device)
    pair = packed[index // 2].int()
    values = code[torch.where(index % 2 == 0, pair >> 4, pair & 15)] * scale[index // stretch]
    return values.to(dtype).float()


def store(w: Tensor, values: Tensor, place: Tensor) -> None:
    """Puts values (n,) float32 or float64 where weights lie, rounded stochastically to bfloat16
    where they are of it.
    """
    if w.dtype == torch.bfloat16:
        bits = values.view(torch.int32) + sixteen(values.numel(), place).int()
        values = (bits & -65536).view(torch.float32)
    w.copy_(values.view_as(w))


def sixteen(size: int, place: Tensor) -> Tensor:
    """(size,) int64 in [0, 2¹⁶): what `rounded` adds, as a function of the index alone."""
    index = torch.arange(size, device=place.device)
    low, high, step, tensor = place.unbind()
    lane, row, block = (
        index & (HALF - 1),
        index >> HALF.bit_length() - 1 & 7,
        index >> BLOCK.bit_length() - 1,
    )
    c0, c1, c2, c3 = philox(
        (lane, block, step.expand_as(lane), (tensor + ROUNDING).expand_as(lane)), (low, high)
    )
    word = torch.where(row < 4, torch.where(row < 2, c0, c1), torch.where(row < 6, c2, c3))
    return torch.where(row % 2 == 0, word & 0xFFFF, (word & MASK) >> 16)


# In numba, for a CPU: block by block.


def widen(stored: Any, start: int, size: int, room: Any) -> Any:
    """The values of `size` weights from `start` on: in place where they are floats, else widened
    into `room`.
    """


@overload(widen, inline="always")
def _widen(stored, start, size, room):
    if isinstance(stored, types.BaseTuple):
        return _of_nf4
    return _of_bfloat16 if stored.dtype == types.uint16 else _of_floats


def _of_floats(stored, start, size, room):
    return stored[start : start + size]


def _of_bfloat16(stored, start, size, room):
    bits = room.view(np.uint32)
    for i in range(size):
        bits[i] = uint32(stored[start + i]) << uint32(16)
    return room[:size]


def _of_nf4(stored, start, size, room):
    packed, scale, code, stretch, brief = stored
    bits = room.view(np.uint32)
    for first in range(0, size, stretch):
        factor = scale[(start + first) // stretch]
        for i in range(first, min(first + stretch, size) - 1, 2):
            pair = packed[(start + i) >> 1]
            room[i] = code[pair >> 4] * factor
            room[i + 1] = code[pair & 15] * factor
    if size & 1:
        room[size - 1] = (
            code[packed[(start + size) >> 1] >> 4] * scale[(start + size - 1) // stretch]
        )
    if brief:  # to the nearest bfloat16, ties to even
        for i in range(size):
            bits[i] = (bits[i] + uint32(0x7FFF) + ((bits[i] >> uint32(16)) & uint32(1))) & uint32(
                0xFFFF0000
            )
    return room[:size]


def rounded(
    stored: Any, start: int, values: Any, seed: int, step: int, tensor: int, block: int
) -> None:
    """Puts a block's values back where weights lie; nothing where they were moved in place."""


@overload(rounded, inline="always")
def _rounded(stored, start, values, seed, step, tensor, block):
    return _to_bfloat16 if stored.dtype == types.uint16 else _in_place


def _in_place(stored, start, values, seed, step, tensor, block):
    pass


def _to_bfloat16(stored, start, values, seed, step, tensor, block):
    bits, random = values.view(np.uint32), np.empty((4, HALF), np.uint32)
    for lane in range(HALF):
        w0, w1, w2, w3 = words(lane, block, step, uint64(tensor) + uint64(ROUNDING), seed)
        random[0, lane], random[1, lane], random[2, lane], random[3, lane] = (
            uint32(w0),
            uint32(w1),
            uint32(w2),
            uint32(w3),
        )
    for row in range(8):
        first, shift = row * HALF, uint32(16 * (row & 1))
        for lane in range(min(HALF, values.size - first)):
            added = (random[row >> 1, lane] >> shift) & uint32(0xFFFF)
            stored[start + first + lane] = (bits[first + lane] + added) >> uint32(16)
