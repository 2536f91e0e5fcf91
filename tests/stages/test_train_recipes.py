"""The recipes of the documentation: what the installed Axolotl says of them on a GPU."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from llmpipe.stages.train import Train
from llmpipe.stages.train_compile import compile_unseen
from llmpipe.stages.train_config import TrainConfig

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "how-to" / "training-methods.md"
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
    """Nothing is refused; of TRL's experimental trainers and of flash-attn there is a warning."""
    assert Train.problems(config(name)) == []
    told = [found.message for found in Train.review(config(name), tmp_path)]
    warned = [message for message in told if "needs flash-attn where it trains" not in message]
    flash = config(name).axolotl.get("attn_implementation") == "flash_attention_2"
    assert len(told) == len(warned) + flash
    assert all("trl.experimental" in message for message in warned)
    assert bool(warned) == (name in ("simpo", "orpo"))


@pytest.mark.heavy
def test_axolotl_accepts_them_on_a_gpu(tmp_path: Path) -> None:
    """With the capabilities of such a device, every recipe is sound: no unknown key, no error.

    Axolotl runs in a process of its own, because it sets up the logging of the whole process.
    """
    stages = {name: [RECIPES[name], *compile_unseen(config(name), None)] for name in RECIPES}
    given = tmp_path / "recipes.json"
    given.write_text(json.dumps([[n, r, c.config, b] for n, (r, c, b) in stages.items()]), "utf-8")
    done = subprocess.run(
        [sys.executable, "-c", CHECK, str(given), str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "refused.json").read_text("utf-8")) == {}


CHECK = """
import json, sys
from pathlib import Path
import axolotl.cli.config as axolotl_config
from llmpipe.backends.axolotl.check_subprocess import _problems
from llmpipe.backends.axolotl.training import PLUGINS, write_plugins

given, folder = Path(sys.argv[1]), Path(sys.argv[2])
write_plugins(folder)
sys.path.insert(0, str(folder / PLUGINS))
refused = {}
for name, recipe, compiled, block in json.loads(given.read_text("utf-8")):
    device = {"bf16": True, "fp8": True, "tf32": True, "compute_capability": "sm_90"}
    told = {**device, "n_gpu": 8 if recipe.get("launch") else 1}, {"torch_version": "2.13.0"}
    axolotl_config.gpu_capabilities = lambda told=told: told
    found = [p.message for p in _problems(compiled, block, "axolotl") if not p.warning]
    if found:
        refused[name] = found
assert "axolotl_seed" in sys.modules
(folder / "refused.json").write_text(json.dumps(refused), "utf-8")
"""
