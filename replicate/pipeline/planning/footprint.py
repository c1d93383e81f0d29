"""Memory and operations of a model's step, counted on tensors that have a shape and no data.

The model is built from its configuration with PyTorch's fake tensors, cut down and restricted as a
real one is, and runs one step forward and backward, while every storage is counted as it comes and
goes: so that what is kept for backward, what is recomputed, and which gradients live at once are
found and not assumed.

Deep models are counted at two depths, and grow by the same with each further block. Only the peak
does not: it is reached either while the topmost blocks are passed backwards, when all that was kept
for backward is still there, which grows, or later, which does not.
"""

from __future__ import annotations

import copy
import re
import weakref
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from replicate.models import last_token as label
from replicate.models import loading as models
from replicate.models import restrictions
from replicate.models.quantised import FORMATS

DEPTHS = (2, 3)
SCALE = 4 / 64  # bytes of NF4's scales for a weight
HEAP = (
    1.6  # measured (benchmarks/plan.py): pieces of all sizes come and go, and what is freed is kept
)


@dataclass(frozen=True)
class Footprint:
    """parameters, sampled: weights. weights, anchor, state: bytes of the model as loaded, of w*, of
    what the sampler keeps besides. working: most bytes beyond those at any moment of a step. step,
    example: operations of a step, and of an example's forward pass; moved: bytes that the sampler's
    move reads and writes in a step.
    """

    parameters: int
    sampled: int
    weights: int
    anchor: int
    state: int
    working: int
    step: int
    example: int
    moved: int

    def memory(self, cuda: bool) -> int:
        """Most bytes at any moment of a chain, with what the C library's heap takes beyond what is
        alive on a CPU.
        """
        return (
            self.weights + self.anchor + self.state + round(self.working * (1.0 if cuda else HEAP))
        )


@dataclass(frozen=True)
class Chain:
    """How a model is sampled: the names are those of params.yaml."""

    weights: str
    products: str
    restriction: Sequence[str]
    sampler: str
    length: int
    batch_size: int
    microbatch: int | None
    activations: str
    implementation: str = "replicate"


def footprint(config: PretrainedConfig, chain: Chain) -> Footprint:
    """Of a model with this configuration.

    Raises:
        UserError: the restriction names nothing.
    """
    text = config.get_text_config()
    depth = text.num_hidden_layers
    if depth <= DEPTHS[1] or any(
        re.search(r"\d", word) for word in chain.restriction
    ):  # which may name one layer
        return counted(config, chain)[0]
    (low, kept_low, _), (high, kept, top) = (
        counted(shallow(config, layers), chain) for layers in DEPTHS
    )
    further = depth - DEPTHS[1]
    grown = Footprint(
        *(b + (b - a) * further for a, b in zip(astuple(low), astuple(high), strict=True))
    )
    return replace(grown, working=max(high.working, top + (kept - kept_low) * further))


def shallow(config: PretrainedConfig, layers: int) -> PretrainedConfig:
    """The same with fewer blocks."""
    found = copy.deepcopy(config)
    text = found.get_text_config()
    text.num_hidden_layers = layers
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:layers]
    return found


def counted(config: PretrainedConfig, chain: Chain) -> tuple[Footprint, int, int]:
    """With the bytes kept for backward, and the most until the block below the last one was passed
    backwards.
    """
    live, count = Live(), FlopCounterMode(display=False, custom_mapping=ATTENTION)
    brief = chain.weights == "bfloat16" or FORMATS.get(chain.weights) is torch.bfloat16
    with FakeTensorMode(), live:
        model = AutoModelForCausalLM.from_config(
            config, dtype=torch.bfloat16 if brief else torch.float32
        ).eval()
        parameters = sum(parameter.numel() for parameter in model.parameters())
        matrices = restrictions.matrices(model)
        packed = (
            sum(p.numel() for p in model.parameters() if id(p) in matrices)
            if chain.weights in FORMATS
            else 0
        )
        if chain.weights in ("nf4", "int8"):
            pack(model, chain.weights, getattr(torch, chain.products))
        models.settle(model)
        masks = restrictions.restrict(model, chain.restriction)
        label.focus(model)
        if chain.activations == "recomputed":
            models.recompute(model)
        moving = [model.get_parameter(name) for name in masks]
        sampled, stored = sum(p.numel() for p in moving), live.now
        width = 2 if brief else 4
        anchor = sum(
            width * p.numel()
            for p in moving
            if chain.weights not in FORMATS or id(p) not in matrices
        )
        state = {"sgld": 0, "rmsprop": 4, "sgnht": 4}[chain.sampler] * sampled
        micro = min(chain.microbatch or chain.batch_size, chain.batch_size)
        held = (
            chain.sampler == "rmsprop"
            or chain.implementation == "devinterp"
            or micro < chain.batch_size
        )
        if not held:  # each gradient is consumed as it comes
            for parameter in moving:
                parameter.register_post_accumulate_grad_hook(
                    lambda parameter: setattr(parameter, "grad", None)
                )
        tokens = torch.zeros(micro, chain.length, dtype=torch.long)
        start, passed = live.now, list[int]()

        def forward() -> Tensor:
            with torch.autocast("cpu", torch.bfloat16, enabled=chain.products == "bfloat16"):
                return label.losses(model, tokens).mean()

        if micro < chain.batch_size:
            forward().backward()  # the next one is on top of its gradients
        watch = below(model).register_forward_hook(
            lambda *call: on_gradient(call[2], lambda: passed.append(live.peak))
        )
        live.peak = live.now
        loss = forward()
        kept = live.now - start
        loss.backward()
        watch.remove()
        working = live.peak - start
        top = passed[0] - start if passed else working
        with count:
            forward().backward()  # apart from the above: the counter keeps what it counts alive
        step = count.get_total_flops() * chain.batch_size / micro
        with count, torch.no_grad():
            forward()
        example = count.get_total_flops() / micro
    found = Footprint(
        parameters=parameters,
        sampled=sampled,
        weights=stored,
        anchor=anchor + round(packed * (0.5 + SCALE)),
        state=state,
        working=working,
        step=round(step),
        example=round(example),
        moved=sampled * (4 * width if not packed else 3 * width + 1) + 2 * state,
    )
    return found, kept, top


def below(model: PreTrainedModel) -> nn.Module:
    """The block two below the last one, whose output is the input of the topmost whole block; the
    embedding where there is none.
    """
    count = model.config.get_text_config().num_hidden_layers
    stack = next(
        (
            module
            for module in model.modules()
            if isinstance(module, nn.ModuleList) and len(module) == count
        ),
        None,
    )
    return model.get_input_embeddings() if stack is None or count < DEPTHS[1] else stack[-3]


def on_gradient(made: Any, call: Callable[[], None]) -> None:
    """Calls when the gradient of a module's output is there."""
    tensor = made if isinstance(made, Tensor) else made[0]
    if tensor.requires_grad:
        tensor.register_hook(lambda _: call())


def attended(query: Sequence[int], key: Sequence[int], *_: object, **__: object) -> int:
    """Scores and values, of queries and keys (batch, heads, tokens, width)."""
    batch, heads, tokens, width = query
    return 4 * batch * heads * tokens * key[-2] * width


def attended_backward(
    _: Sequence[int], query: Sequence[int], key: Sequence[int], *__: object, **___: object
) -> int:
    """The scores again, and two products for each of the two of the way forward."""
    return round(2.5 * attended(query, key))


ATTENTION = {  # which PyTorch's counter knows on GPUs alone
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attended,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: attended_backward,
}


class Live(TorchDispatchMode):
    """Bytes of the storages that are alive, and the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and tensor.layout == torch.strided:
                storage = tensor.untyped_storage()
                key, size = storage._cdata, storage.nbytes()
                if key not in self.seen:
                    self.seen.add(key)
                    self.now += size
                    self.peak = max(self.peak, self.now)
                    weakref.finalize(storage, self.gone, key, size)
        return made

    def gone(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.now -= size


def pack(model: nn.Module, weights: str, products: torch.dtype) -> None:
    """Puts stand-ins of the right size in the place of matrices that bitsandbytes would
    quantise.
    """
    head = model.get_output_embeddings()  # pyright: ignore[reportCallIssue]
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear | Conv1D) and module is not head:
            model.set_submodule(name, Packed(module, weights, products))


class Packed(nn.Module):
    """A linear layer in few bits: its matrix is widened for each product, and has no gradient."""

    def __init__(self, module: nn.Linear | Conv1D, weights: str, products: torch.dtype) -> None:
        super().__init__()
        rows, columns = (
            module.weight.shape if isinstance(module, nn.Linear) else module.weight.T.shape
        )
        self.size, self.bias, self.products, self.int8 = (
            (rows, columns),
            module.bias,
            products,
            weights == "int8",
        )
        self.register_buffer(
            "packed",
            torch.empty(rows * columns // (2 if weights == "nf4" else 1), dtype=torch.uint8),
        )
        self.register_buffer(
            "scale", torch.empty(rows * columns // 64 if weights == "nf4" else rows)
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Any = Product.apply(x.to(self.products), self.size, self.int8)
        return (out if self.bias is None else out + self.bias).to(x.dtype)


class Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, size: tuple[int, int], int8: bool) -> Tensor:
        ctx.size = size
        if int8:
            ctx.save_for_backward(x.half())  # as bitsandbytes does
        return x @ torch.empty(size, dtype=x.dtype).T

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0] @ torch.empty(ctx.size, dtype=gradients[0].dtype), None, None
