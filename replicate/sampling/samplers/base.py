"""Defines the base of all samplers: hooks that move parameters when gradients are complete."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version

from replicate.sampling import compilation, noise
from replicate.sampling.config import SamplerConfig
from replicate.sampling.samplers.step import cpu_step, torch_step
from replicate.sampling.storage import Anchor, compute_dtype, dense, flat, per_scale, stored

NO_MASK = np.empty(0, np.float32)


class Sampler:
    """Moves parameters by their gradients and by noise. Each subclass implements one equation.

    Steps of bfloat16 weights are computed in float32 and rounded stochastically.
    `replicate.sampling.storage` describes this, and anchors in 4 bits.

    Attributes:
        update: the equation, decorated with `samplers.equation`. It takes a weight, its gradient,
            its anchor, a standard normal number, its memory (or None) and the tuple that
            `coefficients` returns. It returns the change of the weight.
        has_momentum: whether the memory holds the last change; see `samplers.step`.
        keeps_noise: whether the memory holds the last step's noise; see `samplers.step`.
        knobs: the fields of `SamplerConfig` that the equation uses, besides `lr`.
        memory_bytes: the number of bytes that the sampler stores for each weight.
        holds_gradients: whether all gradients of a step are in memory at the same time.
        steady: whether the host does the same in every step to come, so that a GPU can repeat it.

    Args:
        parameters: the tensors to move.
        anchor: w*, for each parameter; it is never changed.
        config: the hyperparameters.
        nbeta: nβ, the inverse temperature times the number of examples.
        seed: the seed of the noise.
        burn_in: the number of steps in which a sampler may adapt.
        masks: for each parameter, a tensor of its shape that is 0 where a weight must not move, or
            None.
    """

    update: ClassVar[Callable[..., Any]]
    has_momentum: ClassVar[bool] = False
    keeps_noise: ClassVar[bool] = False
    knobs: ClassVar[tuple[str, ...]] = ()
    memory_bytes: ClassVar[int] = 0
    holds_gradients: ClassVar[bool] = False

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        anchor: Sequence[Anchor],
        config: SamplerConfig,
        *,
        nbeta: float,
        seed: int,
        burn_in: int = 0,
        masks: Sequence[Tensor | None] | None = None,
    ) -> None:
        self.parameters, self.anchor, self.config = list(parameters), list(anchor), config
        self.nbeta, self.seed, self.burn_in = nbeta, seed, burn_in
        self.masks = [
            None if mask is None else mask.to(p.device, compute_dtype(p.dtype)).contiguous()
            for p, mask in zip(parameters, masks or [None] * len(anchor), strict=True)
        ]
        self.box = float("inf") if config.bounding_box is None else config.bounding_box
        self.gradients_complete = True  # whether the backward pass is the step's last
        self.noise_step = 0  # the step number in the noise's counter
        self.memory: list[Tensor | None] = [None] * len(self.parameters)
        self.by_loop = all(map(has_cpu_kernel, parameters))  # else torch moves all of them
        self.squares: dict[int, float] = {}  # ΣΔ² of each parameter that the loop moved
        blocks = np.cumsum([0, *(-(-p.numel() // noise.BLOCK) for p in self.parameters)])
        self._blocks = np.zeros((blocks[-1], 2))  # what `step.place` returned for each block
        self._places = np.split(self._blocks, blocks[1:-1])  # the same, by parameter
        self._sums: Tensor | None = None  # what torch computed, (parameters, 4): see `update_torch`
        self._arrays: dict[int, tuple[Any, ...]] = {}  # what `_flat` returns, by parameter
        self._counters: dict[torch.device, Tensor] = {}  # what `noise.placed` returns for each
        self._counted: dict[torch.device, int] = {}  # the step that is in `_counters`
        self._numbers: dict[torch.device, tuple[tuple[float, ...], Tensor]] = {}
        self.begin()

    def begin(self) -> None:
        """Initialises the state that a subclass adds; it is called at the end of `__init__`."""

    def coefficients(self) -> tuple[float, ...]:
        """Returns the equation's coefficients.

        On CPUs they are converted to the dtype of the step, except NumPy float32 numbers.
        """
        raise NotImplementedError

    @property
    def steady(self) -> bool:
        """See the class."""
        return not self.by_loop

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Makes the last backward pass of each step in this context move the parameters."""
        hooks = [
            p.register_post_accumulate_grad_hook(partial(self.on_gradient, index))
            for index, p in enumerate(self.parameters)
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def on_gradient(self, index: int, parameter: nn.Parameter) -> None:
        """Moves a parameter as soon as its gradient is complete."""
        if self.gradients_complete:
            self.move(index)

    def move(self, index: int) -> None:
        """Moves a parameter by its gradient and frees the gradient."""
        parameter = self.parameters[index]
        with torch.no_grad():
            if self.by_loop:
                self.update_cpu(index)
                increment_version(parameter)  # autograd does not see the loop's writes
            else:
                self.update_torch(index)
        parameter.grad = None

    def step(self) -> None:
        """Ends a step. It is called after the last backward pass of the step."""
        self.noise_step += 1
        for device in self._counters:
            self._count(device)

    def place(self) -> Tensor:
        """Returns Δ·∇L_B(w) and ‖Δ‖², (2,) float64, where the last step began, with Δ = w − w*.

        A parameter that had no gradient in this step counts with its ‖Δ‖² before it last moved.
        """
        if self._sums is not None:  # on the device: nothing waits for it
            total = self._sums[:, :2].sum(dim=0)
            self._sums[:, 0] = 0
            return total
        total = torch.from_numpy(self._blocks.sum(axis=0))
        self._blocks[:, 0] = 0
        return total

    def slope(self) -> Tensor:
        """Returns Δ·∇, (1,) float64, for the gradients that the parameters have now."""
        device, found = self.parameters[0].device, []
        for parameter, anchor in zip(self.parameters, self.anchor, strict=True):
            if parameter.grad is not None:
                away = parameter.detach() - dense(anchor)
                found.append((away * parameter.grad).sum(dtype=torch.float64).to(device))
        return torch.stack(found).sum()[None]

    def update_cpu(self, index: int) -> None:
        """Moves a parameter with the compiled loop for CPUs."""
        if index not in self._arrays:
            self._arrays[index] = self._flat(index)
        number, squares, w, anchor, memory, mask = self._arrays[index]
        compilation.sweep(
            cpu_step(type(self).update, self.has_momentum, self.keeps_noise),
            len(squares),
            w,
            flat(self.gradient(index)),
            anchor,
            memory,
            mask,
            squares,
            self._places[index],
            self.seed,
            self.noise_step,
            index,
            number(self.box),
            tuple(c if type(c) is np.float32 else number(c) for c in self.coefficients()),
        )
        if self.has_momentum:
            self.squares[index] = float(squares.sum())

    def _flat(self, index: int) -> tuple[Any, ...]:
        """Returns the arrays of a parameter that every step of the compiled loop uses again."""
        w, memory, mask = self.parameters[index], self.memory[index], self.masks[index]
        return (
            np.float64 if w.dtype == torch.float64 else np.float32,
            np.zeros(-(-w.numel() // noise.BLOCK)),
            flat(w),
            flat(self.anchor[index]),
            None if memory is None else flat(memory),
            NO_MASK if mask is None else flat(mask),
        )

    def update_torch(self, index: int) -> None:
        """Moves a parameter with torch, on any device.

        It notes what `step.place` returns, and for an equation with momentum ΣΔ² and a 1.
        """
        w, anchor = self.parameters[index], self.anchor[index]
        square, place = compilation.fused(
            torch_step(type(self).update, self.has_momentum, self.keeps_noise)
        )(
            w.data,
            self.gradient(index),
            stored(anchor),
            self.memory[index],
            self.masks[index],
            per_scale(anchor),
            self._counter(index),
            self._on_device(w.device, (self.box, *map(float, self.coefficients()))),
        )
        if self._sums is None:
            size = len(self.parameters), 4
            self._sums = torch.zeros(size, dtype=torch.float64, device=self.parameters[0].device)
        self._sums[index, :2] = place
        if square is not None:
            self._sums[index, 2] = square
            self._sums[index, 3] = 1

    def gradient(self, index: int) -> Tensor:
        """Returns a parameter's gradient, which must exist."""
        gradient = self.parameters[index].grad
        assert gradient is not None
        return gradient

    def _counter(self, index: int) -> Tensor:
        """Returns what `noise.placed` returns for a parameter's noise in this step."""
        device = self.parameters[index].device
        if device not in self._counters:
            places = [noise.placed(self.seed, 0, i) for i in range(len(self.parameters))]
            self._counters[device] = torch.stack(places).to(device)
        self._count(device)
        return self._counters[device][index]

    def _count(self, device: torch.device) -> None:
        """Writes the number of the step into the counters on a device."""
        if self._counted.get(device) != self.noise_step:
            self._counters[device][:, 2].fill_(self.noise_step)
            self._counted[device] = self.noise_step

    def _on_device(self, device: torch.device, numbers: tuple[float, ...]) -> Tensor:
        """Returns numbers as a tensor, so that torch compiles no new kernel for new values."""
        if device not in self._numbers or self._numbers[device][0] != numbers:
            on_device = torch.tensor(numbers, dtype=torch.float64, device=device)
            self._numbers[device] = numbers, on_device
        return self._numbers[device][1]


def has_cpu_kernel(tensor: Tensor) -> bool:
    """Returns whether the compiled loop for CPUs can move a tensor."""
    return (
        tensor.device.type == "cpu"
        and tensor.dtype in (torch.float32, torch.float64, torch.bfloat16)
        and tensor.is_contiguous()
    )
