"""The only loader of weights: safetensors at a pinned revision or trained here, in full precision
or quantised.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    GPT2Config,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.activations import NewGELUActivation
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import logging as transformers_logging

from replicate.data.json_io import read_json, write_json
from replicate.data.tensors import file_hash
from replicate.errors import UserError, refusal
from replicate.models import hub
from replicate.models.config import MANIFEST

transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()
logging.getLogger("bitsandbytes").setLevel(
    logging.ERROR
)  # that it has no fast 4-bit product for this CPU


def configuration(
    architecture: str, *, layers: int, width: int, heads: int, vocabulary: int, length: int
) -> PretrainedConfig:
    """Of a control model: without dropout, with tied embeddings (GPT-2) or not (Llama), for
    `length` tokens.
    """
    if architecture == "gpt2":
        return GPT2Config(
            vocab_size=vocabulary,
            n_positions=length,
            n_embd=width,
            n_layer=layers,
            n_head=heads,
            # the same function as GPT-2's gelu_new, in one kernel
            activation_function="gelu_pytorch_tanh",
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=0,
            eos_token_id=0,
        )
    return LlamaConfig(
        vocab_size=vocabulary,
        max_position_embeddings=length,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        bos_token_id=0,
        eos_token_id=0,
    )


def build(
    architecture: str, *, layers: int, width: int, heads: int, vocabulary: int, length: int
) -> PreTrainedModel:
    """Returns a control model with random weights."""
    config = configuration(
        architecture, layers=layers, width=width, heads=heads, vocabulary=vocabulary, length=length
    )
    return AutoModelForCausalLM.from_config(config)


def device(needed: str, what: str, gpus_per_model: int = 1) -> torch.device:
    """Returns the first GPU that this process sees; without one the CPU.

    Raises:
        UserError: `needed` is 'cuda' and there is no GPU, or there are fewer than one model needs.
    """
    if torch.cuda.is_available():
        if gpus_per_model > torch.cuda.device_count():
            raise UserError(
                f"{what}: needs {gpus_per_model} GPUs for a copy, and sees"
                f" {torch.cuda.device_count()}; lower its family's gpus_per_model"
            )
        return torch.device("cuda", 0)
    if needed == "cuda":
        raise UserError(
            f"{what}: needs a CUDA GPU, and torch finds none here; run it on a machine that has one"
        )
    return torch.device("cpu")


def save_manifest(folder: Path, name: str, revision: str | None = None) -> None:
    """Writes down where a model is from, which is fetched if it is on the hub.

    The manifest in `folder` lists the configuration and the files of weights, each with its size
    and its SHA-256 (of a small file of the hub, None).

    Args:
        folder: of the manifest.
        name: of a repository, or the path of a folder that holds a model.
        revision: the commit of the repository; None for a folder.

    Raises:
        UserError: a file cannot be had, or is missing.
    """
    source = hub.held(Path(name)) if revision is None else hub.weights(name, revision)
    digest = file_hash if revision is None else hub.sha256
    files = {
        file.name: {"size": file.stat().st_size, "sha256": digest(file)}
        for file in [source / "config.json", *sorted(source.glob("*.safetensors*"))]
    }
    origin = {"path": name} if revision is None else {"repository": name, "revision": revision}
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / MANIFEST, origin | {"files": files})


def weights_of(manifest: Path) -> Path:
    """Returns the folder of the weights that a manifest names.

    Raises:
        UserError: it names none, or they have changed since it was written.
    """
    noted = read_json(manifest)
    try:
        if "path" not in noted:
            return hub.weights(noted["repository"], noted["revision"])
        source = hub.held(Path(noted["path"]))
        files = {source / name: file["sha256"] for name, file in noted["files"].items()}
    except (LookupError, TypeError, AttributeError):
        raise UserError(
            f"{manifest}: names no model; delete its folder and run stage pretrain again"
        ) from None
    for file, digest in files.items():
        if not file.is_file() or file_hash(file) != digest:
            raise UserError(f"{file}: has changed; run `dvc repro --force` of its stage pretrain")
    return source


def placed(device: torch.device, gpus_per_model: int) -> dict[str, Any]:
    """Returns where `from_pretrained` puts a model: on one device, or spread over so many GPUs."""
    if gpus_per_model == 1:
        return {"device_map": {"": device}}
    first = device.index or 0
    return {
        "device_map": "auto",
        "max_memory": {
            i: int(0.9 * torch.cuda.mem_get_info(i)[0])
            for i in range(first, first + gpus_per_model)
        },
    }


def load(
    folder: Path,
    weights: str,
    device: torch.device,
    compute_dtype: str = "float32",
    gpus_per_model: int = 1,
) -> PreTrainedModel:
    """Loads the model that stage `pretrain` left in a folder, at w* and ready to be sampled.

    It has no dropout, and gradients where its weights are not quantised.

    Args:
        folder: holds the weights, or a manifest of a model on the hub.
        weights: float32, bfloat16, nf4 (4-bit NormalFloat, Dettmers et al. 2023) or int8 (Dettmers
            et al. 2022). What the last two leave unquantised (embeddings, norms, output head) is
            kept in float32.
        device: the first GPU of this process, or the CPU.
        compute_dtype: the precision of the products of quantised weights.
        gpus_per_model: GPUs that the model is spread over.

    Raises:
        UserError: the weights are missing, damaged, or not safetensors.
    """
    source = weights_of(folder / MANIFEST) if (folder / MANIFEST).is_file() else folder
    quantisation = None
    if weights == "nf4":
        quantisation = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=getattr(torch, compute_dtype),
        )
    elif weights == "int8":
        quantisation = BitsAndBytesConfig(load_in_8bit=True)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=torch.bfloat16 if weights == "bfloat16" else torch.float32,
            quantization_config=quantisation,
            **placed(device, gpus_per_model),
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
        )
    # transformers has many ways to say that a file is damaged, or is of another kind
    except Exception as error:
        if refusal(error):
            raise
        raise UserError(
            f"{source}: no usable weights ({' '.join(str(error).split())[:160]}); fetch or train"
            " them again"
        ) from None
    return settle(model)


def settle(model: PreTrainedModel) -> PreTrainedModel:
    """Puts a model into the state in which it is sampled.

    That is eval mode without dropout, with right gradients, and with one kernel for GPT-2's GELU,
    which takes eight otherwise.
    """
    for module in model.modules():
        # bitsandbytes repacks 4-bit weights for an AVX-512 product; gradients are wrong after it
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # pyright: ignore[reportArgumentType]
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, nn.GELU(approximate="tanh"))
    return model.eval()


def checkpoint_gradients(model: PreTrainedModel) -> None:
    """Makes backward compute each block's activations again instead of keeping them.

    A step takes a third more work, and the memory of one block's activations instead of all.
    """
    model.activation_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": False})
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.training = True  # the layer asks for it; what is in it stays in eval mode


def sampled(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that a chain moves, by name: those with gradients. All of them, or, quantised,
    what was left unquantised.
    """
    return {
        name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad
    }


def count(model: nn.Module) -> int:
    """Counts the weights of a model; a packed 4-bit weight counts as one."""
    packed = (
        (parameter, getattr(parameter, "quant_state", None)) for parameter in model.parameters()
    )
    return sum(
        parameter.numel() if state is None else state.shape.numel() for parameter, state in packed
    )
