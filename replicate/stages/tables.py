"""results/<study>/*.json → LaTeX rows and values. No torch."""

from __future__ import annotations

from pathlib import Path

from replicate import published, tables
from replicate.params import Params
from replicate.results import Baseline, Estimate, Training, Trial, read


def run(params: Params, study: str, results: Path, out: Path) -> None:
    estimates, trials = read(results / "estimates.json", Estimate), read(results / "search.json", Trial)
    baselines, training = read(results / "baselines.json", Baseline), read(results / "training.json", Training)
    fragments = {
        "estimates": tables.estimates(estimates, published.figures(), "controlled"),
        "estimators": tables.estimators(estimates),
        "search": tables.search(trials),
        "training": tables.training(training),
        "values": tables.values(study, estimates, baselines, trials),
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, text in fragments.items():
        (out / f"{name}.tex").write_text(text, encoding="utf-8")
