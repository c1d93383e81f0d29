"""Describes the plan of a study: its families, their models, and the experiments on them.

The pipeline builds a plan from params.yaml. Tables and figures list all that is planned, and mark
what the results lack as *not run*.
"""

from __future__ import annotations

from dataclasses import dataclass

from replicate.models.config import TextLoss


@dataclass(frozen=True)
class FamilyPlan:
    """Models that are compared with one another. They share one text and one protocol.

    Attributes:
        models: the models' names in the order of params.yaml, the smallest first.
        tokenizer: the tokenizer's name in params.yaml.
        weights: the weight format of the family's chains.
        repositories: the models' repositories on the hub; empty if the models are trained here.
        search_model: the model on which sampler settings are searched.
        transfer: (model, factor) pairs; chains run at `factor` times the chosen step size.
        original: the models on which the protocol of 2023 is run.
        clip_quantile: the quantile at which the 2023 protocol clips each chain's losses.
        curve: (model, nβ, γ), at which λ̂ is followed.
        loss: the labels of a window: its last token (*last*), or all but the first (*tokens*).
        measured: whether λ̂ is measured at settings that the family lists.
        neighbours: the models whose chains run again at a neighbouring γ.
        earlier: checkpoints that a later one of `models` follows; claims on sizes leave them out.
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
    curve: tuple[tuple[str, float, float], ...] = ()
    loss: TextLoss = "last"
    measured: bool = False
    neighbours: tuple[str, ...] = ()
    earlier: tuple[str, ...] = ()


@dataclass(frozen=True)
class StudyPlan:
    """The plan of a study: one or two families, and weight formats to compare.

    Attributes:
        full: the family at full precision.
        quantised: the quantised family, if there is one.
        formats: (model, moved, weights), where `moved` is *restricted* or *full*.
        note: a sentence that is shown with the study's results; may be empty.
    """

    name: str
    full: FamilyPlan
    quantised: FamilyPlan | None
    formats: tuple[tuple[str, str, str], ...]
    note: str = ""

    @property
    def families(self) -> tuple[FamilyPlan, ...]:
        """The families, the full-precision one first."""
        return (self.full,) if self.quantised is None else (self.full, self.quantised)

    @property
    def models(self) -> dict[str, FamilyPlan]:
        """Every model of the study, with its family."""
        return {model: family for family in self.families for model in family.models}
