"""``llmpipe serve``: serve the model of a serve stage until Ctrl-C."""

from __future__ import annotations

import os
import sys

from llmpipe.backends.llama_cpp import serve_forever
from llmpipe.cli.options import add_spec, open_project, parser
from llmpipe.cli.stored import Stored, stage_of_kind


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
    node = stage_of_kind(project.graph, "serve", options.stage, "chat: {kind: serve, model: …}")
    config = node.config
    return serve_forever(
        Stored(project, options.spec).artifact(node.bindings["model"]).path,
        host=options.host or config.host,  # type: ignore[attr-defined]
        port=config.port if options.port is None else options.port,  # type: ignore[attr-defined]
        context=config.context,  # type: ignore[attr-defined]
        slots=config.slots,  # type: ignore[attr-defined]
        threads=len(os.sched_getaffinity(0)),
        alias=node.id,
        api_key_env=options.api_key_env,
        on_ready=_announce,
    )


def _announce(url: str) -> None:
    print(f"serving on {url} (OpenAI API at {url}/v1); Ctrl-C stops", file=sys.stderr, flush=True)
