r"""Collects the numbers of the paper's text by key. LaTeX reads them as `\result{study/key}`.

If a planned result was not run, its key has the value NOT_RUN.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import log
from typing import Any

from replicate.reporting.formatting import (
    NOT_RUN,
    effect,
    effects,
    fixed,
    interval,
    number,
    percent,
    probability,
    span,
    whole,
)
from replicate.reporting.results import Reference, Study
from replicate.reporting.tables.models import locality
from replicate.study.records import JudgedClaim

Values = dict[str, str]
COSTLY = ("pretrain", "calibrate", "search", "estimate", "transfer", "quantisation", "original")


def of_study(study: Study) -> Values:
    """Returns every number of a study that the paper's text may use."""
    found = models(study) | health(study) | claims(study.claims)
    for family in study.plan.families:
        found |= text(study, family.name) | search(study, family.name)
        found |= original(study, family.name)
    return found


def models(study: Study) -> Values:
    """Returns λ̂ of each planned model, its interval, its R-hat, and how far chains are from w*."""
    keys = ("llc", "interval", "parameters", "rhat", "sampled_loss", "escape")
    found = {f"{model}/{key}": NOT_RUN for model in study.plan.models for key in keys}
    for model, row in study.default.items():
        found |= {
            f"{model}/llc": number(row.llc),
            f"{model}/interval": interval(row.interval),
            f"{model}/parameters": whole(row.parameters),
            f"{model}/rhat": fixed(row.rhat),
        }
    for model, (loss, share) in locality(study).items():
        found[f"{model}/sampled_loss"] = number(loss, 3)
        found[f"{model}/escape"] = percent(share, 0)
    return found


def health(study: Study) -> Values:
    """Returns the health of the chains of all models that were run.

    `rhat` is the greatest R-hat. `chains` and `diverged` count chains. `explained` is the range of
    ρ², the share of the draws' variance that the control variate removes. `shortfall` is the range
    of how far λ̂ by `devinterp` is below λ̂, in per cent.
    """
    rows = study.default
    if not rows:
        return dict.fromkeys(("rhat", "diverged", "chains", "explained", "shortfall"), NOT_RUN)
    other = {row.model: row.llc for row in study.estimates if row.estimator == "devinterp"}
    falls = [
        1 - theirs / row.llc
        for model, row in rows.items()
        if row.llc and (theirs := other.get(model)) is not None
    ]
    return {
        "rhat": f"{max(row.rhat or 0 for row in rows.values()):.2f}",
        "diverged": str(sum(row.diverged_chains for row in rows.values())),
        "chains": str(sum(row.chains for row in rows.values())),
        "explained": span((row.explained for row in rows.values()), 2),
        "shortfall": span(falls, 2, 100),
    }


def text(study: Study, family: str) -> Values:
    """Returns `family/vocabulary` (tokens) and `family/uniform_loss`, the loss (nats) of a model
    that guesses all tokens alike.
    """
    sizes = [row.vocabulary for row in study.windows if row.family == family]
    return {
        f"{family}/vocabulary": whole(sizes[0]) if sizes else NOT_RUN,
        f"{family}/uniform_loss": number(log(sizes[0]), 3) if sizes else NOT_RUN,
    }


def search(study: Study, family: str) -> Values:
    """Returns the chosen step size, how many settings were tried, and how much of λ̂'s variance
    the step size explains.
    """
    trials = [row for row in study.search if row.family == family]
    chosen = [number(row.lr, 3) for row in trials if row.chosen]
    importances = [
        percent(row.importance, 0)
        for row in study.importances
        if (row.family, row.sampler, row.hyperparameter) == (family, "sgld", "lr")
    ]
    return {
        f"{family}/lr": chosen[0] if chosen else NOT_RUN,
        f"{family}/trials": str(len(trials)) if trials else NOT_RUN,
        f"{family}/importance": importances[0] if importances else NOT_RUN,
    }


def original(study: Study, family: str) -> Values:
    """Returns the results of the 2023 protocol on a family's models, as ranges over models."""
    rows = [row for row in study.original if row.family == family]
    found = {
        "r_squared": span((row.r_squared for row in rows), 2),
        "shuffles": span(len(row.shuffles) for row in rows),
        "spread": span((row.spread[0] for row in rows), 3),
        "spread32": span((row.spread[-1] for row in rows), 3),
        "padded": span((row.padded_labels for row in rows), 2, 100),
        "padded_variance": span((row.padded_variance for row in rows), 2, 100),
        "explained": span(row.explained for row in rows),
    }
    return {f"{family}/original/{key}": value if rows else NOT_RUN for key, value in found.items()}


def settings(blocks: Mapping[str, Mapping[str, Any]]) -> Values:
    """Returns every number in the given blocks of the configuration, by `block/key`."""
    return {
        f"{name}/{key}": whole(value) if isinstance(value, int) else number(value)
        for name, block in blocks.items()
        for key, value in block.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def claims(rows: Sequence[JudgedClaim]) -> Values:
    """Returns the verdict, effect, interval and p of each claim, and how many have each verdict."""
    found = {
        f"claims/{verdict}": str(sum(row.verdict == verdict for row in rows))
        for verdict in ("supported", "not supported", "inconclusive", NOT_RUN)
    }
    for row in rows:
        found |= {
            f"{row.id}/verdict": row.verdict,
            f"{row.id}/effect": effect(row.effect),
            f"{row.id}/interval": effects(row.interval),
            f"{row.id}/p": probability(row.p_value),
        }
    return found


def published(reference: Reference) -> Values:
    """Returns the results of the analysis of the published figures."""
    found = {"factor": number(reference.figures.counts.factor, 5)} | claims(reference.claims)
    for name, family in reference.figures.families.items():
        shares = [model.sampled / model.parameters for model in family.models.values()]
        means = [row for row in reference.aggregates if row.family == name]
        found |= {
            f"{name}/nbeta": number(family.nbeta),
            f"{name}/sampled": span(shares, 2, 100),
            f"{name}/means": str(sum(row.shuffles for row in means)),
            f"{name}/dropped": str(sum(row.shuffles - row.kept for row in means)),
        }
    for row in reference.anova:
        pairs = [value for i, line in enumerate(row.correlations) for value in line[:i]]
        found |= {
            f"{row.family}/shuffle": percent(row.shuffle),
            f"{row.family}/model": percent(row.model),
            f"{row.family}/p": probability(row.p_value),
            f"{row.family}/page": probability(row.page_p),
            f"{row.family}/correlation": span(pairs, 2),
        }
    return found


def calibration(reference: Reference) -> Values:
    """Returns counts of calibration verdicts and of caught negative controls, and coverage."""
    wrong = [row for row in reference.controls if row.control != "none"]
    verdicts = [row.verdict for row in reference.calibration]
    found = {
        "targets": str(len(verdicts)),
        "within1": str(verdicts.count("within 1 %")),
        "within": str(verdicts.count("within the interval")),
        "within5": str(verdicts.count("within 5 %")),
        "outside": str(verdicts.count("outside")),
        "largest": whole(max(row.parameters for row in reference.calibration)),
        "wrong": str(len(wrong)),
        "caught": str(sum(row.caught for row in wrong)),
    }
    for row in reference.coverage:
        found |= {
            "coverage": percent(row.share),
            "coverage_interval": span(row.interval, 3, 100),
            "repeats": str(row.repeats),
        }
    return found


def costs(reports: Mapping[str, Any]) -> Values:
    """Returns the numbers of benchmarks/results.json, each work from the first machine that ran it.

    `work/peer` is a peer's time per step over ours. `work/limit` is our share of what the machine
    allows. `gpu/model/…` are seconds and GB of a step with the settings of the paper study and
    random weights. `control/stage` is in minutes.
    """
    found = {"machine": next(name for name, report in reports.items() if report.get("works"))}
    works = [pair for report in reports.values() for pair in report.get("works", {}).items()]
    for work, row in works:
        if row["status"] != "run":
            found.setdefault(f"{work}/limit", NOT_RUN)
        elif found.get(f"{work}/limit", NOT_RUN) == NOT_RUN:
            found |= {f"{work}/{key}": value for key, value in _measured(row["measured"])}
    planned = [
        (name, report["plan"])
        for name, report in reports.items()
        if "plan" in report and report["machine"]["gpu"]
    ]
    found["gpu"], plan = planned[0] if planned else (NOT_RUN, {})
    for model, row in plan.items():
        found[f"gpu/{model}/seconds"] = number(row["seconds"], 2)
        found[f"gpu/{model}/memory"] = number(row["memory"] / 1e9, 2)
    timed = [(name, report["control"]) for name, report in reports.items() if "control" in report]
    found["control/machine"], control = timed[0] if timed else (NOT_RUN, {"stages": []})
    minutes: Counter[str] = Counter()
    for stage, _, seconds in control["stages"]:
        minutes[stage] += seconds / 60
    for stage in COSTLY:
        found[f"control/{stage}"] = number(minutes[stage], 2) if stage in minutes else NOT_RUN
    found["control"] = number(minutes.total(), 2) if minutes else NOT_RUN
    return found


def _measured(peers: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    yield "limit", percent(peers["ours"]["fraction_of_limit"], 0)
    for peer, row in peers.items():
        yield peer, number(row["ratio"]["median"], 2) if row["status"] == "run" else NOT_RUN
