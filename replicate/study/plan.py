"""What a study asks for: its families, their models, and the experiments on them.

The pipeline builds a plan from params.yaml. Readers list what the plan asks for, and mark what the
results do not hold as *not run*.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FamilyPlan:
    """Models that are compared with one another: one text, one protocol.

    Attributes:
        models: in the order of params.yaml, the smallest first.
        tokenizer: its name in params.yaml.
        weights: the weight format of the family's chains.
        repositories: of its models on the hub; empty where the models are trained here.
        search_model: on which sampler settings are tried.
        transfer: each model and factor at which the chosen step size is tried.
        original: the models on which the protocol of 2023 is run.
        clip_quantile: of the protocol of 2023, at which each chain's losses are clipped.
    """

    name: str
    models: tuple[str, ...]
    tokenizer: str
    weights: str
    repositories: tuple[str, ...]
    search_model: str
    transfer: tuple[tuple[str, float], ...]
    original: tuple[str, ...]
    clip_quantile: float


@dataclass(frozen=True)
class StudyPlan:
    """A full-precision family, a quantised one if there is one, and weight formats to compare.

    Attributes:
        formats: (model, moved, weights), where `moved` is *restricted* or *full*.
        note: what a reader has to know about the study, a sentence, or nothing.
    """

    name: str
    full: FamilyPlan
    quantised: FamilyPlan | None
    formats: tuple[tuple[str, str, str], ...]
    note: str = ""

    @property
    def families(self) -> tuple[FamilyPlan, ...]:
        """Each family once, the full-precision one first."""
        return (self.full,) if self.quantised is None else (self.full, self.quantised)

    @property
    def models(self) -> dict[str, FamilyPlan]:
        """Every model of the study, with its family."""
        return {model: family for family in self.families for model in family.models}
