"""The Hugging Face hub: resolve a repository to a commit, and download a commit to a folder.

Only `resolve_commit` and the downloads use the network; a plan never calls them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from llmpipe.errors import MissingDependencyError, StageError

PATTERNS = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
"""The files of a model folder; pickled weights are never downloaded."""


PLAIN = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")
ROWS = (*PLAIN, *(f"{ending}.gz" for ending in PLAIN), ".parquet", ".arrow", ".feather")
"""The endings of files of rows."""

ABOUT = ("dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json")
"""Files that describe a data set and contain no rows."""

NAMED = 5
"""The number of files that a message names."""

SEVERAL = """a data set of the hub must be one file of rows: JSON, CSV, TSV, Parquet or Arrow.
If a split or subset is one file, choose it by `split` and `subset` in `sources` of a format stage.
Otherwise, download the file that you want in a stage, and use its output as data:
rows: {{kind: command, run: "curl -fsSL {url} -o ${{outputs.rows}}", outputs: {{rows: {file}}}}}"""


CONVERTED = """a data set of the hub must be one file of rows: JSON, CSV, TSV, Parquet or Arrow.
Convert it to one in a stage, and use its output as data:
rows: {{kind: command, run: "python -c \\"from datasets import load_dataset;
  load_dataset('{repo}', revision='{commit}', split='train').to_json('${{outputs.rows}}')\\"",
  outputs: {{rows: rows.jsonl}}}}"""


def resolve_commit(repo: str, revision: str | None, *, rows: bool = False) -> str:
    """Return the current commit of a revision (or of the default branch) from the hub.

    Args:
        repo: The id of the repository.
        revision: A branch or tag.
        rows: Whether it is a data set instead of a model.

    Raises:
        StageError: The hub cannot be reached, or has no such repository or revision.
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
            f"{shown} could not be resolved on the hub: {_first_line(error)}",
            hint="check the network, or name a local folder: ./path or pkg://package/path",
        ) from None


def model_metadata(repo: str, commit: str) -> dict[str, Any]:
    """Return the metadata of a model's card at a commit; empty if it has none.

    Raises:
        StageError: The hub cannot be reached, or refuses.
        MissingDependencyError: ``huggingface_hub`` is not installed.
    """
    api, _ = _hub()
    try:
        card = api.model_info(repo, revision=commit, timeout=30).card_data
    except Exception as error:  # see resolve_commit
        raise StageError(
            f"the card of {repo}@{commit[:12]} could not be read: {_first_line(error)}",
            hint="check the network; for a private model set HF_TOKEN",
        ) from None
    return dict(card.to_dict()) if card is not None else {}


def download(repo: str, commit: str) -> Path:
    """Download a model's files at a commit, or find them in the local cache; return their folder.

    Raises:
        StageError: The files could not be downloaded.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo, revision=commit, allow_patterns=PATTERNS))
    except Exception as error:  # see resolve_commit
        raise StageError(
            f"{repo}@{commit[:12]} could not be downloaded: {_first_line(error)}",
            hint="run again to resume the download",
        ) from None


def download_rows(
    repo: str, commit: str, *, split: str | None = None, subset: str | None = None
) -> Path:
    """Return the one file of rows of a data set at a commit, downloading it if needed.

    Args:
        repo: The id of the data set.
        commit: The commit.
        split: The split that is meant. It is a word in the path of its file.
        subset: The subset (configuration) that is meant. It is a word in the path, too.

    Raises:
        StageError: It has none or several, or could not be downloaded.
    """
    from huggingface_hub import hf_hub_download

    chosen = {"split": split, "subset": subset}
    api, _ = _hub()
    try:
        found = api.dataset_info(repo, revision=commit, timeout=30).siblings or []
        names = sorted(file.rfilename for file in found)
        rows = [n for n in names if n.lower().endswith(ROWS) and Path(n).name not in ABOUT]
        every, rows = rows, [name for name in rows if _has_words(name, split, subset)]
        if len(rows) == 1:
            return Path(hf_hub_download(repo, rows[0], repo_type="dataset", revision=commit))
    except Exception as error:  # see resolve_commit
        raise StageError(
            f"the data set {repo}@{commit[:12]} could not be downloaded: {_first_line(error)}",
            hint="check the network, or name a local file: ./path or pkg://package/path",
        ) from None
    meant = ", ".join(f"{what} {word!r}" for what, word in chosen.items() if word)
    if every and not rows:
        raise StageError(
            f"the data set {repo!r} of the hub has no file of rows for {meant}: {_listed(every)}"
        )
    shown = rows or [name for name in names if not name.startswith(".")]
    has = f"{len(rows)} files of rows" if rows else "no file of rows"
    has += f" for {meant}" if meant else ""
    hint = _several(repo, commit, rows[0]) if rows else CONVERTED.format(repo=repo, commit=commit)
    raise StageError(
        f"the data set {repo!r} of the hub has {has}: {_listed(shown)}",
        hint=hint,
    )


def _has_words(path: str, *words: str | None) -> bool:
    """Return whether every word is in a path, as a part that is set off by ``/``, ``.``, - or _."""
    return all(
        re.search(rf"(?<![^/._-]){re.escape(word)}(?![^/._-])", path) for word in words if word
    )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more}"


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
