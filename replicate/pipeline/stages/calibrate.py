"""Stage `calibrate`: the sampler on targets whose λ is known, the coverage of its intervals, and
samplers that are wrong on purpose.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from replicate.pipeline.config import Config
from replicate.pipeline.parallel import run_units
from replicate.pipeline.work.units import CachedUnit
from replicate.progress import Advance, silent
from replicate.study import records
from replicate.validation import calibration, cases
from replicate.validation.cases import Job


@dataclass(frozen=True)
class CalibrationUnit(CachedUnit):
    """λ̂ of one case whose λ is known, at one setting."""

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


def run(config: Config) -> None:
    """Leaves the results of all targets, the coverage study and the negative controls."""
    given = config.calibration
    units = [
        CalibrationUnit(
            config.paths.cache, "calibrate", job, config.seed, given.shuffles, given.chains
        )
        for job in cases.jobs(given.repeats)
    ]
    run_units(units, config.machine, "calibrate")
    found = {unit.job: calibration.Outcome(**unit.read()[1]["outcome"]) for unit in units}
    targets, coverage, controls = calibration.conclude(found, given.repeats, given.shuffles)
    out = config.paths.results
    written = (
        ("calibration", records.Calibrated, targets),
        ("coverage", records.Coverage, [coverage]),
        ("controls", records.NegativeControl, controls),
    )
    for name, kind, rows in written:
        records.write(out / f"{name}.json", [kind(**asdict(row)) for row in rows])
    outside = [row.target for row in targets if row.verdict == "outside"]
    print(f"calibrate: {len(targets)} targets, outside: {', '.join(outside) or 'none'}")
