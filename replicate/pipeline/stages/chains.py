"""Chains of one model at one setting: what estimate, transfer and original have in common."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from replicate.data.json_io import read_json
from replicate.errors import UserError
from replicate.models.task import Subject
from replicate.pipeline.checkpoints import Checkpoints
from replicate.pipeline.config import Family, Params, Quantisation, Sampling, Transfer
from replicate.progress import Advance
from replicate.sampling import Plan, Setting, walk
from replicate.seeds import derive


def chosen(search_in: Path) -> Setting:
    """The setting that stage `search` wrote.

    Raises:
        UserError: the file is missing or damaged.
    """
    file = search_in / "chosen.json"
    try:
        return TypeAdapter(Setting).validate_json(json.dumps(read_json(file)), strict=True)
    except ValidationError:
        raise UserError(
            f"{file}: no setting of a sampler; delete {search_in} and run dvc repro again"
        ) from None


def plan(family: Family, shape: Sampling | Transfer | Quantisation, stretch: float = 1.0) -> Plan:
    """The family's temperature and batches, in the shape of a stage, its chains `stretch` times as
    long.
    """
    sampling, microbatch = family.sampling, family.microbatch
    return Plan(
        nbeta=sampling.nbeta,
        batch_size=sampling.batch_size,
        groups=shape.groups,
        chains=shape.chains,
        burn_in=round(shape.burn_in * stretch),
        draws=round(shape.draws * stretch),
        implementation=sampling.implementation,
        microbatch=microbatch,
    )


def store(
    params: Params, family: str, root: Path, inputs: list[Path], *settings: object
) -> Checkpoints:
    """Where chains of a family are kept: apart for each setting of it that they depend on, and for
    `settings`.
    """
    own = params.families[family]
    common = [params.seed, own.weights, own.products, own.sampling.model_dump()]
    return Checkpoints(root, inputs, [*common, *settings], params.machine.checkpoint_seconds)


def run(
    subject: Subject,
    setting: Setting,
    plan: Plan,
    pieces: Sequence[Sequence[tuple[int, int]]],
    losses_N: NDArray[np.float32],
    advance: Advance,
    done: Checkpoints,
) -> None:
    """Runs some of a plan's chains into `done`. A model's noise and its family's shuffles are the
    same whatever the setting.
    """
    walk(
        subject.space,
        subject,
        losses_N,
        setting,
        plan,
        pieces,
        order=subject.order,
        noise=lambda group, chain: derive(subject.seed, "noise", subject.name, group, chain),
        advance=advance,
        done=done,
        rest=done.rest,
    )
