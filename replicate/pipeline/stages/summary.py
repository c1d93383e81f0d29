"""Stage `summary`: prints a study's verdicts and estimates."""

from __future__ import annotations

from replicate.pipeline.config import Config
from replicate.reporting.report.brief import counted, missing
from replicate.reporting.results import Study
from replicate.reporting.tables import models, reference, sizes
from replicate.reporting.terminal import show
from replicate.study import published, records
from replicate.study.records import Calibrated


def run(config: Config, name: str) -> None:
    """Prints the verdicts, λ̂ by setting and by model, advice, and what was not run."""
    folder = config.paths.study(name)
    study, figures = Study.read(config.plan(name), folder), published.read(config.paths.published)
    known = []
    if name in config.calibration:
        known = records.read(folder / "calibration.json", Calibrated)
    show(
        reference.claims(study.name, study.claims).only(
            "claim", "title", "verdict", "measure", "effect", "95 % interval"
        )
    )
    if study.settings:
        show(sizes.measured(study))
    columns = ("model", "sampled", "λ̂ ± s.e.", "95 % interval", "R-hat", "effective draws")
    show(models.estimates(study, figures).only(*columns, "diverged chains"))
    for row in study.traces:
        for line in row.advice:
            print(f"{row.model}: {line}")
    if study.plan.note:
        print(study.plan.note)
    print(missing(study))
    for row in study.refused:
        print(f"{row.path} is not what params.yaml asks for: {row.reason}")
    if known:
        counts = counted(row.verdict for row in known)
        print(f"{len(known)} models of known λ: {counts}")
