"""The first page: what was asked, what was found, how far it can be trusted, what was not run; each
sentence from the records alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from replicate.reporting.formatting import fixed, interval, number, percent, whole
from replicate.reporting.report.evidence import Reference, Study
from replicate.reporting.report.verdicts import Finding, Judged

QUESTION = "C1"  # the claim that the study is about


def answer(claims: Sequence[Judged]) -> Sequence[Finding]:
    """To the question, by each body of evidence."""
    return next((claim.findings for claim in claims if claim.id == QUESTION), ())


def counted(claims: Sequence[Judged]) -> list[str]:
    """Of each body of evidence, how many claims have each verdict."""
    lines = []
    for each in zip(*(claim.findings for claim in claims), strict=True):
        words = [finding.verdict + (" by citation" if finding.cited else "") for finding in each]
        lines.append(
            f"{each[0].study}: "
            + ", ".join(f"{words.count(verdict)} {verdict}" for verdict in dict.fromkeys(words))
        )
    return lines


def found(studies: Sequence[Study], reference: Reference) -> list[str]:
    lines = [
        f"As published, {percent(analysis.shuffle)} of the variance of λ̂ of {analysis.family} lies between shuffles of the text and "
        f"{percent(analysis.model)} between models: the baseline was one minibatch, and its luck moved all models together."
        for analysis in reference.anova[:1]
    ]
    for study in studies:
        shares = [
            row.r_squared
            for row in study.original
            if row.status == "run" and row.r_squared is not None
        ]
        if shares:
            lines.append(
                f"The same protocol on the models of the {study.name} study: the luck of that minibatch explains {fixed(min(shares))} to "
                f"{fixed(max(shares))} of the variance of λ̂ over shuffles (R², {len(shares)} models), with no chain at all."
            )
        for family in study.families:
            rows = [row for row in study.run if row.family == family]
            if len(rows) > 1:
                ends = rows[0], rows[-1]
                sizes = " to ".join(number(row.llc) for row in ends)
                spans = " and ".join(interval(row.interval) for row in ends)
                lines.append(
                    f"With an exact baseline and a control variate, λ̂ of {family} goes from {sizes} between {whole(ends[0].parameters)} "
                    f"and {whole(ends[1].parameters)} parameters (95 % intervals {spans})."
                )
    return lines


def trust(studies: Sequence[Study], reference: Reference) -> list[str]:
    verdicts = [row.verdict for row in reference.calibration]
    counts = ", ".join(
        f"{verdicts.count(verdict)} {verdict}" for verdict in dict.fromkeys(verdicts)
    )
    lines = [
        f"Of {len(verdicts)} models whose λ is known the sampler and estimator find: {counts}."
    ]
    lines += [
        f"{row.covered} of {row.repeats} intervals of a nominal 95 % hold the truth ({percent(row.share)})."
        for row in reference.coverage
    ]
    wrong = [row for row in reference.controls if row.mistake != "none"]
    lines.append(
        f"{sum(row.caught for row in wrong)} of {len(wrong)} samplers with a mistake made on purpose are caught."
    )
    for study in studies:
        rhats = [row.rhat for row in study.run if row.rhat is not None]
        if rhats:
            failed, chains = (
                sum(row.failed_chains for row in study.run),
                sum(row.chains for row in study.run),
            )
            lines.append(
                f"In the {study.name} study the greatest R-hat is {fixed(max(rhats))}, and {failed} of {chains} chains failed."
            )
    return lines


def missing(study: Study) -> list[str]:
    """Models that the study asks for and has no λ̂ of."""
    run = {row.model for row in study.run}
    return [model for model in study.models if model not in run]


def not_run(studies: Sequence[Study]) -> list[str]:
    lines = []
    for study in studies:
        if models := missing(study):
            claims = [claim.id for claim in study.claims if claim.verdict == "not run"]
            without = f" Without them it has no verdict on {', '.join(claims)}." if claims else ""
            lines.append(f"{study.name}: no λ̂ of {', '.join(models)}.{without}")
    return lines or ["Everything that the studies ask for has run."]
