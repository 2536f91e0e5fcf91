"""The compiled Axolotl configuration: who wins, what is owned, what a CPU cannot do."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.backends.axolotl import attention
from llmpipe.backends.axolotl.config import (
    CPU_OFF,
    DEFAULTS,
    OWN_PLUGINS,
    OWNED,
    DataFile,
    Sources,
    compile_config,
    merge_blocks,
    owned_problems,
    to_yaml,
    with_defaults,
)
from llmpipe.backends.axolotl.paths import paths_in, replace_paths
from llmpipe.backends.device import Device

CPU = Device("cpu", "float32")
GPU = Device("cuda", "bfloat16", "a GPU")
DATA = DataFile("train.parquet", {"type": "chat_template"}, rows=10)
SOURCES = Sources("base", DATA, "output", "prepared")


def test_llmpipe_fills_in_what_it_owns() -> None:
    """Base model, data and places come from the stage, whatever the block holds."""
    config = compile_config({"adapter": "lora"}, SOURCES, CPU).config
    assert config["base_model"] == "base"
    assert config["datasets"] == [
        {"path": "train.parquet", "ds_type": "parquet", "split": "train", "type": "chat_template"}
    ]
    assert (config["output_dir"], config["dataset_prepared_path"]) == ("output", "prepared")
    assert config["val_set_size"] == 0
    assert "test_datasets" not in config


def test_the_block_wins_over_every_default() -> None:
    """Each default gives way to the block; a null takes it away."""
    wanted = {key: 3 for key in DEFAULTS if key not in ("sample_packing", "num_epochs")}
    config = compile_config({**wanted, "adapter": "lora", "lora_r": None}, SOURCES, CPU).config
    assert {key: config[key] for key in wanted} == wanted
    assert "lora_r" not in config


def test_defaults_depend_on_what_is_trained() -> None:
    """LoRA gets LoRA's settings, a full fine-tune a smaller learning rate, max_steps no epochs."""
    assert with_defaults({"adapter": "lora"})["lora_target_linear"] is True
    assert "lora_target_linear" not in with_defaults(
        {"adapter": "lora", "lora_target_modules": ["q_proj"]}
    )
    assert with_defaults({"adapter": "qlora"})["load_in_4bit"] is True
    assert "lora_r" not in with_defaults({})
    assert with_defaults({})["learning_rate"] == 2e-5
    assert "num_epochs" not in with_defaults({"max_steps": 5})
    assert with_defaults({"reward_model": True})["num_labels"] == 1
    assert "save_strategy" not in with_defaults({"save_steps": 2})


def test_a_cpu_is_not_asked_for_what_it_cannot_do_and_it_is_said() -> None:
    """Wishes that need a GPU are switched off, each with a sentence; unasked ones and `auto` silently."""
    block = {
        "adapter": "lora",
        "bf16": True,
        "tf32": "auto",
        "flash_attention": True,
        "deepspeed": "./zero3.json",
        "attn_implementation": "flash_attention_2",
        "plugins": ["axolotl.integrations.liger.LigerPlugin", "mine.Plugin"],
        "liger_rope": True,
    }
    compiled = compile_config(block, SOURCES, CPU)
    assert all(compiled.config[key] is False for key in CPU_OFF)
    assert "deepspeed" not in compiled.config
    assert "liger_rope" not in compiled.config
    assert compiled.config["attn_implementation"] == "sdpa"
    assert compiled.config["plugins"] == [*OWN_PLUGINS, "mine.Plugin"]
    assert len(compiled.notes) == 5
    assert not any(note.startswith("tf32") for note in compiled.notes)
    assert compile_config({"adapter": "lora"}, SOURCES, CPU).notes == []


def test_a_gpu_keeps_its_wishes_and_gets_a_number_format() -> None:
    """Nothing is switched off on a GPU; the number format that suits it is written down."""
    config = compile_config({"flash_attention": True, "sample_packing": True}, SOURCES, GPU).config
    assert config["bf16"] is True
    assert config["flash_attention"] is True
    assert "lora_mlp_kernel" not in config
    older = Device("cuda", "float16")
    assert compile_config({}, SOURCES, older).config["fp16"] is True
    assert "bf16" not in compile_config({"fp16": True}, SOURCES, GPU).config


@pytest.mark.parametrize(
    "block", [{"attn_implementation": "flash_attention_2"}, {"flash_attention": True}]
)
def test_flash_attention_that_is_not_installed(
    block: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here it becomes sdpa, elsewhere it is named; where it is installed, nothing changes."""
    here = Device("cuda", "bfloat16", "a GPU", memory=24 * 10**9)
    (key, value), *_ = block.items()
    for installed, device, kept, told in (
        (False, here, False, "becomes sdpa: flash-attn is not installed (pip install 'llmpipe[fl"),
        (False, GPU, True, "needs flash-attn where it trains (pip install 'llmpipe[flash-attn]')"),
        (True, here, True, ""),
        (True, GPU, True, "needs flash-attn where it trains"),
    ):
        monkeypatch.setattr(attention, "is_here", lambda name, there=installed: there)
        compiled = compile_config(block, SOURCES, device)
        if kept:
            assert compiled.config[key] == value
        else:
            assert compiled.config["attn_implementation"] == "sdpa"
            assert "flash_attention" not in compiled.config
        assert len(compiled.notes) == bool(told)
        assert all(told in note for note in compiled.notes)
    other = {"attn_implementation": "sdpa"}
    assert compile_config(other, SOURCES, here).notes == []


@pytest.mark.parametrize("key", ["sample_packing", "eval_sample_packing"])
def test_packing_gets_an_attention_that_isolates_rows(key: str) -> None:
    """Without a named one Axolotl keeps a mask with which packed rows see each other."""
    compiled = compile_config({key: True}, SOURCES, CPU)
    assert compiled.config["attn_implementation"] == "sdpa"
    assert [note for note in compiled.notes if note.startswith(f"{key}: attn_implementation")]
    for named in ({"attn_implementation": "eager"}, {"sdp_attention": True}):
        kept = compile_config({key: True, **named}, SOURCES, CPU)
        assert kept.config.items() >= named.items()
        assert kept.notes == []
    flash = compile_config({key: True, "attn_implementation": "flash_attention_2"}, SOURCES, CPU)
    assert flash.config["attn_implementation"] == "sdpa"


def test_evaluation_data_is_used_unless_the_block_says_when() -> None:
    """With evaluation data the loss is watched once an epoch by default."""
    sources = Sources("base", DATA, "output", "prepared", test=DATA)
    assert compile_config({}, sources, CPU).config["eval_strategy"] == "epoch"
    assert "eval_strategy" not in compile_config({"eval_steps": 5}, sources, CPU).config


def test_a_bare_no_of_a_file_stays_a_no() -> None:
    """PyYAML reads it as false; it must not become the default, evaluation after each epoch."""
    sources = Sources("base", DATA, "output", "prepared", test=DATA)
    block = {"eval_strategy": False, "save_strategy": False}
    compiled = compile_config(block, sources, CPU).config
    assert (compiled["eval_strategy"], compiled["save_strategy"]) == ("no", "no")


def test_going_on_from_an_adapter_names_it_and_draws_no_new_shape() -> None:
    """The adapter's own rank holds; llmpipe's LoRA defaults would contradict it."""
    sources = Sources("base", DATA, "output", "prepared", adapter="given")
    config = compile_config({"adapter": "lora"}, sources, CPU).config
    assert config["lora_model_dir"] == "given"
    assert "lora_r" not in config


def test_what_may_stay_untrained_is_in_the_configuration() -> None:
    """The plugin reads it there, in a folder without llmpipe as well."""
    sources = Sources("base", DATA, "output", "prepared", allow_untrained=["rows"])
    assert compile_config({}, sources, CPU).config["allow_untrained"] == ["rows"]
    assert "allow_untrained" not in compile_config({}, SOURCES, CPU).config


def test_owned_keys_are_refused_in_a_block_and_replaced_in_a_file() -> None:
    """A block names the stage's field instead; a person's file keeps the rest, and it is said."""
    assert [p.path for p in owned_problems(dict.fromkeys(OWNED))] == [(key,) for key in OWNED]
    assert "allow_untrained" in OWNED  # the labels plugin would read it, unseen by the stage
    file = {"base_model": "theirs", "val_set_size": 0.1, "learning_rate": 1e-3, "lora_r": 4}
    block, notes = merge_blocks(file, {"learning_rate": 2e-4}, label="my.yml")
    assert block == {"learning_rate": 2e-4, "lora_r": 4}
    assert len(notes) == 2
    assert "my.yml: base_model" in notes[0]


def test_what_a_mapping_of_the_file_loses_is_said() -> None:
    """The block's mapping replaces all of the file's; a key that goes by that is named."""
    file = {"trl": {"beta": 0.1, "max_completion_length": 9}, "lora_r": 4, "fsdp_config": {"a": 1}}
    block, notes = merge_blocks(file, {"trl": {"beta": 0.2}, "lora_r": 8}, label="my.yml")
    assert block["trl"] == {"beta": 0.2}
    assert notes == ["my.yml: trl loses max_completion_length: the stage's trl replaces all of it"]


def test_what_a_list_of_the_file_loses_is_said() -> None:
    """A plugin of the file that the block's list leaves out would otherwise be gone unsaid."""
    file = {"plugins": ["a.A", "b.B"], "lora_target_modules": ["q_proj"]}
    own = {"plugins": ["b.B", "c.C"], "lora_target_modules": ["q_proj", "v_proj"]}
    block, notes = merge_blocks(file, own, label="my.yml")
    assert block == own
    assert notes == ["my.yml: plugins loses a.A: the stage's plugins replaces all of it"]


def test_paths_are_found_at_any_depth_and_replaced() -> None:
    """Only what starts like a path is one."""
    block = {"deepspeed": "./z.json", "deep": {"list": ["../a", "b/c", 3]}, "home": "~/x"}
    prose = {"special_tokens": {"eos_token": "~"}, "default_system_message": "/no_think"}
    assert paths_in(prose) == {}
    assert paths_in({"tokens_file": "./t.json"}) == {("tokens_file",): "./t.json"}
    found = paths_in(block)
    assert found == {
        ("deepspeed",): "./z.json",
        ("deep", "list", 0): "../a",
        ("home",): "~/x",
    }
    replaced = replace_paths(block, dict.fromkeys(found, "/there"))
    assert replaced == {
        "deepspeed": "/there",
        "deep": {"list": ["/there", "b/c", 3]},
        "home": "/there",
    }


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner)
)


@pytest.mark.slow
@given(st.dictionaries(st.text(), VALUES, max_size=5))
def test_yaml_says_to_axolotl_what_was_meant(config: dict[str, object]) -> None:
    """What PyYAML reads back is the configuration: ``no`` stays a word, ``5e-4`` a number."""
    assert yaml.safe_load(to_yaml(config, header="one\ntwo")) == config


def test_simpo_has_its_margin() -> None:
    """Axolotl hands TRL a None in its place, on which the first step fails."""
    assert with_defaults({"rl": "simpo"})["simpo_gamma"] == 0.5
    assert with_defaults({"rl": "simpo", "simpo_gamma": 1.4})["simpo_gamma"] == 1.4
    assert "simpo_gamma" not in with_defaults({"rl": "dpo"})


def test_kto_keeps_its_columns() -> None:
    """Axolotl refuses KTO without ``remove_unused_columns: false``."""
    assert with_defaults({"rl": "kto"})["remove_unused_columns"] is False
