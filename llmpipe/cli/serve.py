"""``llmpipe serve``: serve a serve stage's model or a rag stage's answers until Ctrl-C."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from functools import partial
from typing import TYPE_CHECKING, Any

from llmpipe.cli.artifact_lookup import Stored, open_answers, stage_of_kind
from llmpipe.cli.options import add_run, add_spec, parser
from llmpipe.contracts import reveal
from llmpipe.graph.model import StageNode
from llmpipe.runner.needs import require_installed

if TYPE_CHECKING:
    from llmpipe.backends.llama_cpp.batch import Batch

KINDS = ("serve", "rag")
EXAMPLE = "chat: {kind: serve, model: …}"


def main(argv: list[str]) -> int:
    """Run the command."""
    arguments = parser(
        "serve",
        "Serve the model of a serve stage over the OpenAI API, or the answers of a rag stage with\n"
        "their citations over the same API and as a web page, until Ctrl-C.",
    )
    add_spec(arguments)
    add_run(arguments)
    arguments.add_argument(
        "stage", metavar="STAGE", nargs="?", help="which serve or rag stage, if several"
    )
    arguments.add_argument("--host", help="address to bind; the stage's by default")
    arguments.add_argument("--port", type=int, help="port to listen on; the stage's by default")
    arguments.add_argument(
        "--api-key-env",
        metavar="NAME",
        help="environment variable with the key that callers must send; needed beyond loopback",
    )
    options = arguments.parse_intermixed_args(argv)
    stored = Stored(options, ["serve", options.spec, *filter(None, [options.stage])])
    node = stage_of_kind(stored.project.graph, KINDS, options.stage, EXAMPLE)
    from llmpipe.web.server import NEEDED

    require_installed(stored.project, node.id, NEEDED)
    config: Any = node.config
    if options.host is None:
        options.host = config.host
    if options.port is None:
        options.port = config.port
    (_serve_answers if node.kind == "rag" else _serve_model)(stored, node, options)
    return 0


def _serve_model(stored: Stored, node: StageNode, options: Namespace) -> None:
    from llmpipe.backends.binding import read_api_key
    from llmpipe.web.server import serve_model

    config: Any = node.config
    api_key = read_api_key(options.api_key_env)
    serve_model(
        stored.artifact(node.bindings["model"]).path,
        node.id,
        host=options.host,
        port=options.port,
        context=config.context,
        slots=config.slots,
        threads=config.threads or len(os.sched_getaffinity(0)),
        batch=config.batch,
        api_key=api_key,
        tells_cached=config.cached_tokens,
        on_ready=_announce_model,
    )


def _serve_answers(stored: Stored, node: StageNode, options: Namespace) -> None:
    from llmpipe.backends.binding import read_api_key
    from llmpipe.backends.openai.api_key import clean_key
    from llmpipe.web.server import serve_answers

    config: Any = node.config
    api_key = read_api_key(options.api_key_env)
    if api_key is None and config.api_key:
        api_key = clean_key(reveal(config.api_key), f"the API key of {node.id}")
    serve_answers(
        open_answers(stored, node),
        stored.project.graph.spec.name,
        node.id,
        host=options.host,
        port=options.port,
        slots=config.generator.slots,
        api_key=api_key,
        on_ready=partial(_announce, "a page to ask on, OpenAI API"),
        index_made=lambda: stored.made(node.bindings["index"]),
    )


def _announce_model(url: str, batch: Batch) -> None:
    _announce("OpenAI API", url)
    reason = "as the stage says"
    if batch.speed is not None:
        reason = f"measured: {batch.speed:,.0f} tokens a second where the context is full"
    print(f"prompts are computed {batch.tokens} tokens at a time ({reason})", file=sys.stderr)


def _announce(offers: str, url: str) -> None:
    print(f"serving on {url} ({offers} at {url}/v1); Ctrl-C stops", file=sys.stderr, flush=True)
