"""Stage `coverage`: counts how often 95 % intervals of short runs hold what they should."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

from replicate.errors import UserError
from replicate.models.config import TextLoss
from replicate.pipeline.config import Config
from replicate.pipeline.parallel import run_units
from replicate.pipeline.stages.calibrate import CalibrationUnit
from replicate.pipeline.work.units import CachedUnit
from replicate.progress import Advance
from replicate.seeds import derive
from replicate.study import records
from replicate.validation import calibration, coverage
from replicate.validation.cases import REPEATED, Job
from replicate.validation.coverage import CHAINS, SETTINGS, TARGET, Setting

TOGETHER = 20  # short runs of a language model in a unit
REGRESSION = {"shuffles": 4, "chains": 2}


@dataclass(frozen=True)
class RunsUnit(CachedUnit):
    """A unit of runs of a language model: `count` from number `first`, either long or short."""

    setting: Setting
    seed: int
    long: bool
    first: int
    count: int

    @property
    def name(self) -> str:
        return f"coverage of {TARGET}, {self.setting}"

    @property
    def steps(self) -> int:
        return self.count * CHAINS * (self.setting.burn_in + self.setting.draws)

    def settings(self) -> dict[str, Any]:
        numbers = (self.seed, self.long, self.first, self.count)
        return {"setting": asdict(self.setting), "numbers": numbers}

    def run(self, advance: Advance) -> None:
        where = "coverage", str(self.setting), "long" if self.long else "short"
        problem, found = _problem(self.setting.loss, self.seed), {}
        for number in range(self.first, self.first + self.count):
            seed = derive(self.seed, *where, number)
            found[str(number)] = problem.run(self.setting, seed, advance)
        self.write(found)


@cache
def _problem(loss: TextLoss, seed: int) -> coverage.Problem:
    return coverage.Problem(loss, seed)


def run(config: Config, study: str) -> None:
    """Writes how often the intervals of a regression and of a language model hold λ̂.

    Raises:
        UserError: params.yaml has no coverage of the study.
    """
    given = config.coverage.get(study)
    if given is None:
        names = ", ".join(config.coverage)
        said = f"params.yaml has none of study {study!r}; give one of {names}"
        raise UserError(f"coverage: {said}")
    rows = [regression(config, study, given.regression)]
    for name, runs in given.models.items():
        setting = SETTINGS[name]
        reference = replace(setting, draws=given.reference.draws, precision=None)
        long = _runs(config, study, reference, True, given.reference.runs, 1)
        short = _runs(config, study, setting, False, runs, TOGETHER)
        intervals = [coverage.interval(values_CxD, setting) for values_CxD in short]
        model = "language model", TARGET, str(setting)
        rows.append(coverage.covered(*model, coverage.mean(long), intervals))
    found = [records.Coverage(**asdict(row)) for row in rows]
    records.write(config.paths.study(study) / "coverage.json", found)
    for row in rows:
        low, high = row.interval
        held = f"{row.covered} of {row.repeats} intervals ({low:.1%} to {high:.1%})"
        print(f"{row.target}, {row.setting}: {held} hold {row.true_llc:.4g}")


def regression(config: Config, study: str, repeats: int) -> coverage.Coverage:
    """Runs a linear regression of known λ̂ several times."""
    root, seed = config.paths.cache, config.seed
    units = [
        CalibrationUnit(root, "coverage", Job(REPEATED.name, repeat=i), seed, **REGRESSION)
        for i in range(repeats)
    ]
    run_units(units, config.machine, f"coverage {study}: {REPEATED.name}")
    intervals = [calibration.Outcome(**unit.read()[1]["outcome"]).interval for unit in units]
    (run,), expected = REPEATED.runs, (calibration.reference(REPEATED), None)
    setting = (
        f"nβ {run.nbeta:g}, γ {run.sampler.localization:g}, ε {run.sampler.lr:g}, {run.draws} draws"
    )
    return coverage.covered("closed form", REPEATED.name, setting, expected, intervals)


def _runs(
    config: Config, study: str, setting: Setting, long: bool, count: int, together: int
) -> list[Any]:
    """Returns the draws of each of `count` runs, `together` of which are a unit."""
    units = [
        RunsUnit(
            config.paths.cache,
            "coverage",
            setting,
            config.seed,
            long,
            first,
            min(together, count - first),
        )
        for first in range(0, count, together)
    ]
    run_units(units, config.machine, f"coverage {study}: {setting}")
    return [values_CxD for unit in units for values_CxD in unit.read()[0].values()]
