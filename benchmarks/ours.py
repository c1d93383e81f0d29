"""This project's sampler: several chains on a process for each core, those of small models side by
side; a single one on all cores.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import cache
from multiprocessing import get_context

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from benchmarks.work import LOCALIZATION, LR, NBETA, Work, autocast, tokens
from replicate.models import last_token, loading, stacked
from replicate.models.cpu_kernels import fast_cpu
from replicate.pipeline import parallel, processes
from replicate.progress import silent
from replicate.sampling import SamplerConfig, SamplingConfig, Task, run_pieces

TOGETHER = 4  # as in the demo study
KERNELS = ExitStack()  # keeps the fast products


@cache
def model(work: Work) -> PreTrainedModel:
    """Loads the saved model as the stages do, in a process that has fast products until its end."""
    KERNELS.enter_context(fast_cpu())
    assert work.folder is not None
    network = loading.load(work.folder, "float32", loading.device("any", work.name))
    last_token.focus(network)
    if not torch.cuda.is_available():
        last_token.sparsify(network)
    return network


def run(work: Work, steps: int) -> np.ndarray:
    """Runs the chains; returns their losses (chains, steps)."""
    workers = min(parallel.count("auto"), work.chains)
    return spread(work, steps, workers) if workers > 1 else losses(work, steps, range(work.chains))


def spread(work: Work, steps: int, workers: int) -> np.ndarray:
    """Runs the chains on processes of one thread each."""
    shares = [range(first, work.chains, workers) for first in range(workers)]
    parts = [pool(workers).submit(losses, work, steps, share) for share in shares]
    losses_CxT = np.empty((work.chains, steps))
    for share, part in zip(shares, parts, strict=True):
        losses_CxT[list(share)] = part.result()
    return losses_CxT


@cache
def pool(workers: int) -> ProcessPoolExecutor:
    """Returns processes that last as long as this one."""
    processes.use_one_thread()  # they inherit the environment
    return ProcessPoolExecutor(
        workers, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    )


@cache
def task(work: Work) -> Task:
    """Returns the task, whose steps a GPU compiles and repeats."""
    network, tokens_NxL = model(work), tokens(work)

    def loss(index_B: Tensor) -> Tensor:
        with autocast(work):
            return last_token.losses(network, tokens_NxL[index_B])

    sampled = loading.sampled(network)
    float32 = work.compute_dtype == "float32"
    return Task(
        loss,
        list(sampled.values()),
        stacked=stacked.loss(network, tokens_NxL, list(sampled)) if float32 else None,
        compiled=torch.cuda.is_available(),
        repeated=torch.cuda.is_available(),
    )


def losses(work: Work, steps: int, chains: range) -> np.ndarray:
    """Runs some of the work's chains; returns their losses (chains, steps)."""
    examples = len(tokens(work))
    sampling = SamplingConfig(
        nbeta=NBETA, batch_size=work.batch, shuffles=1, chains=work.chains, burn_in=0, draws=steps
    )
    done = run_pieces(
        task(work),
        SamplerConfig("sgld", LR, localization=LOCALIZATION),
        sampling,
        [[(0, chain)] for chain in chains],
        np.zeros(examples, np.float32),
        together=TOGETHER,
        order=lambda shuffle: np.random.default_rng(shuffle).permutation(examples),
        noise=lambda shuffle, chain: chain,
        advance=silent,
    )
    return np.stack([chain.loss for chain in done.values()])
