"""A hub model's configuration without a download: from the cache, else from the numbers that are
noted here for well-known ones.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import try_to_load_from_cache
from transformers import AutoConfig, PretrainedConfig

from replicate.errors import UserError

NOTED = Path(__file__).with_suffix(".yaml")
BYTES = {"float16": 2, "bfloat16": 2}  # of a weight in a repository; else 4


@cache
def noted() -> dict[str, dict[str, Any]]:
    return yaml.safe_load(NOTED.read_text(encoding="utf-8"))


def of_hub(repository: str, revision: str) -> PretrainedConfig | None:
    """None where neither knows the repository."""
    cached = try_to_load_from_cache(repository, "config.json", revision=revision)
    if isinstance(cached, str):
        try:
            return AutoConfig.from_pretrained(
                Path(cached).parent, local_files_only=True, trust_remote_code=False
            )
        # transformers' many ways to say that it is damaged, or wants code of the repository to be
        # run
        except Exception as error:
            cause = " ".join(str(error).split())[:160]
            raise UserError(
                f"{repository}@{revision[:8]}: no usable configuration ({cause}); pin another revision"
            ) from None
    known = noted().get(repository)
    return None if known is None else AutoConfig.for_model(**known)


def bytes_of_a_weight(config: PretrainedConfig) -> int:
    """In the repository's files."""
    return BYTES.get(str(config.dtype).removeprefix("torch."), 4)
