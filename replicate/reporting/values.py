r"""The numbers that the write-up's text names: `\setresult{study/…}{…}` for each, *not run* where
there is none. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log
from typing import Any

from replicate.reporting.tables import NOT_RUN, escaped, interval, number, percent, whole
from replicate.study.published import Figures
from replicate.study.records import (
    Aggregate,
    Analysis,
    Baseline,
    Calibrated,
    Claim,
    Control,
    Coverage,
    Estimate,
    Extraction,
    Importance,
    Reexamined,
    Trial,
)

COSTLY = (
    "pretrain",
    "calibrate",
    "search",
    "estimate",
    "transfer",
    "quantisation",
    "original",
)  # stages that the text tells the cost of


def estimates(records: list[Estimate]) -> dict[str, str]:
    """`model/…` of the estimator `controlled`, `model/estimator/…` of the others."""
    named: dict[str, str] = {}
    for row in records:
        run = row.status == "run"
        prefix = (
            f"{row.model}/" if row.estimator == "controlled" else f"{row.model}/{row.estimator}/"
        )
        named[prefix + "llc"] = number(row.llc) if run else NOT_RUN
        named[prefix + "error"] = number(row.standard_error, 2) if run else NOT_RUN
        named[prefix + "interval"] = interval(row.interval) if run else NOT_RUN
        if row.estimator == "controlled":
            named[prefix + "parameters"] = whole(row.parameters) if row.parameters else NOT_RUN
            named[prefix + "rhat"] = f"{row.rhat:.2f}" if run and row.rhat is not None else NOT_RUN
    return named


def health(records: list[Estimate]) -> dict[str, str]:
    """Over all models: greatest R-hat, chains that failed of how many; the ranges of ρ², what the
    control variate takes away, and of the percentage by which the estimator `devinterp` falls
    short.
    """
    run = [row for row in records if row.status == "run" and row.estimator == "controlled"]
    if not run:
        return dict.fromkeys(("rhat", "failed", "chains", "explained", "shortfall"), NOT_RUN)
    other = {row.model: row.llc for row in records if row.estimator == "devinterp"}
    falls = [
        1 - theirs / row.llc
        for row in run
        if row.llc and (theirs := other.get(row.model)) is not None
    ]
    return {
        "rhat": f"{max(row.rhat or 0 for row in run):.2f}",
        "failed": str(sum(row.failed_chains for row in run)),
        "chains": str(sum(row.chains for row in run)),
        "explained": span([row.explained for row in run], 2),
        "shortfall": span(falls, 2, 100),
    }


def baselines(
    records: list[Baseline],
    estimates: list[Estimate],
    nbeta: Mapping[str, float],
    vocabulary: Mapping[str, int | None],
) -> dict[str, str]:
    """`model/loss` at w*; `model/sampled_loss`, the mean loss of the chains, L(w*) + λ̂/nβ;
    `model/escape`, the share that this is of the way from w* to guessing all tokens alike. `nbeta`,
    `vocabulary`: of each family.
    """
    llc = {row.model: row.llc for row in estimates if row.estimator == "controlled"}
    named: dict[str, str] = {}
    for row in records:
        named[f"{row.model}/loss"] = number(row.loss) if row.status == "run" else NOT_RUN
        named |= dict.fromkeys((f"{row.model}/sampled_loss", f"{row.model}/escape"), NOT_RUN)
        found, tokens = llc.get(row.model), vocabulary.get(row.family)
        if row.loss is not None and found is not None and tokens:
            rise = found / nbeta[row.family]
            named[f"{row.model}/sampled_loss"] = number(row.loss + rise, 3)
            named[f"{row.model}/escape"] = percent(rise / (log(tokens) - row.loss), 0)
    return named


def text(records: list[Extraction]) -> dict[str, str]:
    """`family/vocabulary`, and `family/uniform_loss`: the loss of guessing all its tokens alike
    (nats).
    """
    named: dict[str, str] = {}
    for row in records:
        named[f"{row.family}/vocabulary"] = whole(row.vocabulary) if row.vocabulary else NOT_RUN
        named[f"{row.family}/uniform_loss"] = (
            number(log(row.vocabulary), 3) if row.vocabulary else NOT_RUN
        )
    return named


def search(
    trials: list[Trial], importances: list[Importance], families: Sequence[str]
) -> dict[str, str]:
    """`family/…`: the setting that is used, how many were tried, and how much of λ̂'s variance the
    step size explains.
    """
    named = {
        f"{family}/{key}": NOT_RUN for family in families for key in ("lr", "trials", "importance")
    }
    for family in families:
        mine = [row for row in trials if row.family == family]
        if mine:
            named[f"{family}/trials"] = str(len(mine))
        named |= {f"{family}/lr": number(row.lr, 3) for row in mine if row.chosen}
    for row in importances:
        if row.sampler == "sgld" and row.hyperparameter == "lr":
            named[f"{row.family}/importance"] = percent(row.importance, 0)
    return named


def original(records: list[Reexamined], families: Sequence[str]) -> dict[str, str]:
    """`family/original/…`: the protocol of 2023 on a family's models, as a range over them."""
    named: dict[str, str] = {}
    for family in families:
        run = [row for row in records if row.family == family and row.status == "run"]
        groups = [value for row in run for value in row.groups if value is not None]
        lengths = {len(row.groups) for row in run}
        found = {
            "r_squared": span([row.r_squared for row in run], 2),
            "least": number(min(groups, default=None), 3),
            "greatest": number(max(groups, default=None), 3),
            "negative": percent(sum(value <= 0 for value in groups) / len(groups), 0)
            if groups
            else "",
            "shuffles": str(*lengths) if len(lengths) == 1 else "",
            "spread": span([row.spread[0] for row in run], 3),
            "spread32": span([row.spread[-1] for row in run], 3),
            "padded": span([row.padded_labels for row in run], 2, 100),
            "padded_variance": span([row.padded_variance for row in run], 2, 100),
            "explained": span([row.explained for row in run], 4),
        }
        named |= {
            f"{family}/original/{key}": text if run else NOT_RUN for key, text in found.items()
        }
    return named


def settings(blocks: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """`block/key` of every number in blocks of params.yaml."""
    return {
        f"{name}/{key}": whole(value) if isinstance(value, int) else number(value)
        for name, block in blocks.items()
        for key, value in block.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def verdicts(claims: list[Claim]) -> dict[str, str]:
    """`claim/…`: verdict, effect, interval, p; and how many claims have each verdict."""
    named: dict[str, str] = {}
    for row in claims:
        named[f"{row.id}/verdict"] = NOT_RUN if row.verdict == "not run" else row.verdict
        named[f"{row.id}/effect"] = number(row.effect, 3)
        named[f"{row.id}/interval"] = interval(row.interval, 3)
        named[f"{row.id}/p"] = number(row.p_value, 2)
    for verdict in ("supported", "not supported", "inconclusive", "not run"):
        named[f"claims/{verdict}"] = str(sum(row.verdict == verdict for row in claims))
    return named


def published(
    analyses: list[Analysis], aggregates: list[Aggregate], figures: Figures
) -> dict[str, str]:
    """`family/…`: shares of the sum of squares, F and p, correlations of models over shuffles,
    means left out, the sampler's nβ.
    """
    named = {"factor": number(figures.counts.factor, 5)}
    for name, family in figures.families.items():
        shares = [model.sampled / model.parameters for model in family.models.values()]
        named |= {f"{name}/nbeta": number(family.nbeta), f"{name}/sampled": span(shares, 2, 100)}
    named |= {
        f"{row.family}/{key}": percent(getattr(row, key))
        for row in analyses
        for key in ("shuffle", "model", "residual")
    }
    for row in analyses:
        apart = [value for i, line in enumerate(row.correlations) for value in line[:i]]
        named |= {
            f"{row.family}/f": number(row.f, 3),
            f"{row.family}/p": number(row.p_value, 2),
            f"{row.family}/page": number(row.page_p, 2),
        }
        named |= {
            f"{row.family}/correlation": span(apart, 2),
            f"{row.family}/shuffles": str(row.shuffles),
        }
        mine = [each for each in aggregates if each.family == row.family]
        named[f"{row.family}/dropped"] = str(sum(each.shuffles - each.kept for each in mine))
        named[f"{row.family}/means"] = str(sum(each.shuffles for each in mine))
    return named


def calibration(
    records: list[Coverage], calibrated: list[Calibrated], controls: list[Control]
) -> dict[str, str]:
    wrong = [row for row in controls if row.mistake != "none"]
    named = {
        "targets": str(len(calibrated)),
        "within1": str(sum(row.verdict == "within 1 %" for row in calibrated)),
        "within": str(sum(row.verdict == "within the interval" for row in calibrated)),
        "within5": str(sum(row.verdict == "within 5 %" for row in calibrated)),
        "outside": str(sum(row.verdict == "outside" for row in calibrated)),
        "largest": whole(max(row.parameters for row in calibrated)),
        "wrong": str(len(wrong)),
        "caught": str(sum(row.caught for row in wrong)),
    }
    for row in records:
        named |= {
            "coverage": percent(row.share),
            "coverage_interval": span(row.interval, 3, 100),
            "repeats": str(row.repeats),
        }
    return named


def costs(reports: Mapping[str, Any]) -> dict[str, str]:
    """Of benchmarks/results.json, each work on the first machine that ran it: a step of each peer
    over ours and our share of the machine's limit; `gpu/model/…`: seconds and GB of a step as the
    paper study has it, with random weights; the minutes of the demo study's stages.
    """
    name = next(name for name, each in reports.items() if each.get("works"))
    place, demo = next(
        ((name, each["demo"]) for name, each in reports.items() if "demo" in each), (NOT_RUN, {})
    )
    named = {"machine": escaped(name), "demo/machine": escaped(place) if demo else NOT_RUN}
    works = [
        (work, row) for each in reports.values() for work, row in each.get("works", {}).items()
    ]
    for work, row in sorted(
        works, key=lambda pair: pair[1]["status"] == "run"
    ):  # what was run takes the place of what was not
        if row["status"] != "run":
            named[f"{work}/limit"] = NOT_RUN
        elif named.get(f"{work}/limit", NOT_RUN) == NOT_RUN:
            named[f"{work}/limit"] = percent(row["measured"]["ours"]["fraction_of_limit"], 0)
            for peer, measured in row["measured"].items():
                named[f"{work}/{peer}"] = (
                    number(measured["ratio"]["median"], 2)
                    if measured["status"] == "run"
                    else NOT_RUN
                )
    planned = {
        name: each["plan"]
        for name, each in reports.items()
        if "plan" in each and each["machine"]["gpu"]
    }
    gpu, plan = next(iter(planned.items()), (None, {}))
    named["gpu"] = escaped(gpu) if gpu else NOT_RUN
    for model, row in plan.items():
        named |= {
            f"gpu/{model}/seconds": number(row["seconds"], 2),
            f"gpu/{model}/memory": number(row["memory"] / 1e9, 2),
        }
    spent = demo.get("seconds", {})
    minutes = {
        stage: number(sum(spent[stage].values()) / 60, 2) if stage in spent else NOT_RUN
        for stage in COSTLY
    }
    whole_study = (
        number(sum(sum(each.values()) for each in spent.values()) / 60, 2) if spent else NOT_RUN
    )
    return (
        named | {"demo": whole_study} | {f"demo/{stage}": text for stage, text in minutes.items()}
    )


def span(values: Sequence[float | None], digits: int, factor: float = 1.0) -> str:
    """The least to the greatest, or the one that both are."""
    known = [factor * value for value in values if value is not None]
    if not known:
        return "--"
    least, greatest = number(min(known), digits), number(max(known), digits)
    return least if least == greatest else f"{least} to {greatest}"


def lines(prefix: str, named: Mapping[str, str]) -> str:
    return "".join(
        f"\\setresult{{{prefix}/{key}}}{{{text}}}\n" for key, text in sorted(named.items())
    )
