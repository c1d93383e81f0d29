"""Claims C3, C4 and C5: what the search over sampler settings shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import factorial
from operator import attrgetter

import numpy as np
from scipy import stats

from replicate.estimation import statistics
from replicate.estimation.statistics import Effect
from replicate.seeds import derive
from replicate.study.claims.base import Claim, Finding, inconclusive
from replicate.study.claims.evidence import Array, Evidence
from replicate.study.claims.verdicts import directed, mean, number, probability, span, with_page
from replicate.study.published import Search
from replicate.study.records import Importance, Trial
from replicate.study.records.verdicts import Part
from replicate.study.rules import Rules

PAIR = ("sgld", "sgnht")


class SteadierSampler(Claim):
    """Mann–Whitney's test compares the stability (mean over standard deviation of λ̂ across chains)
    of the settings in the two grids. The claim is supported if the test and the bootstrap interval
    say that a setting of SGLD's is more stable with a probability above ½, and not supported if
    they say below. A setting that diverged or whose stability is not above 0 counts as the worst.
    The verdict holds for these grids alone, whose settings share batches and noise. If only medians
    by step size were published, Wilcoxon's test compares them in pairs, and the effect is the share
    of pairs in which SGLD's is greater.
    """

    id = "C3"
    title = "SGLD is more stable than SGNHT"
    measure = "probability that a setting of SGLD's is the more stable"
    needs = "a search with both samplers"
    sources = (("search", "{full}: stability, efficiency"),)
    published_source = "search.sgld.stability, search.sgnht.stability"

    def judge(self, evidence: Evidence, rules: Rules) -> Finding | None:
        if evidence.published is not None:
            return _of_medians(evidence.published.search, rules)
        trials = distinct(evidence.grid)
        samplers = [trial.sampler for trial in trials]
        if not set(PAIR) <= set(samplers):
            return None
        chief = _compare("", trials, "stability", rules)
        faster = _compare("effective draws per gradient evaluation", trials, "efficiency", rules)
        counts = " and ".join(f"{samplers.count(name)} of {name.upper()}" for name in PAIR)
        why = (
            f"Of {counts}, a setting of SGLD's is more stable than one of SGNHT's with probability "
            f"{number(chief.effect)} ({span(chief.interval, rules)}; {probability(chief.p_value)})"
        )
        if chief.verdict == "inconclusive":
            why += "; more settings, over the same range of step sizes, would decide it"
        if not evidence.noise_follows:
            why += ". SGNHT's noise did not follow its diffusion factor, as in the original: "
            why += "this is not a comparison with a sound SGNHT"
        return Finding(chief, f"{why}.", [faster])


def _of_medians(search: Search, rules: Rules) -> Finding:
    """Judges C3 by the pairs of published medians."""
    differences_P = np.subtract(search.sgld.stability, search.sgnht.stability)
    wins, pairs = int((differences_P > 0).sum()), len(differences_P)
    above, below = (
        float(stats.wilcoxon(differences_P, alternative=side, method="exact").pvalue)  # pyright: ignore[reportAttributeAccessIssue]
        for side in ("greater", "less")
    )
    exact = stats.binomtest(wins, pairs).proportion_ci(1 - rules.level)
    effect = Effect(wins / pairs, (float(exact.low), float(exact.high)), above, below)
    why = f"SGLD's median stability is the greater at {wins} of {pairs} step sizes "
    why += f"({probability(above)})"
    if 0.5**pairs >= rules.level:
        why += f"; {pairs} pairs of medians cannot give p below {0.5**pairs:.2g}, "
        why += "so that it takes the trials themselves to decide it"
    return Finding(directed("", effect, rules.level, null=0.5), f"{why}.")


def _compare(name: str, trials: Sequence[Trial], measure: str, rules: Rules) -> Part:
    """Judges whether `measure` is greater at a setting of SGLD's than at one of SGNHT's. Unknown
    and negative values count as 0.
    """
    sgld, sgnht = (
        np.array([max(getattr(t, measure) or 0.0, 0.0) for t in trials if t.sampler == sampler])
        for sampler in PAIR
    )
    seed = derive(rules.seed, "claims", "C3", measure)
    effect = statistics.superiority(sgld, sgnht, rules.level, rules.bootstrap, seed)
    return directed(name, effect, rules.level, null=0.5)


def distinct(grid: Sequence[Trial]) -> list[Trial]:
    """Returns the trials of the grids without duplicates. If no chain reaches the bounding box, its
    chains equal those without a box, and λ̂ is the same to the last digit.
    """
    chains = attrgetter("sampler", "lr", "diffusion", "mean", "standard_deviation")
    seen: dict[object, Trial] = {}
    for i, trial in enumerate(grid):
        seen.setdefault(i if trial.mean is None else chains(trial), trial)
    return list(seen.values())


class LearningRateMatters(Claim):
    """The effect is the fANOVA importance of SGLD's learning rate minus the greatest of the others.
    The claim is supported if its bootstrap interval over the trials lies above 0, and not supported
    if it lies below. p is the share of resamples on the other side.
    """

    id = "C4"
    title = "The learning rate is the hyperparameter that matters to SGLD"
    measure = "its fANOVA importance minus the next greatest"
    needs = "importances from a search over several learning rates"
    sources = (("importances", "{full}: resamples"),)
    published_source = "search.sgld_range, search.sgld.stability"

    def judge(self, evidence: Evidence, rules: Rules) -> Finding | None:
        if evidence.published is not None:
            told = evidence.published.search.sgld_range
            return inconclusive(
                f"Only ranges and medians were published: at ε = {told.lr:g} SGLD's λ̂ stays within "
                f"{told.least:,.0f} to {told.greatest:,.0f} whatever the other parameters, which "
                "fits the claim, but λ̂ at the other step sizes is not told. The trials themselves "
                "would decide it."
            )
        samplers: dict[str, dict[str, Importance]] = {}
        for row in evidence.importances:
            samplers.setdefault(row.sampler, {})[row.hyperparameter] = row
        leads = {
            name: _lead(f"{name.upper()}: learning rate minus the next", rows, rules)
            for name, rows in samplers.items()
            if "lr" in rows and len(rows) > 1
        }
        if "sgld" not in leads:
            return None
        chief, lr, runner = leads.pop("sgld")
        why = (
            f"For SGLD the learning rate explains {lr.importance:.0%} of the variance of λ̂ over "
            f"the grid, the next, {runner.hyperparameter}, {runner.importance:.0%} "
            f"(difference: {span(chief.interval, rules)})"
        )
        why += "; more trials would decide it." if chief.verdict == "inconclusive" else "."
        return Finding(chief, why, [lead for lead, _, _ in leads.values()])


def _lead(
    name: str, rows: Mapping[str, Importance], rules: Rules
) -> tuple[Part, Importance, Importance]:
    """Judges whether the learning rate is more important than all other hyperparameters. Returns
    the part, the learning rate's importance, and that of the most important other hyperparameter.
    """
    lr, others = rows["lr"], [row for name, row in rows.items() if name != "lr"]
    runner = max(others, key=lambda row: row.importance)
    margin_R = np.array(lr.resamples) - np.max([row.resamples for row in others], axis=0)
    low, high = np.quantile(margin_R, (rules.level / 2, 1 - rules.level / 2))
    above, below = (
        float((1 + wrong.sum()) / (1 + len(margin_R))) for wrong in (margin_R <= 0, margin_R >= 0)
    )
    effect = Effect(lr.importance - runner.importance, (float(low), float(high)), above, below)
    return directed(name, effect, rules.level), lr, runner


class DiffusionLowers(Claim):
    """Page's test asks whether λ̂ falls as the diffusion factor A rises; a block holds the settings
    that differ in A alone. The effect is the mean rank correlation of λ̂ with A over the blocks. The
    claim is supported if the test and the t interval of the effect say that it is below 0, and not
    supported if they say that it is above. If all blocks agree, the interval is a point, and the
    test alone decides.
    """

    id = "C5"
    title = "A larger diffusion factor lowers SGNHT's estimate"
    measure = "mean rank correlation of λ̂ with the diffusion factor"
    needs = "a search over SGNHT's diffusion factor"
    sources = (("search", "{full}, sgnht: mean"),)
    published_source = "search.diffusion"

    def judge(self, evidence: Evidence, rules: Rules) -> Finding | None:
        if evidence.published is not None:
            blocks_BxA = np.array([evidence.published.search.diffusion.llc])
        else:
            blocks_BxA = diffusion_blocks(evidence.grid)
        B, A = blocks_BxA.shape
        if A == 0:
            return None
        if B == 0 or A < 3:
            why = f"SGNHT survived at {B} settings with {A} diffusion factors"
            return inconclusive(f"{why}; smaller step sizes would decide it.")
        correlation = mean(statistics.rank_correlations(blocks_BxA, np.arange(A)), rules)
        chief = directed("", with_page(correlation, blocks_BxA), rules.level, below=True)
        settings = "one setting" if B == 1 else f"{B} settings"
        why = (
            f"The rank correlation of λ̂ with the diffusion factor is {number(chief.effect)} over "
            f"{settings} ({probability(chief.p_value)})"
        )
        if chief.verdict == "inconclusive":
            why += "; more settings at which no chain diverges would decide it"
            if B == 1:
                why += f": one of {A} factors cannot give p below {1 / factorial(A):.2g}"
        if not evidence.noise_follows:
            why += ". SGNHT's noise did not follow A, which set only the initial friction: "
            why += "a trend here is not the diffusion's"
        return Finding(chief, f"{why}.")


def diffusion_blocks(grid: Sequence[Trial]) -> Array:
    """Returns SGNHT's λ̂ (block, diffusion factor), by ascending factor.

    The trials of a block differ only in the diffusion factor. Blocks with the same λ̂ count once,
    because a bounding box that no chain reaches changes nothing. Only blocks whose trials are all
    healthy are used. If there are fewer than two, all blocks without a diverged chain are used.
    """
    setting = attrgetter("lr", "weight_decay", "localization", "bounding_box", "noise_diffusion")
    found: dict[object, dict[float, Trial]] = {}
    for trial in grid:
        if trial.sampler == "sgnht" and trial.diffusion is not None:
            found.setdefault(setting(trial), {})[trial.diffusion] = trial
    factors = sorted({factor for block in found.values() for factor in block})
    whole = [[b[factor] for factor in factors] for b in found.values() if len(b) == len(factors)]
    sound = [b for b in whole if all(t.mean is not None and not t.diverged_chains for t in b)]
    healthy = [b for b in sound if all(t.healthy for t in b)]
    llc = [[t.mean for t in b] for b in (healthy if len(healthy) > 1 else sound)]
    if not llc:
        return np.empty((0, len(factors)))
    return np.unique(np.array(llc, float), axis=0)
