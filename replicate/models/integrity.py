"""Checks a model's files: that its configuration can be used, and that its weights are whole,
finite, and in the requested format.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from replicate.data import lfs
from replicate.errors import UserError, refusal

# names of masks and other constants in files that older versions of transformers saved
CONSTANTS = re.compile(
    r"\.(attn|attention)\.(bias|masked_bias|causal_mask)$|\.(inv_freq|position_ids)$"
)
WHOLE = "save the whole language model there with save_pretrained"


def check_config(folder: Path, weights: str | None = None) -> None:
    """Checks that `config.json` is that of a causal language model in a format that can be loaded.

    Args:
        folder: the folder of the model.
        weights: the format of `loading.load` that is asked for; None if any is.

    Raises:
        UserError: it is damaged, that of another kind of model, or that of weights in a format
            other than `weights`.
    """
    file = folder / "config.json"
    lfs.check(file)
    try:
        settings = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        problem = f"cannot be read ({type(error).__name__})"
        raise UserError(f"{file}: {problem}; save the model there again") from None
    kind = str(settings.get("model_type")) if isinstance(settings, dict) else None
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        problem = f"model_type {kind!r} is no causal language model that transformers knows"
        raise UserError(f"{folder}: {problem}; choose another model")
    if (given := settings.get("quantization_config")) in (None, {}):
        return
    found = _quantised_by(given)
    if found not in ("nf4", "int8") or weights not in (None, found):
        asked = f", and {weights} is asked for" if weights else ""
        remedy = "choose a checkpoint that is not quantised"
        remedy += f", or weights: {found}" if found in ("nf4", "int8") else ""
        raise UserError(f"{file}: quantization_config says {found}{asked}; {remedy}")


def _quantised_by(given: Any) -> str:
    """Returns the format that a `quantization_config` names."""
    if not isinstance(given, dict):
        return repr(given)[:40]
    method = str(given.get("quant_method", "bitsandbytes"))
    if method == "bitsandbytes":
        return {"load_in_4bit": "nf4", "load_in_8bit": "int8"}.get(
            next((key for key in ("load_in_4bit", "load_in_8bit") if given.get(key)), ""), method
        )
    return method


def check_buildable(folder: Path) -> None:
    """Checks that a model can be made from `config.json` alone.

    Raises:
        UserError: it cannot.
    """
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:  # transformers has many ways to say so
        problem = f"no model can be made from it ({' '.join(str(error).split())[:160]})"
        raise UserError(f"{folder / 'config.json'}: {problem}; correct it") from None


def check_files(folder: Path) -> None:
    """Checks that the weights in the safetensors files of a folder are finite.

    Quantising on a GPU turns NaN into numbers, so the files themselves are read. Tensors of
    integers and of 8-bit floats are not checked.

    Raises:
        UserError: a file is damaged, or a tensor in it is not finite.
    """
    for file in sorted(folder.glob("*.safetensors")):
        lfs.check(file)
        try:
            with safe_open(file, "pt") as tensors:
                read = ((name, tensors.get_tensor(name)) for name in tensors.keys())  # noqa: SIM118
                wide = ((name, x) for name, x in read if x.is_floating_point() and x.itemsize > 1)
                wrong = next((name for name, x in wide if not x.isfinite().all()), None)
        except SafetensorError as error:
            raise UserError(f"{file}: no usable weights ({error}); fetch them again") from None
        if wrong is not None:
            raise UserError(f"{file}: {wrong} is not finite; choose other weights")


def check_complete(source: Path, model: PreTrainedModel, found: Mapping[str, Any]) -> None:
    """Checks that a model is causal, and that its tensors are those of its files, and finite.

    Args:
        source: the folder of the files.
        model: the model, as loaded.
        found: the loading info of transformers.

    Raises:
        UserError: the message names the tensors that are at fault.
    """
    problems = {
        "missing": found["missing_keys"],
        "of another shape": {name for name, *_ in found["mismatched_keys"]},
        "unknown": {name for name in found["unexpected_keys"] if not CONSTANTS.search(name)},
        "whole numbers": _whole_numbers(source, model),
        "not finite": {
            name
            for name, x in model.state_dict().items()
            if x.is_floating_point() and not x.is_meta and not x.isfinite().all()
        },
    }
    said = [
        f"{len(names)} are {problem} ({', '.join(sorted(names)[:3])}{', …' * (len(names) > 3)})"
        for problem, names in problems.items()
        if names
    ]
    if said:
        raise UserError(f"{source}: no usable weights, of its tensors {', '.join(said)}; {WHOLE}")
    _check_head(source, model)
    ahead = any(getattr(module, "is_causal", True) is False for module in model.modules())
    if ahead and getattr(model.config, "is_decoder", True) is False:
        remedy = "choose a causal language model, or set is_decoder in its config.json"
        raise UserError(f"{source}: each token of this model reads those after it; {remedy}")


def _whole_numbers(source: Path, model: PreTrainedModel) -> set[str]:
    """Returns the tensors of whole numbers in the files, which would be read as weights.

    Whole numbers are right for masks and positions, and in files that bitsandbytes quantised.
    """
    if json.loads((source / "config.json").read_bytes()).get("quantization_config"):
        return set()
    own = [name for name, x in model.state_dict().items() if not x.is_floating_point()]
    found = set()
    for file in sorted(source.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a mapping
                real = tensors.get_slice(name).get_dtype().startswith(("F", "BF"))
                known = CONSTANTS.search(name) or any(x.endswith(name) for x in own)
                if not real and not known:
                    found.add(name)
    return found


def _check_head(source: Path, model: PreTrainedModel) -> None:
    """Refuses an output head that differs from the embedding to which config.json ties it."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    ties = getattr(model, "_tied_weights_keys", None)
    if not ties or not getattr(model.config.get_text_config(), "tie_word_embeddings", False):
        return
    ours, theirs = getattr(head, "weight", None), getattr(embedding, "weight", None)
    if ours is None or theirs is None or ours is theirs or ours.is_meta or theirs.is_meta:
        return
    if ours.shape == theirs.shape and not torch.equal(ours, theirs.to(ours.device)):
        problem = "tie_word_embeddings is set, and the output head is not the embedding"
        remedy = "write false if both were trained, or save the model again"
        raise UserError(f"{source / 'config.json'}: {problem}; {remedy}")


def check_formats(source: Path, model: PreTrainedModel, weights: str, left: Sequence[str]) -> None:
    """Checks that every matrix except embeddings and the output head is in the requested format.

    bitsandbytes quantises some classes of layers and silently leaves the others as they are. With
    bfloat16, matrices in float32 are accepted.

    Args:
        source: the folder of the model, for the message.
        model: the model, as loaded.
        weights: a format of `loading.load`.
        left: patterns (fnmatch) of the parameters that may stay in float32.

    Raises:
        UserError: the message names the matrices that are in another format.
    """
    head, formats = model.get_output_embeddings(), {weights}
    if weights == "bfloat16":
        formats.add("float32")  # transformers keeps a few matrices of some models in it
    apart = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    apart += [] if head is None else [head]
    free = {id(parameter) for module in apart for parameter in module.parameters()}
    wrong = {}
    for name, parameter in model.named_parameters():
        state = getattr(parameter, "quant_state", None)
        found = str(parameter.dtype).removeprefix("torch.") if state is None else state.quant_type
        matrix = parameter.dim() > 1 and min(parameter.shape[-2:]) > 1 and "bias" not in name
        permitted = found == "float32" and any(fnmatchcase(name, pattern) for pattern in left)
        fits = found in formats or id(parameter) in free or permitted
        if (matrix or state is not None) and not fits:
            wrong[re.sub(r"\.\d+\.", ".*.", name)] = found
    if wrong:
        said = ", ".join(f"{name} ({found})" for name, found in wrong.items())
        remedy = "choose other weights, or list the matrices in the family's left_unquantised"
        raise UserError(f"{source}: not in {weights}: {said}; {remedy}")


def check_computes(source: Path, model: PreTrainedModel, weights: str) -> None:
    """Checks that a quantised model can compute; Mamba's, for example, multiplies packed weights.

    Raises:
        UserError: it cannot.
    """
    try:
        with torch.no_grad():
            model(torch.zeros(1, 2, dtype=torch.long, device=model.device))
    except Exception as error:  # as many as there are models
        if refusal(error):
            raise
        problem = f"cannot compute with weights in {weights} ({' '.join(str(error).split())[:160]})"
        raise UserError(f"{source}: {problem}; choose other weights") from None
