"""``llmpipe serve``: serve a model, or answers from documents, until Ctrl-C."""

from __future__ import annotations

import gc
import signal
import sys

from llmpipe.api.services import Service
from llmpipe.backends.binding import read_api_key
from llmpipe.cli.options import add_run, add_spec, open_pipeline, parser


def main(argv: list[str]) -> int:
    """Run the command."""
    arguments = parser(
        "serve",
        "Serve the model of a serve stage over the OpenAI API and as a web page, or the answers\n"
        "of a rag stage with their citations over the same API and as a web page, until Ctrl-C.",
    )
    add_spec(arguments)
    add_run(arguments)
    arguments.add_argument(
        "stage", metavar="STAGE", nargs="?", help="the serve or rag stage, if there are several"
    )
    arguments.add_argument("--host", help="address to bind; the stage's by default")
    arguments.add_argument("--port", type=int, help="port to listen on; the stage's by default")
    arguments.add_argument(
        "--api-key-env",
        metavar="NAME",
        help="environment variable with the callers' key; required unless --host is loopback",
    )
    options = arguments.parse_intermixed_args(argv)
    pipeline = open_pipeline(options, ["serve", options.spec, *filter(None, [options.stage])])
    key = read_api_key(options.api_key_env)
    with pipeline.serve(
        options.stage, host=options.host, port=options.port, api_key=key
    ) as service:
        try:
            _announce(service)
            _wait(service)
        except KeyboardInterrupt:
            pass  # the intended end
        finally:
            _leave_at_once()
    return 0


def _announce(service: Service) -> None:
    print(f"serving on {service.url} ({service.offers}); Ctrl-C stops", file=sys.stderr, flush=True)
    for note in service.notes:
        print(note, file=sys.stderr)


def _wait(service: Service) -> None:
    """Wait for Ctrl-C, for SIGTERM, or for the service to end by itself."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    service.wait()


def _leave_at_once() -> None:
    """Make another Ctrl-C end the command without waiting for answers in progress."""
    from llmpipe.cli.main import leave

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, leave)
    gc.freeze()  # Python's exit would search everything loaded for garbage, for seconds
