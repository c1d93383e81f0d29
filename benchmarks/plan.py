"""`python -m benchmarks.plan`: what a plan says of memory and time, beside what a chain then takes,
on random weights.

Each case is its own process for each of three looks: counted from the configuration alone, timed on
shallow models, measured whole. The last is what the others are held against. Memory is the most
that the process had of its own beyond what it had before loading, on a GPU what torch allocated.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import click
import torch
from transformers import GPT2Config, LlamaConfig, PretrainedConfig

from benchmarks import results, rounds
from benchmarks.machine import describe
from replicate.data.json_io import rounded, write_json
from replicate.models import loading as models
from replicate.pipeline.config import Params, load
from replicate.pipeline.planning.footprint import Chain, footprint
from replicate.pipeline.stages import clock, workload

HERE = Path(__file__).parent
LOOKS = ("made", "counted", "timed", "measured")
LENGTH, NAME = 200, "mini-34k"
LLAMA = LlamaConfig(
    hidden_size=768,
    intermediate_size=2048,
    num_hidden_layers=12,
    num_attention_heads=12,
    vocab_size=32000,
)
BILLION = LlamaConfig(
    hidden_size=2048,
    intermediate_size=5504,
    num_hidden_layers=24,
    num_attention_heads=16,
    vocab_size=32000,
)
SMALL = LlamaConfig(
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=1,
    num_attention_heads=2,
    vocab_size=500,
)
LARGE = GPT2Config(n_layer=36, n_embd=1280, n_head=20)
WHOLE = Chain("float32", "float32", ("all",), "sgld", LENGTH, 5, None, "kept")
CASES: dict[str, tuple[PretrainedConfig, Chain]] = {
    "GPT-2 124M": (GPT2Config(), WHOLE),
    "GPT-2 124M, recomputed": (GPT2Config(), replace(WHOLE, activations="recomputed")),
    "GPT-2 124M, 16 by 4": (GPT2Config(), replace(WHOLE, batch_size=16, microbatch=4)),
    "GPT-2 774M": (LARGE, replace(WHOLE, batch_size=2, activations="recomputed")),
    "Llama 134M, nf4": (LLAMA, replace(WHOLE, weights="nf4")),
    "Llama 134M, int8": (LLAMA, replace(WHOLE, weights="int8")),
    "Llama 134M, bfloat16": (LLAMA, replace(WHOLE, weights="bfloat16")),
    "Llama 134M, dequantised": (LLAMA, replace(WHOLE, weights="dequantised")),
    "Llama 134M, dequantised-float32": (LLAMA, replace(WHOLE, weights="dequantised-float32")),
    "Llama 1.3B, nf4, recomputed": (
        BILLION,
        replace(WHOLE, weights="nf4", batch_size=2, activations="recomputed"),
    ),
    "Llama 1.3B, dequantised, recomputed": (
        BILLION,
        replace(WHOLE, weights="dequantised", batch_size=2, activations="recomputed"),
    ),
}
CODED = {
    "weights": "nf4",
    "products": "bfloat16",
    "batch_size": 64,
    "microbatch": 16,
    "activations": "recomputed",
}
PAPER = replace(WHOLE, products="bfloat16", batch_size=64)
LLAMA_13B = LlamaConfig(
    hidden_size=5120, intermediate_size=13824, num_hidden_layers=40, num_attention_heads=40
)
GPU: dict[str, tuple[PretrainedConfig, Chain]] = {  # as params.yaml has the paper study's
    "gpt2": (GPT2Config(), PAPER),
    "gpt2-medium": (GPT2Config(n_layer=24, n_embd=1024, n_head=16), PAPER),
    "gpt2-large": (LARGE, PAPER),
    "gpt2-xl": (GPT2Config(n_layer=48, n_embd=1600, n_head=25), PAPER),
    "llama-2-7b": (LlamaConfig(), replace(WHOLE, **CODED)),
    "llama-2-7b, dequantised": (
        LlamaConfig(),
        replace(WHOLE, **CODED | {"weights": "dequantised"}),
    ),
    "llama-2-13b": (LLAMA_13B, replace(WHOLE, **CODED)),
}


@click.command
@click.option("--only", help="cases whose name holds this")
@click.option("--case", help="one look at one case, printed as JSON")
@click.option("--look", type=click.Choice(LOOKS), default="counted")
@click.option(
    "--counts", is_flag=True, help="print what Llama-2 would take on a GPU, and measure nothing"
)
@click.option(
    "--folder", type=click.Path(path_type=Path), default=Path(), help="of the random weights"
)
def main(only: str | None, case: str | None, look: str, counts: bool, folder: Path) -> None:
    """Measures the cases and adds them to results.json."""
    if case is not None:
        print(json.dumps(looked(case, look, folder)))
        return
    if counts:
        llama()
        return
    found = {}
    for name in here():
        if only is None or only in name:
            with tempfile.TemporaryDirectory() as place:
                options = ("--case", name, "--folder", place, "--look")
                _, counted, timed, measured = (
                    rounds.python("benchmarks.plan", *options, kind) for kind in LOOKS
                )
            found[name] = {
                "operations": counted["operations"],
                "memory": measured["memory"],
                "memory_ratio": counted["memory"] / measured["memory"],
                "seconds": measured["step"],
                "seconds_ratio": timed["step"] / measured["step"],
                "bytes_per_weight": measured["memory"] / counted["sampled"],
                "kept_per_weight": (counted["weights"] + counted["anchor"]) / counted["sampled"],
            }
            row = found[name]
            print(
                f"{name:<38} {row['memory'] / 1e9:6.2f} GB, plan × {row['memory_ratio']:.2f};"
                f" {row['seconds']:7.2f} s a step, plan × {row['seconds_ratio']:.2f}; {row['bytes_per_weight']:.1f} bytes a weight moved",
                flush=True,
            )
    machine = describe()
    reports = results.read(HERE / "results.json")
    report = {
        "machine": asdict(machine),
        "works": {},
        "plan": reports.get(machine.name, {}).get("plan", {}) | rounded(found),
    }
    write_json(HERE / "results.json", results.merged(reports, machine.name, report))


def here() -> dict[str, tuple[PretrainedConfig, Chain]]:
    """The cases for this machine."""
    return GPU if torch.cuda.is_available() else CASES


def looked(case: str, look: str, folder: Path) -> dict[str, float]:
    config, chain = here()[case]
    if look == "counted":
        found = footprint(config, chain)
        return {
            "memory": found.memory(torch.cuda.is_available()),
            "operations": found.step,
            "sampled": found.sampled,
            "weights": found.weights,
            "anchor": found.anchor,
        }
    torch.set_num_threads(1)
    models.device("any", case)
    params = settings(chain)
    if look == "made":
        clock.make(
            config, LENGTH, folder, torch.float32 if chain.weights == "float32" else torch.bfloat16
        )
        return {}
    clock.pace(
        params, NAME, SMALL, chain
    )  # what a process needs for the first of anything is not the model's
    pace = (
        clock.pace(params, NAME, config, chain)
        if look == "timed"
        else clock.measured(params, NAME, folder, chain)
    )
    return {"memory": pace.memory, "step": pace.step}


def llama() -> None:
    """Prints GB on a GPU by the family's settings in params.yaml, and with all weights moving
    around 4 bits.
    """
    params = load()
    family = params.families["llama2"]
    full = {"weights": "dequantised", "microbatch": None}
    for name in params.models_of("llama2"):
        config = workload.configuration(params, name)
        assert config is not None
        restricted, whole, small = (
            footprint(config, workload.chain(family, **how))
            for how in ({}, full, full | {"batch_size": 8})
        )
        most = [f"{found.memory(cuda=True) / 1e9:.1f}" for found in (restricted, whole, small)]
        print(
            f"{name}: nf4 {most[0]}; dequantised {most[1]}, 8 labels {most[2]}, weights and w* {(whole.weights + whole.anchor) / 1e9:.1f}"
        )


def settings(chain: Chain) -> Params:
    """params.yaml with a family that is sampled so."""
    params = load()
    how = {
        "products": chain.products,
        "microbatch": chain.microbatch,
        "activations": chain.activations,
    }
    return params.model_copy(
        update={
            "families": params.families | {"mini": params.families["mini"].model_copy(update=how)}
        }
    )


if __name__ == "__main__":
    main()
