"""Stage `reference`: writes the paper's figure, tables and numbers that belong to no study."""

from __future__ import annotations

from replicate.data.json_io import read_json
from replicate.pipeline.config import Config
from replicate.reporting import latex, values
from replicate.reporting.figures.calibration import calibration
from replicate.reporting.figures.style import save
from replicate.reporting.results import Reference
from replicate.reporting.tables import experiments, reference

AGGREGATES = (  # the columns that the layout of the paper's table needs
    "model; shuffles averaged; λ̂ reported; recomputed; deviation reported; deviation recomputed"
)
CALIBRATION = "target; parameters; λ; exact sampler; λ̂ ± s.e.; 95 % interval; verdict"


def run(config: Config) -> None:
    """Writes calibration, published figures and costs to paper/generated/reference."""
    known = Reference.read(config.paths.published, config.paths.results)
    out = config.paths.generated("reference")
    save(calibration(known.calibration, known.controls), out / "figures" / "calibration")
    named = {
        "published": values.published(known),
        "calibration": values.calibration(known),
        "cost": values.costs(read_json(config.paths.benchmarks)),
    }
    tested = [claim for claim in known.claims if claim.effect is not None]
    tables = {
        "aggregates": reference.aggregates(known).only(*AGGREGATES.split("; ")),
        "anova": experiments.anova({row.family: row for row in known.anova}),
        "calibration": reference.calibration(known).only(*CALIBRATION.split("; ")),
        "controls": reference.controls(known),
        "judged": reference.claims("published", tested).only(*reference.JUDGED),
    }
    fragments = {name: latex.rows(table) for name, table in tables.items()}
    fragments["undecided"] = latex.undecided(known.claims)
    fragments["values"] = "".join(latex.values(key, each) for key, each in named.items())
    latex.write(fragments, out / "tables")
