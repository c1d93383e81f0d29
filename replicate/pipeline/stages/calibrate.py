"""The sampler on targets whose λ is known, the coverage of its intervals, and samplers that are
wrong on purpose.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path

from replicate.errors import UserError
from replicate.pipeline import cache as kept
from replicate.pipeline import parallel as processes
from replicate.pipeline.config import Calibration, Params
from replicate.progress import progress
from replicate.study import records as results
from replicate.study.records import Calibrated, Control, Coverage
from replicate.validation import calibration
from replicate.validation.calibration import LOCALISED, MISTAKES, REPEATED, Job, Outcome

SOURCES = ("sampling", "estimation", "validation", "seeds.py")  # what an outcome is computed by


def run(params: Params, out: Path, log: Path) -> None:
    plan = params.calibration
    found = measure(
        calibration.jobs(plan.repeats),
        plan,
        params.seed,
        processes.count(params.machine.processes),
        log,
    )
    outcomes = {
        case: [found[Job(case.name, rung)] for rung in range(len(case.plans))]
        for case in calibration.TARGETS
    }
    targets = [calibration.calibrated(case, outcomes[case], plan.groups) for case in outcomes]
    coverage = calibration.covered(
        [found[Job(REPEATED.name, repeat=repeat)] for repeat in range(plan.repeats)]
    )
    controls = [
        calibration.control(mistake, found[Job(LOCALISED.name, mistake=mistake)])
        for mistake in MISTAKES
    ]
    results.write(out / "calibration.json", targets)
    results.write(out / "coverage.json", [coverage])
    results.write(out / "controls.json", controls)
    kept.finish(store(log, plan, params.seed))
    print("\n".join(table(targets, coverage, controls)))


def measure(
    jobs: Sequence[Job], plan: Calibration, seed: int, workers: int, log: Path
) -> dict[Job, Outcome]:
    """The outcome of every job: from `log` where an interrupted run left it there, else from one of
    the worker processes.
    """
    folder = store(log, plan, seed)
    found = {job: outcome for job in jobs if (outcome := known(folder / name(job))) is not None}
    with progress("calibrate", round(sum(job.cost for job in jobs))) as advance:
        advance(round(sum(job.cost for job in found)))
        for job, outcome, seconds in compute(
            [job for job in jobs if job not in found], plan, seed, workers
        ):
            found[job] = outcome
            kept.write(folder / name(job), {"outcome": kept.note(outcome.model_dump())})
            with (log / "seconds.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(job) | {"seconds": round(seconds, 2)}) + "\n")
            advance(round(job.cost), job.case)
    return {job: found[job] for job in jobs}


def compute(
    jobs: Sequence[Job], plan: Calibration, seed: int, workers: int
) -> Iterator[tuple[Job, Outcome, float]]:
    """The jobs' outcomes and seconds of computing, in the order in which they end."""
    with processes.pool(workers) as pool:
        try:
            pending = {pool.submit(timed, job, seed, plan.groups, plan.chains): job for job in jobs}
            for future in as_completed(pending):
                yield pending[future], *future.result()
        except BrokenProcessPool:
            raise UserError(
                "calibrate: a worker process died, perhaps for want of memory; run it again, finished targets are kept"
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def timed(job: Job, seed: int, groups: int, chains: int) -> tuple[Outcome, float]:
    start = time.process_time()
    return calibration.measure(
        job, seed, groups, chains, lambda steps=1, note="": None
    ), time.process_time() - start


def store(log: Path, plan: Calibration, seed: int) -> Path:
    """Where outcomes are kept."""
    return kept.folder(log, SOURCES, [], [plan.groups, plan.chains, seed])


def name(job: Job) -> str:
    return hashlib.sha256(repr(job).encode()).hexdigest()[:16]


def known(file: Path) -> Outcome | None:
    """What an interrupted run found."""
    found = kept.read(file)
    return None if found is None else Outcome.model_validate(kept.noted(found["outcome"]))


def table(
    targets: Sequence[Calibrated], coverage: Coverage, controls: Sequence[Control]
) -> Iterator[str]:
    yield f"{'target':<40} {'λ':>8} {'exact':>8} {'λ̂':>9} {'±':>6} {'R-hat':>6}  verdict"
    for row in targets:
        exact = "" if row.exact is None else f"{row.exact:.2f}"
        rhat = "" if row.rhat is None else f"{row.rhat:.3f}"
        yield f"{row.target:<40} {row.true_llc:>8.2f} {exact:>8} {row.llc:>8.2f} {row.standard_error:>6.2f} {rhat:>6}  {row.verdict}"
    low, high = coverage.interval
    yield f"coverage of the 95 % interval: {coverage.share:.1%} of {coverage.repeats} repeats [{low:.1%}, {high:.1%}]"
    for row in controls:
        yield f"mistake {row.mistake!r}: λ̂ {row.llc:.1f} for {row.expected:.1f}, {'caught' if row.caught else 'not caught'}"
