"""The protocol of November 2023, to the letter, on each model of a family: padded labels, tiny batches, one temperature in the sampler."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch

from replicate import traces, windows
from replicate.checkpoints import Checkpoints
from replicate.params import Params
from replicate.progress import progress
from replicate.sampling import Setting
from replicate.stages import chains
from replicate.stages import subject as subjects

FILE = "original.safetensors"  # reviews by characters, padded


def run(params: Params, family: str, windows_in: Path, models_in: Path, out: Path, log: Path) -> None:
    plan = params.families[family].original
    padded_N = windows.load(windows_in / FILE).padded_N
    texts = len(padded_N)
    batches = max(texts // plan.batch_size, 2)
    nbeta = batches / math.log(batches)
    setting = Setting("sgld", plan.lr, localization=plan.localization, bounding_box=plan.bounding_box)
    each = plan.groups * plan.chains * (plan.burn_in + plan.draws)
    stores: list[Checkpoints] = []
    with progress(f"original protocol {family}", len(plan.models) * each) as advance:
        for name in plan.models:
            subject = subjects.load(params, name, windows_in, models_in / name, FILE)
            reach = np.arange(plan.chains * (plan.burn_in + plan.draws) * plan.batch_size) % texts
            used = np.unique(np.concatenate([subject.order(group)[reach] for group in range(plan.groups)]))
            losses_N = np.full(texts, np.nan, np.float32)
            with torch.no_grad():
                for index in torch.from_numpy(used).split(params.baseline.batch_size):
                    losses_N[index.numpy()] = subject(index).cpu().numpy()
            stores.append(Checkpoints(log / "chains", [windows_in, models_in / name], [plan.model_dump(), params.seed, name]))
            knobs = {"nbeta": nbeta, "batch_size": plan.batch_size, "restart": plan.restart}
            trace = chains.run(subject, setting, plan, losses_N, advance, stores[-1], **knobs)
            padded = np.stack([padded_N[subject.order(group)[reach]] for group in range(plan.groups)])
            shape = (plan.groups, plan.chains, plan.burn_in + plan.draws, plan.batch_size)
            trace["padded"] = (("group", "chain", "draw"), padded.reshape(shape).sum(axis=-1))
            attributes = {"texts": texts, "padded_labels": float(padded_N.mean()), "loss": float(np.nanmean(losses_N))}
            traces.save(trace.assign_attrs(attributes), out / name, log / "seconds" / name)
    for store in stores:
        store.clear()
    print(f"{family}: {len(plan.models)} models, nβ {nbeta:.1f}, {texts} reviews, {padded_N.mean():.1%} of labels padded")
