"""What a train stage's settings are judged for before a run: paths, the merged file, what is lost."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmpipe.backends.axolotl.config import OWN_PLUGINS
from llmpipe.contracts import Finding
from llmpipe.stages.train import Train
from llmpipe.stages.train_compile import compile_unseen
from llmpipe.stages.train_config import TrainConfig
from llmpipe.stages.train_review import setting_problems


@pytest.fixture(autouse=True)
def cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine without a GPU."""
    from llmpipe.backends.device import detect

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    detect.cache_clear()


def config(axolotl: dict[str, Any] | None = None, **fields: Any) -> TrainConfig:
    """A train stage's config as a spec would give it."""
    data = {"kind": "train", "base_model": "./base", "data": "rows", "axolotl": axolotl or {}}
    return msgspec.convert(data | fields, TrainConfig)


def review(folder: Path, axolotl: dict[str, Any] | None = None, **fields: Any) -> list[Finding]:
    """What is found of a stage whose spec lies in a folder."""
    return Train.review(config(axolotl, **fields), folder)


def by_field(findings: list[Finding]) -> dict[str, Finding]:
    """The findings by dotted place."""
    return {".".join(map(str, found.field)): found for found in findings}


def beside(folder: Path, *names: str) -> None:
    """Put files beside the spec."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")


@pytest.mark.parametrize(
    "block",
    [
        {"chat_template_jinja": "my.jinja"},
        {"chat_template_jinja": "templates/my"},
        {"tokenizer_config": "tok"},
        {"lora_model_dir": "runs/adapter"},
        {"torchdistx_path": "libs"},
        {"resume_from_checkpoint": "checkpoint-4"},
        {"special_plugin_rules": "rules.json"},
        {"deep": {"list": [{"anything": "rules.json"}]}},
        {"some_plugin_dir": "rules"},
    ],
)
def test_a_name_of_what_lies_beside_the_spec_is_told_how_to_be_written(
    tmp_path: Path, block: dict[str, Any]
) -> None:
    """Whichever key holds it: as written it would be taken for something else."""
    ((place, value),) = [(p, v) for p, v in _texts(block)]
    if "." in value:
        beside(tmp_path, value)
    else:
        beside(tmp_path, f"{value}/config.json")
    (found,) = review(tmp_path, block)
    assert (found.field, found.warning) == (("axolotl", *place), False)
    assert found.hint == f"write ./{value}"


@pytest.mark.parametrize(
    "block",
    [
        {"chat_template_jinja": "my.jinja"},
        {"chat_template_jinja": "chatml"},
        {"tokenizer_config": "tokenizer.json"},
        {"base_model_config": "configs/llama/tiny"},
        {"resume_from_checkpoint": "checkpoint-4"},
        {"deepspeed": "configs/zero3.json"},
    ],
)
def test_a_path_of_nothing_is_no_such_file(tmp_path: Path, block: dict[str, Any]) -> None:
    """Where only a file can be meant, the key is told that there is none."""
    (found,) = review(tmp_path, block)
    assert "no such file or folder" in found.message
    assert "a path starts with ./" in (found.hint or "")


@pytest.mark.parametrize(
    "block",
    [
        {"chat_template_jinja": "{% for m in messages %}{{ m.content }}{% endfor %}"},
        {"chat_template_jinja": "{{ messages[0].content }}\n"},
        {"tokenizer_config": "org/Some-Model-2.5"},
        {"tokenizer_config": "gpt2"},
        {"optimizer": "adamw_torch", "lr_scheduler": "cosine", "chat_template": "chatml"},
        {"wandb_project": "tickets", "hub_model_id": "me/tickets", "wandb_name": "a/b.json"},
        {"attn_implementation": "sdpa", "unfrozen_parameters": ["model.layers.4[0-9]+.x"]},
        {"special_tokens": {"pad_token": "me/tickets"}, "tokens": ["me/tickets", "x" * 5000, ""]},
    ],
)
def test_words_hub_ids_and_templates_are_no_paths(tmp_path: Path, block: dict[str, Any]) -> None:
    """Folders beside the spec of the same name as a word change nothing."""
    beside(tmp_path, "tickets/x", "chatml/x", "cosine/x", "me/tickets/x", "sdpa")
    assert [found for found in review(tmp_path, block) if not found.warning] == []


@pytest.mark.parametrize(
    ("block", "told"),
    [
        ({"chat_template_jinja": "./folder"}, "./folder is a folder, but Axolotl reads a file"),
        ({"deepspeed": "./folder"}, "./folder is a folder, but Axolotl reads a file"),
        ({"tokenizer_config": "./file.json"}, "./file.json is a file, but Axolotl reads a folder"),
        ({"lora_model_dir": "./file.json"}, "./file.json is a file, but Axolotl reads a folder"),
        ({"chat_template_jinja": "./file.json"}, "contains neither {{ … }} nor {% … %}"),
        ({"chat_template_jinja": "./open.jinja"}, "line 2 is not Jinja: Unexpected end of"),
        ({"chat_template_jinja": "{% for m in messages %}{{ m }}"}, "the template is not a chat"),
        ({"chat_template": "file.json"}, "takes the name of a template"),
        ({"chat_template": "./open.jinja"}, "takes the name of a template"),
    ],
)
def test_a_path_of_the_wrong_kind_is_told_before_a_run(
    tmp_path: Path, block: dict[str, Any], told: str
) -> None:
    """A folder for a file, and text that is not a template: Axolotl would fail, or train on the path."""
    beside(tmp_path, "file.json", "folder/x")
    (tmp_path / "open.jinja").write_text("{% for m in messages %}\n{{ m }}")
    (found,) = [finding for finding in review(tmp_path, block) if not finding.warning]
    assert found.field == ("axolotl", *block)
    assert told in found.message


def test_statements_that_transformers_adds_to_templates_are_no_mistake(tmp_path: Path) -> None:
    """Its ``generation`` is not Jinja's, and white space is trimmed around it."""
    text = "{% for m in messages %}{%- generation -%}{{ m.content }}{% endgeneration %}{% endfor %}"
    (tmp_path / "my.jinja").write_text(text)
    assert review(tmp_path, {"chat_template_jinja": "./my.jinja"}) == []


def test_a_name_of_what_lies_beside_the_file(tmp_path: Path) -> None:
    """Axolotl would take a folder beside the file for a repository of the hub."""
    beside(tmp_path, "conf/tok/tokenizer.json")
    (tmp_path / "conf/my.yml").write_text("adapter: lora\ntokenizer_config: tok\n")
    (found,) = review(tmp_path, axolotl_file="./conf/my.yml")
    assert found.message == "tok is next to my.yml, but is not written as a path"
    assert "tokenizer_config in the stage's axolotl block" in (found.hint or "")
    own = {"tokenizer_config": str(tmp_path / "conf/tok")}
    assert review(tmp_path, own, axolotl_file="./conf/my.yml") == []


def test_a_module_is_looked_for_where_the_training_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file is not the name of a module; a module beside the spec must be on the Python path."""
    beside(tmp_path, "my_plugin.py")
    monkeypatch.chdir(tmp_path)
    (file,) = review(tmp_path, {"plugins": ["my_plugin.py"]})
    assert "my_plugin.NAME" in (file.hint or "")
    (module,) = review(tmp_path, {"plugins": ["my_plugin.Mine"]})
    assert module.field == ("axolotl", "plugins", 0)
    assert f"launch: {{env: {{PYTHONPATH: {tmp_path}}}}}" in (module.hint or "")
    mine = {"plugins": ["my_plugin.Mine"]}
    assert review(tmp_path, mine, launch={"env": {"PYTHONPATH": str(tmp_path)}}) == []
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert review(tmp_path, mine) == []
    for elsewhere in ("/nowhere", ".", ""):  # the stage's stands in place of ours, whole
        (found,) = review(tmp_path, mine, launch={"env": {"PYTHONPATH": elsewhere}})
        assert found.field == ("axolotl", "plugins", 0)
    assert review(tmp_path, {"plugins": ["axolotl.integrations.kd.KDPlugin"]}) == []


FILE = """\
base_model: theirs
adapter: lora
bf16: true
sample_packing: true
rl: ebft
save_safetensors: false
deepspeed: ./zero.json
chat_template_jinja: my.jinja
"""


def test_a_file_is_judged_as_the_block_is(tmp_path: Path) -> None:
    """Its errors stand at its keys; a path in it is to be written in the block."""
    file = tmp_path / "my.yml"
    file.write_text(FILE)
    beside(tmp_path, "zero.json", "my.jinja")
    found = by_field(review(tmp_path, axolotl_file="./my.yml"))
    assert set(found) == {
        "rl", "save_safetensors", "deepspeed", "chat_template_jinja"
    }  # fmt: skip
    assert {finding.file for finding in found.values()} == {file}
    assert not any(finding.warning for finding in found.values())
    assert "stage's axolotl block" in (found["deepspeed"].hint or "")
    assert found["chat_template_jinja"].hint == "write ./my.jinja"


def test_the_block_mends_what_is_wrong_in_its_file(tmp_path: Path) -> None:
    """It is the merged settings that count; what is replaced and left out is said as warnings."""
    (tmp_path / "my.yml").write_text(FILE + "plugins: [axolotl.integrations.liger.LigerPlugin]\n")
    beside(tmp_path, "zero.json")
    (tmp_path / "my.jinja").write_text("{{ messages }}")
    block = {
        "sample_packing": False,
        "rl": "dpo",
        "save_safetensors": None,
        "deepspeed": str(tmp_path / "zero.json"),
        "chat_template_jinja": str(tmp_path / "my.jinja"),
    }
    found = review(tmp_path, block, axolotl_file="./my.yml")
    assert all(finding.warning for finding in found)
    told = {".".join(map(str, f.field)): f.message for f in found}
    assert set(told) == {"base_model", "bf16", "axolotl.deepspeed", "plugins"}
    assert "replaced by the stage's own" in told["base_model"]
    assert "switched off" in told["bf16"]


def test_rows_that_the_file_names_are_not_trained_on(tmp_path: Path) -> None:
    """Axolotl would train on ``pretraining_dataset`` instead of the stage's rows."""
    (tmp_path / "my.yml").write_text("adapter: lora\npretraining_dataset: [{path: c4}]\n")
    (found,) = review(tmp_path, axolotl_file="./my.yml")
    assert found.message.startswith("is replaced by the stage's own")
    unseen, _ = compile_unseen(config(axolotl_file="./my.yml"), tmp_path / "my.yml")
    assert "pretraining_dataset" not in unseen.config


@pytest.mark.parametrize("key", ["eval_steps", "eval_strategy", "evals_per_epoch"])
def test_evaluations_without_rows_are_told_what_is_missing(tmp_path: Path, key: str) -> None:
    """The file's own ``val_set_size`` is not used, so the message must not be about it."""
    value = "epoch" if key == "eval_strategy" else 2
    (tmp_path / "my.yml").write_text(f"adapter: lora\nval_set_size: 0.1\n{key}: {value}\n")
    found = by_field(review(tmp_path, axolotl_file="./my.yml"))
    assert "rows to evaluate on" in found[key].message
    assert found[key].hint == "write eval_data"
    assert found[key].warning is (key == "evals_per_epoch")
    found = by_field(review(tmp_path, axolotl_file="./my.yml", eval_data="e"))
    assert set(found) == {"val_set_size"}
    assert review(tmp_path, {key: value, "eval_strategy": "no"}) == []


def test_marked_steps_are_refused(tmp_path: Path) -> None:
    """Axolotl would read conversations as no process reward model can be trained on them."""
    (found,) = review(tmp_path, {"process_reward_model": True})
    assert found.field == ("axolotl", "process_reward_model")


@pytest.mark.slow
def test_a_broken_file_is_said_at_its_field(tmp_path: Path) -> None:
    """Unreadable, or with a key that appears twice, of which Axolotl would take the last."""
    file = tmp_path / "my.yml"
    nine = [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, 9)]
    for text, message in (
        ("a: [", "cannot be read"),
        ("lora_r: 4\nlora_r: 8\n", ":2: the key"),
        ("\n".join(["l0: &l0 [1]", *nine]), "aliases expand to more than"),
        ("a: &a [*a]", "cannot be read"),
        (f"a: {'[' * 5000}", "cannot be read"),
    ):
        file.write_text(text)
        (found,) = review(tmp_path, axolotl_file="./my.yml")
        assert found.field == ("axolotl_file",)
        assert message in found.message


KEY = "load_best_model_at_end"
BEST = {KEY: True, "eval_steps": 2, "save_steps": 4}


@pytest.mark.parametrize(
    ("changes", "fields", "place", "message"),
    [
        ({}, {}, "load_best_model_at_end", "rows to evaluate on"),
        ({"save_steps": 3}, {"eval_data": "e"}, "load_best_model_at_end", "in steps"),
        ({"save_steps": None}, {"eval_data": "e"}, "load_best_model_at_end", "in steps"),
        ({"eval_steps": None}, {"eval_data": "e"}, "load_best_model_at_end", "in steps"),
        (
            {"metric_for_best_model": "eval_ppl", "greater_is_better": False},
            {"eval_data": "e"},
            "greater_is_better",
            "greatest eval_ppl",
        ),
        (
            {"metric_for_best_model": "ppl"},
            {"eval_data": "e"},
            "metric_for_best_model",
            "greatest ppl",
        ),
        (
            {"metric_for_best_model": "accuracy"},
            {"eval_data": "e"},
            "metric_for_best_model",
            "give no accuracy",
        ),
        ({"rl": "dpo"}, {"eval_data": "e"}, "load_best_model_at_end", "if rl is set"),
        *(
            (
                {"eval_steps": None, "save_steps": None, **when},
                {"eval_data": "e"},
                KEY,
                "rounded up",
            )
            for when in (
                {"eval_steps": 0.25, "save_steps": 0.5},
                {"eval_steps": 0.25, "save_steps": 4},
                {"eval_steps": 2, "save_steps": 0.5},
                {"evals_per_epoch": 6, "saves_per_epoch": 2},
                {"evals_per_epoch": 4, "saves_per_epoch": 2},
                {"evals_per_epoch": 4, "save_steps": 2},
            )
        ),
    ],
)
def test_a_best_checkpoint_that_would_not_be_loaded_is_refused(
    tmp_path: Path, changes: dict[str, Any], fields: dict[str, Any], place: str, message: str
) -> None:
    """Axolotl goes on without a word and keeps the last step's weights, or the worst."""
    block = {**BEST, **changes}
    (found,) = review(tmp_path, block, **fields)
    assert found.field == ("axolotl", place)
    assert message in found.message
    assert Train.problems(config(block, **fields))[0][0] == ("axolotl", place)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"early_stopping_patience": 1},
        {"eval_steps": "2", "save_steps": "4"},
        {"eval_steps": 0.25, "save_steps": 0.25},
        {"eval_steps": None, "save_steps": None, "evals_per_epoch": 4, "saves_per_epoch": 4},
        {"eval_steps": 0.25, "save_steps": None, "saves_per_epoch": 4},
        {
            "max_steps": 12,
            "eval_steps": None,
            "save_steps": None,
            "evals_per_epoch": 4,
            "saves_per_epoch": 4,
        },
        {"metric_for_best_model": "eval_loss", "greater_is_better": False},
        {"metric_for_best_model": "eval_chrf", "do_causal_lm_eval": True},
    ],
)
def test_a_best_checkpoint_that_can_be_loaded_is_not(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    """By steps or by parts of an epoch, with early stopping or without."""
    assert review(tmp_path, {**BEST, **changes}, eval_data="e") == []


@pytest.mark.parametrize(
    ("block", "place"),
    [
        ({"learning_rate": math.nan}, ("learning_rate",)),
        ({"rl": "grpo", "trl": {"reward_weights": [1.0, math.nan]}}, ("trl", "reward_weights", 1)),
    ],
)
def test_what_is_not_a_number_is_refused(block: dict[str, Any], place: tuple[Any, ...]) -> None:
    """YAML has a word for it, and a reward of that weight would make every loss one, too."""
    (found,) = setting_problems(block, evaluates=False)
    assert (found.path, found.warning) == (place, False)
    assert found.message == f"{'.'.join(map(str, place))} is not a number"


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"adapter": "lora", "peft_init_lora_weights": "pissa_niter_16"}, "another model"),
        ({"adapter": "qlora", "relora": True}, "none is left to publish"),
    ],
)
def test_an_adapter_that_would_not_fit_its_base_is_refused(
    tmp_path: Path, block: dict[str, Any], message: str
) -> None:
    """Before hours of training; what can be repeated is not, nor what trains all weights."""
    (found,) = review(tmp_path, block)
    assert found.field == ("axolotl", list(block)[-1])
    assert message in found.message
    assert review(tmp_path, {"adapter": "lora", "peft_init_lora_weights": "pissa"}) == []


@pytest.mark.parametrize("plugins", ["my.Plug", {"my": "Plug"}, 5])
def test_plugins_that_are_no_list_are_refused(tmp_path: Path, plugins: Any) -> None:
    """Of a text, every character would be taken for a plugin."""
    (found,) = review(tmp_path, {"plugins": plugins})
    assert (found.field, found.message) == (("axolotl", "plugins"), "plugins must be a list")
    assert plugins != "my.Plug" or found.hint == "write plugins: [my.Plug]"
    assert Train.problems(config({"plugins": plugins}))[0][0] == ("axolotl", "plugins")


@pytest.mark.parametrize(
    "block",
    [
        {"special_tokens": {"eos_token": "~", "pad_token": "/pad"}},
        {"eot_tokens": ["/s"], "tokens": ["./"]},
        {"default_system_message": "/no_think You help."},
        {"chat_template_kwargs": {"opening": "/think"}},
        {"mlflow_tracking_uri": "/srv/mlruns"},
    ],
)
def test_tokens_and_prose_are_no_paths(tmp_path: Path, block: dict[str, Any]) -> None:
    """However they begin: in the block no file is looked for, in a file nothing is to be moved."""
    assert set(Train.ports(config(block)).inputs) == {"base_model", "data"}
    adapter = {"adapter": "lora", "lora_modules_to_save": ["embed_tokens", "lm_head"]}
    (tmp_path / "my.yml").write_text(json.dumps({**adapter, **block}))
    assert review(tmp_path, axolotl_file="./my.yml") == []


def test_where_reports_go_is_told_by_a_whole_path(tmp_path: Path) -> None:
    """From the training's own folder another one would be reached, and nothing is read from it."""
    (found,) = review(tmp_path, {"mlflow_tracking_uri": "./mlruns"})
    assert found.field == ("axolotl", "mlflow_tracking_uri")
    assert found.hint == "write an absolute path"


def test_what_is_checked_is_what_runs() -> None:
    """The compiled document holds the evaluation set, the plugins, the device and the defaults."""
    whole = config({"adapter": "lora", "bf16": "auto", "eval_steps": 2}, eval_data="e")
    compiled, block = compile_unseen(whole, None)
    assert block == whole.axolotl
    document = compiled.config
    assert document["test_datasets"][0]["type"] == "chat_template"
    assert (document["val_set_size"], document["bf16"], document["eval_steps"]) == (0, False, 2)
    assert document["plugins"] == list(OWN_PLUGINS)
    preference, _ = compile_unseen(config({"rl": "dpo"}), None)
    assert preference.config["datasets"][0]["type"] == "axolotl_pairs.render"
    going_on, _ = compile_unseen(config({"adapter": "lora"}, adapter_start="continue"), None)
    assert "lora_model_dir" in going_on.config
    assert "lora_r" not in going_on.config


def _texts(value: Any, where: tuple[str | int, ...] = ()) -> list[tuple[Any, str]]:
    if isinstance(value, dict):
        return [found for key, item in value.items() for found in _texts(item, (*where, key))]
    if isinstance(value, list):
        return [found for i, item in enumerate(value) for found in _texts(item, (*where, i))]
    return [(where, value)]


def test_kto_needs_two_answers_in_a_micro_batch(tmp_path: Path) -> None:
    """TRL refuses a single one only after the model was loaded."""
    (found,) = review(tmp_path, {"rl": "kto", "micro_batch_size": 1})
    assert found.field == ("axolotl", "micro_batch_size")
    assert not found.warning
    assert review(tmp_path, {"rl": "kto", "micro_batch_size": 2}) == []


@pytest.mark.parametrize("rl", ["simpo", "orpo"])
def test_an_experimental_trainer_is_named(tmp_path: Path, rl: str) -> None:
    """A release of TRL may drop it."""
    (found,) = review(tmp_path, {"rl": rl})
    assert found.warning
    assert "trl.experimental" in found.message


def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every module that asks for the device find a GPU."""
    import llmpipe.stages.train_compile as compiling
    import llmpipe.stages.train_review as reviewing
    from llmpipe.backends.device import Device

    for module in (compiling, reviewing):
        monkeypatch.setattr(module, "detect", lambda: Device("cuda", "bfloat16"))


def test_sharding_has_short_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written beside the configuration; one process shards nothing, and that is said."""
    on_a_gpu(monkeypatch)
    torchrun = {"launcher": "torchrun", "args": ["--nproc_per_node=2"]}
    for block in ({"deepspeed": "zero3"}, {"fsdp_config": "fsdp2"}):
        assert review(tmp_path, block, launch=torchrun) == []
        (found,) = review(tmp_path, block)
        assert found.warning
        assert "one process" in found.message
        compiled, _ = compile_unseen(config(block), None)
        if "deepspeed" in block:
            assert compiled.config["deepspeed"] == "deepspeed/zero3.json"
        else:
            assert compiled.config["fsdp_version"] == 2


@pytest.mark.parametrize(
    ("block", "hint"),
    [
        ({"deepspeed": "zero4"}, "known by name: zero1, zero2,"),
        ({"fsdp_config": "fsdp-2"}, "did you mean 'fsdp2'"),
    ],
)
def test_an_unknown_short_name_is_refused(tmp_path: Path, block: dict[str, Any], hint: str) -> None:
    """With those that are known."""
    (found, *_) = review(tmp_path, block)
    assert not found.warning
    assert hint in (found.hint or "")


@pytest.mark.parametrize("key", ["tokens", "added_tokens_overrides"])
def test_new_tokens_must_be_trained(tmp_path: Path, key: str) -> None:
    """Axolotl refuses the one after it has loaded the model, and trains the other without them."""
    new: Any = ["<x>"] if key == "tokens" else {17: "<x>"}
    (found,) = review(tmp_path, {"adapter": "lora", key: new})
    assert (found.field, found.warning) == (("axolotl", key), False)
    assert "lora_modules_to_save: [embed_tokens, lm_head]" in (found.hint or "")
    saved = {"lora_modules_to_save": ["embed_tokens", "lm_head"]}
    assert review(tmp_path, {"adapter": "lora", key: new, **saved}) == []
    assert review(tmp_path, {key: new}) == []
    indices = {"peft_trainable_token_indices": [17]}
    assert len(review(tmp_path, {"adapter": "lora", key: new, **indices})) == (key == "tokens")
