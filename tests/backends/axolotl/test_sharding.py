"""DeepSpeed and FSDP by short name: what Axolotl is given, and that it takes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmpipe.backends.axolotl.sharding import FSDP, ZERO, spelled_out


@pytest.mark.parametrize("name", ZERO)
def test_zero_is_a_file_beside_the_configuration(tmp_path: Path, name: str) -> None:
    """Named so that Axolotl recognizes stage 3; what is offloaded follows the name."""
    block = spelled_out({"deepspeed": name, "lora_r": 8}, tmp_path / "deepspeed", "deepspeed")
    assert block == {"deepspeed": f"deepspeed/{name}.json", "lora_r": 8}
    written: dict[str, Any] = json.loads((tmp_path / block["deepspeed"]).read_text())
    zero = written["zero_optimization"]
    assert f"zero{zero['stage']}" == name.partition("-")[0]
    assert ("offload_optimizer" in zero) == name.endswith("offload")
    assert ("offload_param" in zero) == (name == "zero3-offload")
    assert zero.get("stage3_gather_16bit_weights_on_model_save", False) == (zero["stage"] == 3)


@pytest.mark.parametrize("name", FSDP)
def test_fsdp_is_version_2(name: str) -> None:
    """Saved as one whole model, which merging and exporting read."""
    block = spelled_out({"fsdp_config": name}, None)
    assert block["fsdp_version"] == 2
    assert block["fsdp_config"]["state_dict_type"] == "FULL_STATE_DICT"
    assert block["fsdp_config"]["offload_params"] == name.endswith("offload")


def test_others_stay_as_they_are() -> None:
    """A file of one's own, a mapping, and nothing."""
    for block in ({"deepspeed": "./mine.json"}, {"fsdp_config": {"offload_params": True}}, {}):
        assert spelled_out(block, None) == block
