r"""Collects the numbers of the paper's text by key. LaTeX reads them as `\result{study/key}`.

`values.yaml` declares most of them. If a planned result was not run, its key has the value NOT_RUN.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from replicate.reporting import expressions
from replicate.reporting.formatting import NOT_RUN, number, percent, span, whole
from replicate.reporting.results import Reference, Study
from replicate.reporting.tables import sizes
from replicate.reporting.tables.models import by_estimator, locality
from replicate.study.records import JudgedClaim

Values = dict[str, str]
DECLARED = expressions.read("values.yaml")
CITED = ("30/300", "1910/300", "19100/3000", "1910/radius")  # settings, by the paper's text
COSTLY = ("pretrain", "calibrate", "search", "estimate", "transfer", "quantisation", "original")


def group(name: str, prefix: str = "", run: Any = True, **context: Any) -> Values:
    """Returns the values of one group of values.yaml.

    Args:
        name: the name of the group.
        prefix: the beginning of every key.
        run: whether the results of the group were run. If not, every value is NOT_RUN.
        context: what the expressions of the group use.
    """
    return {
        f"{prefix}{key}": expressions.text(source, **context) if run else NOT_RUN
        for key, source in DECLARED[name].items()
    }


def of_study(study: Study) -> Values:
    """Returns every number of a study that the paper's text may use."""
    found = models(study) | health(study) | claims(study.claims) | exponents(study.claims)
    found |= over_training(study)
    for family in study.plan.families:
        found |= text(study, family.name) | search(study, family.name)
        found |= original(study, family.name)
    return found


def models(study: Study) -> Values:
    """Returns λ̂ of each planned model with its interval, R-hat, and the loss of its chains."""
    found: Values = {}
    distance = locality(study)
    for model in study.plan.models:
        row = study.default.get(model)
        found |= group("model", f"{model}/", row, row=row, distance=distance)
    return found


def health(study: Study) -> Values:
    """Returns the health of the chains of all models that were run."""
    falls = [
        1 - rows["devinterp"].llc / rows["controlled"].llc
        for rows in by_estimator(study).values()
        if rows["controlled"].llc and rows["devinterp"].llc is not None
    ]
    return group("health", "", study.default, study=study, falls=falls)


def text(study: Study, family: str) -> Values:
    """Returns the size of a family's vocabulary, and the loss of guessing all tokens alike."""
    row = next((row for row in study.windows if row.family == family), None)
    return group("text", f"{family}/", row, row=row)


def search(study: Study, family: str) -> Values:
    """Returns the chosen step size, how many settings were tried, and how much of λ̂'s variance
    the step size explains.
    """
    trials = [row for row in study.search if row.family == family]
    chosen = [row.lr for row in trials if row.chosen]
    importances = [
        row.importance
        for row in study.importances
        if (row.family, row.sampler, row.hyperparameter) == (family, "sgld", "lr")
    ]
    return group("search", f"{family}/", trials=trials, chosen=chosen, importances=importances)


def original(study: Study, family: str) -> Values:
    """Returns the results of the 2023 protocol on a family's models, as ranges over models."""
    rows = [row for row in study.original if row.family == family]
    return group("original", f"{family}/original/", rows, rows=rows)


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
        for verdict in ("supported", "not supported", "inconclusive", "not decided here", NOT_RUN)
    }
    for row in rows:
        found |= group("claim", f"{row.id}/", row=row)
    return found


def exponents(rows: Sequence[JudgedClaim]) -> Values:
    """Returns a of λ̂ ∝ dᵃ, with its interval, at the settings that the paper's text cites.

    `exponent/range` is the range of a over all settings at which γ is the same for all sizes.
    """
    found = dict.fromkeys((f"exponent/{setting}" for setting in (*CITED, "range")), NOT_RUN)
    fixed: list[float | None] = []
    for part in next((row.parts for row in rows if row.id == "R3"), ()):
        if numbers := re.fullmatch(r"\((\S+), (\S+)( = .*)?\): exponent a of λ̂ ∝ dᵃ", part.name):
            gamma = "radius" if numbers[3] else numbers[2]
            found[f"exponent/{numbers[1]}/{gamma}"] = expressions.text(
                "(part.effect|effect) ~ ' (' ~ (part.interval|effects) ~ ')'", part=part
            )
            if not numbers[3]:
                fixed.append(part.effect)
                found["exponent/range"] = span(fixed, 3)
    return found


def over_training(study: Study) -> Values:
    """Returns a of λ̂ ∝ dᵃ at the first step at which no chain has escaped, and at the end."""
    names = ("step/local", "step/local/exponent", "step/end/exponent")
    found: Values = dict.fromkeys(names, NOT_RUN)
    known = sizes.over_training(study)
    local = [s for s, (rows, _) in known.items() if all(row.regime != "escaped" for row in rows)]
    if local:
        found["step/local"] = whole(local[0])
        found["step/local/exponent"] = number(known[local[0]][1], 2)
    if None in known:
        found["step/end/exponent"] = number(known[None][1], 2)
    return found


def published(reference: Reference) -> Values:
    """Returns the results of the analysis of the published figures."""
    found = claims(reference.claims) | group("counts", counts=reference.figures.counts)
    for name, family in reference.figures.families.items():
        rows = [row for row in reference.aggregates if row.family == name]
        shares = [model.sampled / model.parameters for model in family.models.values()]
        found |= group("published", f"{name}/", family=family, rows=rows, shares=shares)
    for row in reference.anova:
        pairs = [value for i, line in enumerate(row.correlations) for value in line[:i]]
        found |= group("anova", f"{row.family}/", row=row, pairs=pairs)
    return found


def calibration(reference: Reference) -> Values:
    """Returns counts of calibration verdicts and of caught negative controls, and coverage."""
    targets, verdicts = reference.calibration, [row.verdict for row in reference.calibration]
    wrong = [row for row in reference.controls if row.control != "none"]
    found = group("calibration", targets=targets, verdicts=verdicts, wrong=wrong)
    known, models = (
        [row for row in reference.coverage if row.kind == kind]
        for kind in ("closed form", "language model")
    )
    for row in known:
        found |= group("coverage", row=row)
    return found | group("coverage of models", run=models, rows=models)


def costs(reports: Mapping[str, Any]) -> Values:
    """Returns the numbers of benchmarks/results.json. For each benchmarked work they are those of
    the first machine that ran it.

    `work/peer` is a peer's time per step divided by ours. `work/limit` is the share of the
    machine's limit that we reach. `gpu/model/…` are seconds and GB of a step with the settings of
    the paper study and random weights. `control/stage` is in minutes.
    """
    found = {"machine": next(name for name, report in reports.items() if report.get("works"))}
    works = [pair for report in reports.values() for pair in report.get("works", {}).items()]
    for work, row in works:
        if row["status"] != "run":
            found.setdefault(f"{work}/limit", NOT_RUN)
        elif found.get(f"{work}/limit", NOT_RUN) == NOT_RUN:
            peers = row["measured"]
            found[f"{work}/limit"] = percent(peers["ours"]["fraction_of_limit"], 0)
            for peer, each in peers.items():
                ran = each["status"] == "run"
                found[f"{work}/{peer}"] = number(each["ratio"]["median"], 2) if ran else NOT_RUN
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
