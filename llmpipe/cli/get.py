"""``llmpipe get``: copy an artifact out of the store."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from llmpipe.cli.options import add_spec, find_stage, open_project, parser
from llmpipe.errors import StoreError, UsageError, did_you_mean
from llmpipe.graph.model import StageNode
from llmpipe.runner.plan import make_plan
from llmpipe.runner.store import write_hint


def main(argv: list[str]) -> int:
    """Run the command."""
    arguments = parser("get", "Copy what a stage made out of the store.")
    add_spec(arguments)
    arguments.add_argument(
        "artifact", metavar="STAGE[.OUTPUT]", help="what to copy, as a spec would name it"
    )
    arguments.add_argument("path", metavar="PATH", help="where to; must not exist yet")
    options = arguments.parse_args(argv)
    project = open_project(options)
    graph = project.graph
    stage, output = options.artifact, ""
    if stage not in graph.nodes and stage not in graph.families:
        stage, _, output = stage.rpartition(".") if "." in stage else (stage, "", "")
    node = graph.nodes[find_stage(graph, stage)]
    output = _find_output(node, output)
    plan = make_plan(project)[node.id]
    if plan.status != "cached" or plan.record is None:
        raise StoreError(
            f"{options.artifact} is not up to date in the store",
            hint=f"make it first: llmpipe run {options.spec} --only {node.id}",
        )
    source = project.store.output_path(plan.record.outputs[output])
    target = Path(options.path)
    if target.is_dir() and source.is_file():
        target = target / source.name
    _copy(source, target)
    print(target)
    return 0


def _find_output(node: StageNode, output: str) -> str:
    if not output and node.ports.default:
        return node.ports.default
    if output in node.ports.outputs:
        return output
    has = f"it has: {', '.join(f'{node.id}.{name}' for name in node.ports.outputs)}"
    if not output:
        raise UsageError(f"{node.id} has several outputs: say which", hint=has)
    hint = did_you_mean(output, node.ports.outputs) or has
    raise UsageError(f"{node.id} has no output {output!r}", hint=hint)


def _copy(source: Path, target: Path) -> None:
    """Copy a file or folder; the copy belongs to the user and may be written to."""
    if target.exists():
        raise UsageError(f"{target} exists already", hint="name another path, or remove it first")
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, partial)
        else:
            shutil.copyfile(source, partial)
        for path in (partial, *partial.rglob("*")):
            path.chmod(path.stat().st_mode | stat.S_IWUSR)
        partial.rename(target)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        partial.unlink(missing_ok=True) if partial.is_file() else None
        raise StoreError(
            f"{target} cannot be written: {error.strerror}", hint=write_hint(error)
        ) from None
