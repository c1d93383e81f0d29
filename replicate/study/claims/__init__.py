"""Judges the claims of the write-up: a study's evidence goes in, one record per claim comes out.

The rules are fixed before a study is run. They are the same for every study and for the
published figures. A claim is

*supported*      if the one-sided test in its direction is significant and the interval of the
                 effect lies on that side; a claim that an effect is negligible is supported if the
                 interval lies within the margin;
*not supported*  if test and interval say so of the opposite direction, or if the whole interval
                 lies outside the margin;
*inconclusive*   if neither holds; the sentence `why` says what would decide it;
*not decided here*  if evidence of this kind cannot decide it;
*not run*        if the study has not obtained what the claim needs.

Claims C1 to C11, A1 and A2 are those of the write-up. R1 to R5 ask what λ̂ is, and whether it tells
sizes apart. Where a study trained every size several times, the unit of claims on sizes is a
training; otherwise it is a shuffle, and the verdict is about these checkpoints. A verdict names its
setting and what λ̂ is there. Chains that escaped or are not in equilibrium are counted and not
judged. A claim about every size that fails for one has no correction for the number of sizes.

A claim about every model is supported if it holds for all of them, and not supported if it fails
for one. Verdicts over shuffles use Student's intervals, because percentile bootstrap intervals of
three or four values are far too narrow (`replicate.estimation.statistics`). If all chains of a
model diverged in a shuffle, claims that compare models within a shuffle leave the shuffle out, and
`why` says so.
"""

from __future__ import annotations

from replicate.study.claims.assumptions import AtAMinimum, SameData
from replicate.study.claims.base import Claim
from replicate.study.claims.comparison import FamiliesCompare, QuantisationMoves
from replicate.study.claims.evidence import Evidence
from replicate.study.claims.growth import Diminishes, GrowsWithSize
from replicate.study.claims.larger import LargerHasMore
from replicate.study.claims.meaning import BelongsToTheFunction, IsCurvature
from replicate.study.claims.order import SameOrder
from replicate.study.claims.search import DiffusionLowers, LearningRateMatters, SteadierSampler
from replicate.study.claims.spread import BeyondQuadraticGrows, TellsApart
from replicate.study.claims.stability import (
    CarriesOver,
    ClippingChangesNothing,
    StableOverShuffles,
)
from replicate.study.records import JudgedClaim
from replicate.study.rules import Rules

CLAIMS: tuple[Claim, ...] = (
    AtAMinimum(),
    SameData(),
    GrowsWithSize(),
    Diminishes(),
    SteadierSampler(),
    LearningRateMatters(),
    DiffusionLowers(),
    ClippingChangesNothing(),
    StableOverShuffles(),
    CarriesOver(),
    LargerHasMore(),
    QuantisationMoves(),
    FamiliesCompare(),
    IsCurvature(),
    BelongsToTheFunction(),
    SameOrder(),
    BeyondQuadraticGrows(),
    TellsApart(),
)


def judge(evidence: Evidence, rules: Rules) -> list[JudgedClaim]:
    """Judges every claim.

    Args:
        evidence: the results of one study, or the published figures.
        rules: the levels and margins of the tests.

    Returns:
        One record for each claim, in the order of `CLAIMS`.
    """
    return [claim.record(evidence, rules) for claim in CLAIMS]
