"""The sampler on targets whose λ is known, the coverage of its intervals, and samplers that are wrong on purpose."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path

from replicate import calibration, processes, results
from replicate.calibration import CASES, LOCALISED, MISTAKES, REPEATED, Job, Outcome
from replicate.errors import UserError
from replicate.params import Calibration, Params
from replicate.progress import progress
from replicate.results import Calibrated, Control, Coverage


def run(params: Params, out: Path, log: Path) -> None:
    plan = params.calibration
    found = measure(calibration.jobs(plan.repeats), plan, params.seed, processes.count(params.machine.processes), log)
    outcomes = {case: [found[Job(case.name, rung)] for rung in range(len(case.plans))] for case in calibration.TARGETS}
    targets = [calibration.calibrated(case, outcomes[case], plan.groups) for case in outcomes]
    coverage = calibration.covered([found[Job(REPEATED.name, repeat=repeat)] for repeat in range(plan.repeats)])
    controls = [calibration.control(mistake, found[Job(LOCALISED.name, mistake=mistake)]) for mistake in MISTAKES]
    results.write(out / "calibration.json", targets)
    results.write(out / "coverage.json", [coverage])
    results.write(out / "controls.json", controls)
    for job in found:
        checkpoint(log, job, plan, params.seed).unlink(missing_ok=True)
    print("\n".join(table(targets, coverage, controls)))


def measure(jobs: Sequence[Job], plan: Calibration, seed: int, workers: int, log: Path) -> dict[Job, Outcome]:
    """The outcome of every job: from `log` where an interrupted run left it there, else from one of the worker processes."""
    found = {job: Outcome.model_validate_json(file.read_text()) for job in jobs if (file := checkpoint(log, job, plan, seed)).exists()}
    with progress("calibrate", round(sum(job.cost for job in jobs))) as advance:
        advance(round(sum(job.cost for job in found)))
        for job, outcome, seconds in compute([job for job in jobs if job not in found], plan, seed, workers):
            found[job] = outcome
            keep(checkpoint(log, job, plan, seed), outcome.model_dump_json())
            with (log / "seconds.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(job) | {"seconds": round(seconds, 2)}) + "\n")
            advance(round(job.cost), job.case)
    return {job: found[job] for job in jobs}


def compute(jobs: Sequence[Job], plan: Calibration, seed: int, workers: int) -> Iterator[tuple[Job, Outcome, float]]:
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
    return calibration.measure(job, seed, groups, chains, lambda steps=1, note="": None), time.process_time() - start


def checkpoint(log: Path, job: Job, plan: Calibration, seed: int) -> Path:
    """Where a job's outcome is kept: keyed by all that it depends on, its target and rungs included."""
    settings = json.dumps([repr(CASES[job.case]), asdict(job), plan.groups, plan.chains, seed])
    return log / f"{hashlib.sha256(settings.encode()).hexdigest()[:16]}.json"


def keep(file: Path, text: str) -> None:
    """Writes a file that is there as a whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(f".{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)


def table(targets: Sequence[Calibrated], coverage: Coverage, controls: Sequence[Control]) -> Iterator[str]:
    yield f"{'target':<40} {'λ':>8} {'exact':>8} {'λ̂':>9} {'±':>6} {'R-hat':>6}  verdict"
    for row in targets:
        exact = "" if row.exact is None else f"{row.exact:.2f}"
        rhat = "" if row.rhat is None else f"{row.rhat:.3f}"
        yield f"{row.target:<40} {row.true_llc:>8.2f} {exact:>8} {row.llc:>8.2f} {row.standard_error:>6.2f} {rhat:>6}  {row.verdict}"
    low, high = coverage.interval
    yield f"coverage of the 95 % interval: {coverage.share:.1%} of {coverage.repeats} repeats [{low:.1%}, {high:.1%}]"
    for row in controls:
        yield f"mistake {row.mistake!r}: λ̂ {row.llc:.1f} for {row.expected:.1f}, {'caught' if row.caught else 'not caught'}"
