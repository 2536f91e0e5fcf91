"""The Hugging Face hub: from a repository's name to a commit, and from a commit to a folder.

Only `resolve_commit` and the downloads use the network; a plan never calls them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmpipe.errors import MissingDependencyError, StageError

PATTERNS = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
"""What a model folder needs; pickled weights are never fetched."""


PLAIN = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")
ROWS = (*PLAIN, *(f"{ending}.gz" for ending in PLAIN), ".parquet", ".arrow", ".feather")
"""Endings of files that hold rows."""

ABOUT = ("dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json")
"""Files of a data set that tell about it."""

NAMED = 5
"""How many files a message names."""

SEVERAL = """a data set of the hub is one file of rows here: JSON, CSV, TSV, Parquet or Arrow;
configurations and splits cannot be chosen.
Fetch the file that is meant by a stage, and name that as data:
rows: {{kind: command, run: "curl -fsSL {url} -o ${{outputs.rows}}", outputs: {{rows: {file}}}}}"""


CONVERTED = """a data set of the hub is one file of rows here: JSON, CSV, TSV, Parquet or Arrow.
Have a stage write it as one, and name that as data:
rows: {{kind: command, run: "python -c \\"from datasets import load_dataset;
  load_dataset('{repo}', revision='{commit}', split='train').to_json('${{outputs.rows}}')\\"",
  outputs: {{rows: rows.jsonl}}}}"""


def resolve_commit(repo: str, revision: str | None, *, rows: bool = False) -> str:
    """Return the commit that a revision (or the default branch) stands at now, as the hub says.

    Args:
        repo: the id of the repository.
        revision: a branch or tag.
        rows: whether it is a data set, and not a model.

    Raises:
        StageError: the hub cannot be reached, or has no such repository or revision.
        MissingDependencyError: ``huggingface_hub`` is not installed.
    """
    api, errors = _hub()
    shown = f"{repo}@{revision}" if revision else repo
    what, ask = ("data set", api.dataset_info) if rows else ("model", api.model_info)
    local = "file" if rows else "folder"
    try:
        return str(ask(repo, revision=revision, timeout=30).sha)
    except errors.RepositoryNotFoundError:
        raise StageError(
            f"the hub has no {what} {repo!r}, or it is private",
            hint=f"check the name; for a private one set HF_TOKEN; for a {local} write ./{repo}",
        ) from None
    except errors.RevisionNotFoundError:
        raise StageError(f"the {what} {repo!r} has no revision {revision!r}") from None
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


def download_rows(repo: str, commit: str) -> Path:
    """Return the one file of rows that a data set has at a commit, fetched if need be.

    Raises:
        StageError: it has none, or several, or could not be fetched.
    """
    from huggingface_hub import hf_hub_download

    api, _ = _hub()
    try:
        found = api.dataset_info(repo, revision=commit, timeout=30).siblings or []
        names = sorted(file.rfilename for file in found)
        rows = [n for n in names if n.lower().endswith(ROWS) and Path(n).name not in ABOUT]
        if len(rows) == 1:
            return Path(hf_hub_download(repo, rows[0], repo_type="dataset", revision=commit))
    except Exception as error:  # see resolve_commit
        raise StageError(
            f"the data set {repo}@{commit[:12]} could not be downloaded: {_first_line(error)}",
            hint="check the network, or name a local file: ./path or pkg://package/path",
        ) from None
    shown = rows or [name for name in names if not name.startswith(".")]
    more = f" and {len(shown) - NAMED} more" if len(shown) > NAMED else ""
    told = f"{', '.join(shown[:NAMED])}{more}"
    has = f"{len(rows)} files of rows" if rows else "no file of rows"
    hint = _several(repo, commit, rows[0]) if rows else CONVERTED.format(repo=repo, commit=commit)
    raise StageError(
        f"the data set {repo!r} of the hub has {has}: {told}",
        hint=hint,
    )


def _several(repo: str, commit: str, file: str) -> str:
    url = f"https://huggingface.co/datasets/{repo}/resolve/{commit}/{file}"
    return SEVERAL.format(url=url, file=f"rows{Path(file).suffix}")


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
