"""Seconds and memory of a chain's step on this device, measured on random weights: whole for a
shallow model, at two depths for a deep one, all of whose further blocks take the same.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch
from transformers import AutoModelForCausalLM, PretrainedConfig

from replicate.data.windows import Windows
from replicate.models import task as subjects
from replicate.models import training as pretrain
from replicate.pipeline.config import Params
from replicate.pipeline.planning.footprint import Chain, shallow
from replicate.sampling import Setting, samplers
from replicate.sampling.engine import descend

DEPTHS = (1, 3)
REPEATS = 5
WINDOWS = 512
ENOUGH = 2.0  # seconds of one measurement


@dataclass(frozen=True)
class Pace:
    """Seconds of a step, and of an example's forward pass; the process's most bytes beyond those
    before the model was loaded.
    """

    step: float
    example: float
    memory: float


def pace(params: Params, name: str, config: PretrainedConfig, chain: Chain) -> Pace:
    """Of a model of params.yaml with this configuration, on one process as it stands."""
    depth = config.get_text_config().num_hidden_layers
    if depth <= DEPTHS[1]:
        return made_and_measured(params, name, config, chain)
    low, high = (
        made_and_measured(params, name, shallow(config, layers), chain) for layers in DEPTHS
    )
    block = [
        (b - a) / (DEPTHS[1] - DEPTHS[0])
        for a, b in zip(vars(low).values(), vars(high).values(), strict=True)
    ]
    return Pace(
        *(a + each * (depth - DEPTHS[0]) for a, each in zip(vars(low).values(), block, strict=True))
    )


def made_and_measured(params: Params, name: str, config: PretrainedConfig, chain: Chain) -> Pace:
    with tempfile.TemporaryDirectory() as folder:
        make(config, chain.length, Path(folder))
        return measured(params, name, Path(folder), chain)


def make(
    config: PretrainedConfig, length: int, folder: Path, dtype: torch.dtype = torch.float32
) -> None:
    """A model of random weights, and windows of random tokens."""
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.save_pretrained(folder / "weights")
    tokens = (
        np.random.default_rng(0)
        .integers(0, config.get_text_config().vocab_size, (WINDOWS, length))
        .astype(np.int32)
    )
    (folder / "windows").mkdir()
    Windows(tokens, np.arange(WINDOWS, dtype=np.int32), np.zeros(WINDOWS, bool), None, {}).save(
        folder / "windows" / subjects.FILE
    )


def measured(params: Params, name: str, folder: Path, chain: Chain) -> Pace:
    """Of what `make` left in a folder."""
    before = reset()
    subject = subjects.load(
        params,
        name,
        folder / "windows",
        folder / "weights",
        weights=chain.weights,
        restriction=chain.restriction,
    )
    setting = Setting("sgld" if chain.sampler == "sgnht" else chain.sampler, 1e-9)  # pyright: ignore[reportArgumentType]
    sampler = samplers.sampler(
        subject.space.parameters, subject.space.anchor(), setting, nbeta=1.0, seed=0, burn_in=1
    )
    batch = torch.arange(chain.batch_size) % WINDOWS

    def step() -> None:
        descend(subject, batch, chain.microbatch, sampler)
        sampler.step()

    def forward() -> None:
        with torch.no_grad():
            subject(batch[: chain.microbatch])

    with sampler.attached():
        seconds = typical(step)
    example = typical(forward) / min(chain.microbatch or chain.batch_size, chain.batch_size)
    return Pace(seconds, example, peak() - before)


def training(config: PretrainedConfig, batch_size: int, length: int) -> float:
    """Seconds of a control model's training step, on all threads of this process."""
    model = AutoModelForCausalLM.from_config(config)
    tokens = torch.randint(0, config.get_text_config().vocab_size, (batch_size, length))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-9, fused=True)

    def step() -> None:
        loss = pretrain.token_losses(model, tokens).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return typical(step)


def reset() -> int:
    """Bytes in use, from which on the most is to be found."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    return peak()


def peak() -> int:
    """The most bytes in use since `reset`. On a CPU those that are this process's alone, without
    files that lie in memory too; what is freed is kept there (replicate/models/cpu_kernels.py), so
    that at the end they are the most.
    """
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if not status.is_file():
        return psutil.Process().memory_info().rss
    return 1024 * next(
        int(line.split()[1])
        for line in status.read_text(encoding="utf-8").splitlines()
        if line.startswith("RssAnon")
    )


def typical(work: Callable[[], None]) -> float:
    """Median seconds of a few calls after a first one."""
    work()
    found, start = [], time.perf_counter()
    while len(found) < REPEATS or (
        len(found) < 4 * REPEATS and time.perf_counter() - start < ENOUGH / 4
    ):
        begun = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        found.append(time.perf_counter() - begun)
        if time.perf_counter() - start > ENOUGH:
            break
    return float(np.median(found))
