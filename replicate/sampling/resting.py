"""A chain that rests: what moves, what its sampler keeps, and what was recorded, from which it goes
on to the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from replicate.progress import Rest

if TYPE_CHECKING:
    from replicate.sampling.samplers.base import Sampler


@dataclass(frozen=True)
class Resting:
    """Where a chain rests; what goes there beside its own; what was found there, nothing for a
    chain that begins.
    """

    place: Rest
    beside: Mapping[str, Tensor]
    found: Mapping[str, Tensor]

    def offer(
        self,
        parameters: Sequence[nn.Parameter],
        sampler: Sampler,
        losses_T: NDArray[np.float64],
        seconds_T: NDArray[np.float64],
    ) -> None:
        if sampler.rests:
            recorded = {
                "losses": torch.from_numpy(losses_T),
                "seconds": torch.from_numpy(seconds_T),
            }
            self.place.offer(
                lambda: {**self.beside, **recorded, **pack("weight", parameters), **sampler.state()}
            )

    def resume(
        self,
        parameters: Sequence[nn.Parameter],
        sampler: Sampler,
        losses_T: NDArray[np.float64],
        seconds_T: NDArray[np.float64],
    ) -> int:
        """Puts everything back, and says how many steps are done."""
        if not self.found:
            return 0
        with torch.no_grad():
            for parameter, weight in zip(parameters, unpack("weight", self.found), strict=True):
                parameter.copy_(weight)
        losses_T[:], seconds_T[:] = self.found["losses"].numpy(), self.found["seconds"].numpy()
        sampler.restore(self.found)
        return sampler.steps


def pack(name: str, tensors: Sequence[Any]) -> dict[str, Tensor]:
    """A list of tensors under names of their own."""
    return {f"{name}.{i}": tensor for i, tensor in enumerate(tensors)}


def unpack(name: str, state: Mapping[str, Tensor]) -> list[Tensor]:
    """The tensors that were packed under a name, none where there are none."""
    return [state[f"{name}.{i}"] for i in range(sum(key.startswith(f"{name}.") for key in state))]
