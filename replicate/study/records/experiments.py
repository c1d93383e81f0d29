"""Records of the experiments beside the main estimates: search, transfer, weight formats and the
protocol of 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from replicate.study.records.base import ModelRecord, Record

Rule = Literal["stability", "efficiency", "accuracy"]


class Trial(ModelRecord):
    """One setting of a search, with λ̂ by `controlled` of each chain on its own."""

    identity: ClassVar = ()
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
    """mean over standard deviation across chains"""
    efficiency: float | None
    """effective draws per gradient evaluation"""
    rhat: float | None
    drift_p: float | None
    step_bias: float | None = None
    """|d ln λ̂/d ln ε| here: about the relative bias that the step size causes"""
    expected_error: float | None = None
    """relative, of λ̂: the step bias and the Monte-Carlo error together"""
    healthy: bool
    """no diverged chain, R-hat and drift within the limits of params.yaml"""
    diverged_chains: int
    chains: int
    steps: int
    """of each chain, burn-in included"""
    chosen_by: list[Rule]
    """the rules that choose this setting"""
    chosen: bool
    """whether the family's own rule chooses this setting, which all its models then use"""

    @classmethod
    def agree(cls, rows: Sequence[Record]) -> None:
        """Checks that one trial of each family is chosen.

        Raises:
            ValueError: none is, or several are.
        """
        trials = [row for row in rows if isinstance(row, Trial)]
        for family in dict.fromkeys(row.family for row in trials):
            chosen = sum(row.chosen for row in trials if row.family == family)
            if chosen != 1:
                raise ValueError(f"{chosen} trials of {family} are `chosen`, and one must be")


class Importance(Record):
    """Share of the variance of λ̂ over a grid that one hyperparameter explains (fANOVA, Hutter et
    al. 2014), with its bootstrap.
    """

    identity: ClassVar = ("family", "sampler", "hyperparameter")
    family: str
    sampler: str
    hyperparameter: str
    importance: float
    interval: tuple[float, float]
    resamples: list[float]
    """one value for each bootstrap resample of the trials"""


class CurvePoint(ModelRecord):
    """λ̂ by `controlled` of one model at one nβ and γ, with its error and 95 % interval. The chains
    were warm from the next larger γ; step and burn-in follow from the Hessian at w*.
    """

    identity: ClassVar = ("model", "nbeta", "localization")
    nbeta: float
    localization: float
    lr: float
    llc: float | None
    standard_error: float | None
    """between chains"""
    interval: tuple[float, float] | None
    regime: str | None
    """what λ̂ measures here"""
    harmonic: float | None
    """½·tr[H(H + γ/nβ)⁻¹]: λ̂ of the quadratic loss with the Hessian of w*; null where negative
    curvature forbids it
    """
    gradient_part: tuple[float, float] | None
    """what the gradient at w* adds to λ̂ of that quadratic, or the most it can, and its error"""
    elasticity_nbeta: tuple[float, float] | None
    """∂ln λ̂/∂ln nβ and its standard error"""
    elasticity_gamma: tuple[float, float] | None
    """∂ln λ̂/∂ln γ, by dilation, and its standard error"""
    degree: tuple[float, float] | None
    """E[V]/λ̂ and its standard error: the degree with which the loss grows; 2 is quadratic"""
    temperature: tuple[float, float] | None
    """(E[V] + γ·E‖Δ‖²)/d and its standard error: 1 in equilibrium with a small step"""
    rise: float | None
    """of the chains' loss, as a share of the rise to guessing"""
    rhat: float | None
    ess: float | None
    """effective number of draws, all chains together"""
    chains: int
    diverged_chains: int
    steps: int
    """of each chain at this setting, burn-in included"""


class Transferred(ModelRecord):
    """λ̂ by `controlled` of one model at the chosen step size times `factor`. Shuffles are paired
    across factors: same batches, same noise.
    """

    identity: ClassVar = ("model", "factor")
    factor: float
    lr: float
    llc: float | None
    standard_error: float | None
    shuffles: list[float | None]
    rhat: float | None
    drift_p: float | None
    chains: int
    diverged_chains: int
    steps: int
    """of each chain, burn-in included"""


class Quantised(ModelRecord):
    """One model in one weight format. Batches and noise are the same in every format; changes are
    paired with float32 and the same `moved`.
    """

    identity: ClassVar = ("model", "moved", "weights")
    weights: str
    moved: Literal["restricted", "full"]
    """whether chains move what nf4 leaves unquantised (restricted) or everything (full)"""
    sampled_parameters: int
    loss: float | None
    """at w*, over all examples (nats per label)"""
    rise: float | None
    """change of that loss from float32 (nats); null where float32 was not run"""
    rise_error: float | None
    """standard error of `rise` over examples"""
    gradient_norm_squared: float | None
    """unbiased, of the parameters moved"""
    descent: float | None
    """greatest fall of one half's loss along minus the other half's gradient (nats)"""
    descent_error: float | None
    llc: float | None
    standard_error: float | None
    shuffles: list[float | None]
    """λ̂ of each shuffle, by `controlled`"""
    changes: list[float | None]
    """relative change of each shuffle's λ̂ from float32; empty where float32 was not run"""
    rhat: float | None
    chains: int
    diverged_chains: int
    steps: int
    """of each chain, burn-in included"""


class OriginalProtocol(ModelRecord):
    """The protocol of November 2023 on one model."""

    nbeta: float
    factor: float
    """n/ln n, which the study multiplied by instead of nβ"""
    shuffles: list[float | None]
    """λ̂ of each shuffle, as the study computed it"""
    deviations: list[float | None]
    """standard deviation across chains of each shuffle"""
    baseline_errors: list[float | None]
    """−(n/ln n)·(loss at w* of the one baseline minibatch − loss at w* over all): what λ̂ would be
    if the chain never moved
    """
    controlled: list[float | None]
    """λ̂ of the same traces by `controlled`, at the sampler's own nβ"""
    r_squared: float | None
    """share of the variance of `shuffles` that `baseline_errors` explains"""
    explained: float | None
    """share of the draws' variance that the control variate takes away"""
    batches: list[int]
    spread: list[float | None]
    """standard deviation over shuffles when the baseline is the mean of so many (`batches`)
    minibatches
    """
    padded_labels: float | None
    """share of the labels that are padding"""
    padded_variance: float | None
    """share of the variance of the minibatch loss at w* due to padded labels"""
    chains: int
    steps: int
    """of each chain, burn-in included"""
