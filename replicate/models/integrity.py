"""Checks that weights are finite, and that all matrices are in the requested format."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import PreTrainedModel

from replicate.errors import UserError


def check_files(folder: Path) -> None:
    """Checks that the weights in the safetensors files of a folder are finite.

    Quantising on a GPU turns NaN into numbers, so the files themselves are read. Tensors of
    integers and of 8-bit floats are not checked.

    Raises:
        UserError: a file is damaged, or a tensor in it is not finite.
    """
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, "pt") as tensors:
                read = ((name, tensors.get_tensor(name)) for name in tensors.keys())  # noqa: SIM118
                wide = ((name, x) for name, x in read if x.is_floating_point() and x.itemsize > 1)
                wrong = next((name for name, x in wide if not x.isfinite().all()), None)
        except SafetensorError as error:
            raise UserError(f"{file}: no usable weights ({error}); fetch them again") from None
        if wrong is not None:
            raise UserError(f"{file}: {wrong} is not finite; choose other weights")


def check(source: Path, model: PreTrainedModel, weights: str, left: Sequence[str]) -> None:
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
