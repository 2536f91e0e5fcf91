"""The rewards of a train stage: what it takes as inputs, refuses, and hands to Axolotl."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmpipe.contracts import Artifact, StageContext
from llmpipe.errors import StageError
from llmpipe.stages import train_rewards
from llmpipe.stages.train import Train
from llmpipe.stages.train_compile import Layout, compile_stage, compile_unseen
from llmpipe.stages.train_config import TrainConfig
from llmpipe.stages.train_rewards import try_rewards

FUNCTION = {"file": "./rewards.py", "function": "short"}


@pytest.fixture(autouse=True)
def cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine without a GPU."""
    from llmpipe.backends.device import detect

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    detect.cache_clear()


def config(rewards: list[dict[str, Any]], **block: Any) -> TrainConfig:
    """A stage that trains by rewards."""
    data = {"kind": "train", "base_model": "./base", "data": "rows", "rewards": rewards}
    return msgspec.convert({**data, "axolotl": {"rl": "grpo", **block}}, TrainConfig)


def problems(rewards: list[dict[str, Any]], **block: Any) -> dict[str, str]:
    """What is refused, by dotted place."""
    found = Train.problems(config(rewards, **block))
    return {".".join(map(str, place)): message for place, message in found}


def test_files_and_models_are_inputs() -> None:
    """By content; an adapter of a reward model is refused where the graph is compiled."""
    inputs = Train.ports(config([FUNCTION, {"model": "judge"}])).inputs
    assert inputs["rewards.0.file"].field == ("rewards", 0, "file")
    assert inputs["rewards.0.file"].accepts == ("file",)
    assert inputs["rewards.1.model"].accepts == ("model",)
    twice = Train.ports(config([FUNCTION, {**FUNCTION, "function": "other"}])).inputs
    assert [name for name in twice if name.startswith("rewards")] == ["rewards.0.file"]
    assert "without an adapter" in inputs["rewards.1.model"].refuse["adapter"]


@pytest.mark.parametrize(
    ("rewards", "block", "place", "message"),
    [
        ([], {}, "axolotl.rl", "grpo needs a reward"),
        ([{}], {}, "rewards.0", "either file with function, or model"),
        ([{"file": "./a.py"}], {}, "rewards.0", "belong together"),
        ([{**FUNCTION, "model": "m"}], {}, "rewards.0", "either file"),
        ([FUNCTION], {"rl": "dpo"}, "rewards", "rl: grpo only"),
        ([{**FUNCTION, "weight": float("nan")}], {}, "rewards.0.weight", "nan is not a finite"),
        ([{**FUNCTION, "weight": float("-inf")}], {}, "rewards.0.weight", "-inf is not a finite"),
        (
            [FUNCTION],
            {"trl": {"reward_funcs": ["a.b"]}},
            "axolotl.trl.reward_funcs",
            "field rewards",
        ),
        ([FUNCTION], {"micro_batch_size": 4}, "axolotl.rl", "8, which does not divide .* 4"),
        (
            [FUNCTION],
            {"trl": {"num_generations": 3}},
            "axolotl.trl",
            "3, which does not divide .* 8",
        ),
        (
            [FUNCTION],
            {"trl": {"num_generations": 1}},
            "axolotl.trl.num_generations",
            "at least 2",
        ),
        (
            [FUNCTION],
            {"trl": {"num_generations": 4, "generation_batch_size": 6}},
            "axolotl.trl",
            "4, which does not divide the batch of 6",
        ),
        ([FUNCTION], {"trl": [1]}, "axolotl.trl", "must be a mapping"),
        ([FUNCTION], {"micro_batch_size": None}, "axolotl.rl", "8, which does not divide .* 1"),
        ([], {"rl": ["grpo"]}, "axolotl.rl", "not supported"),
        ([], {"rl": "kto", "micro_batch_size": None}, "axolotl.micro_batch_size", "at least 2"),
    ],
)
def test_what_cannot_train_is_refused(
    rewards: list[dict[str, Any]], block: dict[str, Any], place: str, message: str
) -> None:
    """At its place, before anything runs."""
    found = problems(rewards, **block)
    assert list(found) == [place]
    assert re.search(message, found[place])


def test_a_file_without_the_function_is_found_at_once(tmp_path: Path) -> None:
    """With the nearest name; the file is not run."""
    (tmp_path / "rewards.py").write_text("def shrot(completions, **kw):\n    raise SystemExit\n")
    (found,) = Train.review(config([FUNCTION]), tmp_path)
    assert found.field == ("rewards", 0, "function")
    assert "did you mean 'shrot'" in (found.hint or "")
    (tmp_path / "rewards.py").write_text("def short(:\n")
    (found,) = Train.review(config([FUNCTION]), tmp_path)
    assert found.field == ("rewards", 0, "file")
    assert "./rewards.py:1: SyntaxError" in found.message


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbfdef short(): ...",
        "# coding: latin-1\nx = 'é'\ndef short(): ...".encode("latin-1"),
        b"try:\n    import q\nexcept ImportError:\n    def short(): ...",
        b"from somewhere import *",
        b"short: object = len",
        b"short, long = len, len",
    ],
)
def test_functions_are_found_where_python_finds_them(tmp_path: Path, text: bytes) -> None:
    """In any encoding, below `if` and `try`, and in names that a file imports."""
    (tmp_path / "rewards.py").write_bytes(text)
    assert Train.review(config([FUNCTION]), tmp_path) == []


@pytest.mark.parametrize("text", [b"x = " + b"-" * 100_000 + b"1", b"def short(): ...\0"])
def test_what_python_cannot_parse_is_said(tmp_path: Path, text: bytes) -> None:
    """At the field, without a traceback."""
    (tmp_path / "rewards.py").write_bytes(text)
    (found,) = Train.review(config([FUNCTION]), tmp_path)
    assert found.field == ("rewards", 0, "file")


def test_rewards_beside_a_file_of_another_method_are_refused(tmp_path: Path) -> None:
    """The file's `rl` is known only when it is read."""
    (tmp_path / "axolotl.yml").write_text("rl: dpo\nadapter: lora\n")
    data = {"kind": "train", "base_model": "./base", "data": "rows", "rewards": [FUNCTION]}
    made = msgspec.convert({**data, "axolotl_file": "./axolotl.yml"}, TrainConfig)
    (tmp_path / "rewards.py").write_text("def short(): ...")
    (found,) = Train.review(made, tmp_path)
    assert (found.field, found.message) == (("rewards",), "is read for rl: grpo only")


def test_no_null_unsets_a_length() -> None:
    """Neither of the whole mapping nor of one key: Axolotl would take 20 tokens."""
    for trl in (None, {"max_completion_length": None}):
        settings = compile_unseen(config([FUNCTION], trl=trl), None)[0].config["trl"]
        assert settings["max_completion_length"] == 256


@pytest.mark.parametrize(
    "written",
    [
        {"architectures": ["LlamaForCausalLM"]},
        {"architectures": ["LlamaForSequenceClassification"]},  # two labels if none are named
        {"architectures": ["LlamaForSequenceClassification"], "id2label": {"0": "a", "1": "b"}},
    ],
)
def test_what_is_not_a_reward_model_is_refused(tmp_path: Path, written: dict[str, Any]) -> None:
    """TRL would draw a head at random, and training would look healthy."""
    ctx = context(tmp_path, "def short(): ...\nx = short\n")
    (tmp_path / "judge" / "config.json").write_text(json.dumps(written))
    with pytest.raises(StageError, match="judge is not a reward model"):
        compile_stage(ctx, Layout(ctx.work))


def test_the_lengths_are_said() -> None:
    """Axolotl would pass None for the length, and generation would stop after 20 tokens."""
    trl = compile_unseen(config([FUNCTION]), None)[0].config["trl"]
    assert trl["max_completion_length"] == 256
    assert trl["num_generations"] == 8
    mine = compile_unseen(config([FUNCTION], trl={"num_generations": 2}), None)[0].config["trl"]
    assert mine == {**trl, "num_generations": 2}


def test_no_reward_changes_no_key() -> None:
    """What was trained before rewards were known stays cached."""
    data = {"kind": "train", "base_model": "./base", "data": "rows"}
    assert "rewards" not in Train.fingerprint(msgspec.convert(data, TrainConfig))
    assert "rewards" in Train.fingerprint(config([FUNCTION]))


def context(tmp_path: Path, text: str, **row: Any) -> StageContext[TrainConfig]:
    """A stage whose files are there: one reward file under two of its functions, and a model."""
    (tmp_path / "rewards.py").write_text(text)
    (tmp_path / "judge").mkdir()
    judge = {"architectures": ["LlamaForSequenceClassification"], "id2label": {"0": "reward"}}
    (tmp_path / "judge" / "config.json").write_text(json.dumps(judge))
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"prompt": "q", **row}) + "\n")
    base = tmp_path / "base"
    base.mkdir()
    (base / "tokenizer_config.json").write_text('{"chat_template": "x"}')
    file = Artifact(tmp_path / "rewards.py", "file", "1", "./rewards.py")
    return StageContext(
        config=config([FUNCTION, {"model": "judge", "weight": 0.5}, {**FUNCTION, "function": "x"}]),
        stage="grpo",
        inputs={
            "base_model": Artifact(base, "model", "2", "./base"),
            "data": Artifact(rows, "dataset", "3", "./rows.jsonl"),
            "rewards.0.file": file,
            "rewards.1.model": Artifact(tmp_path / "judge", "model", "4", "judge"),
        },
        out=tmp_path / "out",
        work=tmp_path / "work",
        journal=tmp_path,
        tools=tmp_path,
        spec_dir=tmp_path,
        threads=1,
    )


def test_rewards_lie_beside_the_configuration(tmp_path: Path) -> None:
    """One module a file; a model's name has a dot, without which Axolotl fails on it."""
    ctx = context(tmp_path, "def short(completions, **kw): ...\nx = short\n")
    trl = compile_stage(ctx, Layout(ctx.work)).config["trl"]
    assert trl["reward_funcs"] == [
        "reward_file_1.short",
        "reward_models/model.2",
        "reward_file_1.x",
    ]
    assert trl["reward_weights"] == [1.0, 0.5, 1.0]
    assert compile_unseen(ctx.config, None)[0].config["trl"] == trl
    assert (ctx.work / "plugins" / "reward_file_1.py").read_text().startswith("def short")
    assert (ctx.work / "reward_models" / "model.2").resolve() == tmp_path / "judge"


def test_functions_are_tried_before_the_training(tmp_path: Path) -> None:
    """An error names the reward, its file and line, and how functions are called."""
    text = (
        "def short(completions, **kw):\n    return kw['anser']\n\ndef x(completions, **kw): ...\n"
    )
    ctx = context(tmp_path, text, answer="a")
    compile_stage(ctx, Layout(ctx.work))
    env = {"PYTHONPATH": str(ctx.work / "plugins")}
    with pytest.raises(StageError) as caught:
        try_rewards(ctx, ctx.work, env)
    shape = "x must return a list of 2 numbers, one for each completion"
    assert caught.value.message.splitlines() == [
        "rewards[0]: ./rewards.py:2: short, tried on the first rows: KeyError: 'anser'",
        f"rewards[2]: ./rewards.py: x, tried on the first rows: {shape}, not NoneType None",
    ]
    assert "every other column of the rows" in (caught.value.hint or "")


@pytest.mark.slow
def test_a_function_that_does_not_return_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would hold the run forever; the line where it was is named."""
    monkeypatch.setattr(train_rewards, "TRIAL_SECONDS", 2.0)
    text = "import time\n\ndef short(completions, **kw):\n    time.sleep(900)\n\nx = short\n"
    ctx = context(tmp_path, text)
    compile_stage(ctx, Layout(ctx.work))
    with pytest.raises(StageError) as caught:
        try_rewards(ctx, ctx.work, {"PYTHONPATH": str(ctx.work / "plugins")})
    told = "tried on the first rows: TimeoutError: it did not return within 2 s"
    assert caught.value.message.splitlines() == [
        f"rewards[0]: ./rewards.py:4: short, {told}",
        f"rewards[2]: ./rewards.py:4: x, {told}",
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"completions": 1}, "'completions' has the name of an argument"),
        ({"tools": [{"name": "f"}]}, "the prompt has tools"),
        ({"prompt": [{"role": "assistant", "content": "a"}]}, "ends with an answer"),
    ],
)
def test_prompts_that_cannot_train_are_refused(
    tmp_path: Path, row: dict[str, Any], message: str
) -> None:
    """With file and line, before anything heavy starts."""
    ctx = context(tmp_path, "", **row)
    with pytest.raises(StageError, match=rf"\./rows\.jsonl:1: .*{message}"):
        compile_stage(ctx, Layout(ctx.work))
