"""What chains sample: a loss, and the weights that they move."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from replicate.sampling.storage import NF4, Anchor

Loss = Callable[[Tensor], Tensor]
StackedLoss = Callable[[Sequence[Tensor], Tensor], Tensor]  # see `Task.stacked`


@dataclass(frozen=True)
class Task:
    """A loss and the parameters that chains move, which stand at w*.

    Attributes:
        loss: takes indices of examples, (B,) int64, and returns their losses at the parameters'
            present values, (B,).
        parameters: the tensors that move.
        masks: for each parameter a tensor of its shape, 0 where a weight must not move, or None.
        anchors: for each parameter its w* in 4 bits, or None where w* has to be copied.
        stacked: takes the parameters of C chains, each (C, …), and indices (C, B), and returns the
            losses (C, B) that `loss` would return chain by chain; None if there is no such code.
    """

    loss: Loss
    parameters: Sequence[nn.Parameter]
    masks: Sequence[Tensor | None] = ()
    anchors: Sequence[NF4 | None] = ()
    stacked: StackedLoss | None = None

    def __post_init__(self) -> None:
        nothing = (None,) * len(self.parameters)
        object.__setattr__(self, "masks", self.masks or nothing)
        object.__setattr__(self, "anchors", self.anchors or nothing)

    @property
    def sizes(self) -> list[int]:
        """The number of weights that move, for each parameter."""
        return [
            p.numel() if mask is None else int(mask.sum())
            for p, mask in zip(self.parameters, self.masks, strict=True)
        ]

    def anchor(self) -> list[Anchor]:
        """Returns w*: the packed tensor where there is one, else a copy of the parameter."""
        return [
            p.detach().clone() if packed is None else packed
            for p, packed in zip(self.parameters, self.anchors, strict=True)
        ]
