"""results/<study>/*.json → figures as PDF and PNG. No torch."""

from __future__ import annotations

from pathlib import Path

from replicate import figures, published
from replicate.params import Params
from replicate.results import Estimate, Trace, Trial, read


def run(params: Params, study: str, results: Path, out: Path) -> None:
    families = (params.studies[study].full, params.studies[study].quantised)
    estimates = [row for row in read(results / "estimates.json", Estimate) if row.estimator == "controlled"]
    traces, trials = read(results / "traces.json", Trace), read(results / "search.json", Trial)
    drawn = {"llc": figures.llc({f: [row for row in estimates if row.family == f] for f in families}, published.figures(), study)}
    for family in families:
        drawn[f"traces-{family}"] = figures.traces([row for row in traces if row.family == family], family)
        drawn[f"search-{family}"] = figures.search([row for row in trials if row.family == family], family)
    out.mkdir(parents=True, exist_ok=True)
    for name, figure in drawn.items():
        figure.savefig(out / f"{name}.pdf", metadata={"CreationDate": None, "Producer": None, "Creator": None})
        figure.savefig(out / f"{name}.png", metadata={"Software": None})
