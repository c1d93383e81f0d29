"""What samplers have in common: each weight is moved as soon as backward has made its gradient, and
the gradient is freed there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version

from replicate.sampling import noise
from replicate.sampling.config import Setting
from replicate.sampling.storage import Anchor, flat, precise

NO_MASK = np.empty(0, np.float32)


class Sampler(ABC):
    """Moves `parameters` around `anchor`, of the same shapes, which it reads only.

    Weights in bfloat16 are moved in float32 and rounded stochastically; an anchor may lie in 4 bits
    (replicate/sampling/storage.py). `masks`: per parameter a tensor of its shape, 0 where a weight
    must not move, or None. Subclasses have two ways to move: `native`, one pass over the memory on
    a CPU, and `portable`, the same in torch on any device and for any dtype, one kernel on a GPU.
    Between two steps a sampler that `rests` is its `state` and where the parameters stand.
    """

    rests = True

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        anchor: Sequence[Anchor],
        setting: Setting,
        *,
        nbeta: float,
        seed: int,
        burn_in: int = 0,
        masks: Sequence[Tensor | None] | None = None,
    ) -> None:
        self.parameters, self.anchor, self.setting = list(parameters), list(anchor), setting
        self.nbeta, self.seed, self.burn_in = nbeta, seed, burn_in
        pairs = zip(parameters, masks or [None] * len(anchor), strict=True)
        self.masks = [
            None if mask is None else mask.to(p.device, precise(p.dtype)).contiguous()
            for p, mask in pairs
        ]
        self.box = float("inf") if setting.bounding_box is None else setting.bounding_box
        self.steps = 0  # done; the noise is a function of it
        self.complete = (
            True  # whether the gradients of the backward pass under way are the step's last
        )
        self._places: dict[int, Tensor] = {}
        self._values: dict[torch.device, tuple[tuple[float, ...], Tensor]] = {}
        self.begin()

    def begin(self) -> None:  # noqa: B027 - most need nothing
        """What a sampler needs beyond that."""

    @contextmanager
    def attached(self) -> Iterator[None]:
        """While it lasts, every backward pass moves the parameters."""
        hooks = [
            p.register_post_accumulate_grad_hook(partial(self.hear, i))
            for i, p in enumerate(self.parameters)
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def hear(self, index: int, parameter: nn.Parameter) -> None:
        if self.complete:
            self.receive(index, parameter)

    def receive(self, index: int, parameter: nn.Parameter) -> None:
        """Moves a parameter by its gradient and drops the gradient; one without a gradient in this
        step stays.
        """
        with torch.no_grad():
            if is_native(parameter):
                self.native(index)
                increment_version(parameter)  # autograd cannot see what was written to memory
            else:
                self.portable(index)
        parameter.grad = None

    def step(self) -> None:
        """Ends a step, when all gradients have come."""
        self.steps += 1

    def state(self) -> dict[str, Tensor]:
        """All that a sampler keeps from step to step."""
        return {"steps": torch.tensor(self.steps)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.steps = int(state["steps"])

    @abstractmethod
    def native(self, index: int) -> None: ...

    @abstractmethod
    def portable(self, index: int) -> None: ...

    def place(self, index: int, step: int) -> Tensor:
        """Where the noise of a step and a parameter is, on the parameter's device."""
        parameter = self.parameters[index]
        if index not in self._places:
            self._places[index] = noise.placed(self.seed, 0, index, parameter.device)
        self._places[index][2].fill_(step)
        return self._places[index]

    def values(self, device: torch.device, *values: float) -> Tensor:
        """Numbers for a kernel: a tensor on the device, so that other numbers need no other
        kernel.
        """
        if device not in self._values or self._values[device][0] != values:
            self._values[device] = values, torch.tensor(values, dtype=torch.float64, device=device)
        return self._values[device][1]

    def held(self, index: int) -> object:
        """A parameter's mask for a compiled loop, empty where it has none."""
        mask = self.masks[index]
        return NO_MASK if mask is None else flat(mask)

    def gradient(self, index: int) -> Tensor:
        gradient = self.parameters[index].grad
        assert gradient is not None
        return gradient


def is_native(tensor: Tensor) -> bool:
    return (
        tensor.device.type == "cpu"
        and tensor.dtype in (torch.float32, torch.float64, torch.bfloat16)
        and tensor.is_contiguous()
    )
