"""``llmpipe estimate``: what stages take before they run, and whether it fits."""

from __future__ import annotations

import argparse
import contextlib
import sys
import threading
from collections.abc import Iterator

from llmpipe.cli.options import add_spec, open_pipeline, parser, print_json

TOO_LARGE = 1
"""The exit code when a stage does not fit."""

PATIENCE = 2.0
"""Seconds after which a line says what the command is doing."""


def main(argv: list[str]) -> int:
    """Run the command."""
    arguments = parser(
        "estimate",
        "Show what stages take before they run: memory of the GPU and of the machine, disk,\n"
        f"download, time. Exit with {TOO_LARGE} when a stage does not fit.",
    )
    add_spec(arguments)
    arguments.add_argument("stage", metavar="STAGE", nargs="?", help="one stage only")
    arguments.add_argument(
        "--gpu",
        metavar="SIZE[xN]",
        help="for a machine with such GPUs: 24GB, 80GBx8, 4090; this machine by default",
    )
    arguments.add_argument(
        "--price", metavar="USD", type=_price, help="what the machine costs an hour"
    )
    arguments.add_argument(
        "--offline", action="store_true", help="download nothing, not even a config.json"
    )
    arguments.add_argument("--json", action="store_true", help="print the estimate as JSON")
    options = arguments.parse_intermixed_args(argv)
    pipeline = open_pipeline(options)
    with _told_if_slow(f"estimating {options.stage or options.spec} … (slow only the first time)"):
        estimate = pipeline.estimate(
            options.stage, gpu=options.gpu, price=options.price, online=not options.offline
        )
    if options.json:
        print_json(estimate.as_json())
    else:
        print(estimate)
    return TOO_LARGE if estimate.fits is False else 0


@contextlib.contextmanager
def _told_if_slow(text: str) -> Iterator[None]:
    """Print a line on standard error if the block takes longer than a moment."""
    timer = threading.Timer(PATIENCE, print, [text], {"file": sys.stderr, "flush": True})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _price(text: str) -> float:
    try:
        price = float(text)
    except ValueError:
        price = -1.0
    if not 0 <= price < 1e6:
        raise argparse.ArgumentTypeError(f"an amount of US dollars is needed, not {text!r}")
    return price
