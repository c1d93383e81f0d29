"""The figures of the study of November 2023, as data, and what they give when they are analysed as
its own protocol would not.
"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Annotated

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from replicate.errors import UserError
from replicate.estimation import statistics as inference
from replicate.study.records import Aggregate, Analysis

ESTIMATOR = "original protocol"

Array = NDArray[np.float64]


Several = Annotated[tuple[float, ...], Field(min_length=2)]


class Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Published(Row):
    """λ̂ of one model: mean and standard deviation across chains of each shuffle, and the average
    over positive means that was reported.
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
    """Models that shared their shuffles. `batches`: N of the sampler's nβ = N/ln N."""

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
    def sizes(self) -> Array:
        return np.array([model.parameters for model in self.models.values()], float)

    @property
    def llc_GxM(self) -> Array:  # noqa: N802
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
    """Of one sampler, by step size: the median stability, and how many of the `trials` were not
    finite (null: not told).
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
        counts = [
            len(values)
            for found in (self.sgld, self.sgnht)
            for values in (found.stability, found.not_finite)
        ]
        if set(counts) != {len(self.lr)} or len(self.diffusion.diffusion) != len(
            self.diffusion.llc
        ):
            raise ValueError("a value for every lr and every diffusion is needed")
        return self


class Figures(Row):
    """All that was published; `families`: first the full-precision one, then the one in 4 bits."""

    families: dict[str, Family]
    counts: Counts
    search: Search

    @property
    def models(self) -> dict[str, dict[str, Published]]:
        """Family → model → its figures."""
        return {name: family.models for name, family in self.families.items()}

    @model_validator(mode="after")
    def two_families(self) -> Figures:
        if len(self.families) != 2:
            raise ValueError("two families are needed, one at full precision and one in 4 bits")
        return self


def read(path: Path) -> Figures:
    """The figures in `path`.

    Raises:
        UserError: the file is missing, or a figure is.
    """
    try:
        return Figures.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(f"{path}: {where}: {first['msg']}; take the file from git again") from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(
            f"{path}: cannot be read ({type(error).__name__}); take the file from git again"
        ) from None


def aggregates(figures: Figures) -> list[Aggregate]:
    """Every reported average beside its recomputation.

    A mean was averaged where it is positive, but its deviation was averaged over all shuffles: the
    ± 2.84 of Llama-2-13B has the deviation of a shuffle in it whose mean was dropped.
    """
    records = []
    for family, models in figures.models.items():
        for name, model in models.items():
            kept = [i for i, value in enumerate(model.mean) if value > 0]
            mean = average([model.mean[i] for i in kept])
            every, of_kept = (
                average(list(model.deviation)),
                average([model.deviation[i] for i in kept]),
            )
            reported = model.reported_deviation
            agrees = to_the_last_digit(mean, model.reported) and (
                reported is None or to_the_last_digit(every, reported)
            )
            record = Aggregate(
                family=family,
                model=name,
                shuffles=len(model.mean),
                kept=len(kept),
                reported=model.reported,
                recomputed=float(mean),
                reported_deviation=reported,
                deviation_of_all=float(every),
                deviation_of_kept=float(of_kept),
                agrees=agrees,
            )
            records.append(record)
    return records


def average(values: list[float]) -> Decimal:
    """Exact in the published digits, where a binary 640.985 is neither 640.98 nor 640.99."""
    return sum(Decimal(str(value)) for value in values) / Decimal(len(values))


def to_the_last_digit(value: Decimal, reported: float, unit: str = "0.01") -> bool:
    """Whether `reported` is `value` rounded to `unit`, halves either way: the terms of an average
    are rounded themselves.
    """
    return abs(value - Decimal(str(reported))) <= Decimal(unit) / 2


def analysis(
    family: str, models: list[str], llc_GxM: Array, estimator: str = ESTIMATOR
) -> Analysis:
    """Where the variance of λ̂ lies, shuffle or model; `models` in order of size."""
    found = inference.anova(llc_GxM)
    return Analysis(
        family=family,
        estimator=estimator,
        models=models,
        shuffles=len(llc_GxM),
        shuffle=found.rows,
        model=found.columns,
        residual=found.residual,
        f=found.f,
        p_value=found.p,
        page_p=inference.page(llc_GxM) if len(models) > 2 else None,
        correlations=inference.correlations(llc_GxM).tolist(),
    )
