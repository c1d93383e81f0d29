"""Chains of one model at one setting: what estimate, transfer and original have in common."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from replicate import models
from replicate.checkpoints import Checkpoints
from replicate.params import Original, Sampling, Transfer
from replicate.progress import Advance
from replicate.sampling import Setting, sample
from replicate.seeds import derive
from replicate.stages.subject import Subject


def run(
    subject: Subject,
    setting: Setting,
    plan: Sampling | Transfer | Original,
    losses_N: NDArray[np.float32],
    advance: Advance,
    done: Checkpoints,
    *,
    nbeta: float,
    batch_size: int,
    stretch: float = 1.0,
    restart: bool = True,
) -> xr.Dataset:
    """The plan's groups × chains, `stretch` times as long. A model's noise and its family's shuffles are the same whatever the setting."""
    trace = sample(
        list(models.sampled(subject.model).values()),
        subject,
        losses_N,
        setting,
        nbeta=nbeta,
        batch_size=batch_size,
        groups=plan.groups,
        chains=plan.chains,
        burn_in=round(plan.burn_in * stretch),
        draws=round(plan.draws * stretch),
        order=subject.order,
        noise=lambda group, chain: derive(subject.seed, "noise", subject.name, group, chain),
        advance=advance,
        done=done,
        restart=restart,
    )
    return trace.assign_attrs(nbeta=nbeta, lr=setting.lr)
