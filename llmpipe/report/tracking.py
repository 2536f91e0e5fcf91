"""What trackers of experiments wrote: the folders of W&B's offline runs, TensorBoard
and MLflow.

They are recognized by the name of the output. Links are relative to the page, because the store may
be anywhere.
"""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path, PurePath

import msgspec
from markupsafe import Markup

from llmpipe.report.facts import Facts
from llmpipe.report.rendering import NOTHING, render

OUTPUT = "tracking"
COMMANDS = {
    "wandb": "llmpipe get {spec} {output} ./tracking && wandb sync ./tracking/{name}",
    "tensorboard": "tensorboard --logdir {place}",
    "mlflow": "MLFLOW_ALLOW_FILE_STORE=true mlflow ui --backend-store-uri {place}",
}
"""The command that shows or sends what a tracker wrote. `wandb sync` writes into the folder that it
sends, so it needs a copy."""


@dataclass(frozen=True, slots=True)
class Tracked:
    """A folder of a tracker, relative to the page and to the store."""

    tracker: str
    link: str
    command: str


def tracked_runs(facts: Facts, folder: Path) -> Markup:
    """Return links to what trackers wrote in the stages of a run.

    Args:
        facts: The run.
        folder: Where the page will be.
    """
    found = {
        name: tracked
        for name, record in facts.records.items()
        if OUTPUT in record.outputs and (tracked := _tracked(facts, name, folder))
    }
    return render("tracking.html", facts=facts, tracked=found) if found else NOTHING


def _tracked(facts: Facts, stage: str, page: Path) -> list[Tracked]:
    output = facts.records[stage].outputs[OUTPUT]
    try:
        entries = facts.store.manifest(output.object)
    except (OSError, msgspec.MsgspecError):
        return []  # freed
    parts = [entry.path.split("/") for entry in entries]
    folders = {
        "/".join(names[: 2 if names[0] == "wandb" else 1])
        for names in parts
        if names[0] in COMMANDS and len(names) > 1
    }
    data = facts.store.output_path(output)
    found = []
    for name in sorted(folders):
        tracker, place = name.partition("/")[0], data / name
        link = os.path.relpath(place.resolve(), page.resolve())
        command = COMMANDS[tracker].format(
            spec=shlex.quote(PurePath(facts.run.spec).name),
            output=shlex.quote(f"{stage}.{OUTPUT}"),
            name=name,
            place=shlex.quote(os.path.relpath(place, facts.store.home.parent)),
        )
        found.append(Tracked(tracker, link, command))
    return found
