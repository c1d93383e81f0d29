"""The only door to the Hugging Face hub: full ids, pinned commits, and one clear line when a file
cannot be had.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from urllib.parse import urlsplit

from huggingface_hub import (
    constants,
    get_hf_file_metadata,
    get_token,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # pyright: ignore[reportPrivateImportUsage]  # its HTTP client's, which it lets through
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import HfFileMetadata, http_get, repo_folder_name
from huggingface_hub.utils import WeakFileLock, build_hf_headers, logging

from replicate.errors import UserError

logging.set_verbosity_error()  # huggingface_hub would print each cut that it mends itself

UNKNOWN = "the hub does not accept the token, it is wrong or expired; make a new one there (Settings, Access Tokens), set HF_TOKEN to it"
SINGLE, INDEX = constants.SAFETENSORS_SINGLE_FILE, constants.SAFETENSORS_INDEX_FILE


class MissingError(UserError):
    """The file is not in the cache, and the repository has none, or the hub cannot be asked."""


class UnreachableError(MissingError):
    """The hub cannot be asked."""


def file(repository: str, revision: str, name: str, repo_type: str = "model") -> Path:
    """The local path of one file of a repository at a commit: from the cache if it is there, else
    downloaded into it.

    Raises:
        MissingError: it is not in the cache, and the repository has none, or the hub cannot be
        reached. UserError: the hub refuses it, or the download fails.
    """
    try:
        cached = try_to_load_from_cache(repository, name, revision=revision, repo_type=repo_type)
    except HFValidationError as error:
        raise UserError(
            f"{repository}: no name of a repository ({error}); correct it in params.yaml"
        ) from None
    if isinstance(cached, str):  # a commit does not change: nobody need be asked
        return Path(cached)
    metadata = ask(repository, revision, name, repo_type)
    here, url = (
        f"{repository}@{revision[:8]}",
        hf_hub_url(repository, name, revision=revision, repo_type=repo_type),
    )
    try:
        download(url, metadata, stored(repository, repo_type) / "blobs", name)
        return Path(hf_hub_download(repository, name, revision=revision, repo_type=repo_type))
    except HfHubHTTPError as error:
        cause = f"the hub answers {error.response.status_code}"
    except (HTTPError, OSError) as error:
        cause = getattr(error, "strerror", None) or type(error).__name__
    raise UserError(
        f"{here}: the download of {name} failed ({cause}); run the same command again, it resumes"
    )


def ask(
    repository: str, revision: str, name: str, repo_type: str = "model", patience: float = 10.0
) -> HfFileMetadata:
    """What the hub says of a file, which is not fetched; it may take so many seconds to answer.

    Raises:
        UnreachableError: it cannot be reached.
        MissingError: the repository has no such file.
        UserError: it refuses.
    """
    here, url = (
        f"{repository}@{revision[:8]}",
        hf_hub_url(repository, name, revision=revision, repo_type=repo_type),
    )
    folder = stored(repository, repo_type)
    try:
        return get_hf_file_metadata(url, timeout=patience)
    except OfflineModeIsEnabled:
        lack = absence(folder, revision, name, "while HF_HUB_OFFLINE is set; unset it")
        raise UnreachableError(f"{here}: {lack}") from None
    except EntryNotFoundError:
        raise MissingError(
            f"{here}: no such file at this revision, {name}; pin one that has it in params.yaml"
        ) from None
    except HfHubHTTPError as error:
        raise UserError(f"{here}: {refusal(error, repository)}") from None
    except HTTPError as error:
        lack = absence(
            folder, revision, name, f"({urlsplit(url).hostname}: {type(error).__name__}); connect"
        )
        raise UnreachableError(f"{here}: {lack}") from None
    except UnicodeError:  # no header can carry it
        raise UserError(f"{here}: {UNKNOWN}") from None


def stored(repository: str, repo_type: str) -> Path:
    """The folder of a repository in the cache."""
    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repository, repo_type=repo_type)


def weights(repository: str, revision: str) -> Path:
    """The local folder of a model's configuration and safetensors at a commit: one file, or all
    those that an index names.

    Raises:
        UserError: one of them is neither in the cache nor to be had from the hub, or the index
        cannot be used.
    """
    folder = file(repository, revision, "config.json").parent
    if (folder / SINGLE).is_file():
        return folder
    try:
        index = file(repository, revision, INDEX)
    except MissingError:
        return file(repository, revision, SINGLE).parent
    try:
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, LookupError, TypeError, AttributeError):
        raise UserError(
            f"{repository}@{revision[:8]}: {INDEX} cannot be read; remove {index} and run the same command again"
        ) from None
    for shard in sorted(shards, key=str):
        if (
            not isinstance(shard, str)
            or Path(shard).name != shard
            or not shard.endswith(".safetensors")
        ):
            raise UserError(
                f"{repository}@{revision[:8]}: {INDEX} names {shard!r}, no safetensors beside it; pin another revision"
            )
        file(repository, revision, shard)
    return folder


def cached(repository: str, revision: str) -> bool:
    """Whether a model's weights at a commit are in the cache, one file or the first of several."""
    return any(
        isinstance(try_to_load_from_cache(repository, name, revision=revision), str)
        for name in (SINGLE, INDEX)
    )


def sha256(file: Path) -> str | None:
    """Of a large file in the cache, without reading it: its blob is named by it. null for any
    other, or in a cache without links.
    """
    name = file.resolve().name
    return name if re.fullmatch("[0-9a-f]{64}", name) else None


def download(url: str, metadata: HfFileMetadata, blobs: Path, name: str) -> None:
    """Brings a file to where `hf_hub_download` looks before it downloads: itself that keeps nothing
    of a download that was cut.

    Raises:
        HTTPError, OSError: it was cut; what came is kept for the next time.
    """
    if metadata.etag is None or metadata.size is None:
        return
    blob = blobs / metadata.etag
    part = blobs / f"{metadata.etag}.incomplete"
    locks = blobs.parents[1] / ".locks" / blobs.parent.name
    locks.mkdir(parents=True, exist_ok=True)
    blobs.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(locks / f"{metadata.etag}.lock"):
        if blob.exists():
            return
        with part.open("ab") as stream:
            size = min(stream.tell(), metadata.size)
            stream.truncate(size)
            http_get(
                url,
                stream,
                resume_size=size,
                headers=build_hf_headers(),
                expected_size=metadata.size,
                displayed_filename=name,
            )
        with part.open("rb") as stream:  # the ETag of a large file is its SHA-256
            whole = (
                len(metadata.etag) != 64
                or hashlib.file_digest(stream, "sha256").hexdigest() == metadata.etag
            )
        if whole:
            part.rename(blob)
        else:
            part.unlink()  # pieces that do not fit: hf_hub_download fetches it anew


def absence(folder: Path, revision: str, name: str, cause: str) -> str:
    """What the cache lacks when the hub cannot be reached for `cause`, which ends in half of the
    remedy.
    """
    if (folder / "snapshots" / revision).is_dir() or any((folder / "blobs").glob("*.incomplete")):
        lack, remedy = f"only partly in the local cache ({name} is missing)", "it resumes"
    else:
        lack, remedy = (
            "not in the local cache",
            "or copy the cache of a machine that has it to HF_HOME",
        )
    return f"{lack}, and the hub cannot be reached {cause} and run the same command again, {remedy}"


def refusal(error: HfHubHTTPError, repository: str) -> str:
    """Why the hub refuses, and the remedy. It answers 401 to whom it does not know, 403 to whom it
    does.
    """
    status, page = error.response.status_code, f"the page of {repository} on the Hugging Face hub"
    token = get_token() is not None
    if status == 401 and token:
        return UNKNOWN
    if isinstance(error, GatedRepoError):  # a RepositoryNotFoundError too: it comes first
        if not token:
            return f"access is gated, and no token is given; accept the licence on {page}, then set HF_TOKEN to a token of that account"
        if "awaiting" in (error.server_message or ""):
            return "access is asked for, but not granted yet; run the same command again when the owners have granted it"
        return f"access is gated, and the account of the token has not accepted the licence; accept it on {page}, then run again"
    if isinstance(error, RepositoryNotFoundError):
        return "no such repository, or a private one; check the name in params.yaml and HF_TOKEN"
    if isinstance(error, RevisionNotFoundError):
        return "no such revision; pin one that the repository has in params.yaml"
    if status == 403:
        return "the token may not read it; let it read public gated repositories in the hub's settings, or set HF_TOKEN to one that may"
    return f"the hub answers {status}; run the same command again later, it resumes"
