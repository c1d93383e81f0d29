"""results/<study>/*.json → figures as PDF and PNG. No torch."""

from __future__ import annotations

from pathlib import Path

from replicate.errors import UserError
from replicate.pipeline.config import Params
from replicate.reporting.figures.diagnostics import diagnostics
from replicate.reporting.figures.llc import llc
from replicate.reporting.figures.original import original
from replicate.reporting.figures.quantisation import quantisation
from replicate.reporting.figures.save import save
from replicate.reporting.figures.search import search
from replicate.reporting.figures.transfer import transfer
from replicate.study import published
from replicate.study.records import (
    Estimate,
    Importance,
    Quantised,
    Reexamined,
    Trace,
    Transferred,
    Trial,
    read,
)


def run(params: Params, study: str, results: Path, published_in: Path, out: Path) -> None:
    families = params.studies[study].families
    estimates = [
        row for row in read(results / "estimates.json", Estimate) if row.estimator == "controlled"
    ]
    theirs = published.read(published_in).families
    traces, trials = read(results / "traces.json", Trace), read(results / "search.json", Trial)
    importances, transfers = (
        read(results / "importances.json", Importance),
        read(results / "transfer.json", Transferred),
    )
    protocol = [
        row for row in read(results / "original.json", Reexamined) if row.family == families[0]
    ]
    drawn = {
        "llc": llc(
            {f: [row for row in estimates if row.family == f] for f in families}, theirs, study
        ),
        "original": original(protocol, next(iter(theirs.values())), study),
        "quantisation": quantisation(
            read(results / "quantisation.json", Quantised), params.claims.level
        ),
        "transfer": transfer(transfers, params.diagnostics.rhat),
    }
    for family in families:
        mine = [row for row in importances if row.family == family]
        drawn[f"search-{family}"] = search(
            [row for row in trials if row.family == family], mine, family
        )
    for row in traces:
        mine = [each for each in estimates if each.model == row.model]
        if not mine:
            raise UserError(
                f"{results / 'estimates.json'}: has nothing of {row.model}; run the stage that writes it again"
            )
        drawn[f"diagnostics-{row.model}"] = diagnostics(row, mine[0])
    for name, figure in drawn.items():
        save(figure, out / name)
