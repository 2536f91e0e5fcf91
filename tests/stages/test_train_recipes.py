"""The recipes of the documentation: what the installed Axolotl says of them on a GPU."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from llmpipe.stages.train import Train
from llmpipe.stages.train_compile import compile_unseen
from llmpipe.stages.train_config import TrainConfig

PAGE = Path(__file__).parent.parent.parent / "docs" / "how-to" / "training-methods.md"
RECIPES: dict[str, Any] = {}
for block in re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S):
    RECIPES |= yaml.safe_load(block)


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let llmpipe compile for a GPU, and tell Axolotl that there is one."""
    import llmpipe.stages.train_compile as compiling
    import llmpipe.stages.train_review as reviewing
    from llmpipe.backends.device import Device

    for module in (compiling, reviewing):
        monkeypatch.setattr(module, "detect", lambda: Device("cuda", "bfloat16"))


def config(name: str) -> TrainConfig:
    """A recipe as a stage."""
    recipe = {
        k: float(v) if k == "learning_rate" else v for k, v in RECIPES[name]["axolotl"].items()
    }
    return msgspec.convert({**RECIPES[name], "axolotl": recipe}, TrainConfig)


def test_every_method_has_a_recipe() -> None:
    """So that a new one is not forgotten."""
    blocks = [recipe["axolotl"] for recipe in RECIPES.values()]
    assert {block.get("rl") for block in blocks} == {None, "dpo", "simpo", "orpo", "kto", "grpo"}
    assert {block.get("adapter") for block in blocks} == {None, "lora", "qlora"}
    assert any(block.get("reward_model") for block in blocks)


@pytest.mark.parametrize("name", RECIPES)
def test_llmpipe_accepts_it(name: str, tmp_path: Path) -> None:
    """Nothing is refused; of TRL's experimental trainers there is a warning."""
    assert Train.problems(config(name)) == []
    warned = [found.message for found in Train.review(config(name), tmp_path)]
    assert all("trl.experimental" in message for message in warned)
    assert bool(warned) == (name in ("simpo", "orpo"))


@pytest.mark.heavy
def test_axolotl_accepts_them_on_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the capabilities of such a device, every recipe is sound: no unknown key, no error."""
    import axolotl.cli.config as axolotl_config

    from llmpipe.backends.axolotl.check_subprocess import _problems
    from llmpipe.backends.axolotl.training import PLUGINS, write_plugins

    write_plugins(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / PLUGINS)
    found: dict[str, list[str]] = {}
    for name in RECIPES:
        compiled, block = compile_unseen(config(name), None)
        processes = 8 if RECIPES[name].get("launch") else 1
        device = {"bf16": True, "fp8": True, "tf32": True, "compute_capability": "sm_90"}
        told = ({**device, "n_gpu": processes}, {"torch_version": "2.13.0"})
        monkeypatch.setattr(axolotl_config, "gpu_capabilities", lambda told=told: told)
        problems = list(_problems(compiled.config, block, "axolotl"))
        if refused := [problem.message for problem in problems if not problem.warning]:
            found[name] = refused
    assert found == {}
    assert "axolotl_seed" in sys.modules
