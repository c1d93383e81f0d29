"""Does the chosen step size carry over? It times each factor, on each model of a family, with the
same batches and noise.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from replicate.data import traces
from replicate.models import task as subjects
from replicate.pipeline import parallel as processes
from replicate.pipeline.config import Params
from replicate.pipeline.stages import chains
from replicate.progress import progress
from replicate.sampling import assemble


def run(
    params: Params,
    family: str,
    windows_in: Path,
    models_in: Path,
    baselines_in: Path,
    search_in: Path,
    out: Path,
    log: Path,
) -> None:
    transfer = params.families[family].transfer
    chosen = chains.chosen(search_in)
    trials = []
    for name in transfer.models:
        for factor in transfer.factors:
            stretch = max(1.0, 1 / factor)  # a smaller step takes as many more of them to go as far
            plan = chains.plan(params.families[family], transfer, stretch)
            setting = replace(chosen, lr=chosen.lr * factor)
            inputs = [windows_in, models_in / name, baselines_in / name]
            done = chains.store(
                params, family, log / "chains", inputs, asdict(setting), transfer.model_dump()
            )
            trials.append((name, factor, plan, setting, done))

    with processes.world(f"transfer {family}") as world:
        shares = [world.share(plan.missing(done.keys())) for _, _, plan, _, done in trials]
        total = sum(
            sum(map(len, mine)) * trial[2].steps for mine, trial in zip(shares, trials, strict=True)
        )
        with progress(f"transfer {family}", total, world.rank) as advance:
            subject = None
            for (name, _, plan, setting, done), mine in zip(trials, shares, strict=True):
                if mine:
                    if subject is None or subject.name != name:
                        subject = subjects.load(params, name, windows_in, models_in / name)
                    losses = subjects.baseline_losses(baselines_in / name, len(subject.tokens_NxL))
                    chains.run(subject, setting, plan, mine, losses, advance, done)
    if world.rank:
        return
    for name, factor, plan, setting, done in trials:
        trace = assemble(plan, done).assign_attrs(nbeta=plan.nbeta, lr=setting.lr)
        traces.save(trace, out / name / f"{factor:g}", log / "seconds" / name / f"{factor:g}")
    for *_, done in trials:
        done.finish()
    print(
        f"{family}: {len(transfer.models)} models at {', '.join(f'{chosen.lr * factor:.3g}' for factor in transfer.factors)}"
    )
