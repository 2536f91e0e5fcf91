"""The lock file: what every stage was made of and what came of it, to be committed.

``<name>.lock.yaml`` stands beside the spec, with one section for each choice of profiles. `run`
writes it when anything in it has changed, but not under ``--set``; ``run --locked`` refuses to
start where settings, input files or versions have drifted from it, and fails a stage whose kind
promises equal bytes everywhere when its artifact is another. On a machine without the store's
history it also tells what a stage was made of last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from llmpipe.canonical import digest
from llmpipe.errors import Problem, SpecError, StoreError
from llmpipe.graph.model import Graph
from llmpipe.runner.store import KeyRecord, atomic_write, write_hint

VERSION = 1

_HEADER = """\
# Written by `llmpipe run`; commit it beside the spec. `llmpipe run --locked` refuses what differs.
# content: {content}
"""


class LockFile:
    """The lock file of a spec, as one choice of profiles sees it. Nothing is read before it must.

    Raises:
        SpecError: it is not one of ours, or of a newer version.
    """

    def __init__(self, graph: Graph) -> None:
        spec = graph.spec
        self.path = spec.folder / f"{spec.name}.lock.yaml"
        self.section = "+".join(spec.profiles) or "default"
        self._name = spec.name
        self._names = graph.nodes.keys()

    @cached_property
    def _document(self) -> dict[str, Any]:
        found = _read(self.path)
        return found or {"version": VERSION, "name": self._name, "profiles": {}}

    @property
    def exists(self) -> bool:
        """Whether there is a section for these profiles."""
        return self.section in self._document["profiles"]

    def stage(self, name: str) -> dict[str, Any] | None:
        """Give what is locked of a stage: ``made_of``, ``key`` and ``outputs``."""
        section = self._document["profiles"].get(self.section, {})
        found: dict[str, Any] | None = section.get("stages", {}).get(name)
        return found

    def stages(self) -> list[str]:
        """Name the stages that are locked."""
        return list(self._document["profiles"].get(self.section, {}).get("stages", {}))

    def commits(self) -> dict[str, str]:
        """Give the commits that hub repositories were resolved to, under any profiles."""
        found: dict[str, str] = {}
        for section in self._document["profiles"].values():
            found |= section.get("models", {})
        return found

    def write(self, records: Mapping[str, KeyRecord], commits: Mapping[str, str]) -> bool:
        """Lock these records; give whether that changed the file.

        What is locked stays of other profiles, and of stages that have no record yet.

        Raises:
            StoreError: the file cannot be written.
        """
        stages = {name: _locked(record) for name, record in records.items()}
        for name in self._names - stages.keys():
            locked = self.stage(name)
            if locked:
                stages[name] = locked
        found = {name: [stage["key"], stage["outputs"]] for name, stage in stages.items()}
        content = digest([VERSION, self._name, self.section, found, dict(commits)])
        if self._content(self.section) == content:
            return False
        self._document["profiles"][self.section] = {
            "content": content,
            "models": dict(commits),
            "packages": _packages(stages.values()),
            "stages": stages,
        }
        contents = " ".join(
            f"{name}={section['content']}"
            for name, section in sorted(self._document["profiles"].items())
        )
        text = yaml.dump(self._document, Dumper=yaml.CSafeDumper, sort_keys=True, width=100)
        try:
            atomic_write(self.path, _HEADER.format(content=contents) + text)
        except OSError as error:
            message = f"{self.path} cannot be written: {error.strerror}"
            raise StoreError(message, hint=write_hint(error)) from None
        return True

    def _content(self, section: str) -> str | None:
        """Give a section's content digest from the head of the file, without parsing the rest."""
        try:
            with self.path.open(encoding="utf-8") as stream:
                head = [stream.readline() for _ in range(2)]
        except (OSError, UnicodeDecodeError):
            return None
        for word in head[1].split()[2:]:
            name, _, content = word.rpartition("=")
            if name == section:
                return content
        return None


def locked_keys(paths: Iterable[Path]) -> Iterator[str]:
    """Give the keys that lock files name; those files that are gone name none.

    Raises:
        SpecError: one of them cannot be understood.
    """
    for path in paths:
        for section in (_read(path) or {"profiles": {}})["profiles"].values():
            yield from (stage["key"] for stage in section["stages"].values())


def _read(path: Path) -> dict[str, Any] | None:
    """Read a lock file; None when there is none."""
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise _unusable(path, f"cannot be read: {error}") from None
    try:
        document = yaml.load(text, Loader=yaml.CSafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f": line {mark.line + 1}" if mark else ""
        raise _unusable(path, f"is not valid YAML{place}") from None
    if not isinstance(document, dict) or not isinstance(document.get("profiles"), dict):
        raise _unusable(path, "is no lock file")
    if document.get("version") != VERSION:
        found = document.get("version")
        raise _unusable(path, f"is of version {found}; this llmpipe reads {VERSION}")
    return document


def _locked(record: KeyRecord) -> dict[str, Any]:
    return {
        "key": record.key,
        "made_of": record.ingredients,
        "outputs": {
            name: {"type": output.type, "digest": output.digest, "size": output.size}
            for name, output in record.outputs.items()
        },
    }


def _packages(stages: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    tools = (stage["made_of"]["tools"].items() for stage in stages)
    return {name: version for item in tools for name, version in item if version is not None}


def _unusable(path: Path, what: str) -> SpecError:
    hint = "restore it from version control, or remove it and run without --locked"
    return SpecError([Problem(f"{path} {what}", None, hint)])
