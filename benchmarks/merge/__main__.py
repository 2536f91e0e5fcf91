"""The command: train, merge in three ways, print how far each product is from what was trained."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.merge.cases import CASES, Case
from benchmarks.merge.merges import WAYS, MergeFailedError
from benchmarks.merge.predictions import Ids, held_out_ids, of_folder, of_trained
from benchmarks.merge.training import STEPS, base_model, rows, train
from llmpipe.parity.divergence import divergence

LIMIT = 0.001
"""Nats a token that llmpipe's own merge may be away from what was trained."""
LEARNED = 0.01
"""Nats a token that an adapter must be away from its base to count: else nothing is shown."""


def main() -> int:
    """Run the benchmark and return the exit code: 1 where llmpipe exceeds the limit."""
    import torch

    options = _parse()
    torch.set_num_threads(options.threads)
    conditions = _conditions(options)
    print(f"{conditions}\n\n{_head()}", flush=True)
    found = []
    with tempfile.TemporaryDirectory(prefix="llmpipe-bench-") as temporary:
        base = base_model(options.size, options.dtype, Path(temporary) / "base")
        for number, name in enumerate(options.cases or CASES):
            folder = Path(temporary) / f"case-{number}"
            found.append(_measured(CASES[name], base, options, folder))
            print(_row(found[-1]), flush=True)
            shutil.rmtree(folder)
    if options.json:
        report = {"conditions": conditions, "limit": LIMIT, "cases": found}
        options.json.write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    return _judged(found)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.merge", description=__doc__)
    parser.add_argument(
        "--size", choices=[*STEPS], default="smollm2",
        help="the base: SmolLM2-135M (about three minutes a case), or a tiny random model",
    )  # fmt: skip
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32",
                        help="the number format of the base's weights")  # fmt: skip
    parser.add_argument("--cases", nargs="+", choices=[*CASES], help="only these adapters")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    return parser.parse_args()


def _measured(case: Case, base: Path, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Train one adapter, merge it in every way, and compare."""
    folder.mkdir()
    with _quietly(folder):
        trained = train(case, base, options.size, folder, options.threads)
    ids = held_out_ids(trained.adapter, rows()[1])
    reference = of_trained(base, trained.adapter, case, ids)
    figures: dict[str, Any] = {
        "case": case.name,
        "eval_loss": trained.eval_loss,
        "tokens": len(reference),
        "base": _distance(reference, base, ids),
    }
    for name, way in WAYS.items():
        try:
            with _quietly(folder):
                model = way(base, trained, folder, options.threads)
        except MergeFailedError as error:
            figures[name] = {"fails": str(error)}
            continue
        figures[name] = _distance(reference, model, ids)
        shutil.rmtree(model)
    return figures


@contextlib.contextmanager
def _quietly(folder: Path) -> Iterator[None]:
    """Keep what a training prints out of the table, in a log of its own."""
    with (folder / "log.txt").open("a") as log, contextlib.redirect_stdout(log):
        yield


def _distance(reference: Any, model: Path, ids: Ids) -> dict[str, Any]:
    """Compare a folder's predictions with the trained model's; a smaller vocabulary is said."""
    try:
        return asdict(divergence(reference, of_folder(model, ids)))
    except (IndexError, ValueError):
        return {"fails": "another vocabulary"}


def _conditions(options: argparse.Namespace) -> str:
    """Say when and with what the figures were taken."""
    packages = ("axolotl", "peft", "transformers", "bitsandbytes", "torch")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return (
        f"{datetime.now(UTC):%Y-%m-%d}; Python {platform.python_version()}; {versions}; "
        f"{options.size}, {options.dtype}"
    )


def _head() -> str:
    columns = ["adapter", "base", *(f"{name} (max)" for name in WAYS)]
    return f"| {' | '.join(columns)} |\n" + "|---" * len(columns) + "|"


def _row(figures: Mapping[str, Any]) -> str:
    cells = [figures["case"], _cell(figures["base"], worst=False)]
    cells += [_cell(figures[name]) for name in WAYS]
    return f"| {' | '.join(cells)} |"


def _cell(distance: Mapping[str, Any], *, worst: bool = True) -> str:
    if "fails" in distance:
        return str(distance["fails"]).replace("|", "/")[:60]
    text = f"{distance['mean_kl']:.2g}"
    return f"{text} ({distance['max_kl']:.2g})" if worst else text


def _judged(found: Sequence[Mapping[str, Any]]) -> int:
    """Say which adapters llmpipe merged wrongly, and which learned too little to tell."""
    code = 0
    for figures in found:
        own = figures["llmpipe"].get("mean_kl")
        if own is None or not own <= LIMIT:
            print(f"{figures['case']}: llmpipe is above {LIMIT} nats a token", file=sys.stderr)
            code = 1
        if figures["base"].get("mean_kl", LEARNED) < LEARNED:
            print(f"{figures['case']}: the adapter learned too little", file=sys.stderr)
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
