"""Does the chosen step size carry over? It times each factor, on each model of a family, with the same batches and noise."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

from replicate import traces
from replicate.checkpoints import Checkpoints
from replicate.params import Params
from replicate.progress import progress
from replicate.sampling import Setting
from replicate.stages import chains
from replicate.stages import subject as subjects


def run(params: Params, family: str, windows_in: Path, models_in: Path, baselines_in: Path, search_in: Path, out: Path, log: Path) -> None:
    plan, sampling = params.families[family].transfer, params.families[family].sampling
    chosen = Setting(**json.loads((search_in / "chosen.json").read_text()))
    stretch = [max(1.0, 1 / factor) for factor in plan.factors]  # a smaller step takes as many more of them to go as far
    stores: list[Checkpoints] = []
    total = len(plan.models) * plan.groups * plan.chains * sum(round(plan.burn_in * s) + round(plan.draws * s) for s in stretch)
    with progress(f"transfer {family}", total) as advance:
        for name in plan.models:
            subject = subjects.load(params, name, windows_in, models_in / name)
            losses = subjects.baseline_losses(baselines_in / name)
            for factor, longer in zip(plan.factors, stretch, strict=True):
                setting = replace(chosen, lr=chosen.lr * factor)
                inputs = [windows_in, models_in / name, baselines_in / name]
                stores.append(Checkpoints(log / "chains", inputs, [asdict(setting), plan.model_dump(), sampling.model_dump(), params.seed]))
                knobs = {"nbeta": sampling.nbeta, "batch_size": sampling.batch_size, "stretch": longer}
                trace = chains.run(subject, setting, plan, losses, advance, stores[-1], **knobs)
                traces.save(trace, out / name / f"{factor:g}", log / "seconds" / name / f"{factor:g}")
    for store in stores:
        store.clear()
    print(f"{family}: {len(plan.models)} models at {', '.join(f'{chosen.lr * factor:.3g}' for factor in plan.factors)}")
