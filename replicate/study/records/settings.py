"""Defines the record of λ̂ of one training at one setting of its chains."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal, Self

from replicate.study.records.base import ModelRecord, Record

Pair = tuple[float, float] | None
MEASURED = ("temperature", "degree", "elasticity_gamma", "elasticity_nbeta", "gradient_part")
MEASURED += ("harmonic", "trace")  # pairs of a value and its standard error
REGIMES = (  # of `replicate.estimation.regimes`, which takes a second to import
    "not in equilibrium",
    "escaped",
    "gradient",
    "curvature",
    "localised, anharmonic",
    "plateau",
    "crossover",
    "undecided",
)


class Setting(ModelRecord):
    """λ̂ of one training at one setting. Pairs hold a value and its standard error; they are null
    where the value was not measured.
    """

    identity: ClassVar = (
        *("model", "loss", "text", "step", "rescaled", "minimised"),
        *("nbeta", "localization"),
    )
    size: str
    training: int
    """the number of the training of this size, from 1"""
    parameters: int
    """that the chains move: all of the model, or what 4 or 8 bits leave"""
    loss: Literal["tokens", "last"]
    """the labels of a window: all tokens but the first, or the last"""
    text: Literal["corpus", "sampled"]
    """of the chains: the family's corpus, or sampled from the model itself"""
    step: int | None
    """of the checkpoint; null for the end of a training"""
    rescaled: str | None
    """the symmetry by which the weights were changed; null where they were not"""
    minimised: int | None = None
    """steps of training of the weights that move, before the chains; null for none"""
    baseline_loss: float | None = None
    """the mean loss at w* over all windows (nats)"""
    nbeta: float
    localization: float
    lr: float
    llc: float | None
    standard_error: float | None
    """Monte-Carlo, of the draws"""
    interval: tuple[float, float] | None
    gradients: int
    """minibatch gradients that the estimate took"""
    regime: str
    """what λ̂ measures here (`replicate.estimation.regimes`), or *undecided*"""
    temperature: Pair
    """(E[V] + γ·E‖Δ‖²)/d"""
    degree: Pair
    """E[V]/λ̂"""
    elasticity_gamma: Pair
    """∂ln λ̂/∂ln γ"""
    elasticity_nbeta: Pair
    """∂ln λ̂/∂ln nβ"""
    gradient_part: Pair
    """what the gradient at w* adds to λ̂"""
    rise: float | None
    """of the chains' loss, as a share of the rise to guessing"""
    harmonic: Pair
    """½·tr[H(H + γ/nβ)⁻¹]"""
    trace: Pair
    """tr(H) of the sampled loss at w* (nats)"""

    @property
    def course(self) -> str:
        """The name that all checkpoints of this training share."""
        return self.model.removesuffix(f"-step{self.step}")

    def possible(self) -> Self:
        """Returns the record if a computation can have given its numbers.

        Raises:
            ValueError: it cannot; the message names the field.
        """
        super().possible()
        for name in ("training", "parameters", "nbeta", "lr"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name):g}, and it must be above 0")
        for name in MEASURED:
            pair: Pair = getattr(self, name)
            if pair is not None and pair[1] < 0:
                raise ValueError(f"the error of {name} is {pair[1]:g}, and it cannot be below 0")
        if self.regime not in REGIMES:
            known = ", ".join(REGIMES)
            raise ValueError(f"regime is {self.regime!r}, and it must be one of {known}")
        if (self.llc is None) != (self.standard_error is None):
            raise ValueError("llc and standard_error must be both null or both numbers")
        return self

    @classmethod
    def agree(cls, rows: Sequence[Record]) -> None:
        """Checks that a model has one size, that a size has one number of parameters, and that a
        training is one model.

        Raises:
            ValueError: two rows contradict one another; the message names the model.
        """
        seen: dict[tuple[object, ...], tuple[object, ...]] = {}
        for row in rows:
            if not isinstance(row, Setting):
                continue
            of_model = (row.family, row.size, row.training)
            for key, value, what in (
                (("model", row.model), of_model, "family, size or training"),
                (("training", *of_model), (row.course,), "name for one training"),
                (("size", row.family, row.size), (row.parameters,), "number of parameters"),
            ):
                if seen.setdefault(key, value) != value:
                    raise ValueError(f"a row of {row.model} has another {what} than a row before")


def ends(rows: Iterable[Setting]) -> list[Setting]:
    """Returns the rows at the end of each training, or else at the last checkpoint that it has."""
    rows, last = list(rows), {}
    for row in rows:
        last[row.course] = max(last.get(row.course, 0), row.step or math.inf)
    return [row for row in rows if (row.step or math.inf) == last[row.course]]
