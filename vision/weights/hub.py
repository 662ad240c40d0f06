"""Weights on the Hugging Face hub, through its own client and its own cache."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from vision.weights.mapping import WeightsError
from vision.weights.reader import FILES, inside
from vision.weights.torch_files import TORCH_SUFFIXES

# The libraries whose weights are on the hub.
SCHEMES = ("timm", "open_clip", "transformers", "big_vision")
_ID = re.compile(r"[\w.-]+/[\w.-]+")


def fetch(reference: str) -> Path:
    """The weights of a repository on the hub, downloaded once: a file or folder in the cache.

    With ``HF_HUB_OFFLINE=1`` only what is in the cache is used.

    Args:
      reference: ``organisation/name``, optionally ``:file`` for one file of the repository, and
        ``@revision``: a branch, tag or commit. Only a commit can never change.

    Raises:
      WeightsError: no such repository, revision or file; no network; no huggingface_hub.
    """
    repository, file, revision = _parsed(reference)
    if file:
        return _download_required(repository, file, revision)
    for name in FILES:
        if (path := _download(repository, name, revision)) is not None:
            if name.endswith(".index.json"):
                _download_shards(repository, path, revision)
            return path
    raise WeightsError(
        f"{repository} at {revision} has no {' or '.join(FILES)}"
        f"{_offline_hint()}; name another file of it as {repository}:file"
    )


def beside(scheme: str, text: str, name: str) -> Path | None:
    """The file called ``name`` beside weights, which are not downloaded for it.

    Args:
      scheme: the library that the weights are of.
      text: a file or folder here, or what ``fetch`` takes.
      name: of the file.

    Returns:
      Its path; None where there is no such file, or none in the cache when offline.

    Raises:
      WeightsError: as for ``fetch``.
    """
    path = Path(text).expanduser()
    if path.exists():
        folder = path if path.is_dir() else path.parent
        return inside(folder, name) if (folder / name).exists() else None
    check_path(scheme, text)
    repository, _, revision = _parsed(qualified(scheme, text))
    return _download(repository, name, revision)


def qualified(scheme: str, text: str) -> str:
    """A reference with its organisation: timm's models have names without one."""
    return f"timm/{text}" if scheme == "timm" and "/" not in text else text


def check_path(scheme: str, text: str) -> None:
    """Raises if there is nothing at what can only be a path, and no name on the hub.

    Raises:
      WeightsError: the weights are moved or deleted.
    """
    path = Path(text).expanduser()
    named = path.suffix in (".safetensors", ".npz", *TORCH_SUFFIXES) or text[:1] in "/~."
    if not path.exists() and (scheme not in SCHEMES or (named and ":" not in text)):
        raise WeightsError(
            f"there are no weights at {path}: they are moved or deleted; source={scheme}:PATH, as "
            "--config.init_from.source or --config.model.source, says where they are now"
        )


def _parsed(reference: str) -> tuple[str, str, str]:
    """Repository, file (empty for all) and revision."""
    name, _, revision = reference.partition("@")
    repository, _, file = name.partition(":")
    if not _ID.fullmatch(repository):
        raise WeightsError(
            f"{reference} is neither a file or folder here nor organisation/name on the hub"
        )
    return repository, file, revision or "main"


def _download_shards(repository: str, index: Path, revision: str) -> None:
    try:
        files = set(json.loads(index.read_text())["weight_map"].values())
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise WeightsError(f"{index} is not an index of shards") from error
    for name in sorted(map(str, files)):
        if Path(name).name != name:
            raise WeightsError(f"{index} names a file {name!r}, which is not in this folder")
        _download_required(repository, name, revision)
        inside(index.parent, name)


def _download_required(repository: str, name: str, revision: str) -> Path:
    path = _download(repository, name, revision)
    if path is None:
        raise WeightsError(f"{repository} at {revision} has no file {name}{_offline_hint()}")
    return path


def _download(repository: str, name: str, revision: str) -> Path | None:
    """A file of a repository; None where it is not there, or not in the cache when offline."""
    hub, errors = _client()
    try:
        return Path(hub.hf_hub_download(repository, name, revision=revision))
    except errors.LocalEntryNotFoundError as error:
        if hub.constants.HF_HUB_OFFLINE:
            return None
        raise WeightsError(
            f"the hub cannot be reached for {repository}, and {name} at {revision} is not in the "
            "cache: give a path of a downloaded file, or try again with a network"
        ) from error
    except errors.EntryNotFoundError:
        return None
    except errors.RepositoryNotFoundError as error:
        raise WeightsError(
            f"{repository} is not on the hub, or is private: check the name, or log in with "
            "huggingface_hub's own command"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise WeightsError(f"{repository} has no revision {revision}") from error
    except (errors.HFValidationError, OSError) as error:
        raise WeightsError(f"{name} of {repository} cannot be downloaded: {error}") from error


def _offline_hint() -> str:
    hub, _ = _client()
    return " in the cache (HF_HUB_OFFLINE=1)" if hub.constants.HF_HUB_OFFLINE else ""


def _client() -> tuple[Any, Any]:
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
    except ImportError as error:
        raise WeightsError(
            "weights from the hub need huggingface_hub: pip install huggingface_hub"
        ) from error
    return huggingface_hub, huggingface_hub.errors
