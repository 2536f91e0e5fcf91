"""Real trainings of a tiny model: same bytes twice, the folder that needs no llmpipe, going on.

Importing Axolotl is nearly all that these cost, so that each child is used for several claims.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from training_job import LORA, Job, contents, row

from llmpipe.contracts import Artifact, StageContext, StageResult
from llmpipe.errors import StageError
from llmpipe.stages.merge import Merge
from llmpipe.stages.train import Train

pytestmark = [pytest.mark.heavy, pytest.mark.usefixtures("warm_axolotl")]


def merged(out: Path, adapter: Artifact) -> StageResult:
    """Merge an adapter."""
    ctx = StageContext(
        config=Merge.Config(kind="merge", adapter="sft"),
        stage="merge",
        inputs={"adapter": adapter},
        out=out,
        work=out.parent,
        journal=out.parent,
        tools=out.parent,
        spec_dir=out.parent,
        threads=2,
    )
    ctx.out.mkdir()
    return Merge.run(ctx)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Job:
    """A finished LoRA training."""
    job = Job(tmp_path_factory.mktemp("sft"), tiny_llama, LORA)
    job.run()
    return job


def test_training_publishes_a_clean_adapter(trained: Job, tiny_llama: Path) -> None:
    """Only weights, configuration and the base's own tokenizer; no path of this machine."""
    result = trained.result
    files = contents(result.outputs["adapter"])
    weights = {"adapter_config.json", "adapter_model.safetensors"}
    tokenizer = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    assert set(files) == weights | tokenizer
    for name in tokenizer:
        assert files[name] == (tiny_llama / name).read_bytes()
    config = json.loads(files["adapter_config.json"])
    assert config["base_model_name_or_path"] is None
    assert config["target_modules"] == sorted(config["target_modules"])
    assert (config["r"], config["lora_alpha"]) == (4, 32)


def test_training_tells_its_loss_as_it_goes(trained: Job) -> None:
    """A progress event a step, the curve unrounded, the loss falling; nothing to warn of."""
    metrics = trained.result.metrics
    assert [step for step, _ in metrics["loss"]] == [1, 2, 3, 4]
    assert metrics["loss"][0][1] > metrics["loss"][-1][1] == metrics["loss_last_fifth"]
    assert metrics["steps"] == 4
    assert metrics["rows"] == 12
    assert metrics["tokens"] > metrics["trained_tokens"] >= 12 * 4  # city, number, end of turn
    assert metrics["trained_tokens"] < 12 * 6
    progress = [e for e in trained.events if e["event"] == "progress"]
    assert [(e["done"], e["total"]) for e in progress] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert "switched off" not in trained.warnings()  # nothing was asked for that a CPU has not


def test_the_folder_trains_the_same_without_llmpipe(trained: Job, tmp_path: Path) -> None:
    """Plain `axolotl train` on the compiled folder gives the adapter of the stage, byte by byte."""
    folder = tmp_path / "folder"
    Train.compile_to(trained.ctx, folder)
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    env.pop("PYTHONPATH", None)
    done = subprocess.run([folder / "run.sh"], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    name = "adapter_model.safetensors"
    published = trained.ctx.out / "adapter" / name
    assert (folder / "output" / name).read_bytes() == published.read_bytes()


OTHER_EOS = {**LORA, "special_tokens": {"eos_token": "<|endoftext|>"}}


def test_a_run_that_would_not_learn_to_stop_is_stopped(tmp_path: Path, tiny_llama: Path) -> None:
    """Axolotl logs it and trains: every answer's <|im_end|> is masked. No step is made.

    The compiled folder, which is run without llmpipe, stops for the same reason.
    """
    job = Job(tmp_path, tiny_llama, OTHER_EOS)
    with pytest.raises(StageError, match="before its first step") as caught:
        job.run()
    assert "the end of 12 of 12 answers, '<|im_end|>', is not trained" in caught.value.message
    assert "row 1: '…0 boxes<|im_end|>\\n<|im_start|>assistant\\n⟦city 0⟧<|im_end|>" in (
        caught.value.message
    )
    assert 'special_tokens: {eos_token: "<|im_end|>"}' in (caught.value.hint or "")
    assert not [event for event in job.events if event["event"] == "progress"]
    assert not list((tmp_path / "work").rglob("checkpoint-*"))

    folder = tmp_path / "folder"
    Train.compile_to(job.ctx, folder)
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    env.pop("PYTHONPATH", None)
    done = subprocess.run([folder / "run.sh"], env=env, capture_output=True, text=True)
    assert done.returncode
    assert "UntrainedError: training rows: the end of 12 of 12 answers" in done.stderr
    assert not list(folder.rglob("adapter_model.safetensors"))


REFUSES = (
    "{% for m in messages %}{{ raise_exception('no system role') if m.role == 'system' }}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_the_row_that_a_template_refuses_is_named(tmp_path: Path, tiny_llama: Path) -> None:
    """Axolotl passes on the template's words only."""
    job = Job(tmp_path, tiny_llama, {**LORA, "chat_template_jinja": REFUSES})
    with (tmp_path / "rows.jsonl").open("a") as rows:
        turns = [{"role": "system", "content": "s"}, *row(1)["messages"]]
        rows.write(json.dumps({"messages": turns}) + "\n")
    with pytest.raises(StageError, match=r"row 13 of the .*: no system role") as caught:
        job.run()
    assert "leave it out" in (caught.value.hint or "")


UNTRUE = (
    "{% for m in messages %}{% if m.role != 'system' %}<|im_start|>{{ m.role }}\n"
    "{{ '<think>\n\n</think>\n\n' if m.role == 'assistant' }}{{ m.content }}<|im_end|>\n"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_what_a_template_makes_of_rows_is_told(tmp_path: Path, tiny_llama: Path) -> None:
    """It drops system texts and calls, and writes before an answer what generation lacks."""
    job = Job(tmp_path, tiny_llama, {**LORA, "max_steps": 1, "chat_template_jinja": UNTRUE})
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": {}}}
    with (tmp_path / "rows.jsonl").open("a") as rows:
        asked, answer = row(1)["messages"]
        turns = [{"role": "system", "content": "s"}, asked, {**answer, "tool_calls": [call]}]
        rows.write(json.dumps({"messages": turns}) + "\n")
    job.run()
    assert (
        "training rows: the chat template leaves out system texts of 1 row (first: row 13), "
        "tool calls of 1 row (first: row 13)"
    ) in job.warnings()
    assert "13 of 13 answers: what the template writes before the answer is neither trained" in (
        job.warnings()
    )


def test_what_is_allowed_is_trained_and_told(tmp_path: Path, tiny_llama: Path) -> None:
    """Masked ends, an empty answer, a speaker of its own: each is counted in a warning."""
    allowed = ["end_of_turn", "rows", "speakers"]
    job = Job(tmp_path, tiny_llama, {**OTHER_EOS, "max_steps": 1}, allow_untrained=allowed)
    with (tmp_path / "rows.jsonl").open("a") as rows:
        for speaker, text in (("assistant", ""), ("bot", "yes")):
            turns = [{"role": "user", "content": "q"}, {"role": speaker, "content": text}]
            rows.write(json.dumps({"messages": turns}) + "\n")
    result = job.run()
    assert result.metrics["rows"] == 14
    assert "./rows.jsonl:14: turn 2 is said by 'bot'" in job.warnings()
    assert "the end of 12 of 13 answers, '<|im_end|>', is not trained" in job.warnings()
    assert "1 of 13 answers are empty" in job.warnings()
    assert "nothing is trained in 2 of 14 rows" in job.warnings()


def test_preference_pairs_are_looked_at(tmp_path: Path, tiny_llama: Path) -> None:
    """A template's end that the vocabulary lacks is plain text, and TRL adds eos_token after it."""
    block = {**LORA, "rl": "dpo", "chat_template": "llama3", "sequence_len": 256}
    job = Job(tmp_path, tiny_llama, block)
    pairs = [{"prompt": f"q {n}", "chosen": f"yes {n}", "rejected": f"no {n}"} for n in range(4)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    with pytest.raises(StageError, match=r"ends an answer with '<.eot_id.>', which is plain text"):
        job.run()


def test_evaluation_rows_that_are_all_left_out_are_told(tmp_path: Path, tiny_llama: Path) -> None:
    """A metric of no rows is left out."""
    job = Job(tmp_path, tiny_llama, {**LORA, "eval_steps": 1}, eval_data="e")
    (tmp_path / "eval.jsonl").write_text(json.dumps(row(1, "a long town " * 60)) + "\n")
    with pytest.raises(StageError, match="evaluation rows: Axolotl left all of them out") as caught:
        job.run()
    assert "longer than sequence_len (64 tokens)" in (caught.value.hint or "")


def test_pairs_that_are_all_left_out_are_told(tmp_path: Path, tiny_llama: Path) -> None:
    """TRL's StopIteration says nothing."""
    job = Job(tmp_path, tiny_llama, {**LORA, "rl": "dpo"})
    pair = {"prompt": "q " * 90, "chosen": "yes", "rejected": "no"}
    (tmp_path / "rows.jsonl").write_text(3 * (json.dumps(pair) + "\n"))
    with pytest.raises(StageError, match="no row is left to train on: Dropped 3 long") as caught:
        job.run()
    assert "raise sequence_len" in (caught.value.hint or "")


@pytest.mark.parametrize("torn", [True, False], ids=["torn", "whole"])
def test_a_stopped_run_goes_on_to_the_same_bytes(
    trained: Job, tmp_path: Path, tiny_llama: Path, torn: bool
) -> None:
    """As after kill -9 while the last checkpoint was being written, and when it had been.

    Resumed at step 4 of 4, which ends no epoch, the trainer would make a fifth.
    """
    job = Job(tmp_path, tiny_llama, LORA)
    output = tmp_path / "work" / "output"
    for name in ("checkpoint-2", "checkpoint-4"):
        shutil.copytree(trained.ctx.work / "output" / name, output / name)
    if torn:
        (output / "checkpoint-4" / "trainer_state.json").write_text("{")
    result = job.run()
    assert "continuing from the checkpoint of step 2" in job.warnings()
    assert result.metrics["loss"] == trained.result.metrics["loss"]
    assert contents(job.ctx.out) == contents(trained.ctx.out)


BEST = {
    **LORA,
    "learning_rate": 0.05,
    "lr_scheduler": "constant",
    "max_steps": 40,
    "eval_steps": 2,
    "save_steps": 2,
    "save_total_limit": 20,
    "load_best_model_at_end": True,
    "metric_for_best_model": "eval_loss",
    "early_stopping_patience": 2,
}
"""Evaluation every two steps; a rate at which the loss on other rows soon rises."""


def test_a_run_stops_early_and_keeps_the_best(tmp_path: Path, tiny_llama: Path) -> None:
    """The weights published are those of the best evaluation, and the metrics say which it was.

    Two evaluations in a row that are not better end the run. One that was killed after its last
    checkpoint goes on after the first of them, remembers it, and ends at the same step with the
    same bytes.
    """
    job = Job(tmp_path, tiny_llama, BEST, eval_data="e")
    metrics = job.run().metrics
    evaluated = {step: loss for step, loss in metrics["eval_loss"] if step}
    best = min(evaluated, key=evaluated.__getitem__)
    assert (metrics["best_step"], metrics["kept_step"]) == (best, best)
    assert metrics["best_eval_loss"] == evaluated[best]
    assert metrics["steps"] == max(evaluated) == best + 4 < metrics["planned_steps"] == 40
    assert metrics["eval_loss_last"] == evaluated[best + 4] > evaluated[best]
    assert f"{best + 4} steps of 40, stopped early" in job.result.summary
    assert f"kept step {best}" in job.result.summary
    output, name = job.ctx.work / "output", "adapter_model.safetensors"
    published = contents(job.ctx.out)
    kept = (output / f"checkpoint-{best}" / name).read_bytes()
    assert published[f"adapter/{name}"] == kept
    assert (output / f"checkpoint-{best + 4}" / name).read_bytes() != kept

    shutil.rmtree(job.ctx.out)
    job.ctx.out.mkdir()
    again = job.run().metrics
    assert f"continuing from the checkpoint of step {best + 2}" in job.warnings()
    assert again == metrics
    assert contents(job.ctx.out) == published


def test_all_weights_by_a_file_of_ones_own(tmp_path: Path, tiny_llama: Path) -> None:
    """An existing Axolotl file trains a whole model; the block wins over it; long rows are said."""
    (tmp_path / "my.yml").write_text(
        "base_model: theirs\nval_set_size: 0.1\nlearning_rate: 1e-3\nmax_steps: 9\n"
        "lr_scheduler: constant\nmicro_batch_size: 2\nsequence_len: 42\n"
    )
    block = {"adapter": None, "max_steps": 2}
    job = Job(tmp_path, tiny_llama, block, axolotl_file="./my.yml")
    result = job.run()
    files = contents(result.outputs["model"])
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(files)
    assert not any(name.endswith((".bin", ".pt", ".md", ".log")) for name in files)
    assert b'use_cache": true' in files["config.json"]
    assert result.metrics["steps"] == 2
    assert "base_model is replaced" in job.warnings()
    assert "left rows out: Dropped" in job.warnings()


def test_an_adapter_is_merged_into_its_base(trained: Job, tmp_path: Path, tiny_llama: Path) -> None:
    """The merged model answers as base and adapter do together, and keeps the base's files."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = Artifact(tiny_llama, "model", "1", "./base")
    adapter = Artifact(trained.ctx.out / "adapter", "adapter", "2", "sft", base)
    for name in ("one", "two"):
        result = merged(tmp_path / name, adapter)
    model = result.outputs["model"]
    assert (result.metrics["tensors"], result.metrics["changed"]) == (20, 14)
    assert result.metrics["mean_kl"] < 1e-6 < result.metrics["compared_tokens"]
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (model / name).read_bytes() == (tiny_llama / name).read_bytes()
    assert "_name_or_path" not in (model / "config.json").read_text()
    ids = torch.tensor([[5, 6, 7, 8]])
    together = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tiny_llama), adapter.path
    )
    plain = AutoModelForCausalLM.from_pretrained(model)
    with torch.no_grad():
        assert torch.allclose(plain(ids).logits, together(ids).logits, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("qlora", {"adapter": "qlora"}),
        ("head", {"adapter": "lora", "lora_target_modules": ["q_proj", "lm_head"]}),
    ],
)
def test_what_was_evaluated_in_training_is_what_is_merged(
    tmp_path: Path, tiny_llama: Path, name: str, block: dict[str, Any]
) -> None:
    """The merged model has the loss that Axolotl measured last, and evaluating taught it nothing.

    On some CPUs a 4-bit layer that was evaluated once let no gradient through any more: after six
    steps the loss was 8.5 with `eval_data` and 7.2 without.
    """
    from llmpipe.backends.huggingface.inference import answer_losses, load_model

    settings = {**LORA, **block, "eval_steps": 2, "micro_batch_size": 1}
    watched = Job(tmp_path / "watched", tiny_llama, settings, eval_data="e").run()
    base = Artifact(tiny_llama, "model", "1", "./base")
    adapter = Artifact(watched.outputs["adapter"], "adapter", "2", "sft", base)
    model = merged(tmp_path / "merged", adapter).outputs["model"]
    losses = answer_losses(load_model(model), [row(n, "town")["messages"] for n in range(12, 16)])
    mean = fmean(loss.nll / loss.tokens for loss in losses)  # as the trainer has it, row by row
    assert mean == pytest.approx(watched.metrics["eval_loss_last"], abs=1e-4)
    if name == "qlora":
        record = json.loads((adapter.path / "quantization_config.json").read_text())
        assert (record["load_in_4bit"], record["bnb_4bit_quant_type"]) == (True, "nf4")
        del settings["eval_steps"]
        alone = Job(tmp_path / "alone", tiny_llama, settings).run()
        assert contents(alone.outputs["adapter"]) == contents(adapter.path)
