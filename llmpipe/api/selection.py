"""Which stages of a pipeline are meant, and what a run is to do with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from llmpipe.contracts import Stochastic
from llmpipe.errors import UsageError, did_you_mean
from llmpipe.graph.model import Graph, StageNode
from llmpipe.runner.options import RunOptions
from llmpipe.runner.project import Project

Names = str | Iterable[str]
"""The name of a stage or profile, or several."""

Spelling = Callable[[str, str], str]
"""Spells an option with a stage as its caller does: ``--keep sft``, or ``keep=['sft']``."""


def in_python(option: str, stage: str) -> str:
    """Spell an option as an argument of a method."""
    return f"{option}={[stage]!r}"


def names_of(names: Names) -> list[str]:
    """Return one name, or several, as a list."""
    return [names] if isinstance(names, str) else list(names)


def find_stages(graph: Graph, name: str) -> list[str]:
    """Return the stage of this name, or all those that it is run as over a sweep.

    Raises:
        UsageError: the graph has none.
    """
    if name in graph.nodes:
        return [name]
    if name in graph.families:
        return graph.families[name]
    known = [*graph.families, *graph.nodes]
    hint = did_you_mean(name, known) or f"stages: {', '.join(graph.families)}"
    raise UsageError(f"{graph.spec.path.name} has no stage {name!r}", hint=hint)


def find_stage(graph: Graph, name: str) -> StageNode:
    """Return the one stage of this name.

    Raises:
        UsageError: the graph has none, or a sweep makes several of it.
    """
    found = find_stages(graph, name)
    if len(found) > 1:
        raise UsageError(f"{name!r} is made at several points: say which", hint="\n".join(found))
    return graph.nodes[found[0]]


def find_output(graph: Graph, artifact: str) -> tuple[StageNode, str]:
    """Find a stage and its output by what a spec would write; points of a sweep hold dots too.

    Raises:
        UsageError: there is none, or there are several to choose from.
    """
    known = {*graph.nodes, *graph.families}
    stage, output = artifact, ""
    head, dot, tail = artifact.rpartition(".")
    if artifact not in known and dot and (head in known or "@" not in artifact):
        stage, output = head, tail
    node = find_stage(graph, stage)
    outputs = node.ports.outputs
    output = output or node.ports.default or ""
    if output in outputs:
        return node, output
    has = f"it has: {', '.join(f'{node.id}.{name}' for name in outputs)}"
    if not output:
        raise UsageError(f"{node.id} has several outputs: say which", hint=has)
    hint = did_you_mean(output, outputs) or has
    raise UsageError(f"{node.id} has no output {output!r}", hint=hint)


def find_able(
    graph: Graph, ability: type, name: str | None, *, can: str, example: str
) -> StageNode:
    """Return the stage of this name, or the only one, whose kind has an ability.

    Args:
        graph: the pipeline's.
        ability: a class of `llmpipe.contracts.abilities`.
        name: the stage; None where the only one is meant.
        can: what such a stage can do, for messages: ``be served``.
        example: how a spec declares one.

    Raises:
        UsageError: there is none, it is of another kind, or there are several to choose from.
    """
    able = [node for node in graph.nodes.values() if issubclass(node.stage, ability)]
    names = ", ".join(node.id for node in able)
    if name is not None:
        node = find_stage(graph, name)
        if issubclass(node.stage, ability):
            return node
        hint = f"stages that can {can}: {names}" if able else f"add one: {example}"
        raise UsageError(f"{name} is a stage of kind {node.kind}, which cannot {can}", hint=hint)
    if len(able) == 1:
        return able[0]
    raise UsageError(
        f"{graph.spec.path.name} has {'several stages' if able else 'no stage'} that can {can}",
        hint=f"say which: {names}" if able else f"add one: {example}",
    )


def choose(
    project: Project,
    *,
    only: Sequence[str] | None = None,
    from_: Sequence[str] = (),
    force: Sequence[str] = (),
    resample: Sequence[str] = (),
    keep: Sequence[str] = (),
    spelling: Spelling = in_python,
) -> RunOptions:
    """Return what a run is to do with which stages; they are named as the spec names them.

    Raises:
        UsageError: a name is not that of a stage, or two wishes exclude each other.
    """
    graph = project.graph
    resampled = _all(graph, resample)
    forced = _all(graph, force) | resampled
    for name in from_:
        for stage in find_stages(graph, name):
            forced |= {stage, *graph.dependents(stage)}
    wanted = None if only is None else _wanted(graph, only)
    if wanted is not None:
        named = {"from": from_, "force": force, "resample": resample, "keep": keep}
        _require_within(graph, wanted, named, only or (), spelling)
    _require_stochastic(graph, resample, spelling)
    kept = _kept(project, keep, forced, spelling)
    return RunOptions(only=wanted, forced=forced, resampled=resampled, kept=kept)


def _all(graph: Graph, names: Iterable[str]) -> set[str]:
    return {stage for name in names for stage in find_stages(graph, name)}


def _wanted(graph: Graph, only: Iterable[str]) -> set[str]:
    named = _all(graph, only)
    return named.union(*(graph.needs(stage) for stage in named))


def _require_within(
    graph: Graph,
    wanted: set[str],
    named: dict[str, Sequence[str]],
    only: Sequence[str],
    spelling: Spelling,
) -> None:
    """Refuse an option for a stage that ``only`` leaves out."""
    for option, names in named.items():
        for name in names:
            if wanted.isdisjoint(find_stages(graph, name)):
                whole = " ".join(spelling("only", stage) for stage in only)
                hint = f"neither {name} nor what needs it is asked for"
                raise UsageError(f"{spelling(option, name)} does nothing with {whole}", hint=hint)


def _require_stochastic(graph: Graph, names: Iterable[str], spelling: Spelling) -> None:
    """Refuse to resample a stage that does not sample."""
    for name in names:
        node = graph.nodes[find_stages(graph, name)[0]]
        if not issubclass(node.stage, Stochastic):
            what = f"{spelling('resample', name)}: a stage of kind {node.kind} journals no replies"
            raise UsageError(what, hint=f"to run it again: {spelling('force', name)}")


def _kept(project: Project, names: Iterable[str], forced: set[str], spelling: Spelling) -> set[str]:
    """Return the stages to keep; each must have made something, and not be forced."""
    kept: set[str] = set()
    for name in names:
        found, option = set(find_stages(project.graph, name)), spelling("keep", name)
        if found & forced:
            raise UsageError(f"{option}: the stage is also to be run again")
        if not any(map(project.last_record, found)):
            hint = "it is to be made first; without keep it will be"
            raise UsageError(f"{option}: the store has nothing that it made", hint=hint)
        kept |= found
    return kept
