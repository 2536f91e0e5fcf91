"""The Hugging Face hub: from a repository's name to a commit, and from a commit to a folder.

Only `resolve_commit` and `download` use the network; a plan never calls them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmpipe.errors import MissingDependencyError, StageError

PATTERNS = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
"""What a model folder needs; pickled weights are never fetched."""


def resolve_commit(repo: str, revision: str | None) -> str:
    """Ask the hub which commit a revision (or the default branch) stands at now.

    Raises:
        StageError: the hub cannot be reached, or has no such repository or revision.
        MissingDependencyError: ``huggingface_hub`` is not installed.
    """
    api, errors = _hub()
    shown = f"{repo}@{revision}" if revision else repo
    try:
        return str(api.model_info(repo, revision=revision, timeout=30).sha)
    except errors.RepositoryNotFoundError:
        raise StageError(
            f"the hub has no model {repo!r}, or it is private",
            hint=f"check the name; for a private one set HF_TOKEN; for a folder write ./{repo}",
        ) from None
    except errors.RevisionNotFoundError:
        raise StageError(f"the model {repo!r} has no revision {revision!r}") from None
    except Exception as error:  # the client raises its HTTP library's errors, whichever that is
        raise StageError(
            f"{shown} could not be looked up on the hub: {_first_line(error)}",
            hint="check the network, or name a local folder: ./path or pkg://package/path",
        ) from None


def download(repo: str, commit: str) -> Path:
    """Fetch a model's files at a commit (or find them in the local cache) and give their folder.

    Raises:
        StageError: the files could not be fetched.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo, revision=commit, allow_patterns=PATTERNS))
    except Exception as error:  # see resolve_commit
        raise StageError(
            f"{repo}@{commit[:12]} could not be downloaded: {_first_line(error)}",
            hint="run again to go on where the download stopped",
        ) from None


def _hub() -> tuple[Any, Any]:
    try:
        from huggingface_hub import HfApi, errors
    except ImportError:
        raise MissingDependencyError(
            "hub ids need the package huggingface_hub", hint="pip install 'llmpipe[train]'"
        ) from None
    return HfApi(), errors


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
