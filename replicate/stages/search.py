"""The search grids of one family on its search model, and the setting chosen for all its models."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import xarray as xr

from replicate import models, search, traces
from replicate.checkpoints import Checkpoints
from replicate.errors import UserError
from replicate.params import Params
from replicate.progress import progress
from replicate.sampling import sample
from replicate.seeds import derive
from replicate.stages import subject as subjects
from replicate.writing import write_json


def run(params: Params, family: str, windows_in: Path, model_in: Path, baseline_in: Path, out: Path, log: Path) -> None:
    plan, sampling = params.families[family].search, params.families[family].sampling
    subject = subjects.load(params, plan.model, windows_in, model_in)
    losses = subjects.baseline_losses(baseline_in)
    trials = search.settings("sgld", plan.sgld.model_dump())
    if plan.sgnht is not None:
        trials += search.settings("sgnht", plan.sgnht.model_dump())

    results: list[xr.Dataset] = []
    stores: list[Checkpoints] = []
    with progress(f"search {family} ({len(trials)} settings)", len(trials) * plan.chains * (plan.burn_in + plan.draws)) as advance:
        for trial in trials:
            settings = [asdict(trial), plan.model_dump(), sampling.model_dump(), params.seed]
            stores.append(Checkpoints(log / "chains", [windows_in, model_in, baseline_in], settings))
            trace = sample(
                list(models.sampled(subject.model).values()),
                subject,
                losses,
                trial,
                nbeta=sampling.nbeta,
                batch_size=sampling.batch_size,
                groups=1,
                chains=plan.chains,
                burn_in=plan.burn_in,
                draws=plan.draws,
                order=lambda _: subject.order("search"),
                noise=lambda _, chain: derive(params.seed, "noise", "search", plan.model, chain),
                advance=advance,
                done=stores[-1],
            )
            results.append(trace)

    baseline = float(losses.mean(dtype=np.float64))
    outcomes = [search.outcome(trace, sampling.nbeta, baseline) for trace in results]
    candidates = [i for i, trial in enumerate(trials) if trial.sampler == sampling.sampler]
    best = search.choose([outcomes[i] for i in candidates])
    if best is None:
        raise UserError(f"search {family}: every {sampling.sampler} setting lost a chain; add smaller lr to families.{family}.search")
    chosen = candidates[best]
    traces.save(xr.concat(results, "trial"), out / "traces.zarr", log / "seconds.zarr")
    rows = [
        asdict(trial) | asdict(result) | {"stability": result.stability, "chosen": i == chosen, "chains": plan.chains}
        for i, (trial, result) in enumerate(zip(trials, outcomes, strict=True))
    ]
    write_json(out / "trials.json", rows)
    write_json(out / "chosen.json", asdict(trials[chosen]))
    for store in stores:
        store.clear()
    print(f"{family}: chose {trials[chosen]} with stability {outcomes[chosen].stability:.3g}")
