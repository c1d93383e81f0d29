"""Defines the settings (nβ, γ) at which λ̂ of a family's models is measured."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from replicate.models.config import TextLoss
from replicate.pipeline.config.values import Count, Names, Positive, Several, Share, Strict


class Setting(Strict):
    """One posterior, or one for each checkpoint, of some of the models.

    Attributes:
        models: their names; None for all models of the family.
        nbeta: nβ; None for n/ln n, or less where the gradient at w* asks for it.
        localization: γ; None for the smallest at which the posterior is local.
        loss: the mean loss of all tokens but the first (*tokens*), or that of the last (*last*).
        text: the family's windows, or as many that each model samples itself.
        rescaled: the symmetry by which a copy of the model gets other weights and computes the same
            function (see `replicate.models.symmetries`); None for the model as it is.
        checkpoints: whether the model's checkpoints are measured instead of w*.
        radius: whether γ is multiplied by d over the d of the family's smallest model, so that the
            radius √(d/γ) of the localisation is the same for all.
        minimised: steps of training, on fresh text, of the weights that move, before the chains;
            None for none. In 4 bits the model is no longer at a minimum of its loss without them.
    """

    models: Names | None = None
    nbeta: Positive | None = None
    localization: Positive | None = None
    loss: TextLoss = "tokens"
    text: Literal["corpus", "sampled"] = "corpus"
    rescaled: Literal["gain", "query-key", "value-output", "units", "heads"] | None = None
    checkpoints: bool = False
    radius: Literal["free", "fixed"] = "free"
    minimised: Count | None = None

    @model_validator(mode="after")
    def possible(self) -> Self:
        """Refuses (`ValueError`) two kinds of other weights, and a radius without γ."""
        kinds = {"checkpoints": self.checkpoints, "rescaled": self.rescaled}
        others = [name for name, given in (kinds | {"minimised": self.minimised}).items() if given]
        if len(others) > 1:
            raise ValueError(f"{' and '.join(others)}: give one of them")
        if self.radius == "fixed" and self.localization is None:
            raise ValueError("radius: fixed multiplies localization; give it")
        return self


class Settings(Strict):
    """How λ̂ is measured at each setting: the chains choose their steps and their lengths.

    Attributes:
        precision: the half width of the 95 % interval at which the draws end, relative to λ̂.
        budget: the gradients of minibatches at which they end in any case.
        chains: the number of chains, side by side.
        batch_size: windows in a minibatch.
        at: the settings.
    """

    precision: Share
    budget: Count
    chains: Several = 4
    batch_size: Count = 32
    at: Annotated[tuple[Setting, ...], Field(min_length=1)]
