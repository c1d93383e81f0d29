"""What is timed: SGLD around a language model with random weights, for ours and for every peer.

    w ← w − (ε/2)·[nβ·∇L_B(w) + γ(w − w*)] + √ε·N(0, I)

L_B: mean cross-entropy of the last token over the B windows of a minibatch, nats.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, PreTrainedModel

from replicate.models import loading, module
from replicate.sampling.steps import CHUNK, REPEATED

LR, NBETA, LOCALIZATION = 1e-5, 30.0, 100.0  # ε, nβ, γ
SEED = 0
PEERS = ("devinterp", "canonical-interp", "posteriors")


@dataclass(frozen=True)
class Work:
    """Chains around one model, and how long they are timed.

    Attributes:
        length: tokens of a window with the label, so that a model is given length − 1.
        batch: windows of a step.
        steps: the two lengths of chain that are timed.
        peers: those that are measured.
        compute_dtype: of matrix products; weights are float32.
        published: whether the model is GPT-2 as it is on the hub (1024 positions, gelu_new), and
            not a control model.
        cuda: whether it needs a GPU.
        logits: whether the peers' loss computes the logits of all positions, as a model does when
            it is called, or of the last one alone, as ours does.
        batches: disjoint minibatches in the text.
        folder: where the model was saved.
    """

    name: str
    architecture: Literal["gpt2", "llama"]
    layers: int
    width: int
    heads: int
    vocabulary: int
    length: int
    batch: int
    chains: int
    steps: tuple[int, int]
    peers: tuple[str, ...]
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    published: bool = False
    cuda: bool = False
    logits: Literal["all", "last"] = "all"
    batches: int = 8
    folder: Path | None = None


MINI = Work("mini", "gpt2", 2, 24, 2, 768, 48, 32, 20, (10, 30), PEERS)
GPT2 = Work("gpt2", "gpt2", 12, 768, 12, 50257, 200, 5, 1, (2, 6), (PEERS[0], PEERS[2]))
GPT2 = replace(GPT2, published=True)
ON_GPU = replace(GPT2, steps=(REPEATED, REPEATED + CHUNK), peers=PEERS[:1], cuda=True)
XL = replace(ON_GPU, layers=48, width=1600, heads=25)
WORKS = {
    work.name: work
    for work in (
        replace(MINI, name="mini-34k"),
        replace(MINI, name="mini-110k", width=52, steps=(8, 20)),
        replace(MINI, name="mini-350k", width=104, heads=4, steps=(4, 10)),
        replace(MINI, name="mini-1050k", width=192, heads=6, steps=(2, 5)),
        GPT2,
        replace(ON_GPU, name="gpt2-64", batch=64, compute_dtype="bfloat16"),
        replace(XL, name="gpt2-xl"),
        replace(XL, name="gpt2-xl-64", batch=64, compute_dtype="bfloat16"),
    )
}


def build(work: Work) -> PreTrainedModel:
    """Makes the model with random weights."""
    if not work.published:
        return loading.build(
            work.architecture,
            layers=work.layers,
            width=work.width,
            heads=work.heads,
            vocabulary=work.vocabulary,
            length=work.length,
        )
    if work.architecture != "gpt2":
        raise ValueError(f"{work.name}: only GPT-2 is built as published")
    config = GPT2Config(
        vocab_size=work.vocabulary,
        n_embd=work.width,
        n_layer=work.layers,
        n_head=work.heads,
        resid_pdrop=0.0,  # dropout is not part of the loss, and devinterp samples in training mode
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    return GPT2LMHeadModel(config)


def save(work: Work, folder: Path) -> None:
    """Writes the model at w*: its random weights are the same each time."""
    torch.manual_seed(SEED)
    with device():
        model = build(work)
    model.save_pretrained(folder)


def device() -> torch.device:
    """Returns the device, without what `loading.device` changes in the whole process."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(work: Work) -> torch.autocast:
    """Returns the context in which a loss is computed."""
    return torch.autocast(device().type, torch.bfloat16, enabled=work.compute_dtype == "bfloat16")


@cache
def model(work: Work, attention: str = "sdpa") -> PreTrainedModel:
    """Loads the saved model as its users would."""
    assert work.folder is not None
    return AutoModelForCausalLM.from_pretrained(
        work.folder,
        dtype=torch.float32,
        attn_implementation=attention,
        device_map={"": device()},
        local_files_only=True,
    )


@cache
def tokens(work: Work) -> Tensor:
    """Returns random windows (batches·B, L) on the model's device."""
    generator = torch.Generator().manual_seed(SEED)
    return torch.randint(
        work.vocabulary, (work.batches * work.batch, work.length), generator=generator
    ).to(device())


@cache
def parameters(work: Work) -> int:
    """Counts the weights without making them."""
    with torch.device("meta"):
        return module.count(build(work))
