"""Defines a task, which is a loss and the weights that chains move."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor, nn

from replicate.sampling.compilation import compiled_loss
from replicate.sampling.storage import NF4, Anchor

Loss = Callable[[Tensor], Tensor]  # see `Task.loss`
StackedLoss = Callable[[Sequence[Tensor], Tensor], Tensor]  # see `Task.stacked`


@dataclass(frozen=True)
class Task:
    """Holds a loss and the parameters that chains move. The parameters are at w*.

    Attributes:
        loss: takes indices of examples, (B,) int64, and returns their losses at the current
            parameters, (B,).
        parameters: the tensors that chains move.
        masks: for each parameter, a tensor of its shape that is 0 where a weight must not move, or
            None.
        anchors: for each parameter, its w* in 4 bits, or None if a copy of the parameter is used.
        stacked: takes the parameters of C chains, each (C, …), and indices (C, B), and returns the
            losses (C, B) that `loss` would return for one chain after the other; None if the loss
            can be computed for one chain only.
        compiled: whether torch compiles the forward and the backward pass of a chain's steps.
        repeated: whether a GPU repeats these steps as graphs (`capture`). All that the loss reads
            must be on the GPU.
    """

    loss: Loss
    parameters: Sequence[nn.Parameter]
    masks: Sequence[Tensor | None] = ()
    anchors: Sequence[NF4 | None] = ()
    stacked: StackedLoss | None = None
    compiled: bool = False
    repeated: bool = False

    def __post_init__(self) -> None:
        nothing = (None,) * len(self.parameters)
        object.__setattr__(self, "masks", self.masks or nothing)
        object.__setattr__(self, "anchors", self.anchors or nothing)

    @cached_property
    def step_loss(self) -> Loss:
        """The loss of a chain's steps; unlike `loss` it cannot be differentiated twice.

        Raises:
            UserError: it is to be compiled, and cannot be (`compiled_loss`).
        """
        if not self.compiled:
            return self.loss
        return compiled_loss(self.loss, self.parameters[0].device)

    @property
    def sizes(self) -> list[int]:
        """The number of weights that move, for each parameter."""
        return [
            p.numel() if mask is None else int(mask.sum())
            for p, mask in zip(self.parameters, self.masks, strict=True)
        ]

    def anchor(self) -> list[Anchor]:
        """Returns w*: for each parameter its tensor in 4 bits if there is one, else a copy."""
        return [
            p.detach().clone() if packed is None else packed
            for p, packed in zip(self.parameters, self.anchors, strict=True)
        ]
