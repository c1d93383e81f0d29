"""C3, C4, C5, C8: what the search over sampler settings shows, and how far its choice carries."""

from __future__ import annotations

from collections.abc import Sequence
from math import factorial

import numpy as np
from scipy import stats

from replicate.estimation import statistics as inference
from replicate.estimation.statistics import Effect
from replicate.seeds import derive
from replicate.study.claims.evidence import Array, Evidence, Rules
from replicate.study.claims.verdicts import (
    Finding,
    deciding,
    directed,
    equivalent,
    number,
    piece,
    probability,
    span,
    together,
)
from replicate.study.records import Transferred, Trial, Verdict

PAIR = ("sgld", "sgnht")


def steadier(evidence: Evidence, rules: Rules) -> Finding | None:
    """C3. Stability (mean over standard deviation of λ̂ across chains) over the settings of the two
    grids, by Mann–Whitney's test; a setting that failed or whose stability is not above 0 counts as
    the worst. The test speaks of these grids, whose settings share batches and noise. Where only
    medians by step size were published: how many of those pairs, by Wilcoxon's test.
    """
    if evidence.medians:
        return of_medians(evidence.medians["sgld"] - evidence.medians["sgnht"], rules)
    trials = distinct(evidence.trials)
    if set(PAIR) - {trial.sampler for trial in trials}:
        return None
    effect, speed = compare(trials, "stability", rules), compare(trials, "efficiency", rules)
    verdict, faster = (
        directed(effect, rules.level, null=0.5),
        directed(speed, rules.level, null=0.5),
    )
    counts = " and ".join(
        f"{sum(trial.sampler == sampler for trial in trials)} of {sampler.upper()}"
        for sampler in PAIR
    )
    why = f"Of {counts}, a setting of SGLD's is more stable than one of SGNHT's with probability {number(effect.value)} "
    why += f"({span(effect.interval, rules)}; {probability(effect.above)})"
    why += (
        "; more settings, over the same range of step sizes, would decide it."
        if verdict == "inconclusive"
        else "."
    )
    if not evidence.noise_follows:
        why += " SGNHT's noise did not follow its diffusion factor, as in the original: this is not a comparison with a sound SGNHT."
    parts = (
        piece(
            "effective draws per gradient evaluation",
            faster,
            speed.value,
            speed.interval,
            speed.above,
        ),
    )
    return Finding(verdict, why, effect.value, effect.interval, effect.above, parts)


def of_medians(differences_P: Array, rules: Rules) -> Finding:
    wins, pairs = int((differences_P > 0).sum()), len(differences_P)
    tests = [
        stats.wilcoxon(differences_P, alternative=side, method="exact")
        for side in ("greater", "less")
    ]
    above, below = (float(test.pvalue) for test in tests)  # pyright: ignore[reportAttributeAccessIssue]
    exact = stats.binomtest(wins, pairs).proportion_ci(1 - rules.level)
    effect = Effect(wins / pairs, (float(exact.low), float(exact.high)), above, below)
    why = f"SGLD's median stability is the greater at {wins} of {pairs} step sizes ({probability(above)})"
    if 0.5**pairs >= rules.level:
        why += f"; {pairs} pairs of medians cannot give p below {0.5**pairs:.2g}, so that it takes the trials themselves to decide it"
    return Finding(
        directed(effect, rules.level, null=0.5), why + ".", effect.value, effect.interval, above
    )


def compare(trials: Sequence[Trial], measure: str, rules: Rules) -> Effect:
    """P(a setting of SGLD's has more of `measure` than one of SGNHT's); what is unknown or negative
    ranks last.
    """
    a, b = (
        np.array(
            [
                max(getattr(trial, measure) or 0.0, 0.0)
                for trial in trials
                if trial.sampler == sampler
            ]
        )
        for sampler in PAIR
    )
    return inference.superiority(
        a, b, rules.level, rules.bootstrap, derive(rules.seed, "claims", "C3", measure)
    )


def distinct(trials: Sequence[Trial]) -> list[Trial]:
    """The grids' settings, once each: a box that never bound leaves the same chains, and λ̂ is the
    same to the last digit.
    """
    seen: dict[tuple[object, ...], Trial] = {}
    for i, trial in enumerate(trial for trial in trials if trial.proposed_by == "grid"):
        same = (trial.sampler, trial.lr, trial.diffusion, trial.mean, trial.standard_deviation)
        seen.setdefault((i,) if trial.mean is None else same, trial)
    return list(seen.values())


def rate_matters(evidence: Evidence, rules: Rules) -> Finding | None:
    """C4. fANOVA importance of SGLD's learning rate minus the greatest of the others: supported
    where the bootstrap interval over the trials lies above 0, not supported where below; p is the
    share of resamples on the other side.
    """
    found = {}
    for sampler in dict.fromkeys(row.sampler for row in evidence.importances):
        rows = {row.hyperparameter: row for row in evidence.importances if row.sampler == sampler}
        lr = rows.pop("lr", None)
        if lr is None or not rows:
            continue
        margin_R = np.array(lr.resamples) - np.max([row.resamples for row in rows.values()], axis=0)
        low, high = np.quantile(margin_R, (rules.level / 2, 1 - rules.level / 2))
        above, below = (
            float((1 + wrong.sum()) / (1 + len(margin_R)))
            for wrong in (margin_R <= 0, margin_R >= 0)
        )
        runner = max(rows.values(), key=lambda row: row.importance)
        found[sampler] = (
            Effect(lr.importance - runner.importance, (float(low), float(high)), above, below),
            lr,
            runner,
        )
    if "sgld" not in found:
        return None
    effect, lr, runner = found["sgld"]
    verdict = directed(effect, rules.level)
    why = f"For SGLD the learning rate explains {lr.importance:.0%} of the variance of λ̂ over the grid, the next, {runner.hyperparameter}, "
    why += f"{runner.importance:.0%} (difference: {span(effect.interval, rules)})"
    why += "; more trials would decide it." if verdict == "inconclusive" else "."
    parts = [
        piece(
            f"{sampler.upper()}: learning rate minus the next",
            directed(other, rules.level),
            other.value,
            other.interval,
            other.above,
        )
        for sampler, (other, _, _) in found.items()
        if sampler != "sgld"
    ]
    return Finding(verdict, why, effect.value, effect.interval, effect.above, tuple(parts))


def diffusion_lowers(evidence: Evidence, rules: Rules) -> Finding | None:
    """C5. Page's test that λ̂ falls along A, with the settings that are alike but for A as blocks.
    Effect: the mean rank correlation of λ̂ with A, with its t interval, which is a point where all
    settings agree: then the test alone decides.
    """
    blocks_BxA = (
        diffusion_blocks(evidence.trials)
        if evidence.diffusion_BxA is None
        else evidence.diffusion_BxA
    )
    B, A = blocks_BxA.shape
    if A == 0:
        return None
    if B == 0 or A < 3:
        return Finding(
            "inconclusive",
            f"SGNHT survived at {B} settings with {A} diffusion factors; smaller step sizes would decide it.",
        )
    correlation = inference.mean(inference.rank_correlations(blocks_BxA, np.arange(A)), rules.level)
    effect = Effect(
        correlation.value,
        correlation.interval,
        inference.page(blocks_BxA),
        inference.page(blocks_BxA[:, ::-1]),
    )
    verdict = directed(effect, rules.level, below=True)
    settings = "one setting" if B == 1 else f"{B} settings"
    why = f"The rank correlation of λ̂ with the diffusion factor is {number(effect.value)} over {settings} ({probability(effect.below)})"
    if verdict == "inconclusive":
        least = f": one of {A} factors cannot give p below {1 / factorial(A):.2g}" if B == 1 else ""
        why += f"; more settings at which no chain fails would decide it{least}"
    if not evidence.noise_follows:
        why += ". SGNHT's noise did not follow A, which set only the initial friction: a trend here is not the diffusion's"
    return Finding(verdict, why + ".", effect.value, effect.interval, effect.below)


def diffusion_blocks(trials: Sequence[Trial]) -> Array:
    """SGNHT's λ̂ (block, diffusion factor), ascending; a block is alike but for A, and counts once
    where a box never bound. Blocks whose every trial is healthy; where there are fewer than two,
    those in which no chain failed.
    """
    blocks: dict[tuple[object, ...], dict[float, Trial]] = {}
    for trial in trials:
        if trial.sampler == "sgnht" and trial.proposed_by == "grid" and trial.diffusion is not None:
            alike = (
                trial.family,
                trial.lr,
                trial.weight_decay,
                trial.localization,
                trial.bounding_box,
                trial.noise_diffusion,
            )
            blocks.setdefault(alike, {})[trial.diffusion] = trial
    factors = sorted({factor for block in blocks.values() for factor in block})
    whole = [
        [block[factor] for factor in factors]
        for block in blocks.values()
        if len(block) == len(factors)
    ]
    sound = [
        block
        for block in whole
        if all(trial.mean is not None and not trial.failed_chains for trial in block)
    ]
    healthy = [block for block in sound if all(trial.healthy for trial in block)]
    llc = [[trial.mean for trial in block] for block in (healthy if len(healthy) > 1 else sound)]
    return (
        np.unique(np.array(llc, float).reshape(-1, len(factors)), axis=0)
        if llc
        else np.empty((0, len(factors)))
    )


def carries_over(evidence: Evidence, rules: Rules) -> Finding | None:
    """C8. Of each model: supported where its chains are healthy at the chosen step size (R-hat,
    drift, none failed) and the t interval of λ̂(smallest factor)/λ̂(1) − 1, paired over shuffles,
    is within ± `negligible`; not supported where they are not healthy or the interval lies outside.
    For all models together; larger factors stand beside it.
    """
    rows = {(row.model, row.factor): row for row in evidence.transfer if row.status == "run"}
    chosen = {model: row for (model, factor), row in rows.items() if factor == 1.0}
    if not chosen:
        return None
    parts, beside = [], []
    for model, one in chosen.items():
        health = healthy(one, rules)
        beside.append(
            piece(f"{model}: R-hat at ×1, and p of the drift", health, one.rhat, None, one.drift_p)
        )
        factors = sorted(factor for other, factor in rows if other == model and factor != 1.0)
        for factor in factors:
            pairs = zip(rows[model, factor].groups, one.groups, strict=True)
            change_G = np.array([a / b - 1 for a, b in pairs if a is not None and b])
            change = (
                inference.mean(change_G, rules.level)
                if len(change_G)
                else Effect(0.0, None, None, None)
            )
            name, value = (
                f"{model}: λ̂ at ×{factor:.2g} over ×1, minus 1",
                change.value if len(change_G) else None,
            )
            if factor == factors[0] < 1:
                parts.append(
                    piece(
                        name,
                        together([equivalent(change.interval, rules.negligible), health]),
                        value,
                        change.interval,
                    )
                )
            else:
                beside.append(piece(name, None, value, change.interval))
    if not parts:
        return Finding(
            "inconclusive",
            "No step size below the chosen one was tried; one would decide it.",
            parts=tuple(beside),
        )
    verdict = together([part.verdict for part in parts])
    chief, margin = deciding(parts, verdict), f"± {rules.negligible:.0%}"
    sick = [model for model, row in chosen.items() if healthy(row, rules) == "not supported"]
    why = f"At a smaller step size λ̂ of {chief.name.split(':')[0]} changes by {number(chief.effect)} of itself "
    why += f"({span(chief.interval, rules)})"
    if verdict == "supported":
        why += f", the most of all models and within {margin}; at the chosen one all chains are healthy."
    elif verdict == "inconclusive":
        why += f", which leaves open whether it is within {margin}; more shuffles, or longer chains, would decide it."
    else:
        why = (
            f"Chains are not healthy at the chosen step size: {', '.join(sick)}."
            if sick
            else f"{why}, beyond {margin}."
        )
    missing = list(dict.fromkeys(row.model for row in evidence.transfer if row.status == "not run"))
    why += f" Not run: {', '.join(missing)}." if missing else ""
    return Finding(verdict, why, chief.effect, chief.interval, None, (*parts, *beside))


def healthy(row: Transferred, rules: Rules) -> Verdict:
    if row.failed_chains:
        return "not supported"
    if row.rhat is None or row.drift_p is None:
        return "inconclusive"
    return "supported" if row.rhat < rules.rhat and row.drift_p >= rules.drift else "not supported"
