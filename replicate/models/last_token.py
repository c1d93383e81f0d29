"""Computes the loss of the last token, and skips all work that this loss does not need.

The loss of a window is the cross-entropy of its last token. In the last block, only keys and values
are needed at every position. Queries, the output projection, the MLP and the output head are needed
at the last position alone. Skipping the other positions saves two fifths of the work of a model
with two blocks, and a tenth for GPT-2, which has twelve.

`focus` changes no architecture's code. It finds the parts of the last block by their usual names.
The last block then computes what it adds to the residual stream at the last position only, and
broadcasts it to all positions. Nothing reads the other positions of the sum.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from replicate.models import attention

PROJECTIONS = ("c_proj", "o_proj", "dense", "out_proj")  # names of attention's output projection


def losses(model: nn.Module, tokens_BxL: Tensor) -> Tensor:
    """Returns each window's cross-entropy (B,), in nats, of the last token given the others.

    Only the logits of the last position are computed.
    """
    found = model(input_ids=tokens_BxL[:, :-1], use_cache=False, logits_to_keep=1)
    logits_BxV, labels_B = found.logits[:, -1], tokens_BxL[:, -1]
    return cross_entropy(logits_BxV.float(), labels_B.to(logits_BxV.device), reduction="none")


def sparsify(model: PreTrainedModel) -> None:
    """Makes the embedding's gradient sparse, in place, if the output head shares its matrix.

    The rows that were looked up are then added to the head's gradient in place, without a second
    matrix of that size. This is right for any loss, but torch cannot compile it.
    """
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if isinstance(embedding, nn.Embedding) and isinstance(head, nn.Linear):
        embedding.sparse = embedding.sparse or head.weight is embedding.weight


def focus(model: PreTrainedModel) -> None:
    """Makes a model compute its last block at the last position only, as far as that is possible.

    Afterwards, the model's logits are correct at the last position only. Modules whose names are
    not known here stay as they are.

    Args:
        model: the model, which is changed in place.
    """
    count = model.config.get_text_config().num_hidden_layers
    stacks = (module for module in model.modules() if isinstance(module, nn.ModuleList))
    blocks = next((stack for stack in stacks if len(stack) == count), None)
    if blocks is None or model.config._attn_implementation != "sdpa":
        return
    for child in blocks[-1].children():
        if getattr(child, "layer_idx", None) != count - 1:
            continue
        for name in PROJECTIONS:
            if isinstance(projection := getattr(child, name, None), nn.Module):
                projection.register_forward_pre_hook(_last_position)
                child.is_last = True  # pyright: ignore[reportArgumentType]
    if isinstance(mlp := getattr(blocks[-1], "mlp", None), nn.Module):
        mlp.register_forward_pre_hook(_last_position)
    attention.use(model)


def _last_position(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return inputs[0][:, -1:], *inputs[1:]
