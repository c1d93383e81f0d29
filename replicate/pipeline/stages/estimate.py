"""groups × chains × draws of one model at the setting that its family's search chose."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from replicate.data import traces
from replicate.models import task as subjects
from replicate.pipeline import environment
from replicate.pipeline import parallel as processes
from replicate.pipeline.config import Params
from replicate.pipeline.stages import chains
from replicate.progress import progress
from replicate.sampling import assemble


def run(
    params: Params,
    name: str,
    windows_in: Path,
    model_in: Path,
    baseline_in: Path,
    search_in: Path,
    out: Path,
    log: Path,
) -> None:
    family = params.families[params.models[name].family]
    plan = chains.plan(family, family.sampling)
    setting = chains.chosen(search_in)
    done = chains.store(
        params,
        params.models[name].family,
        log / "chains",
        [windows_in, model_in, baseline_in],
        asdict(setting),
        name,
    )
    with processes.world(f"estimate {name}") as world:
        mine = world.share(plan.missing(done.keys()))
        if mine:
            subject = subjects.load(params, name, windows_in, model_in)
            losses = subjects.baseline_losses(baseline_in, len(subject.tokens_NxL))
            with progress(
                f"estimate {name}", sum(map(len, mine)) * plan.steps, world.rank
            ) as advance:
                chains.run(subject, setting, plan, mine, losses, advance, done)
    if world.rank:
        return
    trace = assemble(plan, done).assign_attrs(
        nbeta=plan.nbeta, lr=setting.lr, sampled_on=environment.sampling()
    )
    traces.save(trace, out, log / "seconds.zarr")
    done.finish()
    print(f"{name}: {int((~trace.failed).sum())} of {trace.failed.size} chains finite")
