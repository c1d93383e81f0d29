"""What is timed: SGLD around a language model with random weights, the same for ours and for every
peer.

    w ← w − (ε/2)·[nβ·∇L_B(w) + γ(w − w*)] + √ε·N(0, I)

L_B: mean cross-entropy of the last token over the B windows of a minibatch, nats.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, PreTrainedModel

from replicate.models import loading as models

LR, NBETA, LOCALIZATION = 1e-5, 30.0, 100.0  # ε, nβ, γ
SEED = 0


@dataclass(frozen=True)
class Work:
    """Chains around one model, and how long they are timed.

    `length` is the tokens of a window with the label, so that a model is given length − 1; `batch`
    the windows of a step, `batches` the disjoint ones in the text. A `published` model is GPT-2 as
    it comes from the hub (1024 positions, gelu_new), the others are the control models of
    `replicate.models`; `folder` is where it was saved. `peers` are those that are measured;
    `logits` says whether their loss makes the logits of all positions, as a model does when it is
    called, or of the last alone. Ours makes the last alone. `steps` are the two lengths of chain
    that are timed.
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
    products: Literal["float32", "bfloat16"] = "float32"  # weights are float32
    published: bool = False
    cuda: bool = False  # needs a GPU
    logits: Literal["all", "last"] = "all"
    batches: int = 8
    folder: Path | None = None


def mini(name: str, width: int, heads: int, steps: tuple[int, int]) -> Work:
    return Work(
        name,
        "gpt2",
        2,
        width,
        heads,
        768,
        48,
        32,
        20,
        steps,
        ("devinterp", "canonical-interp", "posteriors"),
    )


WORKS = {
    work.name: work
    for work in (
        mini("mini-34k", 24, 2, (20, 80)),
        mini("mini-110k", 52, 2, (20, 60)),
        mini("mini-350k", 104, 4, (10, 40)),
        mini("mini-1050k", 192, 6, (5, 25)),
        Work(
            "gpt2",
            "gpt2",
            12,
            768,
            12,
            50257,
            200,
            5,
            1,
            (2, 8),
            ("devinterp", "posteriors"),
            published=True,
        ),
        Work(
            "gpt2-xl",
            "gpt2",
            48,
            1600,
            25,
            50257,
            200,
            5,
            1,
            (5, 15),
            ("devinterp",),
            published=True,
            cuda=True,
        ),
        Work(
            "gpt2-xl-64",
            "gpt2",
            48,
            1600,
            25,
            50257,
            200,
            64,
            1,
            (5, 15),
            ("devinterp",),
            "bfloat16",
            published=True,
            cuda=True,
        ),
    )
}


def build(work: Work) -> PreTrainedModel:
    if not work.published:
        return models.build(
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
    """Writes the model at w*: random weights, the same each time."""
    torch.manual_seed(SEED)
    with device():
        model = build(work)
    model.save_pretrained(folder)


def device() -> torch.device:
    """Not `models.device`, which makes the products of the whole process faster, a peer's too."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(work: Work) -> torch.autocast:
    """In which a loss is calculated."""
    return torch.autocast(device().type, torch.bfloat16, enabled=work.products == "bfloat16")


@cache
def model(work: Work, attention: str = "sdpa") -> PreTrainedModel:
    """The saved model as Hugging Face loads it."""
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
    """Random windows, shape (batches·B, L), on the model's device."""
    generator = torch.Generator().manual_seed(SEED)
    return torch.randint(
        work.vocabulary, (work.batches * work.batch, work.length), generator=generator
    ).to(device())


@cache
def parameters(work: Work) -> int:
    """The number of weights, none of which is made."""
    with torch.device("meta"):
        return models.count(build(work))
