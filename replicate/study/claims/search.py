"""Claims C3, C4 and C5: what the search over sampler settings shows."""

from __future__ import annotations

from collections.abc import Sequence
from math import factorial

import numpy as np
from scipy import stats

from replicate.estimation import statistics
from replicate.estimation.statistics import Effect
from replicate.seeds import derive
from replicate.study.claims.base import Claim, Finding
from replicate.study.claims.evidence import Array, Evidence, Rules
from replicate.study.claims.verdicts import directed_part, number, probability, span
from replicate.study.records import Importance, Trial

PAIR = ("sgld", "sgnht")


class SteadierSampler(Claim):
    id = "C3"
    title = "SGLD is more stable than SGNHT"
    rule = (
        "Stability (mean over standard deviation of λ̂ across chains) over the settings of the two "
        "grids, by Mann–Whitney's test; a setting that diverged or whose stability is not above 0 "
        "counts as the worst. The test speaks of these grids, whose settings share batches and "
        "noise. Where only medians by step size were published: how many of those pairs, by "
        "Wilcoxon's test."
    )
    measure = "probability that a setting of SGLD's is the more stable"
    needs = "a search with both samplers"
    sources = (("search", "{full}: stability, efficiency"),)
    published_source = "search.sgld.stability, search.sgnht.stability"

    def judge(self, evidence: Evidence, rules: Rules) -> Finding | None:
        if evidence.medians:
            return _of_medians(evidence.medians["sgld"] - evidence.medians["sgnht"], rules)
        trials = distinct(evidence.trials)
        samplers = [trial.sampler for trial in trials]
        if set(PAIR) - set(samplers):
            return None
        effect, speed = (_compare(trials, what, rules) for what in ("stability", "efficiency"))
        chief = directed_part("", effect, rules.level, null=0.5)
        faster = directed_part(
            "effective draws per gradient evaluation", speed, rules.level, null=0.5
        )
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
        return Finding.on(chief, f"{why}.", [faster])


def _of_medians(differences_P: Array, rules: Rules) -> Finding:
    """Judges C3 by the pairs of published medians."""
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
    return Finding.on(directed_part("", effect, rules.level, null=0.5), f"{why}.")


def _compare(trials: Sequence[Trial], measure: str, rules: Rules) -> Effect:
    """Estimates the probability that `measure` is greater at a setting of SGLD than at one of
    SGNHT. Unknown and negative values count as 0.
    """
    a, b = (
        np.array([max(getattr(t, measure) or 0.0, 0.0) for t in trials if t.sampler == sampler])
        for sampler in PAIR
    )
    seed = derive(rules.seed, "claims", "C3", measure)
    return statistics.superiority(a, b, rules.level, rules.bootstrap, seed)


def distinct(trials: Sequence[Trial]) -> list[Trial]:
    """Returns the trials of the grids without duplicates. If no chain reaches the bounding box, the
    chains are those without a box, and λ̂ is the same to the last digit.
    """
    seen: dict[tuple[object, ...], Trial] = {}
    for i, trial in enumerate(trial for trial in trials if trial.proposed_by == "grid"):
        same = (trial.sampler, trial.lr, trial.diffusion, trial.mean, trial.standard_deviation)
        seen.setdefault((i,) if trial.mean is None else same, trial)
    return list(seen.values())


class LearningRateMatters(Claim):
    id = "C4"
    title = "The learning rate is the hyperparameter that matters to SGLD"
    rule = (
        "fANOVA importance of SGLD's learning rate minus the greatest of the others: supported "
        "where the bootstrap interval over the trials lies above 0, not supported where below; p "
        "is the share of resamples on the other side."
    )
    measure = "its fANOVA importance minus the next greatest"
    needs = "importances from a search over several learning rates"
    sources = (("importances", "{full}: resamples"),)
    published_source = "search.sgld_range, search.sgld.stability"

    def judge(self, evidence: Evidence, rules: Rules) -> Finding | None:
        if evidence.published is not None:
            told = evidence.published.search.sgld_range
            why = (
                f"Only ranges and medians were published: at ε = {told.lr:g} SGLD's λ̂ stays within "
                f"{told.least:,.0f} to {told.greatest:,.0f} whatever the other parameters, which "
                "fits the claim, but λ̂ at the other step sizes is not told. The trials themselves "
                "would decide it."
            )
            return Finding("inconclusive", why)
        margins = {}
        for sampler in dict.fromkeys(row.sampler for row in evidence.importances):
            of_sampler = [row for row in evidence.importances if row.sampler == sampler]
            rows = {row.hyperparameter: row for row in of_sampler}
            lr = rows.pop("lr", None)
            if lr is not None and rows:
                margins[sampler] = (lr, *_margin(lr, list(rows.values()), rules))
        if "sgld" not in margins:
            return None
        lr, runner, effect = margins.pop("sgld")
        chief = directed_part("", effect, rules.level)
        why = (
            f"For SGLD the learning rate explains {lr.importance:.0%} of the variance of λ̂ over "
            f"the grid, the next, {runner.hyperparameter}, {runner.importance:.0%} "
            f"(difference: {span(chief.interval, rules)})"
        )
        why += "; more trials would decide it." if chief.verdict == "inconclusive" else "."
        others = [
            directed_part(f"{name.upper()}: learning rate minus the next", found, rules.level)
            for name, (_, _, found) in margins.items()
        ]
        return Finding.on(chief, why, others)


def _margin(
    lr: Importance, others: Sequence[Importance], rules: Rules
) -> tuple[Importance, Effect]:
    """Returns the most important other hyperparameter, and the learning rate's lead over it."""
    runner = max(others, key=lambda row: row.importance)
    margin_R = np.array(lr.resamples) - np.max([row.resamples for row in others], axis=0)
    low, high = np.quantile(margin_R, (rules.level / 2, 1 - rules.level / 2))
    above, below = (
        float((1 + wrong.sum()) / (1 + len(margin_R))) for wrong in (margin_R <= 0, margin_R >= 0)
    )
    lead = lr.importance - runner.importance
    return runner, Effect(lead, (float(low), float(high)), above, below)


class DiffusionLowers(Claim):
    id = "C5"
    title = "A larger diffusion factor lowers SGNHT's estimate"
    rule = (
        "Page's test that λ̂ falls along A, with the settings that are alike but for A as blocks. "
        "Effect: the mean rank correlation of λ̂ with A, with its t interval, which is a point "
        "where all settings agree: then the test alone decides."
    )
    measure = "mean rank correlation of λ̂ with the diffusion factor"
    needs = "a search over SGNHT's diffusion factor"
    sources = (("search", "{full}, sgnht: mean"),)
    published_source = "search.diffusion"

    def judge(self, evidence: Evidence, rules: Rules) -> Finding | None:
        blocks_BxA = evidence.diffusion_BxA
        if blocks_BxA is None:
            blocks_BxA = diffusion_blocks(evidence.trials)
        B, A = blocks_BxA.shape
        if A == 0:
            return None
        if B == 0 or A < 3:
            why = f"SGNHT survived at {B} settings with {A} diffusion factors"
            return Finding("inconclusive", f"{why}; smaller step sizes would decide it.")
        ranks_B = statistics.rank_correlations(blocks_BxA, np.arange(A))
        mean = statistics.mean(ranks_B, rules.level)
        rises, falls = statistics.page(blocks_BxA), statistics.page(blocks_BxA[:, ::-1])
        effect = Effect(mean.value, mean.interval, rises, falls)
        chief = directed_part("", effect, rules.level, below=True)
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
        return Finding.on(chief, f"{why}.")


def diffusion_blocks(trials: Sequence[Trial]) -> Array:
    """Returns SGNHT's λ̂ (block, diffusion factor), by ascending factor.

    The trials of a block differ only in the diffusion factor. Blocks with the same λ̂ count once,
    because a bounding box that no chain reaches changes nothing. Only blocks whose trials are all
    healthy are used. If there are fewer than two, all blocks without a diverged chain are used.
    """
    blocks: dict[tuple[object, ...], dict[float, Trial]] = {}
    for trial in trials:
        if trial.sampler == "sgnht" and trial.proposed_by == "grid" and trial.diffusion is not None:
            alike = (
                *(trial.family, trial.lr, trial.weight_decay, trial.localization),
                *(trial.bounding_box, trial.noise_diffusion),
            )
            blocks.setdefault(alike, {})[trial.diffusion] = trial
    factors = sorted({factor for block in blocks.values() for factor in block})
    whole = [[b[factor] for factor in factors] for b in blocks.values() if len(b) == len(factors)]
    sound = [b for b in whole if all(t.mean is not None and not t.diverged_chains for t in b)]
    healthy = [b for b in sound if all(t.healthy for t in b)]
    llc = [[t.mean for t in b] for b in (healthy if len(healthy) > 1 else sound)]
    if not llc:
        return np.empty((0, len(factors)))
    return np.unique(np.array(llc, float).reshape(-1, len(factors)), axis=0)
