"""What a worker is asked to do: one stage, its config, its inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from llmpipe.backends.tools import default_folder
from llmpipe.contracts import Artifact, ArtifactType, StageContext
from llmpipe.registry import convert_config, stage_class
from llmpipe.runner.store import Store


class InputRequest(msgspec.Struct, frozen=True):
    """An input: an object of the store, a user's file in its place, or a hub repository.

    The worker resolves an object in its own store, and downloads a repository at its commit.
    """

    type: ArtifactType
    digest: str
    label: str
    object: str | None = None
    file: str = ""
    """The file's name in the object; empty if the whole object is meant."""
    path: str | None = None
    repo: str | None = None
    commit: str | None = None
    base: InputRequest | None = None
    pattern: str | None = None
    """A pattern for the files below ``path`` that are meant; all of them without it."""
    split: str | None = None
    subset: str | None = None
    """The split and the subset of a hub data set, if it has several."""

    def artifact(self, objects: Path) -> Artifact:
        """Return the input as the stage sees it; download it if necessary.

        Args:
            objects: The folder of the store's objects.
        """
        if self.object is not None:
            path = objects / self.object / "data" / self.file
        else:
            path = Path(self.path) if self.path is not None else self._download()
        base = self.base.artifact(objects) if self.base else None
        return Artifact(path, self.type, self.digest, self.label, base, self.pattern)

    def _download(self) -> Path:
        from llmpipe.backends.huggingface import hub

        assert self.repo is not None
        assert self.commit is not None
        if self.type in ("records", "dataset"):
            return hub.download_rows(self.repo, self.commit, split=self.split, subset=self.subset)
        return hub.download(self.repo, self.commit)


class StageRequest(msgspec.Struct, frozen=True):
    """A stage to run. ``config`` holds secrets by name only."""

    stage: str
    kind: str
    key: str
    key_inputs: dict[str, Any]
    config: dict[str, Any]
    inputs: dict[str, InputRequest]
    outputs: dict[str, ArtifactType]
    home: str
    spec_dir: str
    log: str
    required: list[str]
    """The outputs without which what was made under the key is not up to date."""
    threads: int = 1
    environment: dict[str, str] = {}
    """Variables that limit the stage to its share of the machine. The executor sets both."""
    sizes: dict[str, int] = {}
    """The bytes of each input, as far as known."""
    head: dict[str, Any] | None = None
    """The identity of the process that runs the spec, which the worker may outlive.

    The local executor sets it.
    """
    remote: str | None = None
    """The address of the remote store that is searched first."""
    force: bool = False
    resample: bool = False
    """Whether to draw again what the journal holds."""

    def all_inputs(self) -> Iterator[InputRequest]:
        """Yield every input, and the models below adapters."""
        for item in self.inputs.values():
            found: InputRequest | None = item
            while found is not None:
                yield found
                found = found.base

    def context(
        self, out: Path, work: Path, emit: Callable[[Mapping[str, Any]], None], store: Store
    ) -> StageContext[Any]:
        """Return the context for the stage's code."""
        objects = store.objects
        return StageContext(
            config=convert_config(stage_class(self.kind), self.config),
            stage=self.stage,
            inputs={port: item.artifact(objects) for port, item in self.inputs.items()},
            out=out,
            work=work,
            journal=store.journal,
            tools=default_folder(),
            spec_dir=Path(self.spec_dir),
            threads=self.threads,
            emit=emit,
            resample=self.resample,
        )
