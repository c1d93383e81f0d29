"""What the artifact publishes: the records of results/<study>/*.json, their JSON Schemas, and how they are read and written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from replicate.errors import UserError
from replicate.writing import write_json

R = TypeVar("R", bound="Record")
Status = Literal["run", "not run"]


class Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Estimate(Record):
    """λ̂ of one model by one estimator. `llc`, `standard_error` and `interval` (95 %) have no unit; null where not run or not finite."""

    family: str
    model: str
    parameters: Annotated[int | None, Field(description="of the whole model, as if not quantised")]
    sampled_parameters: Annotated[int | None, Field(description="those that the chains move")]
    estimator: str
    llc: float | None
    standard_error: Annotated[float | None, Field(description="between groups")]
    monte_carlo_error: Annotated[float | None, Field(description="of the draws, from their effective number")]
    interval: tuple[float, float] | None
    ess: Annotated[float | None, Field(description="effective number of draws, all chains together")]
    rhat: Annotated[float | None, Field(description="split R-hat over all chains")]
    chains: int
    failed_chains: int
    groups: Annotated[list[float | None], Field(description="λ̂ of each shuffle of the data")]
    status: Status


class Baseline(Record):
    """The loss sampled, at w*, over all examples (nats per label)."""

    family: str
    model: str
    loss: float | None
    standard_error: float | None
    gradient_norm: Annotated[float | None, Field(description="of the mean loss of a subset of the examples; biased up by its noise")]
    gradient_norm_squared: Annotated[
        float | None, Field(description="unbiased: inner product of the gradients of two halves of the subset")
    ]
    status: Status


class Training(Record):
    """How far a control model got (nats per token, all positions of the windows; `label` ones at the last position alone)."""

    family: str
    model: str
    steps: int | None
    epochs: float | None
    loss: Annotated[float | None, Field(description="over the first 4096 windows, after the last step")]
    label_loss: float | None
    floor: Annotated[float | None, Field(description="the same, of the process that wrote the text; null where unknown")]
    label_floor: float | None
    flat: Annotated[bool | None, Field(description="the constant-rate phase ended because the loss was flat, not at the step limit")]
    status: Status


class Extraction(Record):
    """What a family's rule kept of its corpus (reviews; tokens before cutting)."""

    family: str
    reviews: int | None
    kept: int | None
    dropped: int | None
    padded_labels: int | None
    tokens: int | None
    vocabulary: int | None
    length: int
    status: Status


class Trial(Record):
    """One setting of a search; λ̂ by `controlled` with each chain on its own. `stability`: mean over standard deviation across chains."""

    family: str
    model: str
    sampler: str
    lr: float
    weight_decay: float
    localization: float
    bounding_box: float | None
    diffusion: float | None
    mean: float | None
    standard_deviation: float | None
    stability: float | None
    failed_chains: int
    chains: int
    chosen: bool


class Trace(Record):
    """Mean minibatch loss over all chains of a model, thinned; steps below 0 are burn-in. `low`, `high`: least and greatest chain."""

    family: str
    model: str
    loss_at_w_star: float
    step: list[int]
    mean: list[float | None]
    low: list[float | None]
    high: list[float | None]


class Metric(Record):
    """λ̂ of one model by the default estimator, as `dvc metrics show` prints it."""

    llc: float | None
    standard_error: float | None
    rhat: float | None
    ess: float | None


FILES: dict[str, type[Record]] = {
    "baselines": Baseline,
    "estimates": Estimate,
    "search": Trial,
    "traces": Trace,
    "training": Training,
    "windows": Extraction,
}


def write(path: Path, records: Sequence[Record]) -> None:
    """A list of records of one kind."""
    write_json(path, [record.model_dump() for record in records])


def read(path: Path, kind: type[R]) -> list[R]:
    """The records of one kind in `path`.

    Raises:
        UserError: the file is missing or not such a list.
    """
    try:
        return [kind.model_validate(row) for row in json.loads(path.read_bytes())]
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({type(error).__name__}); run the study's collect stage again") from None


def schema(kind: type[Record]) -> dict[str, Any]:
    """The JSON Schema of a list of records."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "array", "items": kind.model_json_schema()}


def schemas() -> dict[str, dict[str, Any]]:
    """The JSON Schema of every file of results/<study>/, by its name; `metrics` is a mapping by model, all others are lists."""
    metrics = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "additionalProperties": Metric.model_json_schema(),
    }
    return {name: schema(kind) for name, kind in FILES.items()} | {"metrics": metrics}
