"""What claims are judged from, and the rules that judge them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from replicate.study.published import ORIGINAL, Figures
from replicate.study.records import Importance, Quantised, Transferred, Trial
from replicate.study.rules import Rules

__all__ = ["ORIGINAL", "Array", "Evidence", "Family", "Rules", "Spread"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Family:
    """The models of a family that were run, the smallest first.

    Attributes:
        parameters_M: of the whole model.
        sampled_M: parameters that its chains move.
        loss_M: at w* (nats per label); NaN where it is unknown.
        estimator: the one that claims are judged by.
        llc_SxM: λ̂ by that estimator (shuffle, model); NaN where all chains of a shuffle diverged.
        nbeta, localization, tokenizer: what λ̂ depends on besides the model.
        others: λ̂ by other estimators, with shuffles of their own.
        missing: models of the family that were not run.
    """

    name: str
    models: tuple[str, ...]
    parameters_M: Array
    sampled_M: Array
    loss_M: Array
    estimator: str
    llc_SxM: Array
    nbeta: float
    localization: float
    tokenizer: str
    others: Mapping[str, Array] = field(default_factory=dict)
    missing: tuple[str, ...] = ()

    @property
    def estimates(self) -> dict[str, Array]:
        """λ̂ by every estimator, the one that claims are judged by first."""
        return {self.estimator: self.llc_SxM, **self.others}


@dataclass(frozen=True)
class Spread:
    """What the components of the variance of λ̂ are computed from.

    Attributes:
        llc_S: λ̂ of each shuffle.
        within: variance across the chains of a shuffle.
        chains: of each shuffle.
        draws: the part of `within` that the chains' own draws explain; None where it is unknown.
    """

    llc_S: Array
    within: float
    chains: int
    draws: float | None


@dataclass(frozen=True)
class Evidence:
    """What a study obtained, or what was published; a field is None or empty where there is
    nothing.

    Attributes:
        descents: model → fall of the held-out loss along minus the gradient at w*, and its standard
            error (nats).
        gradients: model → unbiased squared gradient norm at w*.
        provenance: family → a sentence on what its models were trained on; None where nobody says.
        cited: keys of the bibliography that this rests on.
        trials: of the search on the full-precision family.
        medians: sampler → median stability by step size, where no more was published.
        diffusion_BxA: SGNHT's λ̂ by ascending diffusion factor, one row a setting, where no more was
            published.
        noise_follows: whether SGNHT's noise followed its diffusion factor.
        transfer_missing: models of which not every planned step size was run.
        clipping: model → relative change of each shuffle's λ̂ by clipping; NaN where a chain
            diverged.
        spreads: model and estimator → what components of variance are computed from.
        quantisation: models in several weight formats.
        published: the published figures, where the evidence is they alone.
        place: their file, or the folder of the study's results.
        names: the names of the families `full` and `quantised`.
    """

    full: Family | None = None
    quantised: Family | None = None
    descents: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    gradients: Mapping[str, float] = field(default_factory=dict)
    provenance: Mapping[str, str | None] = field(default_factory=dict)
    cited: Sequence[str] = ()
    trials: Sequence[Trial] = ()
    medians: Mapping[str, Array] = field(default_factory=dict)
    diffusion_BxA: Array | None = None
    noise_follows: bool = True
    importances: Sequence[Importance] = ()
    transfer: Sequence[Transferred] = ()
    transfer_missing: Sequence[str] = ()
    clipping: Mapping[str, Array] = field(default_factory=dict)
    spreads: Mapping[str, Spread] = field(default_factory=dict)
    quantisation: Sequence[Quantised] = ()
    published: Figures | None = None
    place: Path | None = None
    names: Mapping[str, str] = field(default_factory=dict)

    @property
    def families(self) -> list[Family]:
        """The families that were run."""
        return [family for family in (self.full, self.quantised) if family is not None]
