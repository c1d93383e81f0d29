"""Stage `calibrate`: tests the samplers on targets of known λ.

It runs negative controls too: samplers that are wrong on purpose.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from replicate.errors import UserError
from replicate.pipeline.config import Config
from replicate.pipeline.parallel import run_units
from replicate.pipeline.work.units import CachedUnit
from replicate.progress import Advance, silent
from replicate.study import records
from replicate.validation import calibration, cases
from replicate.validation.cases import Job


@dataclass(frozen=True)
class CalibrationUnit(CachedUnit):
    """A unit that estimates λ̂ in one run of a case of known λ."""

    job: Job
    seed: int
    shuffles: int
    chains: int

    @property
    def name(self) -> str:
        return f"calibration of {self.job.case}"

    @property
    def steps(self) -> int:
        return max(1, round(self.job.cost))

    def settings(self) -> dict[str, Any]:
        return {"job": asdict(self.job), "numbers": (self.seed, self.shuffles, self.chains)}

    def run(self, advance: Advance) -> None:
        outcome = calibration.measure(self.job, self.seed, self.shuffles, self.chains, silent)
        self.write({}, outcome=asdict(outcome))
        advance(self.steps, self.job.case)


def run(config: Config, study: str) -> None:
    """Writes the results of the study's targets and negative controls.

    Raises:
        UserError: the study has no calibration, or it names a target that does not exist.
    """
    given = config.calibration.get(study)
    if given is None:
        names = ", ".join(config.calibration)
        said = f"params.yaml has none of study {study!r}; give one of {names}"
        raise UserError(f"calibration: {said}")
    try:
        targets = cases.targets(given.targets)
    except UserError as error:
        raise UserError(f"calibration.{study}.targets: {error}") from None
    common = {"seed": config.seed, "shuffles": given.shuffles, "chains": given.chains}
    units = [
        CalibrationUnit(config.paths.cache, "calibrate", job, **common)
        for job in cases.jobs(targets)
    ]
    run_units(units, config.machine, f"calibrate {study}")
    found = {unit.job: calibration.Outcome(**unit.read()[1]["outcome"]) for unit in units}
    known, controls = calibration.conclude(found, targets, given.shuffles)
    out = config.paths.study(study)
    records.write(out / "calibration.json", [records.Calibrated(**asdict(row)) for row in known])
    controls = [records.NegativeControl(**asdict(row)) for row in controls]
    records.write(out / "controls.json", controls)
    outside = [row.target for row in known if row.verdict == "outside"]
    print(f"{study}: {len(targets)} targets of known λ, outside: {', '.join(outside) or 'none'}")
