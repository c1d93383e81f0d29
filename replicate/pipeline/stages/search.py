"""The search of one family on its search model: the write-up's grids, then TPE. The setting chosen
is used for all its models.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import xarray as xr

from replicate.data import traces
from replicate.data.json_io import write_json
from replicate.errors import UserError
from replicate.models import task as subjects
from replicate.pipeline import cache as kept
from replicate.pipeline import parallel as processes
from replicate.pipeline.config import Params
from replicate.pipeline.stages import trials
from replicate.progress import progress
from replicate.sampling import Setting
from replicate.search import importance as importances
from replicate.search import trials as search

RULES: tuple[search.Rule, ...] = ("stability", "efficiency", "accuracy")


def run(
    params: Params,
    family: str,
    windows_in: Path,
    model_in: Path,
    baseline_in: Path,
    out: Path,
    log: Path,
) -> None:
    plan, sampling, limits = (
        params.families[family].search,
        params.families[family].sampling,
        params.diagnostics,
    )
    job = trials.Job(params, family, windows_in, model_in, baseline_in, log)
    baseline = float(subjects.baseline_losses(baseline_in).mean(dtype=np.float64))
    pull = {
        "localization": sampling.localization,
        "weight_decay": sampling.weight_decay,
        "bounding_box": sampling.bounding_box,
    }
    posteriors = {
        sampler: search.posterior(sampler, **pull) for sampler in ("sgld", "rmsprop", "sgnht")
    }
    grid = search.settings("sgld", plan.sgld.model_dump()) + (
        search.settings("sgnht", plan.sgnht.model_dump()) if plan.sgnht else []
    )
    ranges = {
        sampler: knobs
        for sampler in posteriors
        if plan.tpe and (knobs := plan.tpe.model_dump()[sampler])
    }
    journal = (
        job.store(
            "proposals", plan.chains, plan.tpe and plan.tpe.model_dump(), pull, limits.model_dump()
        ).folder
        / "optuna.journal"
    )

    found: list[xr.Dataset] = []
    count = processes.count(params.machine.processes, params.families[family].cards)
    steps = plan.chains * (plan.burn_in + plan.draws)
    total = len(grid) + (len(ranges) * plan.tpe.trials if plan.tpe else 0)
    with (
        progress(f"search {family} ({total} settings)", total * steps) as advance,
        trials.workers(job, count) as execute,
    ):

        def evaluate(settings: Sequence[Setting]) -> Iterator[search.Outcome]:
            for trace in execute(settings):
                found.append(trace)
                advance(steps)
                yield search.outcome(
                    trace,
                    sampling.nbeta,
                    baseline,
                    rhat_below=limits.rhat,
                    drift_above=limits.drift,
                )

        attempts = [
            search.Attempt("grid", *pair) for pair in zip(grid, evaluate(grid), strict=True)
        ]
        if plan.tpe is not None:
            storage, size = (
                search.journal(journal),
                {"trials": plan.tpe.trials, "batch": plan.tpe.batch},
            )
            for sampler, knobs in ranges.items():
                proposed = search.propose(
                    storage, posteriors[sampler], knobs, evaluate, seed=params.seed, **size
                )
                attempts += [search.Attempt("tpe", *pair) for pair in proposed]

    choices: dict[search.Rule, int | None] = {
        rule: search.choose(rule, attempts, posteriors[sampling.sampler]) for rule in RULES
    }
    best = choices[plan.rule]
    if best is None:
        raise UserError(
            f"families.{family}.search: no {sampling.sampler} setting that {plan.rule} can choose kept its chains; add smaller lr"
        )
    traces.save(xr.concat(found, "trial"), out / "traces.zarr", log / "seconds.zarr")
    write_json(out / "trials.json", rows(attempts, choices, best, plan.chains))
    write_json(
        out / "importances.json",
        [asdict(row) for row in importances.explain(attempts, params.seed)],
    )
    write_json(out / "chosen.json", asdict(attempts[best].setting))
    for attempt in attempts:
        job.store("chains", asdict(attempt.setting)).finish()
    kept.finish(journal.parent)
    setting, outcome = attempts[best].setting, attempts[best].outcome
    print(
        f"{family}: chose {setting} by {plan.rule}, λ̂ {outcome.mean:.4g} ± {outcome.standard_deviation:.2g} across chains"
    )
    if not outcome.healthy:
        print(
            f"warning: it is not healthy (R-hat {outcome.rhat:.3g}, drift p {outcome.drift_p:.2g}); see families.{family}.search"
        )


def rows(
    attempts: Sequence[search.Attempt],
    choices: Mapping[search.Rule, int | None],
    best: int,
    chains: int,
) -> list[dict[str, object]]:
    """Every trial as results.Trial has it."""
    biases = search.step_biases([(attempt.setting, attempt.outcome) for attempt in attempts])
    return [
        {key: value for key, value in asdict(attempt.setting).items() if key != "noise_level"}
        | {
            key: value
            for key, value in asdict(attempt.outcome).items()
            if key not in ("noise", "penalty")
        }
        | {
            "stability": attempt.outcome.stability,
            "healthy": attempt.outcome.healthy,
            "step_bias": bias,
            "expected_error": math.hypot(bias, attempt.outcome.noise),
            "proposed_by": attempt.proposed_by,
            "chains": chains,
            "chosen_by": [rule for rule, index in choices.items() if i == index],
            "chosen": i == best,
        }
        for i, (attempt, bias) in enumerate(zip(attempts, biases, strict=True))
    ]
