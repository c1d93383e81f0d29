"""Reads the figures of the study of November 2023, recomputes its averages and splits their
variance.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from replicate.errors import UserError
from replicate.estimation import statistics
from replicate.study.records import Aggregate, Analysis, explain

ORIGINAL = "original protocol"  # the write-up's estimator, on traces of its own protocol

Array = NDArray[np.float64]


class Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Published(Row):
    """The published λ̂ of one model.

    Attributes:
        parameters: number of parameters of the whole model.
        sampled: number of parameters that its chains moved.
        mean: λ̂ of each shuffle, averaged over its chains (S,).
        deviation: standard deviation of λ̂ over the chains of each shuffle (S,).
        reported: the average of the means above 0, as the study reported it.
        reported_deviation: the deviation that the study reported with it; None if it did not.
    """

    parameters: int
    sampled: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    reported: float
    reported_deviation: float | None


class Family(Row):
    """Models that used the same shuffles. The sampler had nβ = N/ln N with N = `batches`."""

    source: str
    parameters_source: str
    tokenizer: str
    chains: int
    localization: float
    batches: int
    nbeta: float
    models: dict[str, Published]

    @property
    def llc_SxM(self) -> Array:  # noqa: N802
        """The published λ̂ (shuffle, model)."""
        return np.array([model.mean for model in self.models.values()]).T


class Counts(Row):
    """Counts of reviews. Every published λ̂ was multiplied by `factor` = n/ln n with n = `kept`.

    Attributes:
        kept: reviews that are long enough for the estimates.
        search_kept: reviews that are long enough for the search on GPT-2.
        search_batches: N, the minibatches of the search; its nβ was N/ln N.
    """

    source: str
    reviews: int
    kept: int
    factor: float
    search_kept: int
    search_batches: int
    search_nbeta: float


class Medians(Row):
    """The search with one sampler. For each step size there is the median stability and the number
    of the `trials` that were not finite (null if it was not published).
    """

    trials: int
    stability: tuple[float, ...]
    not_finite: tuple[int | None, ...]


class Range(Row):
    """The range of SGLD's λ̂ at one step size, over all other hyperparameters."""

    lr: float
    least: float
    greatest: float


class Diffusion(Row):
    """The median λ̂ of SGNHT at one step size, for each diffusion factor."""

    lr: float
    diffusion: tuple[float, ...]
    llc: tuple[float, ...]


class Search(Row):
    source: str
    lr: tuple[float, ...]
    sgld: Medians
    sgnht: Medians
    sgld_range: Range
    diffusion: Diffusion


class Figures(Row):
    """All published figures. The first of `families` has full precision, the second 4 bits."""

    families: dict[str, Family]
    counts: Counts
    search: Search

    @property
    def models(self) -> dict[str, dict[str, Published]]:
        """The figures of each model, by family and model name."""
        return {name: family.models for name, family in self.families.items()}


def read(path: Path) -> Figures:
    """Reads the published figures.

    Args:
        path: data/published.yaml.

    Raises:
        UserError: the file is missing, or a figure is missing or malformed.
    """
    try:
        return Figures.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{path}: {explain(error)}; take the file from git again") from None


def aggregates(figures: Figures) -> list[Aggregate]:
    """Recomputes every reported average.

    The study averaged only the means above 0, but the deviations of all shuffles: the ± 2.84 of
    Llama-2-13B includes the deviation of a shuffle whose mean was dropped.
    """
    rows = []
    for family, models in figures.models.items():
        for name, model in models.items():
            pairs = zip(model.mean, model.deviation, strict=True)
            means, deviations = zip(*[pair for pair in pairs if pair[0] > 0], strict=True)
            recomputed, of_all = _average(means), _average(model.deviation)
            reported = model.reported_deviation
            rows.append(
                Aggregate(
                    family=family,
                    model=name,
                    shuffles=len(model.mean),
                    kept=len(means),
                    reported=model.reported,
                    recomputed=float(recomputed),
                    reported_deviation=reported,
                    deviation_of_all=float(of_all),
                    deviation_of_kept=float(_average(deviations)),
                    agrees=_agree(recomputed, model.reported)
                    and (reported is None or _agree(of_all, reported)),
                )
            )
    return rows


def _average(values: Sequence[float]) -> Decimal:
    """Averages the published decimals exactly; a binary float cannot represent 640.985."""
    return sum(Decimal(str(value)) for value in values) / Decimal(len(values))


def _agree(value: Decimal, reported: float) -> bool:
    """Returns whether `reported` is `value` rounded to 0.01. A half may be rounded up or down,
    because the averaged numbers were rounded as well.
    """
    return abs(value - Decimal(str(reported))) <= Decimal("0.005")


def analyses(figures: Figures) -> list[Analysis]:
    """Splits the variance of each family's published λ̂ into shuffles, models and residual."""
    return [
        analysis(name, list(family.models), family.llc_SxM)
        for name, family in figures.families.items()
    ]


def analysis(family: str, models: list[str], llc_SxM: Array) -> Analysis:
    """Splits the variance of a family's λ̂ by a two-way analysis of variance, shuffle × model.

    Args:
        family: the family's name.
        models: the models' names, the smallest model first.
        llc_SxM: λ̂ (shuffle, model).
    """
    found = statistics.anova(llc_SxM)
    return Analysis(
        family=family,
        estimator=ORIGINAL,
        models=models,
        shuffles=len(llc_SxM),
        shuffle=found.rows,
        model=found.columns,
        residual=found.residual,
        f=found.f,
        p_value=found.p,
        page_p=statistics.page(llc_SxM) if len(models) > 2 else None,
        correlations=statistics.correlations(llc_SxM).tolist(),
    )
