"""``llmpipe get``: copy an artifact out of the store."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from pathlib import Path

from llmpipe.cli.artifact_lookup import Stored
from llmpipe.cli.options import add_run, add_spec, find_stage, parser
from llmpipe.errors import StoreError, UsageError, did_you_mean
from llmpipe.graph.model import Graph, StageNode
from llmpipe.runner.statcache import folder_files


def main(argv: list[str]) -> int:
    """Run the command."""
    arguments = parser("get", "Copy what a stage made out of the store.")
    add_spec(arguments)
    add_run(arguments)
    arguments.add_argument(
        "artifact", metavar="STAGE[.OUTPUT]", help="what to copy, as a spec would name it"
    )
    arguments.add_argument(
        "path",
        metavar="PATH",
        help="where to: a name that does not exist yet, or for a single file a folder that does",
    )
    options = arguments.parse_args(argv)
    stored = Stored(options, ["get", options.spec, options.artifact, options.path])
    node, output = _find(stored.project.graph, options.artifact)
    store = stored.project.store
    source = store.output_path(stored.record(node.id, options.artifact).outputs[output])
    target = Path(options.path)
    if target.is_dir() and source.is_file():
        target = target / source.name
    with store.in_use():
        _copy(source, target)
    print(target)
    return 0


def _find(graph: Graph, artifact: str) -> tuple[StageNode, str]:
    """Find a stage and its output by what a spec would write; points of a sweep hold dots too."""
    known = {*graph.nodes, *graph.families}
    stage, output = artifact, ""
    head, dot, tail = artifact.rpartition(".")
    if artifact not in known and dot and (head in known or "@" not in artifact):
        stage, output = head, tail
    node = graph.nodes[find_stage(graph, stage)]
    return node, _find_output(node, output)


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
    if os.path.lexists(target):
        raise UsageError(f"{target} exists already", hint="name another path, or remove it first")
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            partial.mkdir()
            for name, path in folder_files(source):
                _copy_file(path, partial / name)
        else:
            _copy_file(source, partial)
        partial.rename(target)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        hint = "the disk is full" if full else None
        message = f"{target} cannot be written: {error.strerror or error}"
        raise StoreError(message, hint=hint) from None
    finally:  # an interrupt as well leaves nothing half-written
        shutil.rmtree(partial, ignore_errors=True)
        with contextlib.suppress(OSError):
            partial.unlink()


def _copy_file(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)
    target.chmod(target.stat().st_mode | stat.S_IWUSR)
