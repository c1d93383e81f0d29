"""Stage `read`: judges a study's claims, draws its figures, and writes its LaTeX tables."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from replicate.pipeline import parallel, processes
from replicate.pipeline.config import Config
from replicate.reporting import latex, values
from replicate.reporting.figures.curve import curve
from replicate.reporting.figures.diagnostics import diagnostics
from replicate.reporting.figures.llc import llc
from replicate.reporting.figures.original import original
from replicate.reporting.figures.quantisation import quantisation
from replicate.reporting.figures.search import search
from replicate.reporting.figures.sizes import checkpoints, sizes
from replicate.reporting.figures.style import save
from replicate.reporting.figures.transfer import transfer
from replicate.reporting.results import Study
from replicate.reporting.tables import experiments, models, reference
from replicate.study import evidence, published
from replicate.study.claims import Rules, judge
from replicate.study.published import Figures
from replicate.study.records import write

COLUMNS = {  # the columns that the layouts of two of the paper's tables need
    "estimates": "model; published; parameters; sampled; λ̂ ± s.e.; 95 % interval; R-hat;"
    " effective draws; diverged chains",
    "quantisation": "model; moved; weights; parameters moved; loss at w*; rise, millinats ± s.e.;"
    " squared gradient norm; λ̂ ± s.e.",
}
PRINTED = {"control": ("sizes", "curve", "checkpoints", "original")}  # by the paper, as PDF


def run(config: Config, name: str) -> None:
    """Writes claims.json to results/<study>, and figures and tables to paper/generated/<study>."""
    folder, out = config.paths.study(name), config.paths.generated(name)
    plan, figures, rules = config.plan(name), published.read(config.paths.published), config.rules
    write(folder / "claims.json", judge(evidence.of_results(plan, folder), rules))
    study = Study.read(plan, folder)
    drawn = drawings(study, figures, rules) if study.obtained else {}
    workers = parallel.count(config.machine.workers)
    with ProcessPoolExecutor(workers, None, processes.begin, (os.getpid(),)) as pool:
        files = [out / "figures" / figure for figure in drawn]
        printed = PRINTED.get(name, ())
        kinds = [("pdf", "svg") if figure in printed else ("svg",) for figure in drawn]
        list(pool.map(draw, drawn.values(), files, kinds))
    named = values.of_study(study) | values.settings(blocks(config, study))
    latex.write(tables(study, figures) | {"values": latex.values(name, named)}, out / "tables")


def drawings(study: Study, figures: Figures, rules: Rules) -> dict[str, Callable[[], Figure]]:
    """Returns a function that draws each figure, by the figure's name."""
    families = figures.families
    found = {
        "llc": partial(llc, study, families),
        "original": partial(original, study, next(iter(families.values()))),
        "quantisation": partial(quantisation, study.quantisation, rules.level),
        "transfer": partial(transfer, study.transfer, rules.rhat),
    }
    if any(family.curve for family in study.plan.families):
        found["curve"] = partial(curve, study.curve)
    if study.plan.full.measured:
        family = study.plan.full.name
        found["sizes"] = partial(sizes, study.settings, family, rules)
        found["checkpoints"] = partial(checkpoints, study.settings, family)
    for family in (each.name for each in study.plan.families):
        trials = [row for row in study.search if row.family == family]
        importances = [row for row in study.importances if row.family == family]
        found[f"search-{family}"] = partial(search, trials, importances, family)
    for row in (each for each in study.traces if each.model in study.pictured):
        found[f"diagnostics-{row.model}"] = partial(diagnostics, row, study.default[row.model])
    return found


def draw(drawing: Callable[[], Figure], path: Path, kinds: tuple[str, ...]) -> None:
    """Draws a figure and saves it as a file of each kind."""
    save(drawing(), path, kinds)


def tables(study: Study, figures: Figures) -> dict[str, str]:
    """Returns the LaTeX rows of each table of the paper, with the columns that its layout needs."""
    tested = [claim for claim in study.claims if claim.effect is not None]
    found = {
        "efficiency": models.efficiency(study),
        "estimates": models.estimates(study, figures),
        "estimators": models.estimators(study),
        "judged": reference.claims(study.name, tested).only(*reference.JUDGED),
        "original": experiments.original(study),
        "quantisation": experiments.quantisation(study),
        "settings": experiments.settings(study),
        "training": models.training(study),
    }
    for name, columns in COLUMNS.items():
        found[name] = found[name].only(*columns.split("; "))
    undecided = {"undecided": latex.undecided(study.claims)}
    return {name: latex.rows(table) for name, table in found.items()} | undecided


def blocks(config: Config, study: Study) -> dict[str, dict[str, object]]:
    """Returns the blocks of params.yaml whose numbers the paper's text can cite."""
    found = {"rules": dict(config.claims.model_dump(), **config.diagnostics.healthy)}
    found["rules"] |= config.claims.trainings.model_dump()
    for family in (each.name for each in study.plan.families):
        given = config.families[family]
        found[family] = given.model_dump()
        found[f"{family}/sampling"] = given.sampling.model_dump()
        if given.original is not None:
            found[f"{family}/protocol"] = given.original.model_dump()
    return found
