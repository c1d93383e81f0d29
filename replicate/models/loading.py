"""Loads weights, in full precision or quantised; no other module does.

The weights are safetensors. They come from a pinned revision of the hub, from a local folder, or
from a training of this study.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
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
from replicate.models import hub, integrity, quantised
from replicate.models.config import MANIFEST

QUANTISED: dict[str, dict[str, Any]] = {
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "int8": {"load_in_8bit": True},
}
transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()
# hides the warning that this CPU has no fast 4-bit product
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def configuration(
    architecture: str, *, layers: int, width: int, heads: int, vocabulary: int, length: int
) -> PretrainedConfig:
    """Returns the configuration of a control model, which has no dropout.

    Args:
        architecture: `gpt2` (tied embeddings), or anything else for Llama (untied embeddings).
        layers: the number of blocks.
        width: the dimension of the residual stream.
        heads: the number of heads in a block.
        vocabulary: the number of tokens in the vocabulary.
        length: the largest number of tokens that the model can read.
    """
    shape: dict[str, Any] = {
        "vocab_size": vocabulary,
        "max_position_embeddings": length,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    if architecture == "gpt2":
        # the same function as GPT-2's gelu_new, in one kernel
        shape["activation_function"] = "gelu_pytorch_tanh"
        return GPT2Config(**shape, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    return LlamaConfig(**shape, intermediate_size=3 * width, num_key_value_heads=heads)


def build(architecture: str, **shape: int) -> PreTrainedModel:
    """Returns a control model with random weights; the arguments are those of `configuration`."""
    return AutoModelForCausalLM.from_config(configuration(architecture, **shape))


def device(needed: str, what: str, gpus_per_model: int = 1) -> torch.device:
    """Returns the first GPU that this process sees, or the CPU if there is no GPU.

    Args:
        needed: 'cuda' if a GPU is required.
        what: the name of the model, for error messages.
        gpus_per_model: the number of GPUs over which the model is spread.

    Raises:
        UserError: `needed` is 'cuda' and there is no GPU, or there are too few GPUs for the model.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if needed == "cuda" and not gpus:
        problem = "needs a CUDA GPU, and torch finds none here"
        raise UserError(f"{what}: {problem}; run it on a machine that has one")
    if gpus and gpus_per_model > gpus:
        problem = f"needs {gpus_per_model} GPUs for a copy, and sees {gpus}"
        raise UserError(f"{what}: {problem}; lower its family's gpus_per_model")
    return torch.device("cuda", 0) if gpus else torch.device("cpu")


def save_manifest(folder: Path, name: str, revision: str | None = None) -> None:
    """Writes a manifest that says where a model is, and downloads the model if it is on the hub.

    The manifest lists `config.json` and the files of weights. Each has its size in bytes and its
    SHA-256, which is None for a small file of the hub.

    Args:
        folder: the folder in which the manifest is written.
        name: the name of a repository, or the path of a folder that holds a model.
        revision: the commit of the repository; None for a folder.

    Raises:
        UserError: a file is missing or damaged, or cannot be downloaded; or the model is no causal
            language model or has weights that are not finite.
    """
    source = hub.held(Path(name)) if revision is None else hub.weights(name, revision)
    integrity.check_config(source)
    integrity.check_files(source)
    digest = file_hash if revision is None else hub.sha256
    files = {
        file.name: {"size": file.stat().st_size, "sha256": digest(file)}
        for file in [source / "config.json", *sorted(source.glob("*.safetensors*"))]
    }
    origin = {"path": name} if revision is None else {"repository": name, "revision": revision}
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / MANIFEST, origin | {"files": files})


def weights_of(manifest: Path) -> Path:
    """Returns the folder of the weights that a manifest names; it may download them.

    Raises:
        UserError: the manifest names no model, the weights cannot be downloaded, or a file of a
            local folder is missing or has changed.
    """
    noted = read_json(manifest)
    try:
        if "path" not in noted:
            return hub.weights(noted["repository"], noted["revision"])
        source = hub.held(Path(noted["path"]))
        files = {source / name: file["sha256"] for name, file in noted["files"].items()}
    except (LookupError, TypeError, AttributeError):
        remedy = "delete its folder and run stage pretrain again"
        raise UserError(f"{manifest}: names no model; {remedy}") from None
    for file, digest in files.items():
        if not file.is_file() or file_hash(file) != digest:
            raise UserError(f"{file}: has changed; run `dvc repro --force` of its stage pretrain")
    return source


def load(
    folder: Path,
    weights: str,
    device: torch.device,
    compute_dtype: str = "float32",
    gpus_per_model: int = 1,
    left_unquantised: Sequence[str] = (),
) -> PreTrainedModel:
    """Loads the model that stage `pretrain` wrote to a folder, at w* and ready for sampling.

    The model has no dropout. Only weights that are not quantised have gradients.

    Args:
        folder: a folder with the weights, or with a manifest that says where they are.
        weights: float32, bfloat16, nf4 (4-bit NormalFloat, Dettmers et al. 2023) or int8 (Dettmers
            et al. 2022). With the last two, embeddings, norms and the output head stay unquantised,
            in float32.
        device: the first GPU of this process, or the CPU.
        compute_dtype: the precision of matrix products with nf4 weights.
        gpus_per_model: the number of GPUs over which the model is spread.
        left_unquantised: patterns of the matrices that may stay unquantised with nf4 and int8.

    Raises:
        UserError: the weights are missing, damaged, incomplete, or not safetensors; the model is
            not causal; or a matrix is not in the format of `weights`.
    """
    source = weights_of(folder / MANIFEST) if (folder / MANIFEST).is_file() else folder
    integrity.check_config(source, weights)
    places: dict[str, Any] = {"device_map": {"": device}}
    if gpus_per_model > 1:
        memory = {i: int(0.9 * torch.cuda.mem_get_info(i)[0]) for i in range(gpus_per_model)}
        places = {"device_map": "auto", "max_memory": memory}
    quantisation = None
    if weights in QUANTISED:
        quantisation = BitsAndBytesConfig(
            **QUANTISED[weights], bnb_4bit_compute_dtype=getattr(torch, compute_dtype)
        )
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=torch.bfloat16 if weights == "bfloat16" else torch.float32,
            quantization_config=quantisation,
            **places,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # they are listed in the loading info
            output_loading_info=True,
        )
    # transformers has many ways to say that a file is damaged, or is of another kind
    except Exception as error:
        if refusal(error):
            raise
        integrity.check_buildable(source)
        problem = f"no usable weights ({' '.join(str(error).split())[:160]})"
        raise UserError(f"{source}: {problem}; fetch or train them again") from None
    model, found = loaded
    integrity.check_complete(source, settle(model), found)
    integrity.check_formats(source, model, weights, left_unquantised)
    for module in model.modules():
        if hasattr(module, "compute_dtype"):  # if the file is in 4 bits, its own dtype was used
            module.compute_dtype = getattr(torch, compute_dtype)
    if weights == "nf4":
        quantised.decode_here(model)
    if weights in QUANTISED:
        integrity.check_computes(source, model, weights)
    return model


def settle(model: PreTrainedModel) -> PreTrainedModel:
    """Prepares a model for sampling, in place.

    The model is then in eval mode, has no dropout, and computes correct gradients. GPT-2's GELU
    runs as one kernel instead of eight.
    """
    for module in model.modules():
        # bitsandbytes repacks 4-bit weights for AVX-512, after which gradients are wrong
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # pyright: ignore[reportArgumentType]
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, nn.GELU(approximate="tanh"))
    return model.eval()


def checkpoint_gradients(model: PreTrainedModel) -> None:
    """Makes the backward pass recompute each block's activations instead of storing them.

    A step then takes a third more work, but memory for the activations of one block only.
    """
    model.activation_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": False})
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.training = True  # needed to recompute; its submodules stay in eval mode


def sampled(model: nn.Module) -> dict[str, nn.Parameter]:
    """Returns the parameters that require a gradient, by name. These can move in a chain.

    In a quantised model, they are the parameters that are not quantised.
    """
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
