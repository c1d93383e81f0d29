"""results/ and the drawn figures → the report, one HTML file. No torch, no matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from replicate.errors import UserError
from replicate.pipeline.config import Params
from replicate.reporting.report.evidence import Reference, Sampled, Study
from replicate.reporting.report.page import render
from replicate.reporting.report.svg import FigureError
from replicate.study import published
from replicate.study.claims import Rules
from replicate.study.records import (
    COLLECTED,
    Aggregate,
    Analysis,
    Calibrated,
    Claim,
    Control,
    Coverage,
    Record,
    read,
)


def run(params: Params, results: Path, published_in: Path, figures: Path, page: Path) -> None:
    """`figures`: with `<study>/figures` and `reference/figures` in it."""
    studies = [
        study(params, name, results / name, figures / name / "figures") for name in params.studies
    ]
    reference = Reference(
        figures=published.read(published_in),
        claims=read(results / "published" / "claims.json", Claim),
        aggregates=read(results / "published" / "aggregates.json", Aggregate),
        anova=read(results / "published" / "anova.json", Analysis),
        calibration=read(results / "calibration.json", Calibrated),
        controls=read(results / "controls.json", Control),
        coverage=read(results / "coverage.json", Coverage),
        drawn=drawn(figures / "reference" / "figures")["calibration"],
    )
    rules = Rules(**params.claims.model_dump(), **params.diagnostics.model_dump(), seed=params.seed)
    try:
        text = render(studies, reference, rules)
    except FigureError as error:
        raise UserError(
            f"{figures}: {error}; run `dvc repro` on the stage that draws it, `figures` or `reference`, again"
        ) from None
    partial = page.with_name(f"{page.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(page)


def study(params: Params, name: str, folder: Path, figures: Path) -> Study:
    found = {file: read(folder / f"{file}.json", kind) for file, kind in COLLECTED.items()}
    families = params.studies[name].families
    return Study(
        name=name,
        families=tuple(families),
        models={model: family for family in families for model in params.models_of(family)},
        claims=read(folder / "claims.json", Claim),
        cost=cost(params, name, found),
        figures=drawn(figures),
        **found,  # pyright: ignore[reportArgumentType]
    )


def drawn(folder: Path) -> dict[str, str]:
    """Every SVG there, by its name.

    Raises:
        UserError: there is none, or one cannot be read.
    """
    remedy = "run `dvc repro` on the stage that draws it, `figures` or `reference`"
    files = sorted(folder.glob("*.svg"))
    if not files:
        raise UserError(f"{folder}: has no SVG; {remedy}")
    try:
        return {file.stem: file.read_text(encoding="utf-8") for file in files}
    except (OSError, ValueError) as error:
        raise UserError(
            f"{error.__class__.__name__} in {folder}: a figure cannot be read; {remedy} again"
        ) from None


def cost(params: Params, name: str, found: Mapping[str, Sequence[Record]]) -> list[Sampled]:
    """Gradients that the chains of what was run took; counted, as seconds differ from machine to
    machine.
    """

    def run(file: str, family: str) -> list[Any]:
        rows: Sequence[Any] = found[file]
        return [
            row for row in rows if row.family == family and getattr(row, "status", "run") == "run"
        ]

    parts = []
    for family in params.studies[name].families:
        given = params.families[family]
        models = len({row.model for row in run("estimates", family)})
        stretched = [
            max(1.0, 1 / row.factor) for row in run("transfer", family)
        ]  # as replicate/pipeline/stages/transfer.py has it
        parts += [
            sampled("search", family, given.search, [1.0] * len(run("search", family))),
            sampled("estimate", family, given.sampling, [1.0] * models),
            sampled("transfer", family, given.transfer, stretched),
            sampled(
                "protocol of 2023", family, given.original, [1.0] * len(run("original", family))
            ),
        ]
    if asked := params.studies[name].quantisation:
        family = params.studies[name].quantised
        parts.append(
            sampled("quantisation", family, asked, [1.0] * len(run("quantisation", family)))
        )
    return parts


def sampled(part: str, family: str, plan: Any, stretched: Sequence[float]) -> Sampled:
    """`stretched`: for each model and setting that was run, by how much its chains are longer than
    the plan says.
    """
    chains = getattr(plan, "groups", 1) * plan.chains
    steps = sum(round(factor * plan.burn_in) + round(factor * plan.draws) for factor in stretched)
    return Sampled(part, family, chains * len(stretched), chains * steps)
