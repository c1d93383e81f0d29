"""groups × chains × draws of one model at the setting that its family's search chose."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from replicate import traces
from replicate.checkpoints import Checkpoints
from replicate.params import Params
from replicate.progress import progress
from replicate.sampling import Setting
from replicate.stages import chains
from replicate.stages import subject as subjects


def run(params: Params, name: str, windows_in: Path, model_in: Path, baseline_in: Path, search_in: Path, out: Path, log: Path) -> None:
    subject = subjects.load(params, name, windows_in, model_in)
    plan = subject.settings.sampling
    setting = Setting(**json.loads((search_in / "chosen.json").read_text()))
    done = Checkpoints(log / "chains", [windows_in, model_in, baseline_in], [asdict(setting), plan.model_dump(), params.seed, name])
    with progress(f"estimate {name}", plan.groups * plan.chains * (plan.burn_in + plan.draws)) as advance:
        losses = subjects.baseline_losses(baseline_in)
        trace = chains.run(subject, setting, plan, losses, advance, done, nbeta=plan.nbeta, batch_size=plan.batch_size)
    traces.save(trace, out, log / "seconds.zarr")
    done.clear()
    print(f"{name}: {int((~trace.failed).sum())} of {trace.failed.size} chains finite")
