"""devinterp: one chain after the other in a copy of the model; per-token losses go to Zarr."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from devinterp.slt.lm_loss import compute_per_token_loss
from devinterp.slt.sampling import sample
from torch import Tensor, nn

from benchmarks.work import LOCALIZATION, LR, NBETA, Work, autocast, model, tokens
from replicate.models import last_token


def label_loss(network: nn.Module, tokens_BxL: Tensor) -> Tensor:
    """Returns (B, L − 1): the label's loss times the number of positions, and zeros elsewhere,
    because devinterp takes the mean over the positions.
    """
    return padded(compute_per_token_loss(network, tokens_BxL)[:, -1], tokens_BxL)


def lean_label_loss(network: nn.Module, tokens_BxL: Tensor) -> Tensor:
    """Computes the same from the last position's logits alone."""
    return padded(last_token.losses(network, tokens_BxL), tokens_BxL)


def padded(losses_B: Tensor, tokens_BxL: Tensor) -> Tensor:
    B, P = len(tokens_BxL), tokens_BxL.shape[1] - 1
    return torch.cat([losses_B.new_zeros(B, P - 1), P * losses_B[:, None]], dim=1)


def run(work: Work, steps: int) -> np.ndarray:
    labels = label_loss if work.logits == "all" else lean_label_loss

    def loss(network: nn.Module, tokens_BxL: Tensor) -> Tensor:
        with autocast(work):
            return labels(network, tokens_BxL)

    dataset = Dataset.from_dict({"input_ids": tokens(work).cpu().numpy()}).with_format("torch")
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = sample(
            model(work),
            dataset,
            {},
            lr=LR,
            n_beta=NBETA,
            localization=LOCALIZATION,
            num_chains=work.chains,
            num_draws=steps,
            batch_size=work.batch,
            num_init_loss_batches=1,
            loss_fn=loss,
            device=str(tokens(work).device),
            output_path=Path(folder) / "samples.zarr",
        )
        return tree["sampling_loss"].mean(["batch", "token_pos"]).to_numpy()
