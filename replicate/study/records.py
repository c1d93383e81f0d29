"""What the artifact publishes: the records of results/<study>/*.json, their JSON Schemas, and how
they are read and written.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from replicate.data.json_io import write_json
from replicate.errors import UserError

R = TypeVar("R", bound="Record")
Status = Literal["run", "not run"]


class Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Estimate(Record):
    """λ̂ of one model by one estimator. `llc`, `standard_error` and `interval` (95 %) have no unit;
    null where not run or not finite.
    """

    family: str
    model: str
    parameters: Annotated[int | None, Field(description="of the whole model, as if not quantised")]
    sampled_parameters: Annotated[int | None, Field(description="those that the chains move")]
    estimator: str
    llc: float | None
    standard_error: Annotated[float | None, Field(description="between groups")]
    monte_carlo_error: Annotated[
        float | None, Field(description="of the draws, from their effective number")
    ]
    interval: tuple[float, float] | None
    ess: Annotated[
        float | None, Field(description="effective number of draws, all chains together")
    ]
    rhat: Annotated[float | None, Field(description="split R-hat over all chains")]
    chains: int
    failed_chains: int
    drift: Annotated[
        float | None,
        Field(description="change of λ̂ from the first to the second half of the draws"),
    ]
    drift_p: Annotated[float | None, Field(description="p value of that change, against none")]
    coefficient: Annotated[
        float | None,
        Field(description="c of the control variate; null where the estimator has none"),
    ]
    explained: Annotated[
        float | None,
        Field(description="share of the draws' variance that the control variate takes away"),
    ]
    clipped: Annotated[
        list[float | None],
        Field(
            description="relative change of λ̂ of each shuffle if chains were clipped; of `controlled`"
        ),
    ]
    variance_ratio: Annotated[
        float | None, Field(description="variance over shuffles, over that of `controlled`")
    ]
    evaluations: Annotated[
        float | None, Field(description="gradient evaluations for a standard error of 1 % of λ̂")
    ]
    groups: Annotated[list[float | None], Field(description="λ̂ of each shuffle of the data")]
    status: Status


class Baseline(Record):
    """The loss sampled, at w*, over all examples (nats per label). `sampled`: the weights that
    chains move, by parameter.
    """

    family: str
    model: str
    loss: float | None
    standard_error: float | None
    gradient_norm: Annotated[
        float | None,
        Field(description="of the mean loss of a subset of the examples; biased up by its noise"),
    ]
    gradient_norm_squared: Annotated[
        float | None,
        Field(description="unbiased: inner product of the gradients of two halves of the subset"),
    ]
    descent: Annotated[
        float | None,
        Field(
            description="greatest fall of one half's loss along minus the other half's gradient (nats)"
        ),
    ]
    descent_error: Annotated[float | None, Field(description="its standard error")]
    sampled: Annotated[
        dict[str, int] | None, Field(description="`*` stands for the numbers of the layers")
    ]
    status: Status


class Training(Record):
    """How far a control model got (nats per token, all positions of the windows; `label` ones at
    the last position alone).
    """

    family: str
    model: str
    steps: int | None
    epochs: float | None
    loss: Annotated[
        float | None, Field(description="over the first 4096 windows, after the last step")
    ]
    label_loss: float | None
    floor: Annotated[
        float | None,
        Field(description="the same, of the process that wrote the text; null where unknown"),
    ]
    label_floor: float | None
    flat: Annotated[
        bool | None,
        Field(
            description="the constant-rate phase ended because the loss was flat, not at the step limit"
        ),
    ]
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
    """One setting of a search; λ̂ by `controlled` with each chain on its own. `stability`: mean
    over standard deviation across chains; `efficiency`: effective draws per gradient evaluation.
    """

    family: str
    model: str
    proposed_by: Literal["grid", "tpe"]
    sampler: str
    lr: float
    weight_decay: float
    localization: float
    bounding_box: float | None
    diffusion: float | None
    noise_diffusion: float | None
    mean: float | None
    standard_deviation: float | None
    stability: float | None
    efficiency: float | None
    rhat: float | None
    drift_p: float | None
    step_bias: Annotated[
        float | None,
        Field(
            description="|d ln λ̂/d ln ε| here: about the relative bias that the step size causes"
        ),
    ] = None
    expected_error: Annotated[
        float | None,
        Field(description="relative, of λ̂: the step bias and the Monte-Carlo error together"),
    ] = None
    healthy: Annotated[
        bool, Field(description="no failed chain, R-hat and drift within params.yaml's limits")
    ]
    failed_chains: int
    chains: int
    chosen_by: Annotated[
        list[Literal["stability", "efficiency", "accuracy"]],
        Field(description="the rules that choose this setting"),
    ]
    chosen: Annotated[
        bool,
        Field(description="by the rule that params.yaml names: used for every model of the family"),
    ]


class Importance(Record):
    """Share of the variance of λ̂ over a grid that one hyperparameter explains (fANOVA, Hutter et
    al. 2014), with its bootstrap.
    """

    family: str
    sampler: str
    hyperparameter: str
    importance: float
    interval: tuple[float, float]
    resamples: Annotated[
        list[float], Field(description="one value a bootstrap resample of the trials")
    ]


class Quantised(Record):
    """One model in one weight format; `moved`: whether chains move what nf4 leaves unquantised
    (restricted) or everything (full). Batches and noise are the same in every format, and changes
    are paired, against float32 with the same `moved`.
    """

    family: str
    model: str
    weights: str
    moved: Literal["restricted", "full"]
    sampled_parameters: int | None
    loss: Annotated[float | None, Field(description="at w*, over all examples (nats per label)")]
    rise: Annotated[float | None, Field(description="change of that loss (nats)")]
    rise_error: Annotated[float | None, Field(description="its standard error over examples")]
    gradient_norm_squared: Annotated[
        float | None, Field(description="unbiased, of the parameters moved")
    ]
    descent: Annotated[
        float | None,
        Field(
            description="greatest fall of one half's loss along minus the other half's gradient (nats)"
        ),
    ]
    descent_error: float | None
    llc: float | None
    standard_error: float | None
    groups: Annotated[list[float | None], Field(description="λ̂ of each shuffle, by `controlled`")]
    changes: Annotated[
        list[float | None],
        Field(description="relative change of each shuffle's λ̂; empty where float32 was not run"),
    ]
    rhat: float | None
    chains: int
    failed_chains: int
    status: Status


class Transferred(Record):
    """λ̂ (`controlled`) of one model at the chosen step size times `factor`; `groups` are paired:
    same batches, same noise.
    """

    family: str
    model: str
    factor: float
    lr: float | None
    llc: float | None
    standard_error: float | None
    groups: list[float | None]
    rhat: float | None
    drift_p: float | None
    chains: int
    failed_chains: int
    status: Status


class Reexamined(Record):
    """The original protocol on one model: λ̂ of each shuffle as published, and the luck of its one
    baseline minibatch.

    `luck`: −(n/ln n)·(loss at w* of that minibatch − loss at w* over all), what λ̂ would be if the
    chain never moved. `spread`: standard deviation over shuffles when the baseline is the mean of
    so many (`batches`) minibatches.
    """

    family: str
    model: str
    nbeta: float | None
    factor: Annotated[
        float | None, Field(description="n/ln n, which the study multiplied by instead of nβ")
    ]
    groups: Annotated[list[float | None], Field(description="published λ̂ of each shuffle")]
    deviations: Annotated[
        list[float | None], Field(description="standard deviation across chains of each shuffle")
    ]
    luck: list[float | None]
    controlled: Annotated[
        list[float | None],
        Field(description="λ̂ of the same traces by `controlled`, at the sampler's own nβ"),
    ]
    r_squared: Annotated[
        float | None, Field(description="share of the variance of `groups` that `luck` explains")
    ]
    explained: Annotated[
        float | None,
        Field(description="share of the draws' variance that the control variate takes away"),
    ]
    batches: list[int]
    spread: list[float | None]
    padded_labels: Annotated[
        float | None, Field(description="share of the labels that are padding")
    ]
    padded_variance: Annotated[
        float | None,
        Field(description="share of the variance of the minibatch loss at w* due to padded labels"),
    ]
    status: Status


class Trace(Record):
    """What a page of diagnostics shows of one model, thinned; steps below 0 are burn-in. `chains`:
    minibatch loss (chain, step), nats; `running`, `running_error`: λ̂ (`controlled`) of the draws
    so far at each step, and its standard error between groups; null in burn-in.
    """

    family: str
    model: str
    loss_at_w_star: float
    step: list[int]
    chains: list[list[float | None]]
    running: list[float | None]
    running_error: list[float | None]
    chain_llc: Annotated[list[float | None], Field(description="λ̂ of each chain")]
    advice: Annotated[
        list[str], Field(description="what is wrong, in plain words; empty where nothing is")
    ]


class Provenance(Record):
    """What one model's results are from; all hashes are SHA-256. Commit, time and duration of each
    run are in logs/runs.jsonl.
    """

    family: str
    model: str
    seed: int
    parameters: Annotated[
        dict[str, str],
        Field(description="of each part of params.yaml that they depend on, as canonical JSON"),
    ]
    windows: Annotated[str | None, Field(description="of windows.safetensors")]
    repository: Annotated[
        str | None, Field(description="on the hub; null for a model trained here")
    ]
    revision: str | None
    weights: Annotated[
        dict[str, str | None] | None,
        Field(description="of each safetensors file; null where the hub's cache has none"),
    ]
    traces: Annotated[
        str | None,
        Field(
            description="of the losses of all steps and those of their minibatches at w*, as float32"
        ),
    ]
    device: Annotated[str | None, Field(description="that the traces were sampled on")]
    threads: Annotated[int | None, Field(description="of each process there; null on a GPU")]
    versions: dict[str, str | None] | None
    status: Annotated[Status, Field(description="of the traces")]


class Evidence(Record):
    file: str
    key: str


Verdict = Literal["supported", "not supported", "inconclusive", "not run"]


class Part(Record):
    """One piece of a claim's evidence, judged by the same rule."""

    name: str
    verdict: Annotated[
        Verdict | None, Field(description="null where the piece is told and not judged")
    ]
    effect: float | None
    interval: tuple[float, float] | None
    p_value: float | None


class Claim(Record):
    """A claim of the write-up, judged by the rules in params.yaml."""

    id: str
    claim: str
    verdict: Verdict
    measure: Annotated[str, Field(description="what `effect` is")]
    effect: float | None
    interval: tuple[float, float] | None
    p_value: Annotated[
        float | None, Field(description="of the one-sided test in the claim's direction")
    ]
    why: Annotated[
        str, Field(description="the verdict in a sentence; where it is open, what would decide it")
    ]
    parts: list[Part]
    evidence: list[Evidence]


class Aggregate(Record):
    """An average that the study of November 2023 reported, beside the same from its own
    shuffles.
    """

    family: str
    model: str
    shuffles: int
    kept: Annotated[
        int, Field(description="shuffles with a mean above 0, which alone were averaged")
    ]
    reported: float
    recomputed: float
    reported_deviation: float | None
    deviation_of_all: Annotated[
        float, Field(description="mean of the standard deviations of all shuffles")
    ]
    deviation_of_kept: Annotated[
        float, Field(description="the same of the shuffles that were averaged")
    ]
    agrees: Annotated[
        bool,
        Field(
            description="average and deviation (of all shuffles), to half a unit of the last published digit"
        ),
    ]


class Analysis(Record):
    """Two-way analysis of variance of the λ̂ of a family, shuffle × model, without replication;
    shares of the sum of squares.
    """

    family: str
    estimator: str
    models: list[str]
    shuffles: int
    shuffle: float
    model: float
    residual: float
    f: Annotated[float, Field(description="of the models, against the residual")]
    p_value: float
    page_p: Annotated[
        float | None,
        Field(
            description="Page's test that λ̂ rises with size, shuffles as blocks; null below three models"
        ),
    ]
    correlations: Annotated[
        list[list[float]], Field(description="of every two models over shuffles")
    ]


class Rung(Record):
    """λ̂ of a target at one nβ; `expected`: what the theory has there, by quadrature; null where
    that is not known.
    """

    nbeta: float
    llc: float
    standard_error: float
    expected: float | None


class Calibrated(Record):
    """λ̂ of a target whose λ is known. `exact`: what a perfect sampler of this step size and
    localisation would give, null where that is not known; `ladder`: the estimates at several nβ
    that `llc` was extrapolated from, empty where it was not.
    """

    target: str
    kind: str
    parameters: int
    true_llc: float
    multiplicity: int
    exact: float | None
    llc: float
    standard_error: float
    interval: tuple[float, float]
    rhat: float | None
    ess: float | None
    evaluations: Annotated[int, Field(description="gradient evaluations spent")]
    ladder: list[Rung]
    verdict: Literal["within 1 %", "within the interval", "within 5 %", "outside"]


class Coverage(Record):
    """How often the nominal 95 % interval held the truth, over independent repeats."""

    target: str
    true_llc: float
    repeats: int
    covered: int
    share: float
    interval: Annotated[
        tuple[float, float], Field(description="95 % interval of the share (Wilson)")
    ]


class Control(Record):
    """A sampler that is wrong on purpose, judged as the right one is: it must be caught."""

    mistake: str
    target: str
    expected: float
    llc: float
    standard_error: float
    caught: bool


class Metric(Record):
    """λ̂ of one model by the default estimator, as `dvc metrics show` prints it."""

    llc: float | None
    standard_error: float | None
    rhat: float | None
    ess: float | None


COLLECTED: dict[str, type[Record]] = {  # by `collect`, of a study
    "baselines": Baseline,
    "estimates": Estimate,
    "importances": Importance,
    "original": Reexamined,
    "provenance": Provenance,
    "quantisation": Quantised,
    "search": Trial,
    "transfer": Transferred,
    "traces": Trace,
    "training": Training,
    "windows": Extraction,
}
FILES: dict[str, type[Record]] = COLLECTED | {
    "aggregates": Aggregate,
    "anova": Analysis,
    "calibration": Calibrated,
    "claims": Claim,
    "controls": Control,
    "coverage": Coverage,
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
        return parse(path.read_bytes(), kind)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(
            f"{path}: {where}: {first['msg']}; run the stage that writes it again"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path}: cannot be read ({type(error).__name__}); run the stage that writes it again"
        ) from None


def parse(text: bytes, kind: type[R]) -> list[R]:
    """Raises:
    ValueError: it is not a list of such records, or a number in it is not finite.
    """
    rows: list[R] = TypeAdapter(list[kind]).validate_python(  # pyright: ignore[reportInvalidTypeForm]
        json.loads(text, parse_constant=refuse)
    )
    return rows


def refuse(constant: str) -> None:
    """Python reads NaN and Infinity, which JSON has not."""
    raise ValueError(constant)


def schema(kind: type[Record]) -> dict[str, Any]:
    """The JSON Schema of a list of records."""
    items = kind.model_json_schema()
    nested = {"$defs": items.pop("$defs")} if "$defs" in items else {}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "array",
        "items": items,
    } | nested


def schemas() -> dict[str, dict[str, Any]]:
    """The JSON Schema of every file of results/, by its name; `metrics` is a mapping by model, all
    others are lists.
    """
    metrics = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "additionalProperties": Metric.model_json_schema(),
    }
    return {name: schema(kind) for name, kind in FILES.items()} | {"metrics": metrics}
