"""Defines the evidence from which claims are judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from replicate.models.config import TextLoss
from replicate.study.published import Figures
from replicate.study.records import (
    Baseline,
    Estimate,
    Importance,
    Quantised,
    Setting,
    Transferred,
    Trial,
)
from replicate.study.records.verdicts import Part

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Family:
    """The models of a family that were run, the smallest first.

    Attributes:
        parameters_M: number of parameters of each whole model.
        sampled_M: number of parameters that its chains move.
        estimates: λ̂ (shuffle, model) by each estimator; NaN if all chains of a shuffle diverged.
            Claims are judged by the first estimator. The shuffles of the others may be different.
        nbeta, localization, tokenizer, loss: settings on which λ̂ depends.
        missing: models of the family that were not run.
    """

    name: str
    models: tuple[str, ...]
    parameters_M: Array
    sampled_M: Array
    estimates: Mapping[str, Array]
    nbeta: float
    localization: float
    tokenizer: str
    missing: tuple[str, ...] = ()
    loss: TextLoss = "last"

    @property
    def estimator(self) -> str:
        """The name of the estimator that claims are judged by."""
        return next(iter(self.estimates))

    @property
    def llc_SxM(self) -> Array:  # noqa: N802
        """λ̂ (shuffle, model) by the estimator that claims are judged by."""
        return self.estimates[self.estimator]


@dataclass(frozen=True)
class Evidence:
    """The results of a study, or the published figures. A field without data is None or empty.

    Attributes:
        full: the family at full precision.
        quantised: the quantised family.
        baselines: model → its loss at w*, and what steps without noise do to it.
        estimates: model → its λ̂ by the estimator that claims are judged by.
        shares: for each λ̂, the share of its variance that lies between shuffles.
        trials: all trials of the search on the full-precision family.
        importances: the importances of the hyperparameters in that search.
        transfer: λ̂ of each model at each step size.
        transfer_missing: models that lack a planned step size.
        quantisation: one record for each model and weight format.
        settings: λ̂ of each training at each setting.
        provenance: family → a sentence on its models' training data; None if no source is known.
        cited: keys of the bibliography for these sentences.
        published: the published figures, if they are the only evidence.
        place: the file of the published figures, or the folder of the study's results.
        full_name, quantised_name: the names of the two families, run or not.
    """

    full: Family | None = None
    quantised: Family | None = None
    baselines: Mapping[str, Baseline] = field(default_factory=dict)
    estimates: Mapping[str, Estimate] = field(default_factory=dict)
    shares: Sequence[Part] = ()
    trials: Sequence[Trial] = ()
    importances: Sequence[Importance] = ()
    transfer: Sequence[Transferred] = ()
    transfer_missing: Sequence[str] = ()
    quantisation: Sequence[Quantised] = ()
    settings: Sequence[Setting] = ()
    provenance: Mapping[str, str | None] = field(default_factory=dict)
    cited: Sequence[str] = ()
    published: Figures | None = None
    place: Path = Path()
    full_name: str = ""
    quantised_name: str = ""

    @property
    def families(self) -> list[Family]:
        """The families that were run."""
        return [family for family in (self.full, self.quantised) if family is not None]

    @property
    def missing(self) -> list[str]:
        """The models that were not run, in families that have a model that was run."""
        return [model for family in self.families for model in family.missing]

    @property
    def grid(self) -> list[Trial]:
        """The trials of the search over grids."""
        return [trial for trial in self.trials if trial.proposed_by == "grid"]

    @property
    def noise_follows(self) -> bool:
        """Whether the noise of SGNHT followed its diffusion factor, in the search over grids."""
        return self.published is None and all(t.noise_diffusion is None for t in self.grid)
