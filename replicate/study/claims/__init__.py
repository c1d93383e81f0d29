"""The write-up's claims as tests with verdicts: what a study obtained goes in, one record a claim
comes out. Pure.

The rules are fixed in params.yaml (`claims`, `diagnostics`) before the data are seen, and are the
same for every study and for the published figures:

*supported*      the one-sided test in the claim's direction is significant at `level`, and the
                 interval of the effect lies on that side;
                 where a claim says that something does not matter, the interval lies within the
                 margin below which it does not;
*not supported*  the same of the opposite direction; or the whole interval lies beyond the margin;
*inconclusive*   neither: the sentence `why` says what would decide it;
*not run*        the study has not obtained what the claim needs.

A claim about every model is supported where it is for all of them, and not supported where it fails
for one.

Verdicts over shuffles rest on Student's intervals: of three or four values a percentile bootstrap
covers far too little (replicate/estimation/statistics.py). A shuffle in which all chains of a model
failed is left out for all models, and `why` says so.
"""

from __future__ import annotations

from collections.abc import Callable

from replicate.study import records as results
from replicate.study.claims.assumptions import at_a_minimum, same_data
from replicate.study.claims.comparison import comparable, quantisation_moves
from replicate.study.claims.evidence import ORIGINAL, Array, Evidence, Family, Rules, Spread
from replicate.study.claims.growth import diminishes, larger_is_more, rises
from replicate.study.claims.settings import carries_over, diffusion_lowers, rate_matters, steadier
from replicate.study.claims.stability import clipping_idle, stable
from replicate.study.claims.verdicts import Finding

__all__ = ["CLAIMS", "ORIGINAL", "Array", "Evidence", "Family", "Rules", "Spread", "judge"]

Test = Callable[[Evidence, Rules], Finding | None]  # None: not obtained

CLAIMS: dict[str, tuple[Test, str, str, str]] = {  # test; claim; what its effect is; what it needs
    "A1": (
        at_a_minimum,
        "Pretrained models are at a local minimum of the loss that is sampled",
        "fall of the held-out loss along minus the gradient at w* (nats)",
        "the loss and its gradient at w*, and λ̂",
    ),
    "A2": (
        same_data,
        "The models of a family saw the same data",
        "none",
        "the training of the models",
    ),
    "C1": (
        rises,
        "λ̂ grows with model size",
        "λ̂ per doubling of size",
        "λ̂ of the full-precision family",
    ),
    "C2": (
        diminishes,
        "The gain of λ̂ per doubling of size diminishes",
        "change of that gain from one doubling to the next",
        "λ̂ of the full-precision family",
    ),
    "C3": (
        steadier,
        "SGLD is more stable than SGNHT",
        "probability that a setting of SGLD's is the more stable",
        "a search with both samplers",
    ),
    "C4": (
        rate_matters,
        "The learning rate is the hyperparameter that matters to SGLD",
        "its fANOVA importance minus the next greatest",
        "importances from a search over several learning rates",
    ),
    "C5": (
        diffusion_lowers,
        "A larger diffusion factor lowers SGNHT's estimate",
        "mean rank correlation of λ̂ with the diffusion factor",
        "a search over SGNHT's diffusion factor",
    ),
    "C6": (
        clipping_idle,
        "At the chosen hyperparameters no loss explodes: clipping changes nothing",
        "relative change of λ̂ by clipping",
        "chains at the chosen hyperparameters, clipped and unclipped",
    ),
    "C7": (
        stable,
        "The estimate is stable across shuffles",
        "coefficient of variation over shuffles",
        "chains of the original protocol",
    ),
    "C8": (
        carries_over,
        "The hyperparameters carry over to every size",
        "relative change of λ̂ at a smaller step size than the chosen one",
        "chains of every model at multiples of the chosen step size",
    ),
    "C9": (
        larger_is_more,
        "Of the quantised models the larger has the greater λ̂ (Llama-2-13B over 7B)",
        "difference of λ̂, larger minus smaller",
        "λ̂ of two quantised models",
    ),
    "C10": (
        quantisation_moves,
        "Loading in 4 bits may move a model out of its minimum",
        "rise of the loss at w* from float32 to NF4 (nats)",
        "loss at w* and λ̂ of one model in float32 and in NF4, moving the same parameters",
    ),
    "C11": (
        comparable,
        "λ̂ of different families can be compared",
        "ratio of λ̂ per sampled parameter at the nearest size, quantised over full",
        "λ̂ of both families",
    ),
}


def judge(evidence: Evidence, rules: Rules) -> list[results.Claim]:
    """A verdict for every claim, in the order of `CLAIMS`."""
    judged = []
    for name, (test, claim, measure, needs) in CLAIMS.items():
        found = test(evidence, rules)
        if found is None and name in evidence.open:
            found = Finding("inconclusive", evidence.open[name])
        found = found or Finding("not run", f"It needs {needs}.")
        record = results.Claim(
            id=name,
            claim=claim,
            verdict=found.verdict,
            measure=measure,
            effect=found.effect,
            interval=found.interval,
            p_value=found.p,
            why=found.why,
            parts=list(found.parts),
            evidence=[] if found.verdict == "not run" else list(evidence.sources.get(name, ())),
        )
        judged.append(record)
    return judged
