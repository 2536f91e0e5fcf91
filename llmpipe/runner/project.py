"""A spec together with the store of its artifacts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from llmpipe.canonical import digest
from llmpipe.errors import Problem, SpecError
from llmpipe.graph.compile import compile_spec
from llmpipe.graph.model import Binding, Graph, StageNode
from llmpipe.graph.sources import (
    AbsentData,
    HubRepo,
    LocalGlob,
    LocalPath,
    Source,
    StageOutput,
)
from llmpipe.paths import expanded
from llmpipe.runner.disk import atomic_write, read_json, writing
from llmpipe.runner.lockfile import LockFile
from llmpipe.runner.records import KeyRecord
from llmpipe.runner.remote import complaint
from llmpipe.runner.request import InputRequest, StageRequest
from llmpipe.runner.statcache import Notice, StatCache, content_size
from llmpipe.runner.store import Store, home_for
from llmpipe.spec.model import Spec
from llmpipe.spec.read import read_spec


class Project:
    """A compiled spec, its store, and the address of its remote store, if it names one.

    Raises:
        SpecError: That address cannot be used.
    """

    def __init__(self, graph: Graph, store: Store, notice: Notice | None = None) -> None:
        self.graph = graph
        self.store = store
        self._notice = notice
        self.remote_address = _remote_address(graph.spec)

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        profiles: Sequence[str] = (),
        settings: Sequence[str] = (),
        remember: bool = False,
        notice: Notice | None = None,
        absent: bool = False,
    ) -> Project:
        """Read and compile a spec, and open its store.

        ``remember`` stores that the spec is valid, even if this creates a store. ``notice`` is
        called with the progress of hashing an input file. For ``absent``, see `compile_spec`.

        Raises:
            SpecError: The spec is wrong.
            StoreError: The store has a newer format.
        """
        store = Store(home_for(Path(path)))
        memo = store.memo if remember or store.home.exists() else None
        spec = read_spec(path, profiles=profiles, settings=settings, memo=memo)
        return cls(compile_spec(spec, absent=absent), store, notice)

    @cached_property
    def statcache(self) -> StatCache:
        """The cache of the digests of input files."""
        return StatCache(self.store.statcache, self._notice)

    def files_of(self, digest: str) -> dict[str, str] | None:
        """Return the files that a folder had when it had this digest, if known."""
        return self.statcache.files_of(digest)

    def input_fingerprint(
        self, binding: Binding, records: Mapping[str, KeyRecord]
    ) -> dict[str, Any] | None:
        """Return what an input contributes to a cache key, or None while its content is unknown."""
        source = binding.source
        if isinstance(source, AbsentData):
            return None
        shape: dict[str, Any] = {"type": binding.type}
        if isinstance(source, StageOutput):
            record = records.get(source.stage)
            if record is None:
                return None
            output = record.outputs[source.output]
            shape |= {"digest": output.digest, "suffix": Path(output.path).suffix}
        elif isinstance(source, LocalPath):
            suffix = source.path.suffix if source.path.is_file() else ""
            shape |= {"digest": self.statcache.digest(source.path), "suffix": suffix}
        elif isinstance(source, LocalGlob):
            digest = self.statcache.digest(source.root, source.pattern)
            shape |= {"digest": digest, "suffix": ""}
        else:
            commit = self.commit_of(source)
            if commit is None:
                return None
            shape |= {"digest": f"hub:{source.repo}@{commit}", "suffix": ""}
        if binding.base is not None:
            base = self.input_fingerprint(binding.base, records)
            if base is None:
                return None
            shape["base"] = base
        return shape

    @cached_property
    def lock(self) -> LockFile:
        """The lock file next to the spec; it need not exist."""
        return LockFile(self.graph)

    def last_ingredients(self, stage: str) -> dict[str, Any] | None:
        """Return the ingredients of a stage's last run, from this store or from the lock file."""
        last = self.store.last_ingredients(self.graph.spec.path, self.lock.section, stage)
        if last is None:
            locked = self.lock.stage(stage)
            last = dict(locked["key_inputs"]) if locked else None
        return last

    def remember_latest(self, stage: str, key_inputs: Mapping[str, Any]) -> None:
        """Store the ingredients of a stage's last run, under these profiles."""
        self.store.remember_latest(self.graph.spec.path, self.lock.section, stage, key_inputs)

    def forget_removed(self) -> None:
        """Forget the last runs of stages that the spec has no more, so that they can be freed."""
        self.store.forget_latest(self.graph.spec.path, self.lock.section, self.graph.nodes)

    def last_record(self, stage: str) -> KeyRecord | None:
        """Return the record of a stage's last run, if the store still has it."""
        last = self.last_ingredients(stage)
        return None if last is None else self.store.record(digest(last))

    def request(
        self,
        node: StageNode,
        key: str,
        key_inputs: Mapping[str, Any],
        records: Mapping[str, KeyRecord],
        *,
        log: Path,
        remote: str | None = None,
        force: bool = False,
        resample: bool = False,
    ) -> StageRequest:
        """Return what a worker needs to know to run one stage."""
        return StageRequest(
            stage=node.id,
            kind=node.kind,
            key=key,
            key_inputs=dict(key_inputs),
            config=msgspec.to_builtins(node.config),
            inputs={
                port: self.input_request(binding, key_inputs["inputs"][port], records)
                for port, binding in node.bindings.items()
            },
            outputs={name: output.type for name, output in node.ports.outputs.items()},
            required=self.graph.required_outputs(node.id),
            home=str(self.store.home),
            spec_dir=str(self.graph.spec.folder),
            log=str(log),
            sizes=self.input_sizes(node, records),
            remote=remote,
            force=force,
            resample=resample,
        )

    def input_sizes(self, node: StageNode, records: Mapping[str, KeyRecord]) -> dict[str, int]:
        """Return the bytes of each input that is on this machine, by port."""
        found = {port: self._size(bound.source, records) for port, bound in node.bindings.items()}
        return {port: size for port, size in found.items() if size is not None}

    def _size(self, source: Source, records: Mapping[str, KeyRecord]) -> int | None:
        if isinstance(source, StageOutput):
            record = records.get(source.stage)
            return record.outputs[source.output].size if record else None
        if isinstance(source, HubRepo | AbsentData):
            return None
        pattern = source.pattern if isinstance(source, LocalGlob) else None
        path = source.root if isinstance(source, LocalGlob) else source.path
        try:
            return content_size(path, pattern)
        except OSError:
            return None

    def input_request(
        self, binding: Binding, shape: Mapping[str, Any], records: Mapping[str, KeyRecord]
    ) -> InputRequest:
        """Return an input and its place; ``shape`` is what it contributes to a cache key."""
        source, path, repo, commit, pattern = binding.source, None, None, None, None
        object_id, file = None, ""
        if isinstance(source, StageOutput):
            output = records[source.stage].outputs[source.output]
            object_id, file = output.object, output.path
        elif isinstance(source, LocalPath):
            path = str(source.path)
        elif isinstance(source, LocalGlob):
            path, pattern = str(source.root), source.pattern
        elif isinstance(source, HubRepo):
            repo, commit = source.repo, self.commit_of(source)
        base = self.input_request(binding.base, shape["base"], records) if binding.base else None
        return InputRequest(
            *(binding.type, shape["digest"], binding.label, object_id, file),
            *(path, repo, commit, base, pattern),
            split=source.split if isinstance(source, HubRepo) else None,
            subset=source.subset if isinstance(source, HubRepo) else None,
        )

    def commit_of(self, source: HubRepo) -> str | None:
        """Return the commit that a hub repository was resolved to, without asking the hub."""
        if source.revision and _is_commit(source.revision):
            return source.revision
        name = _hub_name(source)
        return self.lock.commits().get(name) or self._commits().get(name)

    def used_commits(self) -> dict[str, str]:
        """Return the commits of the unpinned hub repositories that the graph names."""
        found: dict[str, str] = {}
        for node in self.graph.nodes.values():
            for source in node.sources():
                if isinstance(source, HubRepo) and not _is_commit(source.revision or ""):
                    found[_hub_name(source)] = self.commit_of(source) or ""
        return {name: commit for name, commit in found.items() if commit}

    def remember_commit(self, source: HubRepo, commit: str) -> None:
        """Store the commit that a hub repository was resolved to; later runs use it."""
        with writing(self.store.home):
            text = json.dumps({**self._commits(), _hub_name(source): commit}, indent=1)
            atomic_write(self.store.home / "hub.json", text + "\n")

    def _commits(self) -> dict[str, str]:
        try:
            return msgspec.convert(read_json(self.store.home / "hub.json"), dict[str, str])
        except msgspec.ValidationError:
            return {}


def _remote_address(spec: Spec) -> str | None:
    """Return the address of a spec's remote store; a path is relative to the spec's file."""
    node = spec.root.find(("cache", "remote"))
    if node is None or node.value is None:
        return None
    address = str(node.value)
    wrong = complaint(address)
    if wrong:
        where = node.location._replace(text="")  # a password in it must not be shown
        hint = "credentials come from the environment, such as AWS_SECRET_ACCESS_KEY"
        raise SpecError([Problem(f"cache.remote: {wrong}", where, hint)])
    if "://" in address:
        return address
    return str((spec.folder_of(node.location) / expanded(address)).resolve())


def _hub_name(source: HubRepo) -> str:
    folder = "datasets/" if source.holds_rows else ""
    return f"{folder}{source.repo}@{source.revision or ''}"


def _is_commit(revision: str) -> bool:
    return len(revision) == 40 and all(c in "0123456789abcdef" for c in revision)
