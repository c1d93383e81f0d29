"""Checks the rules of the verdicts."""

from __future__ import annotations

from typing import Literal

from replicate.pipeline.config.values import Count, Positive, Several, Share, Strict
from replicate.study.rules import Point as PointRule
from replicate.study.rules import TrainingRules


class Point(Strict):
    """A setting of the chains: the loss, nβ and γ."""

    loss: Literal["tokens", "last"]
    nbeta: Positive
    localization: Positive

    @property
    def rule(self) -> PointRule:
        """The setting as the claims take it."""
        return PointRule(**self.model_dump())


class Trainings(Strict):
    """The rules of the claims that are judged on trainings (`replicate.study.rules`).

    Attributes:
        setting: where sizes are compared (C1, C2, C9, C11, R5).
        finer: the setting with the same γ/nβ at a greater nβ (R4).
        monte_carlo: the greatest Monte-Carlo standard error of ln λ̂ of a training that is judged.
        curvature: the greatest relative difference of λ̂ from ½·nβ·tr(H)/γ (R1).
        quadratic: the greatest difference of E[V]/λ̂ from 2 (R1).
        invariant: the greatest |ln λ̂(rescaled)/λ̂| that counts as none (R2).
        pairs: the number of models that R2 needs.
        order: the share of resamples that must have one order (R3).
        settings: the number of settings that R3 needs.
        apart: the probability with which one training must tell two sizes apart (R5).
    """

    setting: Point
    finer: Point
    monte_carlo: Share
    curvature: Share
    quadratic: Share
    invariant: Share
    pairs: Several
    order: Share
    settings: Count
    apart: Share

    @property
    def rules(self) -> TrainingRules:
        """The rules as the claims take them."""
        limits = self.model_dump(exclude={"setting", "finer"})
        return TrainingRules(self.setting.rule, self.finer.rule, **limits)


class Claims(Strict):
    """The rules of the verdicts, which are fixed before a study is run.

    Attributes:
        level: the level of every test; every interval has the level 1 − `level`.
        bootstrap: the number of resamples.
        descent: the most (nats) by which noise-free steps may lower the loss at a minimum.
        negligible: the relative change of λ̂ that counts as none.
        stable: the greatest coefficient of variation over shuffles that counts as stable.
        trainings: the rules of the claims that are judged on trainings.
    """

    level: Share
    bootstrap: Count
    descent: Positive
    negligible: Share
    stable: Share
    trainings: Trainings
