"""What the claims are judged from, and the rules of params.yaml that judge them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from replicate.study import records as results

ORIGINAL = "original protocol"  # the write-up's estimator, on traces of its own protocol

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Rules:
    """`claims` and `diagnostics` of params.yaml, and the seed of the bootstraps."""

    level: float
    bootstrap: int
    descent: float
    negligible: float
    stable: float
    rhat: float
    drift: float
    local: float
    seed: int


@dataclass(frozen=True)
class Family:
    """The models of a family that were run, smallest first; `missing`: those that were not.

    llc_GxM: λ̂ by the `estimator` that claims are judged by, one row a shuffle, NaN where all its
    chains failed; others: the same by other estimators, with shuffles of their own. parameters_M,
    sampled_M: of the whole model, and those that its chains move. loss_M: at w* (nats per label),
    NaN where unknown. nbeta, localization, tokenizer: what λ̂ depends on besides the model.
    """

    name: str
    models: tuple[str, ...]
    parameters_M: Array
    sampled_M: Array
    loss_M: Array
    estimator: str
    llc_GxM: Array
    nbeta: float
    localization: float
    tokenizer: str
    others: Mapping[str, Array] = field(default_factory=dict)
    missing: tuple[str, ...] = ()

    @property
    def estimates(self) -> dict[str, Array]:
        """λ̂ by every estimator, the one that decides first."""
        return {self.estimator: self.llc_GxM, **self.others}


@dataclass(frozen=True)
class Spread:
    """λ̂ of each shuffle, the variance across the `chains` of a shuffle, and the part of it that
    their draws explain (None: not known).
    """

    groups_G: Array
    within: float
    chains: int
    draws: float | None


@dataclass(frozen=True)
class Evidence:
    """What a study obtained; None or empty where it did not.

    descents: model → fall of the held-out loss along minus the gradient at w*, and its standard
    error (nats). gradients: model → unbiased squared gradient norm there. provenance: family → a
    sentence on what its models were trained on, None where nobody says. trials: of the full
    family's search. medians: sampler → stability by step size, where no more was published.
    diffusion_BxA: the same of SGNHT's λ̂ by diffusion factor, ascending, a row a setting.
    noise_follows: whether SGNHT's noise had that factor too. clipping: model → relative change of
    each shuffle's λ̂ by clipping, NaN where a chain failed. spreads: name → what components of
    variance are from. quantisation: models in several weight formats. open: claim → why what is at
    hand cannot be tested. sources: claim → where it stands.
    """

    full: Family | None = None
    quantised: Family | None = None
    descents: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    gradients: Mapping[str, float] = field(default_factory=dict)
    provenance: Mapping[str, str | None] = field(default_factory=dict)
    trials: Sequence[results.Trial] = ()
    medians: Mapping[str, Array] = field(default_factory=dict)
    diffusion_BxA: Array | None = None
    noise_follows: bool = True
    importances: Sequence[results.Importance] = ()
    transfer: Sequence[results.Transferred] = ()
    clipping: Mapping[str, Array] = field(default_factory=dict)
    spreads: Mapping[str, Spread] = field(default_factory=dict)
    quantisation: Sequence[results.Quantised] = ()
    open: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, Sequence[results.Evidence]] = field(default_factory=dict)

    @property
    def families(self) -> list[Family]:
        return [family for family in (self.full, self.quantised) if family is not None]
