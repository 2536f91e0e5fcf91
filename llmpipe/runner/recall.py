"""Recall that there is nothing to do, as long as nothing has changed.

To find every stage cached, a run reads and compiles the spec, computes each key and looks up its
record. A run after which every stage is cached therefore leaves a `Memory`: everything that this
result depends on, and what the next run prints. While all of it is unchanged, the next run prints
that without reading the spec. The parts are:

- the code of llmpipe, the Python that runs it, and the versions of the tools that shape artifacts;
- the content of the spec's files, and the environment variables that they name;
- where each reference to a file leads, and the content there;
- the records of all keys, their artifacts, the lock file, and the last run of each stage: unchanged
  as far as size, times and inode tell.

There is no memory if the result depends on more: on a commit of a hub, the device of this machine,
the code of another package's stages, or options of the command line.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from llmpipe.canonical import digest
from llmpipe.errors import LlmpipeError
from llmpipe.paths import expanded, is_path, local_path
from llmpipe.patterns import is_pattern, split_pattern
from llmpipe.runner.disk import atomic_write, writing
from llmpipe.runner.events import EventLog, Listener
from llmpipe.runner.fingerprint import tool_version
from llmpipe.runner.outcome import StageOutcome, content, new_run_id, write_record
from llmpipe.runner.registrations import registration
from llmpipe.runner.statcache import RACY_NS, Stamp, StatCache, stamp

if TYPE_CHECKING:
    from llmpipe.graph.model import Binding, StageNode
    from llmpipe.runner.outcome import RunOutcome
    from llmpipe.runner.project import Project
    from llmpipe.runner.records import KeyRecord
    from llmpipe.runner.store import Store

    Records = Mapping[str, KeyRecord]

LAYOUT = 3
"""The version of `Memory`. Other versions are ignored."""

_PACKAGE = Path(__file__).parent.parent
_VARIABLE = re.compile(rb"\$\{\s*env:([A-Za-z_][A-Za-z0-9_]*)")


class Reference(msgspec.Struct, frozen=True):
    """A path or ``pkg://`` address as the spec writes it, its folder, and where it leads."""

    text: str
    folder: str
    path: str


class Content(msgspec.Struct, frozen=True):
    """A file or folder that stages read, or the files of a folder that match a pattern."""

    path: str
    pattern: str | None
    digest: str


class Memory(msgspec.Struct, frozen=True):
    """Everything that the absence of work depends on, and the ``content`` of the run's record."""

    program: str
    """The digest of llmpipe's code and of the Python that runs it."""
    files: dict[str, str]
    """The SHA-256 of every file of the spec."""
    variables: dict[str, str | None]
    tools: dict[str, str]
    references: list[Reference]
    inputs: list[Content]
    stamps: dict[str, Stamp]
    """The stamps of key records, manifests, the lock file and the records of last runs."""
    sizes: dict[str, int]
    """The size of every file of every artifact."""
    content: dict[str, Any]


_DECODER = msgspec.json.Decoder(Memory)


def remember(project: Project, outcome: RunOutcome) -> None:
    """Leave a memory of a run after which there is nothing to do, if that is possible."""
    store, spec = project.store, project.graph.spec
    ended = outcome.stages.values()
    if not all(stage.status in ("cached", "done") and not stage.kept for stage in ended):
        return
    if not all(map(_can_be_kept, project.graph.nodes.values())):
        return
    records = {stage.id: stage.record for stage in ended if stage.record is not None}
    again = [StageOutcome(s.id, s.kind, "cached", s.key, record=s.record) for s in ended]
    try:
        memory = Memory(
            program=_program(),
            files={str(file.path): file.digest for file in spec.files.values()},
            variables=_variables([file.path for file in spec.files.values()]),
            tools=dict(_tools(records)),
            references=list(_references(project)),
            inputs=list(dict.fromkeys(_inputs(project, records))),
            stamps=_stamps(_watched(project, records)),
            sizes=dict(_artifacts(store, records)),
            content=content(project.graph, (), again),
        )
        path = _memory_file(store, spec.path, spec.profiles)
        store.memo.mkdir(exist_ok=True)
        text = msgspec.json.encode(memory).decode()
        atomic_write(path, f"{_digest_of(text.encode())}\n{text}", durable=False)
    except (OSError, UnicodeEncodeError, msgspec.MsgspecError):
        return  # the next run reads the spec


def recall(store: Store, spec: Path, profiles: Collection[str]) -> dict[str, Any] | None:
    """Return the content of the record of a run that would find nothing to do, or None."""
    try:
        raw = _memory_file(store, spec.absolute(), profiles).read_bytes()
        seal, _, text = raw.partition(b"\n")
        if seal.decode("latin-1") != _digest_of(text):
            return None  # damaged: it would tell what never was
        memory = _DECODER.decode(text)
        return memory.content if _holds(memory, store) else None
    except (OSError, msgspec.MsgspecError, LlmpipeError):
        return None  # reading the spec will report what is wrong


def repeat(
    store: Store, recalled: Mapping[str, Any], listeners: Collection[Listener]
) -> tuple[str, float]:
    """Record a run with the recalled content; return its id and duration in seconds.

    Raises:
        StoreError: The store cannot be written.
    """
    clock, begun = time.monotonic(), datetime.now(UTC)
    store.create()
    with store.in_use(), writing(store.home):
        folder = store.runs / new_run_id(begun)
        folder.mkdir(parents=True)
        with contextlib.closing(EventLog(folder / "events.jsonl", list(listeners))) as events:
            told = {name: recalled[name] for name in ("name", "spec", "profiles", "set")}
            events.emit("run-started", run=folder.name, **told, stages=list(recalled["stages"]))
            for stage in recalled["stages"].values():
                events.emit("stage-ended", **stage)
            seconds = round(time.monotonic() - clock, 3)
            events.emit("run-ended", status="done", seconds=seconds)
        write_record(folder, begun, "done", seconds, recalled)
    return folder.name, seconds


def _digest_of(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


def _can_be_kept(node: StageNode) -> bool:
    """Return whether a memory can hold all that a stage depends on."""
    from llmpipe.graph.sources import HubRepo
    from llmpipe.registry import KINDS

    if node.kind not in KINDS or node.stage.reads_environment:
        return False
    return not any(isinstance(source, HubRepo) for source in node.sources())


def _memory_file(store: Store, spec: Path, profiles: Collection[str]) -> Path:
    return store.memo / f"nothing-to-do-{digest([LAYOUT, str(spec), list(profiles)])[:16]}.json"


def _holds(memory: Memory, store: Store) -> bool:
    """Return whether nothing has changed; cheap checks come first."""
    return (
        memory.program == _program()
        and all(_sha256(path) == sha256 for path, sha256 in memory.files.items())
        and memory.variables == _values(memory.variables)
        and all(tool_version(tool) == version for tool, version in memory.tools.items())
        and _looked_at(memory.stamps) == memory.stamps
        and all(os.stat(path).st_size == size for path, size in memory.sizes.items())  # noqa: PTH116
        and all(_lead(one.text, one.folder) == one.path for one in memory.references)
        and _same_inputs(memory.inputs, store)
    )


def _program() -> str:
    """Return the digest of the stamps of llmpipe's files, and of the Python that runs them."""
    found = []
    for root, folders, files in os.walk(_PACKAGE):
        folders[:] = [name for name in folders if name != "__pycache__"]
        found += [(path, *stamp(os.stat(path))) for path in (f"{root}/{name}" for name in files)]  # noqa: PTH116
    return digest([LAYOUT, sys.version, sys.prefix, sorted(found)])


def _variables(files: Collection[Path]) -> dict[str, str | None]:
    """Return the variables that a spec's files name, and the one that ``~`` stands for."""
    named = {name.decode() for path in files for name in _VARIABLE.findall(path.read_bytes())}
    return _values({"HOME", *named})


def _values(names: Collection[str]) -> dict[str, str | None]:
    return {name: os.environ.get(name) for name in sorted(names)}


def _sha256(path: str) -> str:
    return _digest_of(Path(path).read_bytes())


def _references(project: Project) -> Iterator[Reference]:
    """Yield every reference to a file as it is written, without duplicates."""
    spec, found = project.graph.spec, set()
    for node in project.graph.nodes.values():
        for wanted in node.ports.inputs.values() if node.declared else ():
            if not is_path(wanted.value) and not wanted.value.startswith("pkg://"):
                continue
            assert node.declared is not None
            folder = spec.folder_of(node.declared.locate(wanted.field))
            written = (wanted.value, str(folder))
            if written not in found:
                found.add(written)
                yield Reference(*written, _lead(*written))


def _lead(text: str, folder: str) -> str:
    """Return the file or folder that a reference leads to; for a pattern, its folder."""
    if is_pattern(text) and not (Path(folder) / expanded(text)).exists():
        text, _ = split_pattern(text)
    if not text.startswith("pkg://"):
        return str(local_path(text, Path(folder)))
    from llmpipe.graph.sources import package_path

    return str(package_path(text))


def _same_inputs(inputs: Iterable[Content], store: Store) -> bool:
    if not inputs:
        return True
    with contextlib.closing(StatCache(store.statcache)) as cache:
        return all(cache.digest(Path(one.path), one.pattern) == one.digest for one in inputs)


def _inputs(project: Project, records: Records) -> Iterator[Content]:
    """Yield the inputs that are not made by a stage."""
    from llmpipe.graph.sources import LocalGlob, LocalPath

    for node in project.graph.nodes.values():
        for port, bound in node.bindings.items():
            binding: Binding | None = bound
            shape = records[node.id].ingredients["inputs"][port]
            while binding is not None:
                source = binding.source
                if isinstance(source, LocalPath):
                    yield Content(str(source.path), None, shape["digest"])
                elif isinstance(source, LocalGlob):
                    yield Content(str(source.root), source.pattern, shape["digest"])
                binding, shape = binding.base, shape.get("base")


def _tools(records: Records) -> Iterator[tuple[str, str]]:
    for record in records.values():
        yield from record.ingredients["tools"].items()


def _watched(project: Project, records: Records) -> Iterator[str]:
    """Yield the files that must be unchanged. For files of artifacts, sizes are enough."""
    store = project.store
    yield str(project.lock.path)
    yield str(registration(store, project.lock.path))
    yield str(store.latest_folder(project.graph.spec.path, project.lock.section))
    for record in records.values():
        yield f"{store.keys}/{record.key}.json"
        for output in record.outputs.values():
            yield f"{store.objects}/{output.object}/manifest.json"


def _stamps(paths: Iterable[str]) -> dict[str, Stamp]:
    """Return the stamps of files, or None if one may have changed since without a trace."""
    found = _looked_at(watched := list(paths))
    if max(max(seen[1], seen[3]) for seen in found.values()) < time.time_ns() - RACY_NS:
        return found
    time.sleep(2 * RACY_NS / 1e9)  # a file may change twice within one tick of the clock
    return _looked_at(watched)


def _looked_at(paths: Iterable[str]) -> dict[str, Stamp]:
    return {path: stamp(os.stat(path)) for path in paths}  # noqa: PTH116 (speed)


def _artifacts(store: Store, records: Records) -> Iterator[tuple[str, int]]:
    """Yield the path and size of every file of every artifact."""
    outputs = (output for record in records.values() for output in record.outputs.values())
    for object_id in sorted({output.object for output in outputs}):
        for entry in store.manifest(object_id):
            yield f"{store.objects}/{object_id}/data/{entry.path}", entry.size
