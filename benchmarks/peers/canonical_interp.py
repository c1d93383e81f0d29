"""canonical-interp: all chains at once under `vmap`, compiled."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from transformers import PreTrainedModel

from benchmarks.work import LOCALIZATION, LR, NBETA, Work, device, tokens
from benchmarks.work import model as saved


def batched(items: Iterable[Any], size: int) -> Iterator[tuple[Any, ...]]:
    iterator = iter(items)
    while batch := tuple(itertools.islice(iterator, size)):
        yield batch


# Version 0.1.5 installs on Python 3.11 but imports `itertools.batched`, which is Python 3.12's.
if not hasattr(itertools, "batched"):
    itertools.batched = batched  # pyright: ignore[reportAttributeAccessIssue]

from canonical_interp import LLCEstimator  # noqa: E402 # pyright: ignore[reportMissingImports]

logging.getLogger("canonical_interp").setLevel(logging.ERROR)  # advice on loader and burn-in


class Label(nn.Module):
    """A language model that returns the logits of the label (B, V)."""

    def __init__(self, network: nn.Module, kept: int) -> None:
        super().__init__()
        self.network, self.kept = network, kept

    def forward(self, tokens_BxP: Tensor) -> Tensor:
        return self.network(input_ids=tokens_BxP, use_cache=False, logits_to_keep=self.kept).logits[
            :, -1
        ]


def model(work: Work) -> PreTrainedModel:
    """Loads the model without fused attention, whose compiled form has no derivative under `vmap`
    on a CPU.
    """
    return saved(work, "eager")


def run(work: Work, steps: int) -> Tensor:
    tokens_NxL = tokens(work).cpu()
    loader = DataLoader(
        TensorDataset(tokens_NxL[:, :-1], tokens_NxL[:, -1]),
        work.batch,
        shuffle=True,
        drop_last=True,
    )
    estimator = LLCEstimator(  # pyright: ignore[reportCallIssue] # pyright takes this file for the package
        draws=steps,
        chains=work.chains,
        burnin_steps=0,
        steps_bw_draws=1,
        learning_rate=LR,
        localization=LOCALIZATION,
        nbeta=NBETA,
    )
    network = Label(model(work), 0 if work.logits == "all" else 1)
    estimator.estimate_llc(network, loader, devices=device(), compile=True, show_progress=False)
    return estimator.get_metrics()["losses"]
