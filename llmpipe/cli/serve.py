"""``llmpipe serve``: serve the model of a serve stage until Ctrl-C."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from llmpipe.backends.llama_cpp import serve_forever
from llmpipe.cli.options import add_spec, find_stage, open_project, parser
from llmpipe.errors import StoreError, UsageError
from llmpipe.graph.model import Graph, StageNode
from llmpipe.graph.sources import LocalPath, StageOutput
from llmpipe.runner.plan import make_plan
from llmpipe.runner.project import Project


def main(argv: list[str]) -> int:
    """Run the command."""
    arguments = parser(
        "serve",
        "Serve the model of a serve stage over the OpenAI API (chat and completions, streaming\n"
        "too) until Ctrl-C.",
    )
    add_spec(arguments)
    arguments.add_argument(
        "stage", metavar="STAGE", nargs="?", help="which serve stage, if several"
    )
    arguments.add_argument("--host", help="address to bind; the stage's by default")
    arguments.add_argument("--port", type=int, help="port to listen on; the stage's by default")
    arguments.add_argument(
        "--api-key-env",
        metavar="NAME",
        help="environment variable with the key that callers must send; needed beyond loopback",
    )
    options = arguments.parse_intermixed_args(argv)
    project = open_project(options)
    node = _serve_stage(project.graph, options.stage)
    config = node.config
    return serve_forever(
        _model(project, node, options.spec),
        host=options.host or config.host,  # type: ignore[attr-defined]
        port=config.port if options.port is None else options.port,  # type: ignore[attr-defined]
        context=config.context,  # type: ignore[attr-defined]
        slots=config.slots,  # type: ignore[attr-defined]
        threads=len(os.sched_getaffinity(0)),
        alias=node.id,
        api_key_env=options.api_key_env,
        on_ready=_announce,
    )


def _serve_stage(graph: Graph, name: str | None) -> StageNode:
    """Find the serve stage that is meant."""
    if name is not None:
        node = graph.nodes[find_stage(graph, name)]
        if node.kind != "serve":
            raise UsageError(f"{name} is a {node.kind} stage, not a serve stage")
        return node
    found = [node for node in graph.nodes.values() if node.kind == "serve"]
    if len(found) != 1:
        names = ", ".join(node.id for node in found)
        raise UsageError(
            f"{graph.spec.path.name} has {'several serve stages' if found else 'no serve stage'}",
            hint=f"say which: {names}" if found else "add one: chat: {kind: serve, model: …}",
        )
    return found[0]


def _model(project: Project, node: StageNode, spec: str) -> Path:
    """Give the path of the GGUF to serve, which must be up to date in the store."""
    source = node.bindings["model"].source
    if isinstance(source, LocalPath):
        return source.path
    assert isinstance(source, StageOutput)
    plan = make_plan(project)[source.stage]
    if plan.status != "cached" or plan.record is None:
        raise StoreError(
            f"{node.bindings['model'].label} is not up to date in the store",
            hint=f"make it first: llmpipe run {spec} --only {source.stage}",
        )
    return project.store.output_path(plan.record.outputs[source.output])


def _announce(url: str) -> None:
    print(f"serving on {url} (OpenAI API at {url}/v1); Ctrl-C stops", file=sys.stderr, flush=True)
