"""The only door to the Hugging Face hub: full ids, pinned commits, and one clear line when a file cannot be had."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from huggingface_hub import constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from replicate.errors import UserError

WEIGHTS = ["config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json"]


def file(repository: str, revision: str, name: str, repo_type: str = "model") -> Path:
    """The local path of one file of a repository at a commit, from the cache if it is there.

    Raises:
        UserError: it is neither in the cache nor to be had from the hub.
    """
    with explained(repository, revision):
        return Path(hf_hub_download(repository, name, revision=revision, repo_type=repo_type, local_files_only=not reachable()))


def weights(repository: str, revision: str) -> Path:
    """The local folder of a model's configuration and safetensors at a commit.

    Raises:
        UserError: it is neither in the cache nor to be had from the hub, or holds no safetensors.
    """
    with explained(repository, revision):
        folder = Path(snapshot_download(repository, revision=revision, allow_patterns=WEIGHTS, local_files_only=not reachable()))
    if not any(folder.glob("*.safetensors")):
        raise UserError(f"{repository}@{revision[:8]}: holds no safetensors; pin a revision that does")
    return folder


def reachable() -> bool:
    """Whether the hub answers at all: huggingface_hub tries for half a minute before it gives up."""
    if constants.HF_HUB_OFFLINE or getproxies():
        return not constants.HF_HUB_OFFLINE
    endpoint = urlsplit(constants.ENDPOINT)
    try:
        socket.create_connection((endpoint.hostname or "", endpoint.port or 443), timeout=5).close()
    except OSError:
        return False
    return True


@contextmanager
def explained(repository: str, revision: str) -> Iterator[None]:
    """Turns what can go wrong between here and the hub into a UserError."""
    page = f"the page of {repository} on the Hugging Face hub"
    try:
        yield
        return
    except GatedRepoError:  # a RepositoryNotFoundError too: it comes first
        reason = f"access is gated; accept the licence on {page}, then set HF_TOKEN to a token of that account"
    except RepositoryNotFoundError:
        reason = "no such repository, or a private one; check the name in params.yaml and HF_TOKEN"
    except RevisionNotFoundError:
        reason = "no such revision; pin one that the repository has in params.yaml"
    except (LocalEntryNotFoundError, OfflineModeIsEnabled):
        reason = (
            "not in the local cache, and the hub cannot be reached; connect once, or copy the cache of a machine that has it to HF_HOME"
        )
    except EntryNotFoundError:
        reason = "the repository has no such file at this revision; check the file name in params.yaml"
    except (HfHubHTTPError, OSError) as error:
        reason = f"the download failed ({type(error).__name__}); run the same command again, it resumes"
    raise UserError(f"{repository}@{revision[:8]}: {reason}")
