"""Stage `report`: writes all results into one HTML file."""

from __future__ import annotations

from replicate.errors import UserError
from replicate.pipeline.config import Config
from replicate.reporting.report.page import render
from replicate.reporting.results import Reference, Study


def run(config: Config) -> None:
    """Writes report.html from results/ and the drawn figures."""
    paths = config.paths
    rules = config.rules
    studies = [Study.read(config.plan(name), paths.study(name)) for name in config.studies]
    names = [*(study.name for study in studies if study.obtained), "reference"]
    figures = {name: drawn(config, name) for name in names}
    page = render(studies, Reference.read(paths.published, paths.results), figures, rules)
    partial = paths.report.with_name(f"{paths.report.name}.partial")
    partial.write_text(page, encoding="utf-8")
    partial.replace(paths.report)


def drawn(config: Config, name: str) -> dict[str, str]:
    """Returns the SVG text of each figure of a study, or of `reference`, by the figure's name.

    Raises:
        UserError: no figures have been drawn.
    """
    folder = config.paths.generated(name) / "figures"
    found = {file.stem: file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.svg"))}
    if not found:
        stage = name if name == "reference" else f"read@{name}"
        raise UserError(f"{folder}: there is no figure; run `dvc repro {stage}`")
    return found
