"""Read the license of a model where the model itself states it. Nothing is guessed.

A hub repository states it in the metadata of its card, a folder in those of its README.md, a GGUF
in its header. A file of the name LICENSE is not interpreted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmpipe.errors import HubError, StageError
from llmpipe.yaml_depth import load_bounded

_FRONT = re.compile(r"---[ \t]*\n(.*?)\n---[ \t]*(?:\n|\Z)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class License:
    """A license as a model states it.

    Attributes:
        ids: The hub's names of it, usually one: ``apache-2.0``, ``other``.
        name: The name of one that the hub does not know.
        link: Where that is.
        stated: Where it was read, for messages.
    """

    ids: tuple[str, ...]
    name: str | None = None
    link: str | None = None
    stated: str = ""

    @property
    def terms(self) -> tuple[tuple[str, ...], str | None, str | None]:
        """What has to be equal in two statements of one license: of ``other``, the name too."""
        return self.ids, self.name, self.link

    @property
    def in_full(self) -> str:
        """It with its name and its link."""
        return " ".join(filter(None, (str(self), self.link)))

    def metadata(self) -> dict[str, Any]:
        """Return it as the metadata of a model card."""
        found = {
            "license": self.ids[0] if len(self.ids) == 1 else list(self.ids),
            "license_name": self.name,
            "license_link": self.link,
        }
        return {key: value for key, value in found.items() if value}

    def __str__(self) -> str:
        return ", ".join(self.ids) + (f" ({self.name})" if self.name else "")


def license_at(path: Path) -> License | None:
    """Return the license that a model folder or a GGUF file states, or None.

    Raises:
        StageError: The GGUF cannot be read.
    """
    if path.is_dir():
        try:
            card = (path / "README.md").read_bytes().decode("utf-8", "replace")
        except OSError:
            return None
        match = _FRONT.match(card.replace("\r\n", "\n"))
        return _stated(_metadata(match[1]) if match else {}, f"README.md of {path.name}")
    from llmpipe.backends.llama_cpp.gguf_file import read_gguf

    try:
        fields, _ = read_gguf(path)
    except ImportError as error:
        raise StageError(str(error), hint="pip install 'llmpipe[gguf]'") from None
    prefix = "general.license"
    found = {"license": fields.get(prefix)}
    found |= {f"license_{key}": fields.get(f"{prefix}.{key}") for key in ("name", "link")}
    return _stated(found, f"the header of {path.name}")


def license_on_hub(repo: str, commit: str) -> License | None:
    """Return the license that a repository states at a commit, or None.

    Raises:
        HubError: The hub cannot be asked.
    """
    from llmpipe.backends.huggingface.hub import model_metadata

    try:
        return _stated(model_metadata(repo, commit), f"the card of {repo}")
    except StageError as error:
        raise HubError(error.message, hint=f"{error.hint}\nor name it: --license ID") from None


def has_license_file(path: Path) -> bool:
    """Return whether a model folder has a file with the text of a license."""
    return path.is_dir() and any(path.glob("LICEN[CS]E*"))


def _metadata(text: str) -> Mapping[str, Any]:
    import yaml

    try:
        found = load_bounded(text, yaml.CSafeLoader)
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, Mapping) else {}


def _stated(metadata: Mapping[str, Any], where: str) -> License | None:
    value = metadata.get("license")
    ids = [value] if isinstance(value, str) else value
    if not isinstance(ids, list) or not ids or not all(isinstance(i, str) and i for i in ids):
        return None
    name, link = (metadata.get(f"license_{key}") for key in ("name", "link"))
    return License(tuple(ids), name and str(name), link and str(link), where)
