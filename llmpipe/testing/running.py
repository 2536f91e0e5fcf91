"""Run a stage kind in this process, without a pipeline and without a store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from llmpipe.contracts import Artifact, Input, StageContext, StageResult
from llmpipe.contracts.checks import astray, number_complaint, result_complaint
from llmpipe.registry import convert_config

Inputs = Mapping[str, Path | str | Artifact]
"""Inputs by port. A path becomes an artifact of the first type that the port accepts."""


@dataclass(frozen=True, slots=True)
class Done:
    """What a stage made, and what it told on the way."""

    result: StageResult
    events: list[Mapping[str, Any]]

    @property
    def outputs(self) -> Mapping[str, Path]:
        """Where each output lies."""
        return self.result.outputs

    @property
    def metrics(self) -> Mapping[str, Any]:
        """The stage's metrics."""
        return self.result.metrics

    @property
    def summary(self) -> str:
        """The stage's summary lines."""
        return self.result.summary

    @property
    def warnings(self) -> list[str]:
        """The warnings of the stage."""
        return [event["message"] for event in self.events if event["event"] == "warning"]


def make_config(stage: Any, fields: Mapping[str, Any]) -> Any:
    """Return the config of a stage as a spec would give it.

    Raises:
        AssertionError: a field is unknown or has the wrong type, or `problems` finds something.
    """
    kind = {"kind": stage.__name__.lower(), **fields}
    try:
        config = convert_config(stage, kind)
    except msgspec.ValidationError as error:
        raise AssertionError(f"the config {dict(fields)} is not valid: {error}") from None
    found = stage.problems(config)
    wrong = astray("problems", found, config)
    assert wrong is None, wrong
    problems = [f"{'.'.join(map(str, path))}: {text}" for path, text in found]
    assert not problems, f"the config {dict(fields)} has problems: {'; '.join(problems)}"
    return config


def make_context(
    stage: Any,
    fields: Mapping[str, Any],
    folder: Path,
    inputs: Inputs | None = None,
    *,
    name: str = "stage",
    threads: int = 1,
    resample: bool = False,
    events: list[Mapping[str, Any]] | None = None,
) -> StageContext[Any]:
    """Return the context that a stage runs with.

    Args:
        stage: the kind's class.
        fields: the stage's config as a spec would write it, without ``kind``.
        folder: the spec's folder: inputs that the config names by path lie here. What the stage
            writes goes into new folders below it.
        inputs: the inputs by port, or ``port[point]`` where one gathers the points of a sweep.
            Those left out are read from the config.
        name: the stage's name.
        threads: its share of the machine.
        resample: whether it is to ask again for what its journal holds.
        events: a list that collects its progress and warnings.

    Raises:
        AssertionError: the config is not valid, or an input is not there.
    """
    config = make_config(stage, fields)
    given = inputs or {}
    found = {}
    for port, wanted in stage.ports(config).inputs.items():
        points = [key for key in given if key.startswith(f"{port}[")] if wanted.gather else []
        for key in points or [port]:
            found[key] = _artifact(key, wanted, given.get(key, folder / wanted.value))
    unknown = given.keys() - found.keys()
    assert not unknown, f"there is no input {', '.join(sorted(unknown))}"
    places = {part: _new_folder(folder / ".testing", part) for part in ("out", "work")}
    journal = folder / ".testing" / "journal"
    journal.mkdir(exist_ok=True)
    return StageContext(
        config,
        name,
        found,
        places["out"],
        places["work"],
        journal=journal,
        tools=folder / ".testing" / "tools",
        spec_dir=folder,
        threads=threads,
        emit=(lambda event: None) if events is None else events.append,
        resample=resample,
    )


def run_stage(
    stage: Any,
    fields: Mapping[str, Any],
    folder: Path,
    inputs: Inputs | None = None,
    **options: Any,
) -> Done:
    """Run a stage and check what it returns; see `make_context` for the arguments.

    Raises:
        AssertionError: the config is not valid, or the result is not what `ports` declares.
        StageError: as the stage itself raises it.
    """
    events: list[Mapping[str, Any]] = []
    context = make_context(stage, fields, folder, inputs, events=events, **options)
    result = stage.run(context)
    declared = stage.ports(context.config).outputs
    wrong = result_complaint(result, declared, context.out) or number_complaint(result.metrics)
    assert wrong is None, wrong
    json.dumps(events)
    return Done(result, events)


def require_same_twice(
    stage: Any, fields: Mapping[str, Any], folder: Path, inputs: Inputs | None = None
) -> None:
    """Check that a stage makes the same bytes twice, as ``exact`` and ``same-machine`` promise.

    The second time the stage has another name, which is not part of its key.

    Raises:
        AssertionError: it does not.
    """
    names = ("stage", "renamed")
    made = [run_stage(stage, fields, folder, inputs, name=name).outputs for name in names]
    first, second = ({name: _content(path) for name, path in one.items()} for one in made)
    differing = [name for name in first if first[name] != second[name]]
    assert not differing, (
        f"made of the same inputs under two names, these differ: {', '.join(differing)}"
    )


def _content(path: Path) -> dict[str, str]:
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return {
        str(file.relative_to(path.parent)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
    }


def _artifact(port: str, wanted: Input, given: Path | str | Artifact) -> Artifact:
    if isinstance(given, Artifact):
        return given
    path = Path(given)
    assert path.exists(), f"the input {port!r} is not there: {path}"
    return Artifact(path, wanted.accepts[0], f"test:{port}", wanted.value)


def _new_folder(parent: Path, name: str) -> Path:
    """Make a folder whose name is still free."""
    number = 1
    while (folder := parent / f"{name}-{number}").exists():
        number += 1
    folder.mkdir(parents=True)
    return folder
