"""Find the ``config.json`` of the model that a stage starts from. The weights are not read."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llmpipe.needs import Given

MODELS = ("adapter", "model", "gguf")
"""The artifacts that a model descends from, in the order in which they are followed."""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A model's configuration: its content, or the GGUF file that holds it."""

    content: Mapping[str, Any] | None = None
    gguf: Path | None = None
    folder: Path | None = None
    """Where the configuration was found; the weights may be beside it."""
    missing: str = ""
    """Why there is none."""
    absent: str = ""
    """The hub's id of weights that are not on this machine yet."""

    def identity(self) -> Any:
        """Return what tells it from others, as JSON data."""
        if self.gguf is None:
            return self.content
        stat = self.gguf.stat()
        return [str(self.gguf), stat.st_size, stat.st_mtime_ns]


def find_config(given: Given, *, online: bool) -> ModelConfig:
    """Return the configuration of a model, or of the model that stages make one of.

    Args:
        given: the model, adapter or GGUF.
        online: whether ``config.json`` may be downloaded where it is not on this machine.
    """
    source = _root(given)
    if source.repo:
        return _of_hub(source.repo, source.revision, online=online)
    if source.path is None:
        return ModelConfig(missing="it is not known which model this is")
    if source.path.suffix == ".gguf" and source.path.is_file():
        return ModelConfig(gguf=source.path)
    if (source.path / "adapter_config.json").is_file():
        return _of_adapter(source.path)
    return _read(source.path / "config.json")


def _root(given: Given) -> Given:
    """Return the file, folder or hub id that a model descends from."""
    while not given.repo and given.path is None:
        parents = [one for kind in MODELS for one in given.inputs.values() if one.type == kind]
        if not parents:
            break
        given = parents[0]
    return given


def _of_adapter(folder: Path) -> ModelConfig:
    """Return the configuration of the base model that an adapter names, if that is a folder."""
    try:
        named = json.loads((folder / "adapter_config.json").read_text("utf-8"))
        base = Path(str(named["base_model_name_or_path"]))
    except (OSError, ValueError, KeyError, TypeError):
        return ModelConfig(missing=f"{folder.name} does not name its base model")
    if base.is_dir():
        return _read(base / "config.json")
    return ModelConfig(missing=f"the base model of {folder.name} is {base}, which is not a folder")


def _of_hub(repo: str, revision: str | None, *, online: bool) -> ModelConfig:
    cached = _cached(repo, revision)
    if cached is not None:
        whole = any(cached.parent.glob("*.safetensors"))
        found = _read(cached)
        return found if whole else replace(found, absent=repo)
    if not online:
        return ModelConfig(missing=f"config.json of {repo} is not on this machine", absent=repo)
    from huggingface_hub import hf_hub_download

    silenced = logging.root.manager.disable
    logging.disable(logging.WARNING)  # the client logs each try
    try:
        path = hf_hub_download(repo, "config.json", revision=revision)
    except Exception as error:  # the client raises its HTTP library's errors, whichever that is
        told = f"config.json of {repo} could not be downloaded: {_reason(error)}"
        return ModelConfig(missing=told, absent=repo)
    finally:
        logging.disable(silenced)
    return replace(_read(Path(path)), absent=repo)


def _reason(error: Exception) -> str:
    """Return why a download failed. The client's own error only says that the file is not here."""
    cause = error.__cause__ or error
    if isinstance(cause, RuntimeError):  # its retry fails: "the client has been closed"
        return "the hub cannot be reached (check the network; --offline does not try)"
    return (str(cause).strip() or type(cause).__name__).splitlines()[0]


def _cached(repo: str, revision: str | None) -> Path | None:
    """Return ``config.json`` in the hub's cache, as `huggingface_hub` lays it out."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache/huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    folder = cache / f"models--{repo.replace('/', '--')}"
    name = revision or "main"
    try:
        commit = (folder / "refs" / name).read_text("ascii").strip()
    except (OSError, ValueError):
        commit = name
    path = folder / "snapshots" / commit / "config.json"
    return path if path.is_file() else None


def _read(path: Path) -> ModelConfig:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        return ModelConfig(missing=f"{path} cannot be read: {error}")
    if not isinstance(content, dict) or "model_type" not in content:
        return ModelConfig(missing=f"{path} does not say its model_type")
    return ModelConfig(content, folder=path.parent)
