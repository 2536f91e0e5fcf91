"""``check``, ``compile``, ``validate`` and ``serve`` as typed, with the installed Axolotl."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from in_process import llmpipe as call

pytestmark = pytest.mark.heavy

SPEC = """\
version: 1
name: sample
stages:
  dataset: {kind: format, data: ./rows.jsonl, to: messages}
  sft:
    kind: train
    base_model: ./base
    data: dataset
    axolotl:
      adapter: lora
      max_steps: 2
      learning_rate: 1e-3
  merged: {kind: merge, adapter: sft}
  gguf: {kind: export, model: merged, quantize: f16}
  chat: {kind: serve, model: gguf}
"""

MINE = """\
base_model: ./base
datasets:
  - path: rows.jsonl
    type: chat_template
micro_batch_size: 1
gradient_accumulation_steps: 1
learning_rate: 1e-4
"""


def typed(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a folder, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "llmpipe", *arguments], cwd=folder, capture_output=True, text=True
    )


@pytest.fixture
def folder(tmp_path: Path, tiny_llama: Path) -> Path:
    """A folder with a sound spec, rows and a base model."""
    (tmp_path / "spec.yaml").write_text(SPEC, "utf-8")
    chat = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    (tmp_path / "rows.jsonl").write_text(json.dumps({"messages": chat}) + "\n", "utf-8")
    (tmp_path / "base").symlink_to(tiny_llama)
    return tmp_path


def test_validate_checks_the_axolotl_block_at_its_lines(folder: Path) -> None:
    """A sound spec is said to be; a key that Axolotl does not know is shown where it stands."""
    sound = typed(folder, "validate", "spec.yaml")
    assert (sound.returncode, sound.stdout) == (0, "spec.yaml: valid, 5 stages\n")
    (folder / "spec.yaml").write_text(SPEC.replace("learning_rate:", "learnig_rate:"), "utf-8")
    for command in ("validate", "run"):
        wrong = typed(folder, command, "spec.yaml")
        assert wrong.returncode == 2
        assert "spec.yaml:12:7: stages.sft.axolotl" in wrong.stderr
        assert "did you mean 'learning_rate'?" in wrong.stderr
        assert "Traceback" not in wrong.stderr


def test_a_base_model_that_does_not_exist_is_named(folder: Path) -> None:
    """A folder that is not there is found before anything runs."""
    (folder / "spec.yaml").write_text(SPEC.replace("./base", "./bass"), "utf-8")
    wrong = call(folder, "run", "spec.yaml")
    assert wrong.returncode == 2
    assert "spec.yaml:7:17" in wrong.stderr
    assert "./bass" in wrong.stderr


def test_check_reads_any_axolotl_file(folder: Path) -> None:
    """Sound files pass; in others every unknown key is shown at its line, nested ones too."""
    (folder / "mine.yml").write_text(MINE, "utf-8")
    result = call(folder, "check", "mine.yml")
    assert result.returncode == 0, result.stderr
    assert "mine.yml: valid for axolotl" in result.stderr
    (folder / "mine.yml").write_text(MINE.replace("type:", "typ:") + "lorar: 8\n", "utf-8")
    wrong = call(folder, "check", "mine.yml")
    assert wrong.returncode == 2
    assert "mine.yml:4:5: datasets.0.typ" in wrong.stderr
    assert "mine.yml:8:1: lorar" in wrong.stderr
    assert call(folder, "check", "gone.yml").returncode == 2


def test_check_sends_a_spec_to_validate(folder: Path) -> None:
    """Its keys are not unknown to Axolotl one by one: it is another kind of file."""
    done = call(folder, "check", "spec.yaml")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "spec.yaml is an llmpipe spec, not an Axolotl configuration",
        "   llmpipe validate spec.yaml",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "version: 1\nname: a\nextends: ./base.yaml\n",
        "version: 1\nname: a\nstages:\n",
        "name: a\nstages: [one]\n",
        "version: 1\nname: a\n",
        "profiles: {gpu: {}}\n",
        "version: 1\nstages: {sft: {kind: train}}\nbase_model: x\nlearning_rate: 1\n",
    ],
)
def test_check_knows_a_spec_that_is_not_whole(folder: Path, text: str) -> None:
    """By any of its keys; it was advised to call the version fsdp_version."""
    (folder / "some.yaml").write_text(text)
    done = call(folder, "check", "some.yaml")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "some.yaml is an llmpipe spec, not an Axolotl configuration",
        "   llmpipe validate some.yaml",
    ]


@pytest.mark.parametrize("command", ["run", "plan", "validate", "graph", "serve"])
@pytest.mark.parametrize(
    "text",
    [
        "base_model: x\ndatasets: [{path: a.jsonl, type: alpaca}]\nadapter: lora\n",
        "plugins: [a.B]\nlearning_rate: 1e-4\n",
        "pretraining_dataset: a\nname: x\n",
    ],
)
def test_a_file_of_axolotl_is_no_spec(folder: Path, command: str, text: str) -> None:
    """It is told in a line with what to call instead, not key by key."""
    (folder / "my axolotl.yml").write_text(text)
    done = call(folder, command, "my axolotl.yml")
    assert done.returncode == 2
    line, hint = done.stderr.splitlines()
    assert line == "my axolotl.yml is a configuration of Axolotl, not a spec of llmpipe"
    assert hint.startswith("   llmpipe check 'my axolotl.yml'; to train with it, ")


def test_what_other_trainers_call_a_key(folder: Path) -> None:
    """No letters tell that `max_seq_length` is Axolotl's `sequence_len`."""
    text = "lora_rank: 8\nmax_seq_length: 512\nlr: 0.1\nlearning_rte: 0.1\n"
    (folder / "mine.yml").write_text(MINE + text)
    said = call(folder, "check", "mine.yml").stderr
    for name in ("lora_r", "sequence_len", "learning_rate"):
        assert f"   did you mean {name!r}?" in said


def test_a_lock_file_is_no_spec(folder: Path) -> None:
    """It lies beside the spec under nearly its name."""
    text = "version: 1\nname: x\nspec: spec.yaml\nprofiles: {default: {stages: {}}}\n"
    (folder / "x.lock.yaml").write_text(text)
    done = call(folder, "run", "x.lock.yaml")
    assert done.returncode == 2
    assert done.stderr.startswith("x.lock.yaml is the lock file of a spec, which `llmpipe run`")


def test_a_spec_that_lacks_its_stages_is_a_spec(folder: Path) -> None:
    """A key of a stage at the top is unknown there, and the rest of what is wrong is told."""
    (folder / "some.yaml").write_text("version: 1\nname: x\nbase_model: y\n")
    said = call(folder, "validate", "some.yaml").stderr
    assert "unknown key 'base_model'" in said
    assert "'stages' is missing" in said


def test_a_stage_whose_file_is_a_spec(folder: Path) -> None:
    """It is told at the field that names it."""
    text = SPEC.replace("    axolotl:\n", "    axolotl_file: ./spec.yaml\n    axolotl:\n")
    (folder / "spec.yaml").write_text(text, "utf-8")
    said = call(folder, "validate", "spec.yaml").stderr
    assert "stages.sft.axolotl_file: " in said
    assert "spec.yaml is an llmpipe spec, not an Axolotl configuration" in said


def test_evaluation_is_judged_with_the_rows_that_the_stage_has(folder: Path) -> None:
    """``eval_data`` beside steps or an epoch is sound; steps without rows are refused."""
    stages = """\
  steps:
    {kind: train, base_model: ./base, data: dataset, eval_data: ./rows.jsonl,
     axolotl: {eval_steps: 1, save_steps: 1, early_stopping_patience: 1}}
  epoch:
    {kind: train, base_model: ./base, data: dataset, eval_data: ./rows.jsonl,
     axolotl: {eval_strategy: epoch}}
  bare:
    {kind: train, base_model: ./base, data: dataset,
     axolotl: {eval_steps: 1}}
"""
    (folder / "spec.yaml").write_text(SPEC + stages)
    wrong = json.loads(call(folder, "validate", "spec.yaml", "--json").stdout)
    ((message, line),) = [(p["message"], p["line"]) for p in wrong["problems"]]
    assert message.startswith("stages.bare.axolotl.eval_steps: needs rows to evaluate on")
    assert line == len((SPEC + stages).splitlines())
    assert wrong["warnings"] == []


def test_validate_plan_and_run_judge_the_merged_file(folder: Path) -> None:
    """Warnings and errors of an ``axolotl_file`` stand at its lines, before anything runs."""
    spec = SPEC.replace("    axolotl:\n", "    axolotl_file: ./mine.yml\n    axolotl:\n")
    (folder / "spec.yaml").write_text(spec, "utf-8")
    (folder / "mine.yml").write_text("bf16: true\nfsdp_config: {fsdp_offload_params: true}\n")
    for command in ("validate", "plan", "run --dry-run"):
        told = call(folder, *command.split(), "spec.yaml")
        assert told.returncode == 0, told.stderr
        assert "warning: mine.yml:1:1: bf16: true is switched off" in told.stderr
        assert "warning: mine.yml:2:1: fsdp_config: is left out" in told.stderr
        renamed = "mine.yml:2:15: fsdp_config.fsdp_offload_params: Axolotl reads" in told.stderr
        assert renamed == (command == "validate")
    data = json.loads(call(folder, "plan", "spec.yaml", "--json").stdout)
    assert len(data["warnings"]) == 2
    (folder / "mine.yml").write_text(
        "bf16: true\nsave_strategy: best\nmetric_for_best_model: loss\n"
    )
    (folder / "rows.jsonl").write_text("{}\n")  # the run is to end before it trains
    told = typed(folder, "run", "spec.yaml").stderr
    assert "warning: mine.yml:2:1: save_strategy: the best checkpoints are saved, but" in told
    assert "mine.yml:1:1" not in told  # the stage says that, when it compiles
    (folder / "rows.jsonl").write_text('{"text": "t"}\n')
    (folder / "mine.yml").write_text(
        "adapter: lora\nsave_safetensors: false\nchat_template_jinja: rows.jsonl\n"
    )
    for command in ("validate", "plan", "run"):
        wrong = call(folder, command, "spec.yaml")
        assert wrong.returncode == 2
        assert "mine.yml:2:1: save_safetensors: llmpipe reads safetensors only" in wrong.stderr
        assert "mine.yml:3:1: chat_template_jinja: rows.jsonl is next to" in wrong.stderr
        assert "write ./rows.jsonl" in wrong.stderr


def test_check_judges_a_file_as_a_stage_would(folder: Path) -> None:
    """What this machine cannot do, old names and missing files; ``no`` is false, as in Axolotl."""
    (folder / "mine.yml").write_text(
        MINE + "bf16: true\nflash_attention: no\nfsdp_config: {fsdp_offload_params: yes}\n"
    )
    sound = call(folder, "check", "mine.yml")
    assert sound.returncode == 0, sound.stderr
    assert "warning: mine.yml:8:1: bf16: true is switched off" in sound.stderr
    assert "flash_attention" not in sound.stderr
    assert "Axolotl reads 'fsdp_offload_params' as offload_params" in sound.stderr
    (folder / "mine.yml").write_text(MINE.replace("1e-4", "!!float 1e-4") + "bf16: true\n")
    tagged = call(folder, "check", "mine.yml")  # a stage takes it; its lines are not known
    assert tagged.returncode == 0, tagged.stderr
    assert "warning: mine.yml: bf16: true is switched off" in tagged.stderr
    (folder / "mine.yml").write_text(MINE + "lora_r: 4\nlora_r: 8\n")
    assert (
        "mine.yml:9:1: the key 'lora_r' appears twice" in call(folder, "check", "mine.yml").stderr
    )
    (folder / "a.jinja").write_text("{{ messages }}")
    (folder / "mine.yml").write_text(
        MINE + "save_safetensors: false\ndeepspeed: gone/zero3.json\nchat_template_jinja: a.jinja\n"
    )
    wrong = json.loads(call(folder, "check", "mine.yml", "--json").stdout)["problems"]
    assert {8, 9} <= {problem["line"] for problem in wrong}
    assert not any("a.jinja" in problem["message"] for problem in wrong)


def test_a_folder_named_in_the_block_is_an_input(folder: Path) -> None:
    """A tokenizer's folder is a model by its shape; its content counts all the same."""
    spec = SPEC.replace("adapter: lora", "adapter: lora\n      tokenizer_config: FOLDER")
    (folder / "spec.yaml").write_text(spec.replace("FOLDER", "./base"), "utf-8")
    plan = call(folder, "plan", "spec.yaml", "--json")
    assert plan.returncode == 0, plan.stderr
    (folder / "spec.yaml").write_text(spec.replace("FOLDER", "base"), "utf-8")
    assert "write ./base" in call(folder, "plan", "spec.yaml").stderr


def test_compile_says_what_it_needs(folder: Path) -> None:
    """Not before its data is made, not into a folder in use, and only what runs outside."""
    early = call(folder, "compile", "spec.yaml", "sft", "--out", "sft")
    assert early.returncode == 1
    assert "llmpipe run spec.yaml --only dataset" in early.stderr
    assert call(folder, "compile", "spec.yaml", "dataset", "--out", "o").returncode == 2
    assert typed(folder, "run", "spec.yaml", "--only", "dataset").returncode == 0
    made = call(folder, "compile", "spec.yaml", "sft", "--out", "sft")
    assert made.returncode == 0, made.stderr
    assert (folder / "sft" / "run.sh").exists()
    again = call(folder, "compile", "spec.yaml", "sft", "--out", "sft")
    assert again.returncode == 2
    assert "is not empty" in again.stderr


def test_serve_needs_a_model_that_was_made(folder: Path) -> None:
    """What is not in the store is not served, and the message says how to make it."""
    missing = call(folder, "serve", "spec.yaml")
    assert missing.returncode == 1
    assert "llmpipe run spec.yaml --only chat" in missing.stderr
    wrong = call(folder, "serve", "spec.yaml", "sft")
    assert wrong.returncode == 2
    assert "sft is a stage of kind train, which cannot be served" in wrong.stderr


def test_check_looks_at_the_rows(folder: Path) -> None:
    """Missing files, columns that a type lacks, and turns with other keys, each at its line."""
    told = {"from": "human", "value": "q"}
    (folder / "told.jsonl").write_text(json.dumps({"conversations": [told]}) + "\n")
    (folder / "odd.jsonl").write_text(json.dumps({"messages": [told]}) + "\n")
    entries = """\
  - {path: gone.jsonl, type: alpaca}
  - {path: told.jsonl, type: chat_template}
  - {path: odd.jsonl, type: chat_template}
  - {path: told.jsonl, type: completion}
  - {path: json, data_files: [rows.jsonl, away.jsonl], type: chat_template}
  - {path: org/rows, type: alpaca}
"""
    (folder / "mine.yml").write_text(
        MINE.replace("  - path: rows.jsonl\n    type: chat_template\n", entries)
    )
    found = json.loads(call(folder, "check", "mine.yml", "--json").stdout)["problems"]
    lacks = "but the rows of told.jsonl have conversations"
    assert [(problem["line"], problem["message"]) for problem in found] == [
        (3, "datasets.0.path: no such file or folder: gone.jsonl"),
        (4, f"datasets.1.type: type: chat_template reads the column 'messages', {lacks}"),
        (
            5,
            "datasets.2.type: the turns of odd.jsonl have the keys from, value, not role and content",
        ),
        (6, f"datasets.3.type: type: completion reads the column 'text', {lacks}"),
        (7, "datasets.4.data_files: no such file or folder: away.jsonl"),
    ]
    assert "message_property_mappings: {role: from, content: value}" in found[1]["hint"]
    mended = (
        "field_messages: conversations, message_property_mappings: {role: from, content: value}"
    )
    entries = f"  - {{path: told.jsonl, type: chat_template, {mended}}}\n"
    (folder / "mine.yml").write_text(
        MINE.replace("  - path: rows.jsonl\n    type: chat_template\n", entries)
    )
    assert call(folder, "check", "mine.yml").returncode == 0


def test_a_wrong_value_of_an_entry_stands_at_its_entry(folder: Path) -> None:
    """Axolotl's error does not say which entry it is in."""
    second = "  - {path: org/rows, type: alpaca, name: [a, b]}\n"
    text = MINE.replace("    type: chat_template\n", f"    type: chat_template\n{second}")
    (folder / "mine.yml").write_text(text)
    said = call(folder, "check", "mine.yml").stderr
    assert "mine.yml:5:36: datasets.1.name: Input should be a valid string" in said


def test_an_unknown_optimizer_is_found(folder: Path) -> None:
    """Axolotl's validation takes any name; in a spec and in a file it is refused."""
    (folder / "mine.yml").write_text(MINE + "optimizer: adamw_torchh\n")
    assert "mine.yml:8:1: optimizer: unknown optimizer" in call(folder, "check", "mine.yml").stderr
    spec = SPEC.replace("max_steps: 2", "optimizer: padged_adamw_8bit")
    (folder / "spec.yaml").write_text(spec, "utf-8")
    wrong = call(folder, "validate", "spec.yaml")
    assert wrong.returncode == 2
    assert "did you mean 'paged_adamw_8bit'?" in wrong.stderr


def test_another_mistake_does_not_make_a_key_unknown(folder: Path) -> None:
    """``fsdp_`` names are translated by Axolotl, also in a file that it refuses for its rows."""
    text = MINE.replace("chat_template", "sharegpt") + "fsdp_config: {fsdp_offload_params: true}\n"
    (folder / "mine.yml").write_text(text)
    done = json.loads(call(folder, "check", "mine.yml", "--json").stdout)
    assert not any("fsdp" in problem["message"] for problem in done["problems"])
    assert any(
        "reads 'fsdp_offload_params' as" in warning["message"] for warning in done["warnings"]
    )


def test_check_for_another_device(folder: Path) -> None:
    """On a GPU nothing is switched off, and what needs several GPUs is judged with several."""
    (folder / "mine.yml").write_text(
        MINE + "bf16: true\nfp8: true\nattn_implementation: flash_attention_2\n"
    )
    here = call(folder, "check", "mine.yml").stderr
    assert "bf16: true is switched off" in here
    there = call(folder, "check", "mine.yml", "--device", "cuda:2")
    assert (there.returncode, "switched off" in there.stderr) == (0, False), there.stderr
    kernels = "adapter: lora\nlora_r: 8\nlora_target_linear: true\nlora_mlp_kernel: true\n"
    sharded = "fsdp_version: 1\nfsdp_config: {state_dict_type: FULL_STATE_DICT}\n"
    (folder / "mine.yml").write_text(MINE + kernels + sharded)
    assert call(folder, "check", "mine.yml", "--device", "cuda").returncode == 0
    several = call(folder, "check", "mine.yml", "--device", "cuda:2")
    assert several.returncode == 2
    assert "not compatible with FSDP1" in several.stderr
    wrong = call(folder, "check", "mine.yml", "--device", "gpu")
    assert wrong.returncode == 2
    assert "--device: 'gpu' is not a device" in wrong.stderr


GPU = """\
version: 1
name: sample
stages:
  sft:
    kind: train
    base_model: org/some-model@v2
    data: ./rows.jsonl
    axolotl: {adapter: qlora, bf16: auto, attn_implementation: flash_attention_2, deepspeed: zero2,
              optimizer: paged_adamw_8bit, sample_packing: true}
"""


def test_compile_for_another_machine(folder: Path) -> None:
    """A hub id stays one, nothing is switched off, and Axolotl accepts the folder for that device."""
    (folder / "spec.yaml").write_text(GPU)
    made = call(folder, "compile", "spec.yaml", "sft", "--device", "cuda:2", "--out", "new/gpu")
    assert made.returncode == 0, made.stderr
    assert "org/some-model@v2 stays a hub id" in made.stderr
    assert "the launcher python starts one process, on one of 2 GPUs" in made.stderr
    out = folder / "new" / "gpu"
    text = (out / "axolotl.yml").read_text()
    for line in (
        "base_model: org/some-model\n",
        "revision_of_model: v2\n",
        "attn_implementation: flash_attention_2\n",
        "deepspeed: deepspeed/zero2.json\n",
        "- axolotl_seed.SeedPlugin\n",
    ):
        assert line in text
    assert "HF_HUB_OFFLINE" not in (out / "axolotl.env").read_text()
    assert (out / "deepspeed" / "zero2.json").is_file()
    assert (out / "plugins" / "axolotl_seed.py").is_file()
    judged = call(out, "check", "axolotl.yml", "--device", "cuda:2")
    assert judged.returncode == 0, judged.stderr
    (warning,) = (line for line in judged.stderr.splitlines() if "warning" in line)
    assert "flash_attention_2 needs flash-attn where it trains" in warning


def test_compile_leaves_nothing_when_it_fails(folder: Path) -> None:
    """What Axolotl refuses on that device, a row that cannot be read, a device that is none."""
    before = sorted(folder.iterdir())
    for spec, rows, said in (
        (GPU.replace("paged_adamw_8bit", "padged"), None, "optimizer: unknown optimizer 'padged'"),
        (GPU, '{"messages": 3}\n', "rows.jsonl:1"),
    ):
        (folder / "spec.yaml").write_text(spec)
        if rows:
            (folder / "rows.jsonl").write_text(rows)
        made = call(folder, "compile", "spec.yaml", "sft", "--device", "cuda", "--out", "new/gpu")
        assert made.returncode in (1, 2)
        assert said in made.stderr
        assert "Traceback" not in made.stderr
        assert [path for path in sorted(folder.iterdir()) if path.name != ".llmpipe"] == before
    wrong = call(folder, "compile", "spec.yaml", "sft", "--device", "tpu", "--out", "gpu")
    assert (wrong.returncode, "'tpu' is not a device" in wrong.stderr) == (2, True)


def test_compile_with_a_local_base_model(folder: Path) -> None:
    """It is copied into the folder, or named relative to it; its path is told otherwise."""
    (folder / "spec.yaml").write_text(GPU.replace("org/some-model@v2", "./base"))
    for how, name in (("copy", "./base-model"), ("relative", None), ("path", None)):
        options = ["--device", "cuda", "--base-model", how, "--out", how]
        made = call(folder, "compile", "spec.yaml", "sft", *options)
        assert made.returncode == 0, made.stderr
        text = (folder / how / "axolotl.yml").read_text()
        written = text.partition("base_model: ")[2].partition("\n")[0]
        assert name in (None, written)
        assert (folder / how / written / "config.json").is_file()
        assert Path(written).is_absolute() == (how == "path")
        assert ("is a path on this machine" in made.stderr) == (how == "path")
