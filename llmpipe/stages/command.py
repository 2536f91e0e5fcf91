"""Run the user's shell command with declared inputs and outputs.

``/bin/sh`` runs the command in the spec's folder. The command refers to its inputs and outputs as
``${inputs.NAME}`` and ``${outputs.NAME}``, which become quoted paths. The engine cannot know what
else the command reads, and does not track it.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated

import msgspec

from llmpipe.backends.subprocess import run_child
from llmpipe.contracts import (
    ArtifactType,
    FieldPath,
    Input,
    Output,
    Ports,
    StageConfig,
    StageContext,
    StageDefaults,
    StageResult,
)
from llmpipe.errors import StageError, did_you_mean
from llmpipe.gguf_parts import part_of
from llmpipe.needs import Given, Need

PROGRAM = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
"""A plain name of a program in a shell command, without a path or a variable."""
PLACEHOLDER = re.compile(r"\$\{(inputs|outputs)\.([^}]*)\}")
ANY_INPUT: tuple[ArtifactType, ...] = (
    "file",
    "records",
    "dataset",
    "model",
    "adapter",
    "gguf",
    "gguf_adapter",
    "metrics",
)


class CommandConfig(StageConfig, frozen=True, kw_only=True):
    """Run a shell command with declared inputs and outputs."""

    run: Annotated[str, msgspec.Meta(min_length=1)]
    """The command, for /bin/sh; ${inputs.NAME} and ${outputs.NAME} stand for paths."""
    inputs: dict[str, str] = {}
    """What the command reads, by name: paths or other stages' outputs."""
    outputs: Annotated[dict[str, str], msgspec.Meta(min_length=1)]
    """What the command writes, by name: the name of each file or folder."""
    env: Annotated[dict[str, str], msgspec.Meta(extra_json_schema={"writeOnly": True})] = {}
    """Environment variables of the command; the place for ${secret:NAME}."""


class Command(StageDefaults):
    """The ``command`` kind."""

    Config = CommandConfig
    VERSION = 1
    determinism = "external"
    cpus = 1

    @staticmethod
    def ports(config: CommandConfig) -> Ports:
        inputs = {
            name: Input(("inputs", name), value, ANY_INPUT) for name, value in config.inputs.items()
        }
        outputs = {name: Output(_type_of(file)) for name, file in config.outputs.items()}
        default = next(iter(outputs)) if len(outputs) == 1 else None
        return Ports(inputs, outputs, default)

    @staticmethod
    def problems(config: CommandConfig) -> list[tuple[FieldPath, str]]:
        found = list(_refused_by_the_system(config))
        writers: dict[str, str] = {}
        for name, value in config.outputs.items():
            if Path(value).name != value or value in ("", ".", ".."):
                found.append((("outputs", name), f"a plain file name is needed, not {value!r}"))
            part = part_of(value)
            if part is not None:
                message = (
                    f"{value!r} is one of {part.count} parts of a GGUF, and an output is one file: "
                    "let the command write, or join, the whole GGUF into one"
                )
                found.append((("outputs", name), message))
            writer = writers.setdefault(value, name)
            if writer != name:
                found.append((("outputs", name), f"the output {writer!r} is {value!r} already"))
        for section, name in PLACEHOLDER.findall(config.run):
            declared: dict[str, str] = getattr(config, section)
            if name not in declared:
                hint = (
                    did_you_mean(name, declared) or f"{section} has: {', '.join(declared) or '—'}"
                )
                found.append((("run",), f"${{{section}.{name}}} is not declared; {hint}"))
        return found

    @staticmethod
    def needs(config: CommandConfig, inputs: Mapping[str, Given]) -> tuple[Need, ...]:
        program = config.run.split(maxsplit=1)[0] if config.run.strip() else ""
        if not PROGRAM.fullmatch(program) or "PATH" in config.env:
            return ()
        here = _has_program(program)
        return (Need(program, here, f"install {program}, or name another", "program"),)

    @staticmethod
    def run(ctx: StageContext[CommandConfig]) -> StageResult:
        outputs = {name: ctx.out / file for name, file in ctx.config.outputs.items()}
        places = {
            "inputs": {name: artifact.path for name, artifact in ctx.inputs.items()},
            "outputs": outputs,
        }
        line = PLACEHOLDER.sub(lambda m: shlex.quote(str(places[m[1]][m[2]])), ctx.config.run)
        environment = {name: ctx.reveal(value) for name, value in ctx.config.env.items()}
        environment["PATH"] = _path_with_our_python()
        result = run_child(["/bin/sh", "-c", line], cwd=ctx.spec_dir, env=environment)
        if result.returncode != 0:
            raise StageError(f"the command ended with exit status {result.returncode}")
        for name, path in outputs.items():
            if not path.exists():
                raise StageError(
                    f"the command succeeded but did not write its output {name!r}",
                    hint=f"write it to ${{outputs.{name}}}",
                )
        return StageResult(outputs, {"outputs": len(outputs)})


def _refused_by_the_system(config: CommandConfig) -> Iterator[tuple[FieldPath, str]]:
    """Yield what no process can be started with."""
    texts: list[tuple[FieldPath, str]] = [(("run",), config.run)]
    texts += [(("outputs", name), file) for name, file in config.outputs.items()]
    texts += [(("env", name), name + value) for name, value in config.env.items()]
    for path, text in texts:
        if "\0" in text:
            yield path, r"the character \0 cannot be part of a command"
    for name in config.env:
        if not name or "=" in name:
            yield ("env", name), f"{name!r} cannot be the name of an environment variable"


def _type_of(file: str) -> ArtifactType:
    """Return the type of an output by the name of its file."""
    suffix = Path(file).suffix
    if suffix in (".jsonl", ".json", ".csv"):
        return "records"
    return "gguf" if suffix == ".gguf" else "file"


def _path_with_our_python() -> str:
    """Make ``python`` in a command the Python that runs llmpipe."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


@cache
def _has_program(name: str) -> bool:
    """Return whether the shell knows a program or builtin by this name."""
    look = ["/bin/sh", "-c", 'command -v -- "$1"', "sh", name]
    return subprocess.run(look, capture_output=True).returncode == 0
