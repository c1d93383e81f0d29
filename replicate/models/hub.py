"""Downloads files from the Hugging Face hub; no other module does.

A repository is given by its full name and a commit, and weights are safetensors only. Files in the
local cache are used without a request to the hub. If a file is not available, the error says the
cause and the remedy in one line.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub as hf
from huggingface_hub import constants, errors
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import get_session, logging

from replicate.data import lfs
from replicate.errors import UserError

HTTPError = errors.HTTPError  # pyright: ignore[reportPrivateImportUsage]
SINGLE, INDEX = constants.SAFETENSORS_SINGLE_FILE, constants.SAFETENSORS_INDEX_FILE
PROXIES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
# the variables that say where the token and the cache are; the first that is set decides
FOLDERS = ("HF_TOKEN_PATH", "HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HOME")
REJECTED = "the hub does not accept the token; make a new one in its settings and set HF_TOKEN"

logging.set_verbosity_error()  # hides the warnings about downloads that are retried


class UnreachableError(UserError):
    """Reports that the hub cannot be asked, and that the local cache does not have the file."""


def file(repository: str, revision: str, name: str, repo_type: str = "model") -> Path:
    """Returns one file of a repository at a commit, downloading it if the cache lacks it.

    Args:
        repository: the full name, such as `openai-community/gpt2`.
        revision: the full hash of a commit.
        name: the file's path in the repository.
        repo_type: `model` or `dataset`.

    Returns:
        The file's path in the local cache.

    Raises:
        UserError: the hub refuses the file, has no such file, or cannot be reached.
    """
    path = _snapshot(repository, revision, repo_type) / name
    if not path.is_file():
        ask(repository, revision, name, repo_type)
        with _explained(repository, revision, name):
            hf.hf_hub_download(repository, name, revision=revision, repo_type=repo_type)
    return path


def weights(repository: str, revision: str) -> Path:
    """Returns the folder of a model at a commit, downloading the files that the cache lacks.

    Args:
        repository: the full name.
        revision: the full hash of a commit.

    Returns:
        A folder with `config.json` and the weights: one safetensors file, or an index and all the
        files that it names.

    Raises:
        UserError: a file cannot be downloaded, or the index names a file outside its folder.
    """
    folder = _snapshot(repository, revision)
    if missing := lacking(folder):
        ask(repository, revision, "config.json" if missing[0] == SINGLE else missing[0])
        patterns = ["config.json", "*.safetensors", INDEX]
        with _explained(repository, revision, "weights"):
            hf.snapshot_download(
                repository, revision=revision, allow_patterns=patterns, ignore_patterns="*/*"
            )
    for name in lacking(folder):  # snapshot_download does not know which shards are needed
        file(repository, revision, name)
    return folder


def cached(repository: str, revision: str, name: str = "", repo_type: str = "model") -> bool:
    """Tells whether the local cache has a file; without `name`, whether it has a whole model."""
    folder = _snapshot(repository, revision, repo_type)
    return (folder / name).is_file() if name else not lacking(folder)


def ask(
    repository: str, revision: str, name: str, repo_type: str = "model", patience: float = 10.0
) -> None:
    """Asks the hub once for a file's metadata, to find out whether it can be downloaded.

    `huggingface_hub` itself would retry for half a minute if the hub cannot be reached.

    Args:
        repository: the full name.
        revision: the full hash of a commit.
        name: the file's path in the repository.
        repo_type: `model` or `dataset`.
        patience: how long to wait for the answer, in seconds.

    Raises:
        UnreachableError: the hub cannot be reached.
        UserError: the hub refuses the file, or has no such file.
    """
    with _explained(repository, revision, name):
        url = hf.hf_hub_url(repository, name, revision=revision, repo_type=repo_type)
        hf.get_hf_file_metadata(url, timeout=patience)


def token() -> str | None:
    """Returns the token that is sent to the hub, if there is one.

    Raises:
        UnreachableError: its file cannot be read.
    """
    try:
        return hf.get_token()
    except (OSError, UnicodeDecodeError) as error:
        where = f"{constants.HF_TOKEN_PATH}: cannot be read ({type(error).__name__})"
        raise UnreachableError(f"{where}; correct {_set(*FOLDERS)[0]}") from None


def _set(*names: str) -> list[str]:
    """Returns those of these environment variables that are set, or all names if none is set."""
    return [name for name in names if os.environ.get(name)] or [*names]


def sha256(file: Path) -> str | None:
    """Returns the SHA-256 of a file in the local cache, or None if the file is small.

    The cache stores a large file under its SHA-256, which is not computed again.
    """
    name = file.resolve().name
    return name if re.fullmatch("[0-9a-f]{64}", name) else None


def _snapshot(repository: str, revision: str, repo_type: str = "model") -> Path:
    try:
        folder = repo_folder_name(repo_id=repository, repo_type=repo_type)
    except errors.HFValidationError as error:
        raise UserError(f"{repository}: {error}; correct the name") from None
    return Path(constants.HF_HUB_CACHE) / folder / "snapshots" / revision


def held(folder: Path) -> Path:
    """Checks that a local folder holds a model, and returns the folder.

    Raises:
        UserError: `config.json` or a file of weights is missing, or is a pointer of Git LFS.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; correct the model's path")
    if missing := lacking(folder):
        remedy = "save a model there with save_pretrained"
        raise UserError(f"{folder}: holds no model, {missing[0]} is missing; {remedy}")
    for file in [folder / "config.json", *folder.glob("*.safetensors")]:
        lfs.check(file)
    return folder


def lacking(folder: Path) -> list[str]:
    """Returns the names of the files that a model's folder needs and does not have.

    Raises:
        UserError: the folder's index of weights is damaged, or names a file outside the folder.
    """
    sharded = not (folder / SINGLE).is_file() and (folder / INDEX).is_file()
    needed = ["config.json", *(_shards(folder / INDEX) if sharded else [SINGLE])]
    return [name for name in needed if not (folder / name).is_file()]


def _shards(index: Path) -> list[str]:
    lfs.check(index)
    try:
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    except (ValueError, LookupError, TypeError, AttributeError):
        remedy = "remove it and run the same command again"
        raise UserError(f"{index}: is no index of weights; {remedy}") from None
    shards = sorted({str(name) for name in names})
    for shard in shards:
        if Path(shard).name != shard or not shard.endswith(".safetensors"):
            problem = f"names {shard!r}, which is no safetensors file beside it"
            raise UserError(f"{index}: {problem}; pin another revision")
    return shards


@contextmanager
def _explained(repository: str, revision: str, name: str) -> Iterator[None]:
    """Turns an error of the hub's client into a `UserError` of one line with a remedy.

    An error of the machine, such as a full disk, is raised as it is.
    """
    here = f"{repository}@{revision[:8]}"
    if not (token() or "").isascii():  # an HTTP header must be ASCII
        raise UserError(f"{here}: {REJECTED}")
    try:
        get_session()
    except (ImportError, ValueError, OSError) as error:
        wrong = " or ".join(_set(*(CERTIFICATES if isinstance(error, OSError) else PROXIES)))
        at = f"{here}: {name}: not in the local cache, and the hub cannot be reached ({error})"
        raise UnreachableError(f"{at}; correct or unset {wrong}") from None
    try:
        yield
        return
    except (OSError, HTTPError) as error:
        cause = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) else error
        if isinstance(cause, NotADirectoryError | FileExistsError):
            at = f"{cause.filename}: is a file, or in one"
            raise UserError(f"{at}; correct {_set(*FOLDERS)[0]}") from None
        if isinstance(cause, OSError) and cause.errno:  # for example, a full disk
            raise
    if isinstance(cause, errors.HfHubHTTPError):
        raise UserError(f"{here}: {_refusal(cause, repository, name)}") from None
    if isinstance(cause, errors.OfflineModeIsEnabled):
        reason = "HF_HUB_OFFLINE is set; unset it"
    elif isinstance(cause, HTTPError):
        remedy = "check the network, HTTPS_PROXY and HF_ENDPOINT"
        reason = f"the hub cannot be reached ({type(cause).__name__}); {remedy}"
    else:
        raise UserError(f"{here}: the download of {name} failed ({cause}); run it again") from None
    raise UnreachableError(
        f"{here}: {name}: not in the local cache, and {reason}, "
        "or copy the cache of a machine that has it to HF_HOME"
    ) from None


def _refusal(error: errors.HfHubHTTPError, repository: str, name: str) -> str:
    """Returns the cause and the remedy of a refusal (HTTP 401, 403, 404 or another status)."""
    status, given = error.response.status_code, token()
    licence = f"accept the licence on the page of {repository} on the Hugging Face hub"
    if status == 401 and given:
        return REJECTED
    if isinstance(error, errors.GatedRepoError):  # before RepositoryNotFoundError, its parent
        if not given:
            return f"access is gated; {licence}, then set HF_TOKEN to a token of that account"
        if "awaiting" in (error.server_message or ""):
            return "access is asked for, but not granted yet; run the same command again later"
        return f"access is gated, and the token's account has not accepted the licence; {licence}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "no such repository, or a private one; check the name and HF_TOKEN"
    if isinstance(error, errors.RevisionNotFoundError):
        return "no such revision; pin one that the repository has"
    if isinstance(error, errors.EntryNotFoundError):
        return f"no file {name} at this revision; pin one that has it"
    if status == 403:
        return "the token may not read it; allow it in its settings to read gated repositories"
    return f"the hub answers {status}; run the same command again later"
