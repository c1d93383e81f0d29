"""Records of a family's models: text, training, loss at w*, λ̂ and what it came from."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from replicate.study.records.base import ModelRecord, Record


class Extraction(Record):
    """Counts of a family's reviews. `tokens` counts the tokens of all reviews, before cutting.

    If each model samples its own text, a window counts as a review.
    """

    identity: ClassVar = ("family",)
    family: str
    reviews: int
    kept: int
    dropped: int
    padded_labels: int
    tokens: int
    vocabulary: int
    length: int
    sampled: dict[str, int] = Field(default_factory=dict, exclude_if=lambda given: not given)
    """seed of the text that each of these models sampled from itself at w*, and read; empty for
    other text"""


class Training(ModelRecord):
    """How far the training of a control model got (nats per token over all positions of the
    windows; `label_…` at the last position alone).
    """

    parameters: int | None = None
    """of the model; null for a training on the windows"""
    seed: int | None = None
    """of a training on text of its own; null for a training on the windows"""
    steps: int
    epochs: float
    """passes over the windows; 0 for a training on text of its own"""
    loss: float
    """over the first 4096 windows, after the last step"""
    label_loss: float
    floor: float | None
    """the loss of the process that wrote the text; null where it is unknown"""
    label_floor: float | None
    flat: bool
    """the constant-rate phase ended because the loss was flat, not at the step limit"""


class Baseline(ModelRecord):
    """The sampled loss at w*, over all examples (nats per label)."""

    loss: float | None
    standard_error: float | None
    gradient_norm: float | None
    """of the mean loss of a subset of the examples; biased up by its noise"""
    gradient_norm_squared: float | None
    """unbiased: inner product of the gradients of two halves of the subset"""
    descent: float | None
    """greatest fall of one half's loss along minus the other half's gradient (nats)"""
    descent_error: float | None
    """standard error of `descent`"""
    parameters: int
    """of the whole model, as if not quantised"""
    sampled_parameters: int
    """those that chains move"""
    sampled: dict[str, int]
    """weights that chains move, by parameter name; `*` stands for the numbers of the layers"""
    windows: str
    """SHA-256 of the windows that the loss was computed on"""


class Estimate(ModelRecord):
    """λ̂ of one model by one estimator. λ̂, its errors and its interval (95 %) have no unit; they
    are null where they are not finite.
    """

    identity: ClassVar = ("model", "estimator")
    weights: str
    """weight format of the chains"""
    parameters: int
    """of the whole model, as if not quantised"""
    sampled_parameters: int
    """those that the chains move"""
    nbeta: float
    localization: float
    estimator: str
    llc: float | None
    standard_error: float | None
    """between shuffles"""
    monte_carlo_error: float | None
    """of the draws, from their effective number"""
    interval: tuple[float, float] | None
    ess: float | None
    """effective number of draws, all chains together"""
    rhat: float | None
    """split R-hat over all chains"""
    chains: int
    diverged_chains: int
    steps: int
    """of each chain, burn-in included"""
    drift: float | None
    """change of λ̂ from the first to the second half of the draws"""
    drift_p: float | None
    """p value of the test that this change is zero"""
    coefficient: float | None
    """c of the control variate; null where the estimator has none"""
    explained: float | None
    """share of the draws' variance that the control variate takes away"""
    clipped: list[float | None]
    """relative change of λ̂ of each shuffle if chains were clipped; of `controlled`"""
    variance_ratio: float | None
    """variance of λ̂ over shuffles, divided by that of `controlled`"""
    evaluations: float | None
    """gradient evaluations for a standard error of 1 % of λ̂"""
    shuffles: list[float | None]
    """λ̂ of each shuffle of the data"""
    regime: str | None
    """what λ̂ measures at its setting, of `controlled`; null where the chains did not record it"""
    elasticity_nbeta: tuple[float, float] | None
    """∂ln λ̂/∂ln nβ and its standard error"""
    elasticity_gamma: tuple[float, float] | None
    """∂ln λ̂/∂ln γ and its standard error: by chains at two γ on common noise where stage
    `neighbours` ran, else by `dilation`
    """
    dilation: tuple[float, float] | None = None
    """∂ln λ̂/∂ln γ from the chains at one γ, by dilation around w*, and its standard error"""
    degree: tuple[float, float] | None
    """E[V]/λ̂ and its standard error: the degree with which the loss grows; 2 is quadratic"""
    temperature: tuple[float, float] | None
    """(E[V] + γ·E‖Δ‖²)/d and its standard error: 1 in equilibrium with a small step"""
    gradient_part: tuple[float, float] | None
    """the most that the gradient at w* can take off λ̂, and its standard error"""
    rise: float | None
    """of the chains' loss, as a share of the rise to guessing"""
    harmonic: float | None
    """½·tr[H(H + γ/nβ)⁻¹]: λ̂ of the quadratic loss with the Hessian of w*"""


class ThinnedTrace(ModelRecord):
    """What a page of diagnostics shows of one model, thinned; steps below 0 are burn-in."""

    baseline_loss: float
    """mean loss at w* over all examples (nats per label)"""
    step: list[int]
    chains: list[list[float | None]]
    """minibatch loss (chain, step), nats"""
    running: list[float | None]
    """λ̂ by `controlled` of the draws so far at each step; null in burn-in"""
    running_error: list[float | None]
    """standard error of `running` between shuffles"""
    chain_llc: list[float | None]
    """λ̂ of each chain"""
    advice: list[str]
    """what is wrong, in plain words; empty where nothing is"""


class Provenance(ModelRecord):
    """What one model's chains came from. All hashes are SHA-256. Commit, time and duration of each
    run are in logs/runs.jsonl.
    """

    seed: int
    parameters: dict[str, str]
    """hash of each part of params.yaml that the results depend on, as canonical JSON"""
    windows: str | None
    """of the windows that the chains read"""
    repository: str | None
    """on the hub; null for a model trained here"""
    revision: str | None
    weights: dict[str, str | None] | None
    """of each safetensors file; null where the hub's cache has none"""
    traces: str
    """of the losses of all steps and those of their minibatches at w*, as float32"""
    code: str
    """of the code that sampled the chains"""
    device: str | None
    """that the chains were sampled on"""
    threads: int | None
    """of each process there; null on a GPU"""
    versions: dict[str, str | None] | None


class Refused(ModelRecord):
    """A trace that is on disk and does not belong to what params.yaml asks for now."""

    identity: ClassVar = ("path",)
    path: str
    reason: str


class Metric(Record):
    """λ̂ of one model by the default estimator, as `dvc metrics show` prints it."""

    llc: float | None
    standard_error: float | None
    rhat: float | None
    ess: float | None
