"""What a publish consists of: the artifacts, the models below them, their license, measurements."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llmpipe.api.selection import find_output, find_stages
from llmpipe.backends.huggingface.license import (
    License,
    has_license_file,
    license_at,
    license_on_hub,
)
from llmpipe.contracts import ArtifactType
from llmpipe.errors import HubError, LlmpipeError, StageError, StoreError, UsageError
from llmpipe.graph.lineage import lineage
from llmpipe.graph.model import Binding, Graph, StageNode
from llmpipe.graph.sources import LocalPath, StageOutput
from llmpipe.model_card.facts import BaseModel, Piece, is_named, repo_at, shown_name
from llmpipe.runner.project import Project
from llmpipe.runner.records import Entry, KeyRecord

if TYPE_CHECKING:
    from llmpipe.api.stored import Stored

PUBLISHED: tuple[ArtifactType, ...] = ("model", "adapter", "gguf")
"""The types of artifacts that can be published, in the order of a card."""
NOT_OURS = frozenset({"README.md", ".gitattributes", ".gitignore"})
"""Files of a model folder that a repository has for itself."""

_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")

Warn = Callable[[str], None]


def require_repo(name: str) -> None:
    """Require the name of a repository as the hub allows it.

    Raises:
        UsageError: It is another.
    """
    wrong = not _REPO.fullmatch(name) or "--" in name or ".." in name or len(name) > 96
    if wrong or name.endswith((".git", ".", "-")):
        raise UsageError(
            f"--to {name}: this is not the name of a repository",
            hint="write OWNER/NAME, in letters, digits, '-', '_' and '.'",
        )


def require_license(chosen: str | None) -> None:
    """Require the name of a license, if the user chooses one, as the hub writes them.

    Raises:
        UsageError: It is not one.
    """
    if chosen is not None and not _LICENSE.fullmatch(chosen):
        raise UsageError(
            f"--license {chosen}: this is not a name of a license on the hub",
            hint="such as apache-2.0, mit, cc-by-4.0, llama3.2 or other",
        )


def find_pieces(
    project: Project, stored: Stored, repo: str, names: Sequence[str], warn: Warn
) -> list[Piece]:
    """Return the artifacts to publish, with the names of their files in the repository.

    Args:
        project: The pipeline's.
        stored: What its stages made.
        repo: The repository.
        names: Stages or outputs; without any, all that was trained.
        warn: Called with what is left out.

    Raises:
        UsageError: There is nothing to publish, or more than one repository can hold.
        StoreError: An artifact is not up to date.
    """
    graph = project.graph
    chosen = _named(graph, names) if names else _trained(graph)
    if not chosen:
        raise UsageError(
            f"{graph.spec.path.name} trains no model to publish",
            hint=f"name what to publish: {_publishable(graph)}",
        )
    by_content: dict[str, tuple[StageNode, str]] = {}
    for node, output in chosen:
        digest = stored.record(node.id).outputs[output].digest
        if digest in by_content:
            warn(f"{node.id}.{output} is the same as {_label(by_content[digest])}: published once")
        by_content.setdefault(digest, (node, output))
    _require_one(by_content.values())
    with_model = any(n.ports.outputs[o].type == "model" for n, o in by_content.values())
    pieces = [
        _piece(project, stored.record(node.id), node, output, repo, with_model, warn)
        for node, output in by_content.values()
    ]
    _require_names(pieces)
    return sorted(pieces, key=lambda piece: PUBLISHED.index(piece.type))


def _label(found: tuple[StageNode, str]) -> str:
    return f"{found[0].id}.{found[1]}"


def _named(graph: Graph, names: Sequence[str]) -> list[tuple[StageNode, str]]:
    """Return the outputs that names mean: all publishable ones of a stage, or a single one."""
    found: dict[tuple[str, str], tuple[StageNode, str]] = {}
    for name in names:
        if name in graph.nodes or name in graph.families:
            nodes = [graph.nodes[stage] for stage in find_stages(graph, name)]
            outputs = [(node, output) for node in nodes for output in _outputs(node)]
        else:
            outputs = [find_output(graph, name)]
        if not outputs or any(n.ports.outputs[o].type not in PUBLISHED for n, o in outputs):
            raise UsageError(
                f"{name} is neither a model, an adapter nor a GGUF",
                hint=f"what can be published: {_publishable(graph)}",
            )
        found |= {(node.id, output): (node, output) for node, output in outputs}
    return [*found.values()]


def _outputs(node: StageNode) -> list[str]:
    return [name for name, output in node.ports.outputs.items() if output.type in PUBLISHED]


def _trained(graph: Graph) -> list[tuple[StageNode, str]]:
    """Return all models, adapters and GGUFs that descend from a training."""
    return [
        (node, output)
        for node in graph.nodes.values()
        for output in _outputs(node)
        if lineage(graph, node.id, output).trained
    ]


def _publishable(graph: Graph) -> str:
    names = [f"{node.id}.{out}" for node in graph.nodes.values() for out in _outputs(node)]
    return ", ".join(names) or "there is none"


def _require_one(chosen: Any) -> None:
    """Require at most one model and one adapter: a repository shows one model."""
    for kind in ("model", "adapter"):
        several = [_label(f) for f in chosen if f[0].ports.outputs[f[1]].type == kind]
        if len(several) > 1:
            raise UsageError(
                f"a repository holds one {kind}, and these are {len(several)}",
                hint=f"name what to publish: {', '.join(several)}",
            )


def _piece(
    project: Project,
    record: KeyRecord,
    node: StageNode,
    output: str,
    repo: str,
    with_model: bool,
    warn: Warn,
) -> Piece:
    stored, type_ = record.outputs[output], node.ports.outputs[output].type
    entries = project.store.manifest(stored.object)
    if type_ == "gguf":
        files = {_gguf_name(repo, entry): entry for entry in entries}
    else:
        folder = "adapter/" if type_ == "adapter" and with_model else ""
        files = {f"{folder}{entry.path}": entry for entry in entries if entry.path not in NOT_OURS}
        for entry in entries:
            if entry.path in NOT_OURS:
                warn(f"{node.id}.{output}: its {entry.path} is left out")
    return Piece(node.id, output, type_, stored, files)


def _gguf_name(repo: str, entry: Entry) -> str:
    """Name a GGUF as is usual on the hub: ``NAME-Q4_K_M.gguf``."""
    from llmpipe.backends.llama_cpp.mixtures import TYPES

    stem = entry.path.removesuffix(".gguf")
    return f"{repo.rpartition('/')[2]}-{stem.upper() if stem in TYPES else stem}.gguf"


def _require_names(pieces: Sequence[Piece]) -> None:
    seen: dict[str, Piece] = {}
    for piece in pieces:
        for path in piece.files:
            if path in seen:
                raise UsageError(
                    f"{seen[path].label} and {piece.label} would both be {path}",
                    hint="publish them in two repositories",
                )
            seen[path] = piece


def find_bases(
    project: Project, stored: Stored, pieces: Sequence[Piece], chosen: str | None, warn: Warn
) -> list[BaseModel]:
    """Return the models from which the pieces descend, each once, with the licenses they state.

    A piece whose base model is not known has one without a name: it takes no neighbor's license.

    Args:
        project: The pipeline's.
        stored: What its stages made.
        pieces: What is published.
        chosen: The license that the user names, with which the hub need not be reached.
        warn: Called with what could not be read.

    Raises:
        HubError: The hub has to be asked for a license, and cannot.
    """
    found: dict[str, BaseModel] = {}
    for piece in pieces:
        way = lineage(project.graph, piece.stage, piece.output)
        if way.root is None:
            found[piece.label] = BaseModel("", "", of=piece.label, unread=True)
            continue
        inputs = stored.record(way.stages[-1]).ingredients["inputs"]
        node = project.graph.nodes[way.stages[-1]]
        port = next(port for port, bound in node.bindings.items() if bound == way.root)
        if port not in inputs:
            warn(f"{node.id} had no input {port} in that run: its base model is not known")
            found[piece.label] = BaseModel("", "", of=piece.label, unread=True)
            continue
        digest = str(inputs[port]["digest"])
        if digest not in found:
            found[digest] = _base(project, stored, way.root, digest, chosen, warn)
    return [*found.values()]


def _base(
    project: Project, stored: Stored, root: Binding, digest: str, chosen: str | None, warn: Warn
) -> BaseModel:
    """Return a model by its digest; ``root`` is what the spec names now, perhaps another one."""
    at_hub = repo_at(digest)
    if at_hub is not None:
        repo, commit = at_hub
        try:
            stated = license_on_hub(repo, commit)
        except HubError as error:
            if chosen is None:
                raise
            warn(f"the license of {repo} was not read: {error.message}")
            return BaseModel(repo, digest, repo, commit, unread=True)
        return BaseModel(repo, digest, repo, commit, stated)
    name = shown_name(root)
    if not is_named(project.graph, stored.document, root.label):
        warn(f"these files were made of another model than {name}: its license was not read")
        return BaseModel("", digest, unread=True)
    path = root.source.path if isinstance(root.source, LocalPath) else None
    if path is None or project.statcache.digest(path) != digest:
        warn(f"{name} has changed since these files were made of it: its license was not read")
        return BaseModel(name, digest, unread=True)
    try:
        stated = license_at(path)
    except StageError as error:
        warn(f"the license of {name} was not read: {error.message}")
        return BaseModel(name, digest, unread=True)
    if stated is None and has_license_file(path):
        warn(f"{name} has a file LICENSE, which is not interpreted")
    return BaseModel(name, digest, license=stated)


def find_license(bases: Sequence[BaseModel], chosen: str | None, warn: Warn) -> License:
    """Return the license to publish under: the user's choice, or what all base models state.

    Raises:
        UsageError: None is stated or several are, and the user chooses none.
    """
    stated = {base.license.terms: base.license for base in bases if base.license}
    if chosen is not None:
        for base in bases:
            if base.license and base.license.terms != License((chosen,)).terms:
                warn(f"{base.label} states the license {base.license}, and --license says {chosen}")
        return License((chosen,))
    silent = [base.shown for base in bases if not base.license and not base.of]
    rootless = [base.of for base in bases if base.of]
    if len(stated) == 1 and not silent and not rootless:
        return next(iter(stated.values()))
    if len(stated) > 1:
        told = "; ".join(f"{b.label}: {b.license.in_full}" for b in bases if b.license)
        what = f"the base models state several licenses ({told})"
    else:
        unread = any(base.unread for base in bases)
        says = "has a license that was not read" if unread else "states no license"
        what = f"the base model {', '.join(silent)} {says}"
        whose = f" of {', '.join(rootless)}" if rootless else ""
        unknown = f"the base model{whose} is not known, and neither is its license"
        what = what if silent else unknown
    raise UsageError(what, hint="name the license to publish under: --license ID, as in apache-2.0")


def measured(
    project: Project, stored: Stored, pieces: Sequence[Piece], warn: Warn
) -> dict[str, tuple[KeyRecord, Mapping[str, Any]]]:
    """Return the stages that compare what is published, each with the content of its metrics."""
    published = {(piece.stage, piece.output) for piece in pieces}
    digests = {piece.stored.digest for piece in pieces}
    found: dict[str, tuple[KeyRecord, Mapping[str, Any]]] = {}
    for node in project.graph.nodes.values():
        outputs = node.ports.outputs
        if "metrics" not in outputs or outputs["metrics"].type != "metrics":
            continue
        sources = [b.source for b in node.bindings.values() if isinstance(b.source, StageOutput)]
        named = {(source.stage, source.output) for source in sources}
        if not named & published and not any(_made(stored, *n) in digests for n in named):
            continue
        try:
            record = stored.record(node.id)
        except LlmpipeError:
            warn(f"{node.id} is not up to date: the card does not have what it measures")
            continue
        if stored.is_kept(node.id):
            warn(f"{node.id} was kept although it has changed: the card does not have its results")
            continue
        if not digests & {shape.get("digest") for shape in record.ingredients["inputs"].values()}:
            warn(f"{node.id} measured other files: the card does not have its results")
            continue
        path = project.store.output_path(record.outputs["metrics"])
        try:
            summary = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise StoreError(f"the metrics of {node.id} cannot be read: {error}") from None
        if isinstance(summary, dict) and {"models", "paired"} <= summary.keys():
            found[node.id] = (record, summary)
    return found


def _made(stored: Stored, stage: str, output: str) -> str | None:
    try:
        return stored.record(stage).outputs[output].digest
    except LlmpipeError:
        return None
