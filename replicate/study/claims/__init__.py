"""The claims of the write-up, each with the test that judges it: what a study obtained goes in, one
record a claim comes out.

The rules are fixed before the data are seen, and are the same for every study and for the published
figures. A claim is

*supported*      if the one-sided test in its direction is significant, and the interval of the
                 effect lies on that side; where it says that something does not matter, if the
                 interval lies within the margin below which it does not;
*not supported*  if the same holds of the opposite direction, or the whole interval lies beyond the
                 margin;
*inconclusive*   if neither holds: the sentence `why` says what would decide it;
*not run*        if the study has not obtained what the claim needs.

A claim about every model is supported where it holds for all of them, and not supported where it
fails for one. Verdicts over shuffles rest on Student's intervals, because a percentile bootstrap of
three or four values covers far too little (`replicate.estimation.statistics`). A shuffle in which
all chains of a model diverged is left out for all models, and `why` says so.
"""

from __future__ import annotations

from replicate.study.claims.assumptions import AtAMinimum, SameData
from replicate.study.claims.base import Claim, Finding
from replicate.study.claims.comparison import FamiliesCompare, QuantisationMoves
from replicate.study.claims.evidence import ORIGINAL, Array, Evidence, Family, Rules, Spread
from replicate.study.claims.growth import Diminishes, GrowsWithSize, LargerHasMore
from replicate.study.claims.search import DiffusionLowers, LearningRateMatters, SteadierSampler
from replicate.study.claims.stability import (
    CarriesOver,
    ClippingChangesNothing,
    StableOverShuffles,
)
from replicate.study.records import JudgedClaim

__all__ = [
    "CLAIMS",
    "ORIGINAL",
    "Array",
    "Claim",
    "Evidence",
    "Family",
    "Finding",
    "Rules",
    "Spread",
    "judge",
]

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
)


def judge(evidence: Evidence, rules: Rules) -> list[JudgedClaim]:
    """Judges every claim, in the order of `CLAIMS`."""
    return [claim.record(evidence, rules) for claim in CLAIMS]
