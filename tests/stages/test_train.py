"""The train stage's declarations: what it takes, gives, refuses, and what enters its key."""

from __future__ import annotations

import fnmatch
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmpipe.backends.axolotl.config import OWNED
from llmpipe.backends.axolotl.launchers import installed_launchers
from llmpipe.contracts import Artifact, StageContext, Target
from llmpipe.errors import StageError
from llmpipe.stages.train import Train, _other_base
from llmpipe.stages.train_compile import Layout, compile_stage, merged_block
from llmpipe.stages.train_config import CHOOSING_KEYS, REPORTING_KEYS, SAVING_KEYS, TrainConfig
from llmpipe.stages.train_folder import _merge_notes, shell_value


def config(axolotl: dict[str, Any] | None = None, **fields: Any) -> TrainConfig:
    """A train stage's config as a spec would give it."""
    data = {"kind": "train", "base_model": "./base", "data": "rows", "axolotl": axolotl or {}}
    return msgspec.convert(data | fields, TrainConfig)


def artifact(tmp_path: Path, rows: list[dict[str, Any]]) -> Artifact:
    """A file of rows as the engine hands it over."""
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return Artifact(file, "records", "digest", "./rows.jsonl")


def test_the_output_follows_the_adapter() -> None:
    """An adapter where one is trained, else a model; a file of one's own is taken for an adapter."""
    assert Train.ports(config({"adapter": "lora"})).default == "adapter"
    assert Train.ports(config()).default == "model"
    assert Train.ports(config(axolotl_file="./my.yml")).default == "adapter"
    assert Train.ports(config({"adapter": None}, axolotl_file="./my.yml")).default == "model"


def test_paths_in_the_block_are_inputs() -> None:
    """A DeepSpeed file counts by its content, so the engine must see it."""
    inputs = Train.ports(config({"deepspeed": "./z.json"}, eval_data="rows.eval")).inputs
    assert set(inputs) == {"base_model", "data", "eval_data", "axolotl.deepspeed"}
    assert inputs["axolotl.deepspeed"].field == ("axolotl", "deepspeed")
    assert inputs["axolotl.deepspeed"].value == "./z.json"


@pytest.mark.parametrize(
    ("block", "dataset", "key", "message"),
    [
        ({}, {"path": "x"}, "path", "does not belong in dataset: .* field data"),
        ({}, {"split": "test"}, "split", "does not belong in dataset"),
        ({}, {"chat_template": "chatml"}, "chat_template", "axolotl block: the published"),
        ({}, {"field_messages": "m"}, "field_messages", "turns with role and content"),
        ({"rl": "dpo"}, {"roles_to_train": ["user"]}, "roles_to_train", "these are pairs"),
        ({"rl": "kto"}, {"roles_to_train": ["user"]}, "roles_to_train", "these are labeled"),
        ({}, {"type": "alpaca", "train_on_eos": "all"}, "train_on_eos", "these are Alpaca prompts"),
        ({}, {"type": "mine.load", "ds_type": "json"}, "ds_type", "does not belong in dataset"),
        ({}, {"roles": ["a"]}, "roles", r"list of names for each role: \{assistant: \["),
        ({}, {"roles": {"assistant": "gpt"}}, "roles", "list of names for each role"),
        ({}, {"roles": {"assistant": None}}, "roles", "list of names for each role"),
        ({}, {"roles_to_train": "assistant"}, "roles_to_train", r"a list: \[assistant\]"),
        ({}, {"type": "mine.load", "roles": "a"}, "roles", "list of names for each role"),
    ],
)
def test_keys_of_the_entry_that_llmpipe_owns_or_nobody_reads(
    block: dict[str, Any], dataset: dict[str, Any], key: str, message: str
) -> None:
    """Each is a problem at its place, with the reason."""
    ((path, told),) = Train.problems(config(block, dataset=dataset))
    assert path == ("dataset", key)
    assert re.search(message, told)


def test_a_null_in_the_entry_unsets() -> None:
    """A key without a value says nothing, so that nothing is wrong with it."""
    unset = dict.fromkeys(("path", "roles", "roles_to_train", "train_on_eos", "chat_template"))
    assert Train.problems(config({"rl": "dpo"}, dataset=unset)) == []


def test_a_type_of_ones_own_may_name_its_columns() -> None:
    """llmpipe hands such rows over as they are."""
    assert Train.problems(config(dataset={"type": "mine.load", "field_human": "h"})) == []
    assert Train.problems(config(dataset={"roles_to_train": ["user"], "train_on_eos": "all"})) == []


def test_training_on_an_adapter_is_never_inferred() -> None:
    """Without adapter_start an adapter is refused; merge takes a model, continue the adapter."""
    base = Train.ports(config()).inputs["base_model"]
    assert "adapter_start: merge" in base.refuse["adapter"]
    assert Train.ports(config(adapter_start="merge")).inputs["base_model"].accepts == ("model",)
    going_on = Train.ports(config(adapter_start="continue")).inputs["base_model"]
    assert going_on.accepts == ("adapter",)


@pytest.mark.parametrize("key", sorted(OWNED))
def test_an_owned_key_names_the_field_to_write(key: str) -> None:
    """Each key that llmpipe sets is a problem at its place."""
    ((path, message),) = Train.problems(config({key: "x"}))
    assert path == ("axolotl", key)
    assert OWNED[key] in message


def test_problems_are_found_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unsupported rl, pickles, stray launcher arguments."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    block = {
        "rl": "ebft",
        "save_safetensors": False,
    }
    found = Train.problems(config(block, launch={"args": ["--nproc_per_node=8"]}))
    assert [".".join(map(str, path)) for path, _ in found] == [
        "axolotl.rl",
        "axolotl.save_safetensors",
        "launch.args",
    ]


@pytest.mark.parametrize(
    ("launch", "place", "message"),
    [
        ({"launcher": "deepspeed"}, "launch.launcher", "torchrun starts the processes"),
        ({"launcher": "ray", "args": ["-v"]}, "launch.launcher", "use_ray: true"),
        ({"launcher": "torchrun", "args": ["--nnodes 2"]}, "launch.args.0", "write --nnodes=2"),
        ({"launcher": "torchrun", "args": ["-m"]}, "launch.args.0", "set by Axolotl"),
        ({"env": {"A-B": "1"}}, "launch.env", "cannot be the name"),
    ],
)
def test_a_launch_that_cannot_be_is_refused(launch: Any, place: str, message: str) -> None:
    """With what to write instead."""
    ((path, told),) = Train.problems(config({}, launch=launch))
    assert ".".join(map(str, path)) == place
    assert message in told


def test_a_launch_as_one_writes_it_is_not() -> None:
    """Options with a value after them, a secret by its name, an empty variable."""
    args = ["--nproc_per_node", "2", "--rdzv_endpoint=h:1", "--log-line-prefix-template=[x y]"]
    env = {"HF_TOKEN": "${secret:HF_TOKEN}", "TOKENIZERS_PARALLELISM": "0", "WANDB_API_KEY": ""}
    launch = {"launcher": "torchrun", "args": args, "env": env}
    assert Train.problems(config({}, launch=launch)) == []


@pytest.mark.heavy
def test_launchers_are_those_of_the_installed_axolotl() -> None:
    """Read from its source; one that a later version drops is found before the run."""
    code = (
        "from axolotl.cli.main import train\n"
        "(option,) = (p for p in train.params if p.name == 'launcher')\n"
        "print(*option.type.choices)"
    )
    command = [sys.executable, "-c", code]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert installed_launchers() == tuple(said.splitlines()[-1].split())
    assert {"python", "accelerate", "torchrun"} <= set(installed_launchers())


def test_what_only_reports_is_not_in_the_key() -> None:
    """Every published key may change without a rerun; learning_rate may not."""
    plain = Train.fingerprint(config({"adapter": "lora"}))
    for key in REPORTING_KEYS | SAVING_KEYS:
        assert Train.fingerprint(config({"adapter": "lora", key: 1})) == plain, key
    assert Train.fingerprint(config({"adapter": "lora", "learning_rate": 1e-3})) != plain
    assert Train.fingerprint(config({"adapter": "lora"}, allow_unknown_axolotl=True)) == plain
    assert set(plain["device"]) == {"kind", "dtype"}


def test_saving_counts_where_it_chooses_the_weights() -> None:
    """The best of the saved checkpoints depends on when they were saved."""
    best = {"load_best_model_at_end": True}
    assert Train.fingerprint(config(best)) != Train.fingerprint(config({**best, "save_steps": 5}))


def test_a_file_of_ones_own_lies_under_the_block(tmp_path: Path) -> None:
    """The block wins; a file that trains all weights where an adapter is declared is refused."""
    file = tmp_path / "my.yml"
    file.write_text("base_model: theirs\nadapter: qlora\nlearning_rate: 1e-3\nlora_r: 8\n")
    block, notes = merged_block(config({"lora_r": 4}, axolotl_file="./my.yml"), file)
    assert block == {"adapter": "qlora", "learning_rate": "1e-3", "lora_r": 4}
    assert "base_model is replaced" in notes[0]
    file.write_text("adapter: lora\ndatasets: [{path: x, type: alpaca, train_on_eos: all}]\n")
    _, notes = merged_block(config(axolotl_file="./my.yml", dataset={"type": "alpaca"}), file)
    assert "./my.yml: train_on_eos in its datasets has no effect" in notes[1]
    file.write_text("learning_rate: 0.001\n")
    with pytest.raises(StageError, match="trains no adapter") as caught:
        merged_block(config(axolotl_file="./my.yml"), file)
    assert "adapter: null" in (caught.value.hint or "")


@pytest.mark.parametrize("text", ["- a list", "a: [", "just words"])
def test_a_file_that_is_no_axolotl_file_is_refused(tmp_path: Path, text: str) -> None:
    """Unreadable YAML and YAML of another shape, by the name the user wrote."""
    file = tmp_path / "my.yml"
    file.write_text(text)
    with pytest.raises(StageError, match=r"\./my\.yml"):
        merged_block(config(axolotl_file="./my.yml"), file)


CHAT_ROWS: tuple[dict[str, Any], ...] = (
    {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
    {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
    {"instruction": "q", "output": "a"},
)


@pytest.mark.slow
@pytest.mark.parametrize("row", CHAT_ROWS)
def test_chats_need_a_chat_template(tmp_path: Path, row: dict[str, Any]) -> None:
    """A base model without one is found before Axolotl starts, and told what to write."""
    base = tmp_path / "base"
    base.mkdir()
    (base / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')

    def compiled(block: dict[str, Any], **fields: Any) -> None:
        ctx = StageContext(
            config=config(block, **fields),
            stage="sft",
            inputs={
                "base_model": Artifact(base, "model", "d", "./base"),
                "data": artifact(tmp_path, [row]),
            },
            out=tmp_path,
            work=tmp_path,
            journal=tmp_path,
            tools=tmp_path,
            spec_dir=tmp_path,
            threads=2,
        )
        compile_stage(ctx, Layout(tmp_path))

    for block in ({}, {"chat_template": "tokenizer_default"}):
        with pytest.raises(StageError, match=r"\./base has no chat template") as caught:
            compiled(block)
        assert "chat_template: chatml" in (caught.value.hint or "")
        assert "dataset: {type: alpaca}" in (caught.value.hint or "")
    compiled({"chat_template": "chatml"})
    compiled({"chat_template": "tokenizer_default_fallback_chatml"})
    if "instruction" in row:
        compiled({}, dataset={"type": "alpaca"})
    (base / "chat_template.jinja").write_text("{{ messages }}")
    compiled({})


def test_a_folder_to_run_elsewhere_names_nothing_of_this_one(tmp_path: Path) -> None:
    """Relative paths, copied files, secrets by name; the shell reads the environment back."""
    chat = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    rows = artifact(tmp_path, [{"messages": chat}])
    zero = tmp_path / "zero.json"
    zero.write_text("{{ messages }}")
    block = {"adapter": "lora", "chat_template_jinja": "./zero.json"}
    ctx = StageContext(
        config=config(block, launch={"env": {"TOKEN": "a b${secret:MINE}'c", "EMPTY": ""}}),
        stage="sft",
        inputs={
            "base_model": Artifact(Path("/models/base"), "model", "d", "./base"),
            "data": rows,
            "axolotl.chat_template_jinja": Artifact(zero, "file", "d", "./zero.json"),
        },
        out=tmp_path,
        work=tmp_path,
        journal=tmp_path,
        tools=tmp_path,
        spec_dir=tmp_path,
        threads=2,
    )
    folder = tmp_path / "folder"
    Train.compile_to(ctx, folder)
    yml = (folder / "axolotl.yml").read_text()
    assert str(tmp_path) not in yml
    assert "base_model: /models/base" in yml
    assert "./files/chat_template_jinja-zero.json" in yml
    assert (folder / "files" / "chat_template_jinja-zero.json").read_text() == zero.read_text()
    assert (folder / "data" / "train.parquet").read_bytes()[:4] == b"PAR1"
    assert (folder / "plugins" / "axolotl_pairs" / "reward.py").is_file()
    script = f'. "{folder}/axolotl.env"; printf %s "$TOKEN"'
    told = subprocess.run(["sh", "-c", script], env={"MINE": "s3"}, capture_output=True, text=True)
    assert told.stdout == "a bs3'c"
    missing = subprocess.run(["sh", "-c", script], env={}, capture_output=True, text=True)
    assert missing.returncode != 0
    assert "set MINE" in missing.stderr


def test_a_short_name_compiles_for_a_run(tmp_path: Path) -> None:
    """Its file is written beside the configuration; a run took its path for an input."""
    rows = Artifact(tmp_path / "rows.jsonl", "dataset", "d", "rows")
    rows.path.write_text('{"text": "t"}\n')
    base = Artifact(Path("/models/base"), "model", "d", "./base")
    folders = [tmp_path] * 5
    stage = config({"deepspeed": "zero2", "adapter": "lora"})
    inputs = {"base_model": base, "data": rows}
    ctx = StageContext(stage, "sft", inputs, *folders, threads=1, target=Target("cuda"))
    compiled = compile_stage(ctx, Layout(tmp_path))
    assert compiled.config["deepspeed"] == str(tmp_path / "deepspeed" / "zero2.json")
    assert (tmp_path / "deepspeed" / "zero2.json").is_file()


@pytest.mark.parametrize("value", ["", "plain", "it's", 'a "b" $HOME `x` \\', "${HOME}"])
def test_shell_values_come_back_as_they_were(value: str) -> None:
    """Nothing but a secret's name is expanded."""
    script = f'X={shell_value(value)}; printf %s "$X"'
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == value


def test_nothing_heavy_is_imported_with_the_stage() -> None:
    """`llmpipe plan` imports this module: torch, yaml and Axolotl stay out of it."""
    code = (
        "import sys, llmpipe.stages.train, llmpipe.stages.merge;"
        "heavy = {'torch', 'transformers', 'axolotl', 'peft', 'safetensors', 'yaml', 'numpy'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_published_lists_are_the_ones_in_use() -> None:
    """docs/reference/training.md names every owned key and every key left out of the cache key."""
    page = (Path(__file__).parents[2] / "docs" / "reference" / "training.md").read_text("utf-8")
    words = re.findall(r"`([a-z_0-9*]+)`", page)
    for key in OWNED.keys() | REPORTING_KEYS | SAVING_KEYS | CHOOSING_KEYS:
        assert any(fnmatch.fnmatch(key, word) for word in words), key


@pytest.mark.parametrize(
    ("recorded", "block", "told"),
    [
        ({"load_in_4bit": True}, {"adapter": "qlora", "load_in_4bit": True}, ""),
        (None, {"adapter": "lora"}, ""),
        ({"load_in_8bit": True}, {"adapter": "lora", "load_in_8bit": True}, ""),
        ({"load_in_4bit": True}, {"adapter": "lora"}, "rounded to 4 bits, and continues on one that is not"),
        (None, {"adapter": "qlora", "load_in_4bit": True}, "not rounded, and continues on one that is rou"),
    ],
)  # fmt: skip
def test_going_on_upon_another_base_is_said(
    tmp_path: Path, recorded: dict[str, Any] | None, block: dict[str, Any], told: str
) -> None:
    """An adapter makes up for the rounding of its base: upon another it begins as another model."""
    if recorded:
        (tmp_path / "quantization_config.json").write_text(json.dumps(recorded))
    start = Artifact(tmp_path, "adapter", "1", "sft")
    ctx = StageContext(
        config=config(block, adapter_start="continue"),
        stage="more",
        inputs={"base_model": start},
        out=tmp_path,
        work=tmp_path,
        journal=tmp_path,
        tools=tmp_path,
        spec_dir=tmp_path,
        threads=1,
    )
    notes = _other_base(ctx, block)
    assert [told in note for note in notes] == ([True] if told else [])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, []),
        ({"adapter": "lora"}, []),
        ({"adapter": "lora", "lora_target_modules": ["q_proj"]}, []),
        ({"adapter": "lora", "lora_target_modules": ["q_proj", "lm_head"]}, ["lm_head of models"]),
        ({"adapter": "lora", "lora_modules_to_save": ["embed_tokens"]}, ["embed_tokens of models"]),
        ({"adapter": "qlora", "load_in_4bit": True}, ["before it was rounded"]),
    ],
)
def test_a_folder_says_what_axolotl_s_merge_would_lose(
    settings: dict[str, Any], told: list[str]
) -> None:
    """Its own merge says nothing of it."""
    notes = _merge_notes(settings)
    assert len(notes) == len(told)
    assert all(text in note for text, note in zip(told, notes, strict=True))
