"""Defines the evidence from which claims are judged, and passes on the rules."""

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
        parameters_M: number of parameters of each whole model.
        sampled_M: number of parameters that its chains move.
        loss_M: mean loss at w* (nats per label); NaN if it is unknown.
        estimator: the name of the estimator that claims are judged by.
        llc_SxM: λ̂ by that estimator (shuffle, model); NaN if all chains of a shuffle diverged.
        nbeta, localization, tokenizer: settings that change λ̂ besides the model.
        others: λ̂ (shuffle, model) by other estimators, whose shuffles may be different ones.
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
        """λ̂ (shuffle, model) by every estimator. The one that claims are judged by comes first."""
        return {self.estimator: self.llc_SxM, **self.others}


@dataclass(frozen=True)
class Spread:
    """The numbers from which the components of the variance of λ̂ are computed.

    Attributes:
        llc_S: λ̂ of each shuffle.
        within: variance of λ̂ across the chains of a shuffle, averaged over shuffles.
        chains: number of chains per shuffle.
        draws: the part of `within` that the chains' own draws explain; None if it is unknown.
    """

    llc_S: Array
    within: float
    chains: int
    draws: float | None


@dataclass(frozen=True)
class Evidence:
    """The results of a study, or the published figures. A field without data is None or empty.

    Attributes:
        full: the family at full precision.
        quantised: the quantised family.
        descents: model → fall of the held-out loss along minus the gradient at w*, and its standard
            error (nats).
        gradients: model → unbiased squared gradient norm at w*.
        provenance: family → a sentence on its models' training data; None if no source is known.
        cited: keys of the bibliography for these sentences.
        trials: all trials of the search on the full-precision family.
        medians: sampler → median stability by step size, if only medians were published.
        diffusion_BxA: SGNHT's published λ̂ (setting, ascending diffusion factor); None if `trials`
            are used instead.
        noise_follows: whether SGNHT's noise followed its diffusion factor.
        transfer_missing: models that lack a planned step size.
        clipping: model → relative change of λ̂ of each shuffle by clipping (S,); NaN if a chain of
            the shuffle diverged.
        spreads: "model, estimator" → the spread of that λ̂.
        quantisation: one record for each model and weight format.
        published: the published figures, if they are the only evidence.
        place: the file of the published figures, or the folder of the study's results.
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
