"""groups × chains × draws of one model at the setting that its family's search chose."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from replicate import models, traces
from replicate.checkpoints import Checkpoints
from replicate.params import Params
from replicate.progress import progress
from replicate.sampling import Setting, sample
from replicate.seeds import derive
from replicate.stages import subject as subjects


def run(params: Params, name: str, windows_in: Path, model_in: Path, baseline_in: Path, search_in: Path, out: Path, log: Path) -> None:
    subject = subjects.load(params, name, windows_in, model_in)
    plan = subject.settings.sampling
    setting = Setting(**json.loads((search_in / "chosen.json").read_text()))
    settings = [asdict(setting), plan.model_dump(), params.seed, name]
    done = Checkpoints(log / "chains", [windows_in, model_in, baseline_in], settings)
    with progress(f"estimate {name}", plan.groups * plan.chains * (plan.burn_in + plan.draws)) as advance:
        trace = sample(
            list(models.sampled(subject.model).values()),
            subject,
            subjects.baseline_losses(baseline_in),
            setting,
            nbeta=plan.nbeta,
            batch_size=plan.batch_size,
            groups=plan.groups,
            chains=plan.chains,
            burn_in=plan.burn_in,
            draws=plan.draws,
            order=subject.order,
            noise=lambda group, chain: derive(params.seed, "noise", name, group, chain),
            advance=advance,
            done=done,
        )
    traces.save(trace.assign_attrs(nbeta=plan.nbeta), out, log / "seconds.zarr")
    done.clear()
    print(f"{name}: {int((~trace.failed).sum())} of {trace.failed.size} chains finite")
