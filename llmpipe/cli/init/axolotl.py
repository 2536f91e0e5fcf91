"""``llmpipe init --from-axolotl``: write a spec that trains as an Axolotl file does.

The installed Axolotl judges the keys first, for a machine with a GPU. Keys that it would drop are
left out and named, everything else that cannot be carried over is a problem with its line, and then
nothing is written.
"""

from __future__ import annotations

import datetime
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmpipe.backends.axolotl.config import BlockProblem
from llmpipe.backends.axolotl.paths import without_path
from llmpipe.backends.device import named_device
from llmpipe.cli.check import ask_axolotl, read_foreign
from llmpipe.cli.init.axolotl_rows import Places, Rows, Told, carry_rows
from llmpipe.cli.init.axolotl_settings import carry_settings
from llmpipe.cli.init.recipe import quoted
from llmpipe.errors import Problem, SpecError
from llmpipe.spec.load import place_in

_PLAIN = re.compile(r"(?:[A-Za-z/]|\.(?=[./]))[\w./-]*")
_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n", "inf", "nan"})
_DROPPED = "unknown key"
WIDTH = 96


@dataclass(frozen=True, slots=True)
class Converted:
    """The text of a spec, and what the user should know about it."""

    text: str
    notes: list[str]
    trained: str
    """The stage that trains."""


def convert(file: Path, spec: Path, name: str) -> Converted:
    """Return the spec that trains as an Axolotl file does.

    Args:
        file: Axolotl's.
        spec: The path of the spec, from which its paths are relative.
        name: The name of the pipeline.

    Raises:
        SpecError: Something cannot be carried over. All of it is named, each at its line.
        UsageError: The file cannot be read.
    """
    settings, told = read_foreign(file), Told()
    settings = _known(settings, told)
    places = Places((Path(), file.parent), spec.parent)
    rows = carry_rows(settings, places, told)
    stage = carry_settings(settings, rows, places, told)
    if told.lost:
        lost = dict.fromkeys(told.lost)
        raise SpecError([Problem(_said(p), place_in(file, p.path), p.hint) for p in lost])
    notes = [f"{place_in(file, note.path)}: {_said(note)}" for note in told.notes]
    trained = _stage_name(stage)
    return Converted(_render(file, spec, name, rows, {trained: stage}, notes), notes, trained)


def _known(settings: Mapping[str, Any], told: Told) -> dict[str, Any]:
    """Return the settings without the keys that Axolotl drops; add what it refuses."""
    result = ask_axolotl(settings, named_device("cuda"))
    if not result.installed:
        told.note((), "Axolotl is not installed: whether it knows all keys was not checked")
    known = dict(settings)
    for problem in result.problems:
        if problem.warning:
            told.notes.append(problem)
        elif problem.message.startswith(_DROPPED) or " has no effect" in problem.message:
            known = without_path(known, problem.path)
            told.note(problem.path, f"is left out: Axolotl drops it ({problem.message})")
        else:
            told.lost.append(problem)
    return known


def _said(problem: BlockProblem) -> str:
    where = ".".join(map(str, problem.path))
    return f"{where}: {problem.message}" if where else problem.message


def _stage_name(stage: Mapping[str, Any]) -> str:
    block = stage["axolotl"]
    return "reward" if block.get("reward_model") else str(block.get("rl") or "sft")


def _render(
    file: Path,
    spec: Path,
    name: str,
    rows: Rows,
    trained: Mapping[str, dict[str, Any]],
    notes: Sequence[str],
) -> str:
    told = [
        f"It trains as {file.name} does. Keys under axolotl are Axolotl's own; null switches off"
    ]
    told += ["a default of llmpipe that Axolotl does not have."]
    told += ["", f"llmpipe run {spec.name}", ""]
    told += [f"- {note}" for note in notes]
    lines = ["# yaml-language-server: $schema=./spec.schema.json", "#"]
    lines += [f"# {line}".rstrip() for line in told]
    lines += ["version: 1", f"name: {_scalar(name)}", "", "stages:"]
    for stage_id, stage in {**rows.stages, **trained}.items():
        lines += [f"  {stage_id}:", *_mapping(stage, "    "), ""]
    return "\n".join(lines).rstrip() + "\n"


def _mapping(value: Mapping[str, Any], indent: str) -> Iterator[str]:
    for key, item in value.items():
        written = _scalar(str(key))
        if isinstance(item, Mapping) and item:
            flat = _flow(item)
            if len(flat) + len(indent) + len(written) < WIDTH and key != "axolotl":
                yield f"{indent}{written}: {flat}"
            else:
                yield f"{indent}{written}:"
                yield from _mapping(item, f"{indent}  ")
        elif isinstance(item, list) and len(_flow(item)) + len(indent) >= WIDTH:
            yield f"{indent}{written}:"
            yield from (f"{indent}  - {_flow(each)}" for each in item)
        else:
            yield f"{indent}{written}: {_flow(item)}"


def _flow(value: Any) -> str:
    """Return a value on one line."""
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_scalar(str(key))}: {_flow(item)}" for key, item in value.items())
        return f"{{{inner}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_flow, value))}]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    if isinstance(value, datetime.date):
        return quoted(value.isoformat())
    if isinstance(value, float) and math.isinf(value):
        return ".inf" if value > 0 else "-.inf"
    if not isinstance(value, str):
        return json.dumps(value)
    is_plain = _PLAIN.fullmatch(value) and value.lower() not in _WORDS
    return value if is_plain else quoted(value)
