"""Reads the figures of the study of November 2023; recomputes averages and analyses variance."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Annotated

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from replicate.errors import UserError
from replicate.estimation import statistics
from replicate.study.records import Aggregate, Analysis

ORIGINAL = "original protocol"  # the write-up's estimator, on traces of its own protocol

Array = NDArray[np.float64]
Several = Annotated[tuple[float, ...], Field(min_length=2)]


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

    parameters: PositiveInt
    sampled: PositiveInt
    mean: Several
    deviation: Several
    reported: float
    reported_deviation: float | None

    @model_validator(mode="after")
    def shuffles_match(self) -> Published:
        if len(self.mean) != len(self.deviation) or max(self.mean) <= 0:
            raise ValueError(
                "a mean and a deviation for every shuffle, and one mean above 0 at least"
            )
        return self


class Family(Row):
    """Models that used the same shuffles. The sampler had nβ = N/ln N with N = `batches`."""

    source: str
    parameters_source: str
    tokenizer: str
    chains: PositiveInt
    localization: float
    batches: PositiveInt
    nbeta: float
    models: Annotated[dict[str, Published], Field(min_length=2)]

    @model_validator(mode="after")
    def models_match(self) -> Family:
        if len({len(model.mean) for model in self.models.values()}) > 1:
            raise ValueError("every model needs as many shuffles")
        return self

    @property
    def sizes_M(self) -> Array:  # noqa: N802
        """The number of parameters of each whole model (M,)."""
        return np.array([model.parameters for model in self.models.values()], float)

    @property
    def llc_SxM(self) -> Array:  # noqa: N802
        """The published λ̂ (shuffle, model)."""
        return np.array([model.mean for model in self.models.values()]).T


class Counts(Row):
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
    lr: float
    least: float
    greatest: float


class Diffusion(Row):
    lr: float
    diffusion: tuple[float, ...]
    llc: tuple[float, ...]


class Search(Row):
    source: str
    lr: Several
    sgld: Medians
    sgnht: Medians
    sgld_range: Range
    diffusion: Diffusion

    @model_validator(mode="after")
    def steps_match(self) -> Search:
        counts = {
            len(values)
            for found in (self.sgld, self.sgnht)
            for values in (found.stability, found.not_finite)
        }
        diffusion = self.diffusion
        if counts != {len(self.lr)} or len(diffusion.diffusion) != len(diffusion.llc):
            raise ValueError("a value for every lr and every diffusion is needed")
        return self


class Figures(Row):
    """All published figures. The first of `families` has full precision, the second 4 bits."""

    families: Annotated[dict[str, Family], Field(min_length=2, max_length=2)]
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
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        cause = f"{where}: {first['msg']}"
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        cause = f"cannot be read ({type(error).__name__})"
    raise UserError(f"{path}: {cause}; take the file from git again")


def aggregates(figures: Figures) -> list[Aggregate]:
    """Recomputes every reported average.

    The study averaged only the means above 0, but the deviations of all shuffles: the ± 2.84 of
    Llama-2-13B includes the deviation of a shuffle whose mean was dropped.
    """
    return [
        _aggregate(family, name, model)
        for family, models in figures.models.items()
        for name, model in models.items()
    ]


def _aggregate(family: str, name: str, model: Published) -> Aggregate:
    kept = [i for i, value in enumerate(model.mean) if value > 0]
    mean = _average([model.mean[i] for i in kept])
    of_all = _average(model.deviation)
    reported = model.reported_deviation
    return Aggregate(
        family=family,
        model=name,
        shuffles=len(model.mean),
        kept=len(kept),
        reported=model.reported,
        recomputed=float(mean),
        reported_deviation=reported,
        deviation_of_all=float(of_all),
        deviation_of_kept=float(_average([model.deviation[i] for i in kept])),
        agrees=_to_the_last_digit(mean, model.reported)
        and (reported is None or _to_the_last_digit(of_all, reported)),
    )


def _average(values: list[float] | tuple[float, ...]) -> Decimal:
    """Averages the published decimals exactly; a binary float cannot represent 640.985."""
    return sum(Decimal(str(value)) for value in values) / Decimal(len(values))


def _to_the_last_digit(value: Decimal, reported: float) -> bool:
    """Returns whether `reported` is `value` rounded to 0.01. A half may be rounded up or down,
    because the averaged numbers were rounded as well.
    """
    return abs(value - Decimal(str(reported))) <= Decimal("0.01") / 2


def analyses(figures: Figures) -> list[Analysis]:
    """Splits the variance of each family's published λ̂ into shuffles, models and residual."""
    return [
        analysis(name, list(family.models), family.llc_SxM)
        for name, family in figures.families.items()
    ]


def analysis(family: str, models: list[str], llc_SxM: Array, estimator: str = ORIGINAL) -> Analysis:
    """Splits the variance of a family's λ̂ by a two-way analysis of variance, shuffle × model.

    Args:
        family: the family's name.
        models: the models' names, the smallest model first.
        llc_SxM: λ̂ (shuffle, model).
        estimator: the name of the estimator of λ̂.
    """
    found = statistics.anova(llc_SxM)
    return Analysis(
        family=family,
        estimator=estimator,
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
