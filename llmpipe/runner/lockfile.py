"""The lock file: what every stage was made from and what it made. It should be committed.

``<name>.lock.yaml`` is next to the spec and has a section for each choice of profiles. `run` writes
it when its content has changed, except under ``--set``. ``run --locked`` refuses to start if
settings, input files or versions differ from the lock, and fails a stage whose kind promises equal
bytes if its artifact differs. On a machine without the history of the store, the lock also tells
what a stage was last made from.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

import msgspec
import yaml

from llmpipe.canonical import digest
from llmpipe.errors import Location, Problem, SpecError, StoreError
from llmpipe.graph.model import Graph
from llmpipe.runner.disk import atomic_write, write_hint
from llmpipe.runner.records import KeyInputs, KeyRecord
from llmpipe.yaml_depth import load_bounded

VERSION = 2
"""The version of the layout. Version 1, which wrote ``made_of`` for ``key_inputs``, can be read."""

_HEADER = """\
# Written by `llmpipe run`; commit it beside the spec. `llmpipe run --locked` refuses what differs.
# below: {below} content: {content}
"""

CONFLICT_MARKS = ("<<<<<<< ", ">>>>>>> ")

RESTORE = "restore it from version control, or remove it and run without --locked"


class LockedOutput(TypedDict):
    """The locked facts about an artifact."""

    type: str
    digest: str
    size: int


class LockedStage(TypedDict):
    """The locked facts about a stage."""

    key: str
    key_inputs: KeyInputs
    outputs: dict[str, LockedOutput]


class Section(TypedDict):
    """The locked facts under one choice of profiles. ``content`` is the digest of the rest."""

    content: str
    models: dict[str, str]
    packages: dict[str, str]
    stages: dict[str, LockedStage]


class Document(TypedDict):
    """A whole lock file."""

    version: int
    name: str
    spec: NotRequired[str]
    """The file name of the spec. Early lock files do not have it."""
    profiles: dict[str, Section]


class LockFile:
    """The lock file of a spec, for one choice of profiles. It is read only when needed.

    A file of this name may belong to another spec in the folder. It then does not count, and is not
    overwritten.

    Raises:
        SpecError: The file is not an llmpipe lock file, or has a newer version.
    """

    def __init__(self, graph: Graph) -> None:
        spec = graph.spec
        self.path = spec.folder / f"{spec.name}.lock.yaml"
        self.section = "+".join(spec.profiles) or "default"
        self._name = spec.name
        self._spec = spec.path
        self._names = graph.nodes.keys()

    @cached_property
    def _document(self) -> Document:
        document = _read(self.path)
        if document is None or self._owner(document):
            return self._empty()
        return {**document, "spec": self._spec.name}

    def _owner(self, document: Document) -> str | None:
        """Return the other, existing spec that a lock file belongs to, if any."""
        owner = document.get("spec", self._spec.name)
        other = owner != self._spec.name and _is_another(self._spec.parent / owner, self._spec)
        return owner if other else None

    def conflict(self) -> Problem | None:
        """Return why the file must not be written: it belongs to another spec."""
        if self._contents() is not None:  # unedited, and of this spec
            return None
        document = _read(self.path)
        owner = self._owner(document) if document else None
        if owner is None:
            return None
        what = f"this is the lock file of {owner}, which is named {self._name!r} as well"
        rename = f"change `name:` in {self._spec.name} or {owner}"
        leftover = f"or, if {owner} was a trial, delete {self.path.name}"
        return Problem(what, Location(str(self.path), 0, 0), f"{rename},\n{leftover}")

    def warning(self) -> list[str]:
        """Return a warning for a run if the file belongs to another spec."""
        found = self.conflict()
        if found is None:
            return []
        hint = (found.hint or "").replace("\n", " ")
        return [f"{found.location}: {found.message}; a run that would write it is refused ({hint})"]

    def _empty(self) -> Document:
        return {
            "version": VERSION, "name": self._name, "spec": self._spec.name, "profiles": {},
        }  # fmt: skip

    @property
    def exists(self) -> bool:
        """Return whether there is a section for these profiles."""
        return self.section in self._document["profiles"]

    def check(self) -> None:
        """Refuse a file that cannot be read, or belongs to another spec, before anything runs.

        Raises:
            SpecError: It cannot be written.
        """
        if found := self.conflict():
            raise SpecError([found])

    def stage(self, name: str) -> LockedStage | None:
        """Return the locked facts about a stage, if any."""
        return self._stages().get(name)

    def stages(self) -> list[str]:
        """List the locked stages."""
        return list(self._stages())

    def _stages(self) -> dict[str, LockedStage]:
        section = self._document["profiles"].get(self.section)
        return section["stages"] if section else {}

    def commits(self) -> dict[str, str]:
        """Return the commits that hub repositories were resolved to, under any profiles."""
        found: dict[str, str] = {}
        for section in self._document["profiles"].values():
            found |= section["models"]
        return found

    def write(self, records: Mapping[str, KeyRecord], commits: Mapping[str, str]) -> bool:
        """Lock these records; return whether the file changed.

        Locked stages of other profiles, and those without a new record, stay as they are.

        Raises:
            SpecError: The file has come to belong to another spec.
            StoreError: The file cannot be written.
        """
        self.__dict__.pop("_document", None)  # another run may have written it in the meantime
        self.check()
        stages = {name: _locked(record) for name, record in records.items()}
        for name in self._names - stages.keys():
            locked = self.stage(name)
            if locked:
                stages[name] = locked
        if not stages and not self._document["profiles"]:
            return False  # a first run that made nothing does not claim the name
        found = {name: [stage["key"], stage["outputs"]] for name, stage in stages.items()}
        content = digest([VERSION, self._name, self.section, found, dict(commits)])
        contents = self._contents()
        if contents is not None and contents.get(self.section) == content:
            return False
        if contents is not None and contents.keys() <= {self.section}:
            self._document = self._empty()  # it holds nothing else: parsing is not needed
        self._document["profiles"][self.section] = {
            "content": content,
            "models": dict(commits),
            "packages": _packages(stages.values()),
            "stages": stages,
        }
        told = " ".join(
            f"{name}={section['content']}"
            for name, section in sorted(self._document["profiles"].items())
        )
        text = _yaml(self._document)
        try:
            head = _HEADER.format(below=_digest_below(text), content=told)
            atomic_write(self.path, head + text)
        except OSError as error:
            message = f"{self.path} cannot be written: {error.strerror}"
            raise StoreError(message, hint=write_hint(error)) from None
        return True

    def _contents(self) -> dict[str, str] | None:
        """Return the content digests of the sections from the head of the file, without parsing it.

        Returns nothing if the file was not written by this version, or was edited or merged.
        """
        try:
            _, second, text = self.path.read_text("utf-8").split("\n", 2)
        except (OSError, ValueError):
            return None
        words = second.split()
        end = _yaml({"spec": self._spec.name, "version": VERSION})  # the keys are sorted
        if words[1:3] != ["below:", _digest_below(text)] or not text.endswith(f"\n{end}"):
            return None
        return dict(word.rpartition("=")[::2] for word in words[4:])


def locked_keys(paths: Iterable[Path]) -> Iterator[str]:
    """Yield the keys that lock files name. Files that no longer exist are skipped.

    Raises:
        SpecError: A lock file cannot be read.
    """
    for path in paths:
        for section in (_read(path) or {"profiles": {}})["profiles"].values():
            yield from (stage["key"] for stage in section["stages"].values())


def _read(path: Path) -> Document | None:
    """Read a lock file; return None if there is none."""
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise _unusable(path, 0, "it is not UTF-8 text") from None
    except OSError as error:
        raise _unusable(path, 0, f"it cannot be read: {error.strerror}") from None
    for number, line in enumerate(text.split("\n"), 1):
        if line.startswith(CONFLICT_MARKS):
            hint = "keep either side, or remove the file; then run without --locked to rewrite it"
            raise _unusable(path, number, "a merge conflict is left in the lock file", hint)
    try:
        document = load_bounded(text, yaml.CSafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise _unusable(path, mark.line + 1 if mark else 0, "it is not valid YAML") from None
    version = document.get("version") if isinstance(document, dict) else None
    if isinstance(version, int) and version > VERSION:
        what = f"the lock file is of version {version}; this llmpipe reads {VERSION}"
        raise _unusable(path, 0, what, "use the newer llmpipe that wrote it")
    if version == 1:
        version = _of_today(document)
    try:
        found = msgspec.convert(document, Document)
    except msgspec.ValidationError as error:
        raise _unusable(path, 0, f"it is not a lock file: {error}") from None
    if version != VERSION:
        what = f"the lock file is of version {version}; this llmpipe reads {VERSION}"
        raise _unusable(path, 0, what)
    return found


def _of_today(document: Any) -> int:
    """Rename the fields of version 1; return the version that the document now has."""
    document["version"] = VERSION
    with contextlib.suppress(AttributeError, KeyError, TypeError):  # problems are reported later
        for section in document["profiles"].values():
            for stage in section["stages"].values():
                stage["key_inputs"] = stage.pop("made_of")
    return VERSION


def _is_another(path: Path, spec: Path) -> bool:
    return path.exists() and not path.samefile(spec)


def _yaml(data: Mapping[str, Any]) -> str:
    return yaml.dump(data, Dumper=yaml.CSafeDumper, sort_keys=True, width=100)


def _digest_below(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _locked(record: KeyRecord) -> LockedStage:
    return {
        "key": record.key,
        "key_inputs": cast("KeyInputs", record.ingredients),
        "outputs": {
            name: {"type": output.type, "digest": output.digest, "size": output.size}
            for name, output in record.outputs.items()
        },
    }


def _packages(stages: Iterable[LockedStage]) -> dict[str, str]:
    tools = (stage["key_inputs"]["tools"].items() for stage in stages)
    return {name: version for item in tools for name, version in item if version is not None}


def _unusable(path: Path, line: int, what: str, hint: str = RESTORE) -> SpecError:
    return SpecError([Problem(what, Location(str(path), line, 1 if line else 0), hint)])
