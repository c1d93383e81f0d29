"""`python -m benchmarks.plan`: the memory that `python -m replicate plan` counts, and that a chain
takes, with the seconds of its step; all with random weights.

Each case is measured in a process of its own. Memory is the most that the process had beyond what
it had before it loaded the model; on a GPU it is what torch allocated.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PretrainedConfig

from benchmarks import results, rounds
from benchmarks.measure import forget_peak, peak_memory
from replicate.data.windows import Windows
from replicate.models import task as tasks
from replicate.models.config import TaskConfig
from replicate.pipeline import config as parameters
from replicate.pipeline.config import Family
from replicate.pipeline.cost import Shape
from replicate.progress import silent
from replicate.sampling import SamplerConfig, SamplingConfig
from replicate.sampling.engine import run_piece
from replicate.sampling.steps import CHUNK, REPEATED

LENGTH, STEPS = 200, 5
SMALL = GPT2Config(n_layer=1, n_embd=32, n_head=2, vocab_size=100)


def llama(layers: int, width: int, inner: int, heads: int) -> LlamaConfig:
    return LlamaConfig(
        num_hidden_layers=layers,
        hidden_size=width,
        intermediate_size=inner,
        num_attention_heads=heads,
    )


def gpt2(layers: int, width: int, heads: int) -> GPT2Config:
    return GPT2Config(n_layer=layers, n_embd=width, n_head=heads)


Case = tuple[PretrainedConfig, int, dict[str, Any]]  # model, batch, fields of the family
CHECKPOINTS: dict[str, Any] = {"gradient_checkpointing": True}
M134, B1 = llama(12, 768, 2048, 12), llama(24, 2048, 5504, 16)
CPU: dict[str, Case] = {
    "GPT-2 124M": (GPT2Config(), 5, {}),
    "GPT-2 124M, gradient checkpointing": (GPT2Config(), 5, CHECKPOINTS),
    "GPT-2 124M, 16 by 4": (GPT2Config(), 16, {"microbatch_size": 4}),
    "GPT-2 774M": (gpt2(36, 1280, 20), 2, CHECKPOINTS),
    **{
        f"Llama 134M, {weights}": (M134, 5, {"weights": weights})
        for weights in ("nf4", "int8", "bfloat16", "dequantised", "dequantised-float32")
    },
    **{
        f"Llama 1.3B, {name}, gradient checkpointing": (B1, 2, {"weights": name} | CHECKPOINTS)
        for name in ("nf4", "dequantised")
    },
}
HALF: dict[str, Any] = {"compute_dtype": "bfloat16"}
FUSED = HALF | {"compiled": True}
NF4 = {"weights": "nf4", "microbatch_size": 16} | HALF | CHECKPOINTS
GPU: dict[str, Case] = {  # as params.yaml has the paper study
    "gpt2": (GPT2Config(), 64, FUSED),
    "gpt2, not compiled": (GPT2Config(), 64, HALF),
    "gpt2-medium": (gpt2(24, 1024, 16), 64, FUSED),
    "gpt2-large": (gpt2(36, 1280, 20), 64, FUSED),
    "gpt2-xl": (gpt2(48, 1600, 25), 64, FUSED),
    "gpt2-xl, not compiled": (gpt2(48, 1600, 25), 64, HALF),
    "llama-2-7b": (LlamaConfig(), 64, NF4),
    "llama-2-13b": (llama(40, 5120, 13824, 40), 64, NF4),
}


@click.command
@click.option("--only", default="", help="cases whose name holds this")
@click.option("--case", help="one case, printed as JSON")
@click.option("--folder", type=click.Path(path_type=Path), help="of the case's model")
def main(only: str, case: str | None, folder: Path | None) -> None:
    """Measures the cases and adds them to results.json."""
    cases = GPU if torch.cuda.is_available() else CPU
    if case is not None and folder is not None:
        print(json.dumps(measured(cases[case], folder)))
        return
    found = {}
    for name in (name for name in cases if only in name):
        with tempfile.TemporaryDirectory() as place:
            make(cases[name][0], Path(place))
            options = ("--case", name, "--folder", place)
            found[name] = counted(cases[name]) | rounds.python("benchmarks.plan", *options)
    old = results.read(results.FILE).get(results.describe().name, {}).get("plan", {})
    results.add(plan=old | found)


def family(case: Case) -> Family:
    """Returns a family of params.yaml with the case's fields."""
    _, batch, fields = case
    found = parameters.load().families["sizes"]
    sampling = found.sampling.model_copy(update={"batch_size": batch})
    return found.model_copy(update={"sampling": sampling, "length": LENGTH, **fields})


def counted(case: Case) -> dict[str, float]:
    """Returns the bytes that the plan counts, and the weights that move."""
    shape, chains = Shape(case[0]), family(case)
    return {"sampled": shape.sampled(chains), "counted": shape.memory(chains)}


def make(config: PretrainedConfig, folder: Path) -> None:
    """Writes a model with random weights, and windows beside it."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "model")
    tokens_NxL = np.random.default_rng(0).integers(0, 100, (64, LENGTH), np.int32)
    reviews = np.arange(64, dtype=np.int32)
    Windows(tokens_NxL, reviews, reviews < 0, None, {}).save(folder / "windows")


def measured(case: Case, folder: Path) -> dict[str, float]:
    """Returns the bytes that a chain takes, and the mean seconds of its steps."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:  # loads and compiles what any model needs
        make(SMALL, Path(place))
        chain(family((SMALL, 2, {})), Path(place))
    before = peak_memory()
    forget_peak()
    seconds = chain(family(case), folder)
    return {"memory": peak_memory() - before, "seconds": seconds}


def chain(chains: Family, folder: Path) -> float:
    """Runs a chain of a family; returns the mean seconds of its steps."""
    config = TaskConfig(
        family="plan",
        model="plan",
        folder=folder / "model",
        windows=folder / "windows",
        weights=chains.weights,
        compute_dtype=chains.compute_dtype,
        restriction=("all",),
        device="any",
        gradient_checkpointing=chains.gradient_checkpointing,
        gpus_per_model=1,
        hashes=("", ""),
        compiled=chains.compiled,
    )
    task = tasks.load(config)
    if not task.repeated:
        return steps(task, chains, STEPS, STEPS)
    steps(task, chains, STEPS, STEPS)  # compiles the passes
    return steps(task, chains, REPEATED + 2 * CHUNK, 2 * CHUNK)  # the last are all repeated


def steps(task: tasks.TextTask, chains: Family, draws: int, last: int) -> float:
    """Runs a chain of a task; returns the mean seconds of its last steps."""
    found = run_piece(
        task,
        SamplerConfig("sgld", 1e-6, localization=300.0),
        SamplingConfig(
            nbeta=30.0,
            batch_size=chains.sampling.batch_size,
            shuffles=1,
            chains=1,
            burn_in=0,
            draws=draws,
            microbatch_size=chains.microbatch_size,
        ),
        [(0, 0)],
        np.zeros(task.examples, np.float32),
        order=lambda shuffle: np.arange(task.examples),
        noise=lambda shuffle, chain: 0,
        advance=silent,
    )
    return float(found[0, 0].seconds[-last:].mean())


if __name__ == "__main__":
    main()
