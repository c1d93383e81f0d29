"""The protocol of November 2023, to the letter, on each model of a family: padded labels, tiny
batches, one temperature in the sampler.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from replicate.data import traces, windows
from replicate.models import task as subjects
from replicate.pipeline import parallel as processes
from replicate.pipeline.config import Params
from replicate.pipeline.stages import chains
from replicate.progress import progress
from replicate.sampling import Plan, Setting, assemble

FILE = "original.safetensors"  # reviews by characters, padded


def run(
    params: Params, family: str, windows_in: Path, models_in: Path, out: Path, log: Path
) -> None:
    original = params.families[family].original
    padded_N = windows.load(windows_in / FILE).padded_N
    texts = len(padded_N)
    batches = max(texts // original.batch_size, 2)
    setting = Setting(
        "sgld", original.lr, localization=original.localization, bounding_box=original.bounding_box
    )
    plan = Plan(
        nbeta=batches / math.log(batches),
        batch_size=original.batch_size,
        groups=original.groups,
        chains=original.chains,
        burn_in=original.burn_in,
        draws=original.draws,
        restart=original.restart,
        implementation=params.families[family].sampling.implementation,
        microbatch=params.families[family].microbatch,
    )
    stores = {
        name: chains.store(
            params,
            family,
            log / "chains",
            [windows_in, models_in / name],
            original.model_dump(),
            name,
        )
        for name in original.models
    }

    with processes.world(f"original protocol {family}") as world:
        shares = {name: world.share(plan.missing(done.keys())) for name, done in stores.items()}
        total = sum(map(len, [piece for mine in shares.values() for piece in mine])) * plan.steps
        with progress(f"original protocol {family}", total, world.rank) as advance:
            for name, mine in shares.items():
                if mine:
                    subject = subjects.load(params, name, windows_in, models_in / name, FILE)
                    size = plan.microbatch or params.baseline.batch_size
                    losses_N = losses(
                        subject, plan, {group for piece in mine for group, _ in piece}, size
                    )
                    chains.run(subject, setting, plan, mine, losses_N, advance, stores[name])
    if world.rank:
        return
    padded = np.stack(
        [
            padded_N[met(plan, subjects.order(params.seed, family, texts, group))]
            for group in range(plan.groups)
        ]
    )
    counts = padded.reshape(plan.groups, plan.chains, plan.steps, plan.batch_size).sum(axis=-1)
    for name, done in stores.items():
        trace = assemble(plan, done)
        trace["padded"] = (("group", "chain", "draw"), counts)
        attributes = {
            "texts": texts,
            "padded_labels": float(padded_N.mean()),
            "loss": float(trace.init_loss.mean()),
        }
        traces.save(
            trace.assign_attrs(nbeta=plan.nbeta, lr=setting.lr, **attributes),
            out / name,
            log / "seconds" / name,
        )
    for done in stores.values():
        done.finish()
    print(
        f"{family}: {len(original.models)} models, nβ {plan.nbeta:.1f}, {texts} reviews, {padded_N.mean():.1%} of labels padded"
    )


def met(plan: Plan, order_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """The examples that a group's chains meet, in their order."""
    return order_N[np.arange(plan.chains * plan.steps * plan.batch_size) % len(order_N)]


def losses(
    subject: subjects.Subject, plan: Plan, groups: Collection[int], batch_size: int
) -> NDArray[np.float32]:
    """The losses at w* (N,) of the examples that the groups meet, NaN elsewhere."""
    losses_N = np.full(len(subject.tokens_NxL), np.nan, np.float32)
    used = np.unique(np.concatenate([met(plan, subject.order(group)) for group in groups]))
    with torch.no_grad():
        for index in torch.from_numpy(used).split(batch_size):
            losses_N[index.numpy()] = subject(index).cpu().numpy()
    return losses_N
