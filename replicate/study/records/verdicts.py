"""Records of what is concluded: claims, published figures, calibration."""

from __future__ import annotations

from typing import ClassVar, Literal

from replicate.study.records.base import Record

Verdict = Literal["supported", "not supported", "inconclusive", "not decided here", "not run"]
Accuracy = Literal["within 1 %", "within the interval", "within 5 %", "outside"]


class Source(Record):
    """A file that holds evidence, and the key in it."""

    file: str
    key: str


class Part(Record):
    """One piece of a claim's evidence, judged by the same rule."""

    name: str
    verdict: Verdict | None
    """null where the piece is reported and not judged"""
    effect: float | None
    interval: tuple[float, float] | None
    p_value: float | None


class JudgedClaim(Record):
    """A claim of the write-up, judged by the rules in params.yaml."""

    identity: ClassVar = ("id",)
    id: str
    claim: str
    verdict: Verdict
    measure: str
    """what `effect` is"""
    effect: float | None
    interval: tuple[float, float] | None
    p_value: float | None
    """of the one-sided test in the claim's direction"""
    why: str
    """the verdict in a sentence; where it is open, what would decide it"""
    parts: list[Part]
    evidence: list[Source]


class Aggregate(Record):
    """An average that the study of 2023 reported, beside the same from its own shuffles."""

    identity: ClassVar = ("family", "model")
    family: str
    model: str
    shuffles: int
    kept: int
    """shuffles with a mean above 0, which alone were averaged"""
    reported: float
    recomputed: float
    reported_deviation: float | None
    deviation_of_all: float
    """mean of the standard deviations of all shuffles"""
    deviation_of_kept: float
    """the same of the shuffles that were averaged"""
    agrees: bool
    """whether the average and the deviation of all shuffles, rounded, are the reported ones"""


class Analysis(Record):
    """Two-way analysis of variance of the λ̂ of a family, shuffle × model, without replication;
    shares of the sum of squares.
    """

    identity: ClassVar = ("family", "estimator")
    family: str
    estimator: str
    models: list[str]
    shuffles: int
    shuffle: float
    model: float
    residual: float
    f: float
    """of the models, against the residual"""
    p_value: float
    page_p: float | None
    """Page's test that λ̂ rises with size, shuffles as blocks; null below three models"""
    correlations: list[list[float]]
    """of every two models over shuffles"""


class Rung(Record):
    """λ̂ of a target at one nβ."""

    nbeta: float
    llc: float
    standard_error: float
    expected: float | None
    """what the theory gives there, by quadrature; null where that is not known"""


class Calibrated(Record):
    """λ̂ of a target whose λ is known."""

    identity: ClassVar = ("target", "true_llc")
    target: str
    kind: str
    parameters: int
    true_llc: float
    multiplicity: int
    exact: float | None
    """what a perfect sampler of this step size and localisation would give; null if unknown"""
    llc: float
    standard_error: float
    interval: tuple[float, float]
    rhat: float | None
    ess: float | None
    evaluations: int
    """gradient evaluations spent"""
    ladder: list[Rung]
    """the estimates at several nβ that `llc` was extrapolated from; empty where it was not"""
    verdict: Accuracy


class Coverage(Record):
    """How often the nominal 95 % interval held what it should, over independent repeats."""

    identity: ClassVar = ("target", "setting")
    kind: Literal["closed form", "language model"]
    target: str
    setting: str
    true_llc: float
    """what a perfect sampler of this step would give; of a language model the mean of long runs"""
    standard_error: float | None
    """of the mean of the long runs; null if `true_llc` is known"""
    repeats: int
    covered: int
    share: float
    interval: tuple[float, float]
    """95 % interval of the share (Clopper and Pearson)"""


class NegativeControl(Record):
    """A sampler that is wrong on purpose, judged as the right one is: it must be caught."""

    identity: ClassVar = ("control", "target")
    control: str
    target: str
    expected: float
    llc: float
    standard_error: float
    caught: bool
