"""Stage `summary`: prints a study's estimates and verdicts."""

from __future__ import annotations

from collections import Counter

from replicate.pipeline.config import Config
from replicate.reporting.formatting import percent
from replicate.reporting.report.brief import missing
from replicate.reporting.results import Reference, Study
from replicate.reporting.tables import models, reference
from replicate.reporting.terminal import show


def run(config: Config, name: str) -> None:
    """Prints what the study found, what is wrong with it, and what it did not run."""
    study = Study.read(config.plan(name), config.paths.study(name))
    known = Reference.read(config.paths.published, config.paths.results)
    columns = ("model", "sampled", "λ̂ ± s.e.", "95 % interval", "R-hat", "effective draws")
    show(models.estimates(study, known.figures).only(*columns, "diverged chains"))
    for row in study.traces:
        for line in row.advice:
            print(f"{row.model}: {line}")
    show(
        reference.claims(study.name, study.claims).only(
            "claim", "title", "verdict", "effect", "95 % interval"
        )
    )
    print(missing(study))
    for row in study.refused:
        print(f"{row.path} is not what params.yaml asks for: {row.reason}")
    verdicts = Counter(row.verdict for row in known.calibration)
    counts = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items())
    print(f"{verdicts.total()} models of known λ: {counts}")
    for row in known.coverage:
        print(f"{percent(row.share)} of {row.repeats} intervals hold the truth of {row.target}")
