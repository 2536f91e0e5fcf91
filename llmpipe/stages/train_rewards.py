"""The rewards of ``rl: grpo``: functions in Python files of the user's own, and reward models.

Each file is an input of the stage, by content, and is copied beside the configuration as a module
that Axolotl can import. Every function is tried on the first rows before the training starts.
"""

from __future__ import annotations

import ast
import json
import math
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmpipe.backends.axolotl import training as axolotl
from llmpipe.backends.axolotl.config import KeyPath
from llmpipe.backends.huggingface.base_model import REWARD_ADAPTER, require_reward_model
from llmpipe.backends.subprocess import run_child
from llmpipe.contracts import Finding, Input, StageContext
from llmpipe.errors import StageError, did_you_mean
from llmpipe.paths import expanded
from llmpipe.stages.train_config import Reward, TrainConfig

MODELS = "reward_models"
"""The folder beside a configuration with links to reward models."""

TRIAL_SECONDS = 600.0
"""The longest that a reward function may take for three rows, a model that it loads included."""

_RESULT = "rewards-tried.json"


def reward_inputs(config: TrainConfig) -> dict[str, Input]:
    """Return an input for every file and model that rewards name; a file is one input."""
    inputs: dict[str, Input] = {}
    for i, reward in enumerate(config.rewards):
        if reward.file is not None and _first(config, i) == i:
            inputs[_port(i, "file")] = Input(("rewards", i, "file"), reward.file, ("file",))
        if reward.model is not None:
            field, refuse = ("rewards", i, "model"), {"adapter": REWARD_ADAPTER}
            inputs[_port(i, "model")] = Input(field, reward.model, ("model",), refuse=refuse)
    return inputs


def reward_problems(config: TrainConfig) -> Iterator[tuple[KeyPath, str]]:
    """Yield what is wrong with the field ``rewards`` by itself."""
    for i, reward in enumerate(config.rewards):
        if (reward.file is None) == (reward.model is None):
            yield ("rewards", i), "write either file with function, or model"
        elif (reward.file is None) != (reward.function is None):
            yield ("rewards", i), "file and function belong together"
        if not math.isfinite(reward.weight):
            yield ("rewards", i, "weight"), f"{reward.weight} is not a finite number"
    if config.rewards and config.axolotl_file is None and config.axolotl.get("rl") != "grpo":
        yield ("rewards",), "is read for rl: grpo only"


def reward_findings(config: TrainConfig, folder: Path) -> Iterator[Finding]:
    """Yield files that lack the function they are named for, without running them."""
    for i, reward in enumerate(config.rewards):
        if reward.file is None or reward.function is None:
            continue
        try:
            source = (folder / expanded(reward.file)).read_bytes()
            names = list(dict.fromkeys(_defined(ast.parse(source))))
        except OSError:  # the compiler reports a missing file
            continue
        except SyntaxError as error:
            line = f":{error.lineno}" if error.lineno else ""
            yield Finding(("rewards", i, "file"), f"{reward.file}{line}: SyntaxError: {error.msg}")
            continue
        except (ValueError, MemoryError, RecursionError) as error:
            message = (
                f"{reward.file} cannot be read as Python: {str(error) or type(error).__name__}"
            )
            yield Finding(("rewards", i, "file"), message)
            continue
        if reward.function not in names and "*" not in names:
            near = did_you_mean(reward.function, names)
            hint = near or f"it defines {', '.join(names) or 'none'}"
            message = f"{reward.file} has no function {reward.function!r}"
            yield Finding(("rewards", i, "function"), message, hint)


def place_rewards(ctx: StageContext[TrainConfig], folder: Path) -> dict[str, Any]:
    """Bring rewards into ``folder``; return the keys of Axolotl's ``trl`` that name them."""
    names: list[str] = []
    for i, reward in enumerate(ctx.config.rewards):
        if reward.model is not None:
            names.append(_linked_model(ctx, folder, i))
        else:
            source = ctx.input(_port(_first(ctx.config, i), "file")).path
            modules = folder / axolotl.PLUGINS
            modules.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, modules / f"{_module(ctx.config, i)}.py")
            names.append(_name(ctx.config, i))
    if not names:
        return {}
    return {"reward_funcs": names, "reward_weights": [r.weight for r in ctx.config.rewards]}


def expected_rewards(config: TrainConfig) -> dict[str, Any]:
    """Return the keys that `place_rewards` will return, before the inputs are there."""
    if not config.rewards:
        return {}
    names = [
        f"{MODELS}/model.{i + 1}" if reward.model is not None else _name(config, i)
        for i, reward in enumerate(config.rewards)
    ]
    return {"reward_funcs": names, "reward_weights": [r.weight for r in config.rewards]}


def try_rewards(ctx: StageContext[TrainConfig], work: Path, env: dict[str, str]) -> None:
    """Call every reward function on three rows, each with an answer and with an empty one.

    Raises:
        StageError: one raises, or returns something other than a number for each completion.
    """
    functions = {i: r for i, r in enumerate(ctx.config.rewards) if r.file is not None}
    if not functions:
        return
    result = work / _RESULT
    result.unlink(missing_ok=True)
    names = [_name(ctx.config, i) for i in functions]
    command = [sys.executable, "-m", "axolotl_rewards", str(work / "data" / "train.parquet")]
    words = [*command, str(result), str(TRIAL_SECONDS), *names]
    child = run_child(words, cwd=work, env=env)
    try:
        failures = json.loads(result.read_text("utf-8"))
    except (OSError, ValueError):
        last = "\n".join(child.tail[-5:])
        raise StageError(f"the reward functions could not be tried:\n{last}") from None
    told = [
        _told(i, reward, failure)
        for (i, reward), failure in zip(functions.items(), failures, strict=True)
        if failure
    ]
    if told:
        raise StageError("\n".join(told), hint=_HOW)


_HOW = (
    "a reward function is called with lists: prompts, completions (each [{'role': 'assistant', "
    "'content': TEXT}]), and one for every other column of the rows; it takes **kwargs for those "
    "that it does not name, and returns a number, or None, for each completion"
)


def _told(i: int, reward: Reward, failure: dict[str, Any]) -> str:
    line = f":{failure['line']}" if failure["line"] else ""
    return (
        f"rewards[{i}]: {reward.file}{line}: {reward.function}, tried on the first rows: "
        f"{failure['error']}"
    )


def _linked_model(ctx: StageContext[TrainConfig], folder: Path, i: int) -> str:
    """Link a reward model into ``folder``; return its name.

    A model without a head for rewards is refused: TRL would draw one at random.

    Axolotl imports what stands before the last dot of a reward's name and takes the name for a
    model only if that fails with ``ModuleNotFoundError``: without a dot it fails otherwise.
    """
    model = ctx.input(_port(i, "model"))
    if model.hub is not None:
        message = (
            f"rewards[{i}]: the reward model {model.hub} has to be read, to see that it is one"
        )
        raise StageError(message, hint="download it, and name its folder")
    require_reward_model(model.path, model.label)
    link = folder / MODELS / f"model.{i + 1}"
    link.parent.mkdir(parents=True, exist_ok=True)
    if ctx.target.device:  # another machine has no such path
        shutil.copytree(model.path, link)
        return f"{MODELS}/{link.name}"
    link.unlink(missing_ok=True)
    link.symlink_to(model.path)
    return f"{MODELS}/{link.name}"


def _defined(tree: ast.AST) -> Iterator[str]:
    """Yield the names that a module defines or imports, also below `if` and `try`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        else:
            yield from _defined(node)


def _module(config: TrainConfig, i: int) -> str:
    """Return the module of a reward's file."""
    return f"reward_file_{_first(config, i) + 1}"


def _first(config: TrainConfig, i: int) -> int:
    """Return the first reward that names the same file."""
    file = config.rewards[i].file
    return next(n for n, reward in enumerate(config.rewards) if reward.file == file)


def _name(config: TrainConfig, i: int) -> str:
    return f"{_module(config, i)}.{config.rewards[i].function}"


def _port(i: int, name: str) -> str:
    return f"rewards.{i}.{name}"
