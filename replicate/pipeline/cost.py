"""Estimates what a study costs: parameters, memory, operations and time of each stage.

The estimates are simple arithmetic. Nothing is downloaded, and no run is stopped.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import huggingface_hub as hf
import torch
import yaml
from accelerate import init_empty_weights
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from replicate.errors import UserError
from replicate.models import loading, restrictions
from replicate.pipeline import parallel
from replicate.pipeline.config import Config, Family
from replicate.pipeline.config.sources import ControlModel, OnDisk, OnHub
from replicate.pipeline.doctor import free_memory
from replicate.pipeline.workload import Work, list_work
from replicate.reporting import terminal
from replicate.reporting.formatting import duration, number
from replicate.reporting.table import Column, Table

CONFIGURATIONS, DEVICES, BYTES = yaml.safe_load(
    Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")
).values()
STATES = {
    "sgld": 0,
    "sgnht": 1,
    "rmsprop": 1,
    "leimkuhler": 1,
    "adam": 2,
}  # numbers kept per sampled weight
ACTIVATIONS = 24  # numbers that a block stores for backward, per token and unit of width
WORKER = 0.5e9  # bytes of memory of a worker process before it loads a model
SHARE = 0.4  # share of a named device's peak speed that a step reaches
FORMATS: dict[str, Callable[[Any], str]] = {
    **dict.fromkeys(("parameters", "sampled", "operations"), lambda value: number(value, 3)),
    "memory": lambda size: "" if size is None else f"{size / 1e9:.2f} GB",
    "seconds": lambda seconds: "" if seconds is None else duration(seconds),
}


@dataclass(frozen=True)
class Device:
    """A machine whose costs are estimated.

    Attributes:
        memory: free bytes of one GPU, or of the memory that all workers on a CPU share.
        workers: the number of worker processes.
        gpu: whether the device is a GPU.
        peak: operations per second by compute dtype; None to measure the speed of this machine.
    """

    memory: float
    workers: int = 1
    gpu: bool = True
    peak: Mapping[str, float] | None = None

    def pace(self, dtype: str) -> tuple[float, float]:
        """Returns operations per second of a worker, and a step's seconds of overhead per block."""
        return timed(dtype) if self.peak is None else (SHARE * self.peak[dtype], 0.0)


class Shape:
    """The sizes of a model, which is built from its configuration without weights."""

    def __init__(self, config: PretrainedConfig) -> None:
        with init_empty_weights():
            self.model = AutoModelForCausalLM.from_config(config)
        self.model.tie_weights()
        self.config = config.get_text_config()
        self.packed = restrictions.matrices(self.model)  # the ids of the blocks' matrices
        sizes = {id(p): p.numel() for p in self.model.parameters()}
        self.parameters = sum(sizes.values())
        self.matrices = sum(sizes[key] for key in self.packed)
        self.layers, self.width = self.config.num_hidden_layers, self.config.hidden_size

    def sampled(self, family: Family) -> int:
        """Counts the weights that a family's chains move."""
        frozen = self.packed if family.weights in ("nf4", "int8") else set()
        for parameter in self.model.parameters():
            parameter.requires_grad_(id(parameter) not in frozen)
        moved = restrictions.restrict(self.model, family.sampling.restriction)
        return sum(self.model.get_parameter(name).numel() for name in moved)

    def forward(self, tokens: int, labels: int) -> float:
        """Counts the operations of a window's forward pass, with logits for `labels` labels."""
        weights = self.matrices * tokens + self.config.vocab_size * self.width * labels
        return 2.0 * weights + 4 * self.layers * self.width * tokens**2

    def memory(self, family: Family) -> float:
        """Counts the bytes of weights, w*, gradients, the sampler's state and activations."""
        sampling, sampled = family.sampling, self.sampled(family)
        others = self.parameters - self.matrices  # no format packs these
        moved = min(others, sampled)
        wide = 2 if family.weights == "bfloat16" else 4
        weight, anchor, gradient = BYTES[family.weights]
        size = weight * self.matrices + (anchor + gradient) * (sampled - moved)
        size += wide * (others + 2 * moved) + 4 * STATES[sampling.sampler] * sampled
        blocks = 1 + self.layers / ACTIVATIONS if family.gradient_checkpointing else self.layers
        number = 2 if "bfloat16" in (family.weights, family.compute_dtype) else 4
        batch = min(family.microbatch_size or sampling.batch_size, sampling.batch_size)
        token = number * ACTIVATIONS * blocks * self.width
        token += 12 * self.config.vocab_size * (family.loss == "tokens")  # logits and gradients
        return size + token * batch * family.length


def run(config: Config, study: str | None, device: str | None, as_json: bool) -> None:
    """Prints what one study costs, or if `study` is None, what all studies cost.

    Args:
        config: all parameters.
        study: the name of the study.
        device: a name in cost.yaml; None for this machine, whose speed is measured.
        as_json: whether JSON is printed.

    Raises:
        UserError: the study or the device does not exist.
    """
    device = device and device.lower()
    for kind, name, known in (("study", study, config.studies), ("device", device, DEVICES)):
        if name is not None and name not in known:
            raise UserError(f"plan: {name!r} is no known {kind}; write one of {', '.join(known)}")
    where = Device(DEVICES[device]["memory"], peak=DEVICES[device]) if device else here(config)
    studies = config.studies if study is None else [study]
    works = {str(w): w for name in studies for w in list_work(config, name)}.values()  # each once
    shapes = {model: shape(config, model) for model in {work.model for work in works}}
    rows = [cost(work, shapes[work.model], where) for work in works]
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    columns = [Column(name, format=FORMATS.get(name)) for name in rows[0]]
    total = duration(sum(row["seconds"] or 0.0 for row in rows))
    title = f"plan for {device or 'this machine'}: about {total} for what fits"
    terminal.show(Table(title, columns, [list(row.values()) for row in rows]))


def cost(work: Work, shape: Shape | None, device: Device) -> dict[str, Any]:
    """Returns what a piece of work costs on a device.

    Returns:
        A row of the table. `fit` says whether the work fits on the device. The memory is that of
        one copy of the model; the seconds are those with all workers. A cost is None if unknown.
    """
    family = work.family
    found: dict[str, Any] = {"stage": work.stage, "model": work.model, "weights": family.weights}
    found |= dict.fromkeys(("parameters", "sampled", "operations", "memory", "seconds"))
    if shape is None:
        return found | {"fit": "unknown"}
    try:
        tokens, sampled = family.length - 1, shape.sampled(family)
    except Exception:  # the restriction cannot be applied; the stage itself says why
        return found | {"fit": "unknown"}
    forward = shape.forward(tokens, tokens if family.loss == "tokens" else 1)
    frozen = sampled <= shape.parameters - shape.matrices  # then the matrices have no gradients
    passes = 3 + family.gradient_checkpointing - frozen
    step, examined = passes * family.sampling.batch_size * forward, work.examples * forward
    memory = shape.memory(family)
    needed = memory / family.gpus_per_model if device.gpu else device.workers * (WORKER + memory)
    found |= {"parameters": shape.parameters, "sampled": sampled, "memory": memory}
    found["operations"] = work.steps * step + examined
    if family.device == "cuda" and not device.gpu:
        return found | {"fit": "needs a GPU"}
    if needed > device.memory:
        return found | {"fit": "does not fit"}
    rounded = "bfloat16" in (family.compute_dtype, family.weights)
    speed, overhead = device.pace("bfloat16" if rounded else "float32")
    batches = math.ceil(family.sampling.batch_size / (family.microbatch_size or math.inf)) or 1
    workers = 1 if family.sampling.sampler == "adam" else device.workers
    seconds = work.steps * (step / speed + batches * shape.layers * overhead) / workers
    return found | {"seconds": seconds + examined / speed, "fit": "fits"}


def shape(config: Config, name: str) -> Shape | None:
    """Returns the shape of a model; None if its configuration or vocabulary size is unknown."""
    model = config.models[name]
    if isinstance(model, ControlModel):
        family = config.families[config.family_of(name)]
        vocabulary = getattr(config.tokenizers[family.tokenizer], "vocabulary", None)
        given = model.model_dump(include={"architecture", "layers", "width", "heads"})
        given |= {"vocabulary": vocabulary, "length": family.length}
        return None if vocabulary is None else Shape(loading.configuration(**given))
    if isinstance(model, OnDisk):
        cached, noted = f"{model.path}/config.json", None
    elif isinstance(model, OnHub):
        cached = hf.try_to_load_from_cache(model.repository, "config.json", revision=model.revision)
        noted = CONFIGURATIONS.get(model.repository)
    else:
        raise TypeError(type(model))
    try:
        if isinstance(cached, str):
            return Shape(AutoConfig.from_pretrained(Path(cached).parent, trust_remote_code=False))
        return None if noted is None else Shape(AutoConfig.for_model(**noted))
    except Exception:  # transformers fails in many ways on models that it does not know
        return None


def here(config: Config) -> Device:
    """Describes this machine by its first GPU, or by its CPU if it has no GPU."""
    gpu = torch.cuda.is_available()
    memory = torch.cuda.mem_get_info()[0] if gpu else free_memory()
    return Device(memory, parallel.count(config.machine.workers), gpu)


@cache
def timed(dtype: str) -> tuple[float, float]:
    """Measures the speed of this machine by steps of a narrow and of a wide model on one thread.

    Returns:
        The operations per second, and the seconds of overhead that a step has for each block.
    """
    device = loading.device("any", "plan").type
    torch.set_num_threads(1)  # as in a worker
    narrow, wide = (_step(width, device, dtype) for width in (64, 256 if device == "cpu" else 4096))
    speed = (wide[0] - narrow[0]) / max(wide[1] - narrow[1], 1e-9)
    return speed, max(0.0, narrow[1] - narrow[0] / speed) / 2


def _step(width: int, device: str, dtype: str) -> tuple[float, float]:
    """Returns the operations and the seconds of a step of a model of two blocks."""
    given = {"layers": 2, "width": width, "heads": width // 64, "vocabulary": 512, "length": 64}
    config = loading.configuration("gpt2", **given)
    model, seconds = AutoModelForCausalLM.from_config(config).to(device), []
    tokens = torch.zeros(16, 64, dtype=torch.long, device=device)
    for _ in range(4):
        begun = time.perf_counter()
        with torch.autocast(device, torch.bfloat16, dtype == "bfloat16"):
            loss = model(input_ids=tokens).logits.float().mean()
        loss.backward()
        loss.item()  # waits for a GPU
        seconds.append(time.perf_counter() - begun)
    return 3 * 16 * Shape(config).forward(64, 64), median(seconds[1:])
