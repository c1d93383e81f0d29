"""results/<study>/*.json → LaTeX rows and values. No torch."""

from __future__ import annotations

from pathlib import Path

from replicate.pipeline.config import Params
from replicate.reporting import tables, values
from replicate.study import published
from replicate.study.records import (
    Baseline,
    Claim,
    Estimate,
    Extraction,
    Importance,
    Quantised,
    Reexamined,
    Training,
    Trial,
    read,
)


def run(params: Params, study: str, results: Path, published_in: Path, out: Path) -> None:
    families = params.studies[study].families
    estimates, trials = (
        read(results / "estimates.json", Estimate),
        read(results / "search.json", Trial),
    )
    baselines, training = (
        read(results / "baselines.json", Baseline),
        read(results / "training.json", Training),
    )
    claims, original = (
        read(results / "claims.json", Claim),
        read(results / "original.json", Reexamined),
    )
    text = read(results / "windows.json", Extraction)
    nbeta = {name: params.families[name].sampling.nbeta for name in families}
    named = values.settings(
        {name: params.families[name].model_dump() for name in families}
        | {f"{name}/sampling": params.families[name].sampling.model_dump() for name in families}
        | {f"{name}/protocol": params.families[name].original.model_dump() for name in families}
        | {"rules": params.claims.model_dump() | params.diagnostics.model_dump()}
    )
    named |= (
        values.estimates(estimates)
        | values.health(estimates)
        | values.baselines(
            baselines, estimates, nbeta, {row.family: row.vocabulary for row in text}
        )
        | values.original(original, families)
    )
    named |= values.text(text)
    named |= values.search(
        trials, read(results / "importances.json", Importance), families
    ) | values.verdicts(claims)
    fragments = {
        "efficiency": tables.efficiency(estimates),
        "estimates": tables.estimates(
            estimates, published.read(published_in).families, "controlled"
        ),
        "estimators": tables.estimators(estimates),
        "judged": tables.judged(claims),
        "original": tables.original(original),
        "quantisation": tables.quantisation(read(results / "quantisation.json", Quantised)),
        "search": tables.search(trials),
        "training": tables.training(training),
        "undecided": tables.undecided(claims),
        "values": values.lines(study, named),
    }
    tables.write(fragments, out)
