"""What Python gives `llc`, `sample_text`, `curve` and `calibrate` is checked before any work."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from replicate import calibrate, curvature, curve, llc, sample_text
from replicate.errors import ArgumentError
from tests.models import small_task

TOKENS = torch.randint(12, (40, 9), generator=torch.Generator().manual_seed(1))
SHORT: dict[str, Any] = {"nbeta": 10.0, "localization": 100.0, "lr": 1e-4, "burn_in": 4}
SHORT |= {"draws": 8, "chains": 2, "batch_size": 8, "show_progress": False}
SHAPE: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SHAPE |= {"vocab_size": 60, "intermediate_size": 64}
OTHERS: dict[str, dict[str, Any]] = {
    "bert": SHAPE,
    "t5": {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2},
    "xlnet": {"d_model": 32, "n_layer": 1, "n_head": 2, "d_inner": 64, "vocab_size": 60},
}


def estimated(model: nn.Module | None = None, data: Any = TOKENS, **other: Any) -> Any:
    return llc(small_task.build() if model is None else model, data, **SHORT | other)


def refused(call: Callable[[], object], says: str) -> None:
    with pytest.raises(ArgumentError) as error:
        call()
    assert str(error.value).startswith(says)
    assert "\n" not in str(error.value)


def other(kind: str, name: str) -> nn.Module:
    torch.manual_seed(0)
    return getattr(transformers, name)(CONFIG_MAPPING[kind](**OTHERS[kind]))


@pytest.mark.fault("B6")
@pytest.mark.parametrize(
    ("kind", "name", "says"),
    [
        ("bert", "BertForMaskedLM", "model: each token of this model reads those after it"),
        ("bert", "BertModel", "model: must return logits (B, T, V), and returns BaseModelOut"),
        ("t5", "T5EncoderModel", "model: must return logits (B, T, V), and returns BaseModelOut"),
        ("t5", "T5ForConditionalGeneration", "model: has an encoder and a decoder"),
        ("xlnet", "XLNetLMHeadModel", "model: each token of this model reads those after it"),
    ],
)
def test_a_model_that_is_no_causal_language_model_is_told(kind: str, name: str, says: str) -> None:
    refused(lambda: estimated(other(kind, name)), says)


@pytest.mark.fault("B6")
@pytest.mark.parametrize(
    ("kind", "name"), [("bert", "BertForMaskedLM"), ("xlnet", "XLNetLMHeadModel")]
)
def test_the_last_token_may_be_predicted_from_both_sides_of_its_context(
    kind: str, name: str
) -> None:
    """No model reads the label itself. XLNet has −1 positions, which is no limit."""
    assert np.isfinite(estimated(other(kind, name), loss="last").llc)


class Table(nn.Module):
    """Predicts a token from the one before it, by a change of the logits."""

    def __init__(self, change: Callable[[Tensor], Tensor], vocabulary: int = 12) -> None:
        super().__init__()
        self.embedding, self.change = nn.Embedding(12, 8), change
        self.head = nn.Linear(8, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.change(self.head(self.embedding(tokens)))


@pytest.mark.fault("C10")
@pytest.mark.parametrize(
    ("change", "vocabulary", "says"),
    [
        (lambda x: x, 5, "model: must return logits (1, 8, V) with V above 11, not (1, 8, 5)"),
        (lambda x: x[:, 1:], 12, "model: must return logits (1, 8, V) with V above 11, not (1, 7"),
        (lambda x: x.transpose(0, 1), 12, "model: must return logits (1, 8, V) with V above 11"),
        (lambda x: x + x.flip(1), 12, "model: each token of this model reads those after it"),
        (lambda x: (x,), 12, "model: must return logits (B, T, V), and returns tuple"),
    ],
)
def test_logits_of_other_tokens_are_told(
    change: Callable[[Tensor], Tensor], vocabulary: int, says: str
) -> None:
    refused(lambda: estimated(Table(change, vocabulary)), says)
    assert np.isfinite(estimated(Table(lambda x: x.cumsum(1))).llc)


LOSSES: dict[str, tuple[Callable[[Tensor], Any], dict[str, Any], str]] = {
    "float": (lambda z: float(z.sum()), {}, "(8,), not float"),
    "list": (lambda z: list(z), {}, "(8,), not list"),
    "column": (lambda z: z[:, None], {}, "(8,), not (8, 1)"),
    "short": (lambda z: z[1:], {}, "(8,), not (7,)"),
    "alone": (lambda z: z.squeeze(), {"batch_size": 1}, "(1,), not ()"),
    "rest": (lambda z: z.squeeze(), {"batch_size": 13}, "(1,), not ()"),
    "microbatch": (lambda z: z.squeeze(), {"microbatch_size": 1}, "(1,), not ()"),
}


def own(change: Callable[[Tensor], Any]) -> Callable[[Any, Tensor], Any]:
    return lambda model, tokens: change(model(tokens).logits.float().square().mean((1, 2)))


@pytest.mark.fault("C10")
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_of_another_shape_is_told_in_whatever_batch(name: str) -> None:
    change, settings, says = LOSSES[name]
    said = f"loss_fn: must return a loss for each example, {says}"
    refused(lambda: estimated(loss_fn=own(change), **settings), said)


@pytest.mark.fault("C10")
def test_a_loss_that_is_no_number_or_no_function_is_told() -> None:
    refused(
        lambda: estimated(loss_fn=own(lambda z: torch.complex(z, z))),
        "loss_fn: must return real numbers, not torch.complex64",
    )
    refused(lambda: estimated(loss_fn=5), "loss_fn = 5: must be a function")
    refused(lambda: estimated(loss=["last"]), "loss = ['last']: must be one of tokens, last")
    assert np.isfinite(estimated(loss_fn=own(lambda z: z.squeeze())).llc)


@pytest.mark.fault("C10")
@pytest.mark.parametrize(
    ("nbeta", "says"), [(0, "nbeta = 0: must be above 0"), ("1", "nbeta = '1': must be a number")]
)
def test_a_curvature_at_no_temperature_is_told(nbeta: Any, says: str) -> None:
    given: dict[str, Any] = {"windows": 4, "probes": 2, "products": 2}
    found = curvature(small_task.build(), TOKENS, show_progress=False, **given)
    refused(lambda: found.harmonic(nbeta, 1.0), says)
    refused(lambda: found.gradient_part(nbeta, 1.0), says)


@pytest.mark.fault("C10")
def test_text_of_no_model_is_told() -> None:
    missing: Any = None
    says = "model: must be a torch module, not NoneType"
    refused(lambda: sample_text(missing, 4, 6, show_progress=False), says)


@pytest.mark.fault("C10")
@pytest.mark.parametrize("seed", [1.0, True, "1", None, [1], float("nan"), np.float64(2)])
def test_a_seed_that_is_no_whole_number_is_told(seed: Any) -> None:
    says = f"seed = {seed!r}: must be a whole number"
    refused(lambda: estimated(seed=seed), says)
    refused(lambda: llc(small_task.build(), TOKENS, seed=seed, show_progress=False), says)
    refused(lambda: sample_text(small_task.build(), 4, 6, seed=seed, show_progress=False), says)
    refused(lambda: curvature(small_task.build(), TOKENS, seed=seed, show_progress=False), says)
    refused(lambda: calibrate(["quadratic"], seed=seed, show_progress=False), says)


@pytest.mark.fault("C10")
@pytest.mark.parametrize("seed", [-1, 3, 2**70])
def test_a_whole_number_of_any_kind_is_the_same_seed(seed: int) -> None:
    again = np.int64(seed) if seed < 2**63 else seed
    assert estimated(seed=again).llc == estimated(seed=seed).llc


@pytest.mark.fault("C10")
def test_numbers_of_numpy_are_numbers() -> None:
    given = {"nbeta": np.float32(10), "chains": np.int64(2), "batch_size": np.int16(8)}
    found = estimated(**given, weight_decay=np.float32(0), seed=np.int32(0))
    assert found.llc == estimated().llc
    assert json.loads(found.to_json())["made_by"]["sampling"]["chains"] == 2


@pytest.mark.fault("C10")
@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"shuffles": 0}, "shuffles = 0: must be above 0"),
        ({"chains": -1}, "chains = -1: must be above 0"),
        ({"chains": 1.5}, "chains = 1.5: must be a whole number"),
        ({"chains": 10**10}, "4 × 10000000000 chains of 1 steps: 4e+10 steps do not fit"),
        ({"targets": 5}, "targets = 5: must be a list of names, or all"),
        ({"targets": []}, "targets = []: must be a list of names, or all"),
    ],
)
def test_calibrate_refuses_what_it_cannot_run(settings: dict[str, Any], says: str) -> None:
    refused(
        lambda: calibrate(**{"targets": ["quadratic"], "show_progress": False} | settings), says
    )


@pytest.mark.fault("C10")
def test_more_chains_than_memory_holds_are_told_before_they_are_made() -> None:
    refused(lambda: estimated(draws=10**12), "1 × 2 chains of 1000000000004 steps: 2e+12 steps do")
    refused(lambda: estimated(chains=10**12), "1 × 1000000000000 chains of 12 steps: 1.2e+13 steps")
    refused(lambda: estimated(shuffles=10**12), "1000000000000 × 2 chains of 12 steps: 2.4e+13")


@pytest.mark.fault("C10")
@pytest.mark.parametrize("dtype", [torch.bool, torch.complex64, torch.float16])
def test_tokens_that_are_no_whole_numbers_are_told(dtype: torch.dtype) -> None:
    refused(lambda: estimated(data=TOKENS.to(dtype)), "tokens: must be whole numbers (N, L)")
    refused(lambda: estimated(data=TOKENS.to_sparse()), "tokens: must be whole numbers (N, L)")


@pytest.mark.fault("C10")
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.uint32, np.uint64, np.int8])
def test_tokens_of_any_kind_of_whole_numbers_are_the_same(kind: type[np.integer]) -> None:
    assert estimated(data=TOKENS.numpy().astype(kind)).llc == estimated().llc


@pytest.mark.fault("C10")
@pytest.mark.parametrize("start", ["x", True, 1.5, [0.5, 0.5], np.full(12, np.nan)])
def test_a_start_that_is_no_token_is_told(start: Any) -> None:
    refused(
        lambda: sample_text(small_task.build(), 4, 6, start=start, show_progress=False),
        "start: must be a token, or 12 probabilities",
    )


@pytest.mark.fault("C10")
def test_a_curve_takes_one_value_or_several_of_numbers_alone() -> None:
    given: dict[str, Any] = {"chains": 2, "draws": 8, "show_progress": False}
    model = small_task.build()
    wrong: Any
    for wrong in ("x", [1e4, "x"], [None]):
        with pytest.raises(ArgumentError, match=r"localization = .*: must be a number"):
            curve(model, TOKENS, nbeta=10.0, localization=wrong, **given)
    (one,) = curve(model, TOKENS, nbeta=np.float32(10), localization=1e4, **given).points
    (same,) = curve(model, TOKENS, nbeta=[10.0], localization=np.array([1e4]), **given).points
    assert one.estimate.llc == same.estimate.llc


@pytest.mark.fault("C10")
def test_the_caller_s_modes_of_torch_change_nothing() -> None:
    model, plain = small_task.build(), estimated().llc
    for mode in (torch.no_grad(), torch.autocast("cpu", torch.bfloat16), torch.inference_mode()):
        with mode:
            assert estimated(model).llc == plain
    with torch.inference_mode():
        made = small_task.build()
    refused(lambda: estimated(made), "model: was made in torch.inference_mode")


@pytest.mark.fault("A1")
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_weight_that_is_not_finite_is_named(value: float) -> None:
    model = small_task.build()
    with torch.no_grad():
        model.transformer.ln_f.weight[3] = value
    said = "the weight transformer.ln_f.weight of the model is not finite; load the model again"
    refused(lambda: estimated(model), said)
    refused(lambda: llc(model, TOKENS, show_progress=False), said)
