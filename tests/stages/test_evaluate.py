"""The evaluate stage: its config on its own, then a model, an adapter and a GGUF for real."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from llmpipe.backends.llama_cpp.quantize import quantize
from llmpipe.contracts import Artifact, StageContext
from llmpipe.errors import StageError
from llmpipe.formats.records import write_rows
from llmpipe.stages.evaluate import Evaluate, check_limits
from llmpipe.stages.evaluate_config import EvaluateConfig
from llmpipe.stages.evaluate_logits import reference_of, require_reference

ROWS = [
    {"instruction": f"What is {i} plus {i}? Answer with JSON.", "output": f'{{"sum": {2 * i}}}'}
    for i in range(1, 7)
]


@pytest.fixture
def run_evaluate(tmp_path):
    """Run the stage on a config as a spec would have it, with artifacts for its references."""

    def run(artifacts, **fields):
        config = msgspec.convert({"kind": "evaluate", **fields}, EvaluateConfig)
        assert Evaluate.problems(config) == []
        out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        out.mkdir()
        events = []
        inputs = {
            name: artifacts[port.value]
            if port.value in artifacts
            else Artifact(tmp_path / port.value, port.accepts[0], "", port.value)
            for name, port in Evaluate.ports(config).inputs.items()
        }
        ctx = StageContext(
            config, "quality", inputs, out, tmp_path, tmp_path, tmp_path, tmp_path, 2, events.append
        )
        result = Evaluate.run(ctx)
        assert set(result.outputs) == set(Evaluate.ports(config).outputs)
        metrics = json.loads(result.outputs["metrics"].read_text("utf-8"))
        lines = result.outputs["predictions"].read_text("utf-8").splitlines()
        done = [event for event in events if event["event"] == "progress"]
        assert done[-1]["done"] == done[-1]["total"]
        return result, metrics, [json.loads(line) for line in lines]

    write_rows(tmp_path / "test.jsonl", ROWS)
    return run


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"models": ["a", "a"]}, "listed twice"),
        ({"models": ["base"], "json_schema": "./s.json"}, "name a GGUF"),
        ({"models": ["a"], "json_schema": "./s.json", "metrics": ["loss"]}, "no effect"),
        ({"models": ["a"], "reward_model": "r", "metrics": ["loss"]}, "answer metric"),
        ({"models": ["a"], "map": {"text": "t"}}, "raw text"),
        ({"models": ["a"], "fail_above": {"kl": 0.1}}, "add 'kl' to `metrics`"),
        ({"models": ["a"], "fail_above": {"rouge_l": 1}}, "only loss and kl have a limit"),
        ({"models": ["a"], "map": {"user": "q"}}, "name both"),
    ],
)
def test_configs_that_make_no_sense(fields, told):
    """Cross-field mistakes are found before anything runs."""
    config = msgspec.convert({"kind": "evaluate", "data": "d", **fields}, EvaluateConfig)
    assert any(told in message for _, message in Evaluate.problems(config))


@pytest.mark.parametrize("field", ["json_schema", "reward_model"])
def test_an_empty_reference_is_resolved(field):
    """It is an error of the spec then; an answer would not be constrained or marked."""
    fields = {"kind": "evaluate", "models": ["a"], "data": "d", field: ""}
    assert field in Evaluate.ports(msgspec.convert(fields, EvaluateConfig)).inputs


def test_unknown_metric_is_refused():
    """A metric that does not exist is a config error, not an empty column."""
    with pytest.raises(msgspec.ValidationError, match="metrics"):
        msgspec.convert(
            {"kind": "evaluate", "models": ["a"], "data": "d", "metrics": ["bleu"]}, EvaluateConfig
        )


def test_constrained_decoding_takes_ggufs_only():
    """With a JSON schema, a model or adapter does not fit the port, and the reason is given."""
    fields = {"kind": "evaluate", "models": ["sft"], "data": "d", "json_schema": "./s.json"}
    port = Evaluate.ports(msgspec.convert(fields, EvaluateConfig)).inputs["models.0"]
    assert port.accepts == ("gguf",)
    assert "export" in port.refuse["adapter"]


@pytest.fixture
def adapted(tiny_llama, tmp_path):
    """The tiny model and a LoRA adapter of it that changes what it says, as artifacts."""
    import torch
    from peft import LoraConfig, get_peft_model

    from llmpipe.backends.huggingface.inference import load_model

    torch.manual_seed(0)
    model = get_peft_model(load_model(tiny_llama).model, LoraConfig(r=2, target_modules=["q_proj"]))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    model.save_pretrained(tmp_path / "adapter")
    base = Artifact(tiny_llama, "model", "", "base")
    return {"base": base, "sft": Artifact(tmp_path / "adapter", "adapter", "", "sft", base)}


@pytest.mark.heavy
def test_model_and_adapter_are_compared(run_evaluate, adapted):
    """Both are measured on the same rows, paired, repeatably; each output says the same."""
    fields = {"models": ["base", "sft"], "data": "test.jsonl", "max_new_tokens": 4}
    result, metrics, predictions = run_evaluate(adapted, **fields)
    assert list(metrics["models"]) == ["base", "sft"]
    for measured in metrics["models"].values():
        assert set(measured) == {"loss", "rouge_l", "exact_match"}
        for metric in measured.values():
            assert metric["low"] <= metric["mean"] <= metric["high"]
            assert metric["n"] == len(ROWS)
    assert {pair["metric"] for pair in metrics["paired"]} == {"loss", "rouge_l", "exact_match"}
    assert result.metrics["base"]["loss"] == metrics["models"]["base"]["loss"]["mean"]
    assert result.metrics["base"]["loss"] != result.metrics["sft"]["loss"]
    assert [row["reference"] for row in predictions] == [row["output"] for row in ROWS]
    assert set(predictions[0]["answers"]) == set(predictions[0]["losses"]) == {"base", "sft"}
    assert "base" in result.summary
    assert run_evaluate(adapted, **fields)[1:] == (metrics, predictions)


@pytest.mark.heavy
def test_loss_alone_writes_no_answers(run_evaluate, adapted):
    """`metrics: [loss]` skips the generation; `limit` draws the same few rows each time."""
    fields = {"models": ["base"], "data": "test.jsonl", "metrics": ["loss"], "limit": 3}
    _, metrics, predictions = run_evaluate(adapted, **fields)
    assert metrics["models"]["base"]["loss"]["n"] == 3
    assert metrics["paired"] == []
    assert predictions[0]["answers"] == {}
    assert run_evaluate(adapted, **fields)[2] == predictions
    assert run_evaluate(adapted, random_seed=2, **fields)[2] != predictions


@pytest.mark.heavy
def test_served_gguf_answers_shots_and_schema(run_evaluate, smollm2_gguf, tmp_path):
    """The served GGUF follows the schema; examples change the answers and are never its rows."""
    schema = {
        "type": "object",
        "properties": {"sum": {"type": "integer"}},
        "required": ["sum"],
        "additionalProperties": False,
    }
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    shots = [
        {"instruction": f"What is {i} plus 1?", "output": f'{{"sum": {i + 1}}}'} for i in (8, 9)
    ]
    write_rows(tmp_path / "train.jsonl", [*ROWS, *shots])
    fields = {
        "models": ["gguf"],
        "data": "test.jsonl",
        "limit": 2,
        "max_new_tokens": 24,
        "metrics": ["rouge_l", "exact_match", "json_match"],
    }
    artifacts = {"gguf": Artifact(smollm2_gguf, "gguf", "", "gguf")}
    _, metrics, plain = run_evaluate(artifacts, **fields)
    assert "loss" not in metrics["models"]["gguf"]
    few = {"data": "train.jsonl", "count": 2}
    _, _, shown = run_evaluate(artifacts, few_shot=few, json_schema="schema.json", **fields)
    assert all(set(json.loads(row["answers"]["gguf"])) == {"sum"} for row in shown)
    assert [row["answers"] for row in shown] != [row["answers"] for row in plain]
    assert [row["question"] for row in shown] == [row["question"] for row in plain]
    with pytest.raises(StageError, match="few_shot wants 7 rows; 6 are not evaluated"):
        run_evaluate(artifacts, few_shot={"data": "train.jsonl", "count": 7}, **fields)


@pytest.fixture
def quantized(sharp_llama, tmp_path):
    """A model and its GGUFs of 16, 8 and 4 bits, as artifacts."""
    source = sharp_llama / "f16.gguf"
    for mixture in ("q8_0", "q4_0"):
        quantize(source, tmp_path / f"{mixture}.gguf", mixture, threads=2)
    files = {
        "gguf.f16": source,
        "gguf.q8_0": tmp_path / "q8_0.gguf",
        "gguf.q4_0": tmp_path / "q4_0.gguf",
    }
    ggufs = {label: Artifact(file, "gguf", "", label) for label, file in files.items()}
    return {"sft": Artifact(sharp_llama / "model", "model", "", "sft"), **ggufs}


@pytest.mark.heavy
def test_quantizations_are_compared_with_their_model(run_evaluate, quantized):
    """Loss, divergence and agreement of the served files, and what is needed to choose one."""
    fields = {
        "models": list(quantized),
        "data": "test.jsonl",
        "metrics": ["loss", "kl", "same_top"],
        "fail_above": {"kl": 1000},
    }
    result, metrics, _ = run_evaluate(quantized, **fields)
    models = metrics["models"]
    assert models["gguf.f16"]["loss"]["mean"] == pytest.approx(
        models["sft"]["loss"]["mean"], abs=0.01
    )
    kl = [models[label]["kl"]["mean"] for label in ("gguf.f16", "gguf.q8_0", "gguf.q4_0")]
    assert 0 <= kl[0] < 0.01 < kl[1] < kl[2]
    assert "kl" not in models["sft"]
    assert models["gguf.f16"]["same_top"]["mean"] == 1
    assert models["gguf.f16"]["bytes"] > models["gguf.q8_0"]["bytes"]
    assert 4 < models["gguf.q4_0"]["bits_per_weight"] < 7
    assert result.metrics["gguf.q4_0"]["tokens_per_second"] > 0
    assert any(
        (pair["a"], pair["b"], pair["metric"]) == ("gguf.q8_0", "gguf.q4_0", "kl")
        for pair in metrics["paired"]
    )
    assert "gguf.q4_0 − sft" in result.summary
    assert " bits per weight, " in result.summary
    with pytest.raises(StageError, match=r"gguf\.q4_0: kl .* is above 0\.01"):
        run_evaluate(quantized, **{**fields, "fail_above": {"kl": 0.01}})


@pytest.mark.parametrize(
    ("types", "told"), [(["gguf", "gguf"], "there is none"), (["model"], "there is no other model")]
)
def test_a_comparison_needs_two_models(types, told):
    """A divergence from nothing is an error that says what to list."""
    models = [Artifact(Path("m"), kind, "", f"m{i}") for i, kind in enumerate(types)]
    with pytest.raises(StageError, match=told):
        require_reference(models, ["loss", "kl"])
    require_reference(models, ["loss", "exact_match"])


def test_a_limit_that_cannot_be_measured_fails():
    """A GGUF whose loss or divergence is not measured has not kept within the limit."""
    gguf, model = (Artifact(Path("m"), kind, "", kind) for kind in ("gguf", "model"))
    with pytest.raises(StageError, match="limits the loss, and `models` lists no model"):
        require_reference([gguf], ["loss", "rouge_l"], {"loss": 1})
    limited = {"metrics": ["loss", "kl"], "fail_above": {"loss": 1, "kl": 1}}
    config = msgspec.convert(
        {"kind": "evaluate", "models": ["model", "gguf"], "data": "d", **limited}, EvaluateConfig
    )
    within = {"loss": {"mean": 0.5}}
    measured = {"model": within, "gguf": {**within, "kl": {"mean": 0.5}}}
    check_limits(config, {"models": measured}, model)
    with pytest.raises(StageError, match=r"^gguf: kl was not measured"):
        check_limits(config, {"models": {**measured, "gguf": within}}, model)


def test_the_reference_is_the_model_before_the_ggufs():
    """GGUFs are compared with what they were made from, not with the base model."""
    base, sft, first, other = (
        Artifact(Path("m"), kind, "", label)
        for kind, label in (("model", "base"), ("adapter", "sft"), ("gguf", "a"), ("model", "o"))
    )
    assert reference_of([base, sft, first, other]) is sft
    assert reference_of([first, other]) is other
    assert reference_of([first]) is None


@pytest.mark.parametrize(
    ("rows", "fields", "told"),
    [
        ([], {}, "no rows to evaluate on"),
        ([{"text": "Once."}], {}, r"test\.jsonl:1: the row is raw text"),
        ([{"a": 1}], {}, r"test\.jsonl:1: the row is in no known format"),
        ([ROWS[0], {"instruction": "a", "output": ""}], {}, r"test\.jsonl:2: .* is empty"),
        ([{"instruction": "a", "output": "b"}], {"metrics": ["json_match"]}, "needs reference"),
        ([ROWS[0]], {"metrics": ["loss"]}, "measured on the tokens of a model"),
    ],
)
def test_unfit_rows_are_explained(run_evaluate, tmp_path, rows, fields, told):
    """What cannot be evaluated is said before any model is loaded."""
    write_rows(tmp_path / "test.jsonl", rows)
    gguf = Artifact(tmp_path / "none.gguf", "gguf", "", "gguf")
    with pytest.raises(StageError, match=told):
        run_evaluate({"gguf": gguf}, models=["gguf"], data="test.jsonl", **fields)


def test_no_reward_model_changes_no_key():
    """What was measured before reward models were known stays cached."""
    config = msgspec.convert({"kind": "evaluate", "models": ["a"], "data": "d"}, EvaluateConfig)
    assert "reward_model" not in Evaluate.fingerprint(config)
    files = ["a.bytes", "a.bits_per_weight", "a.fallbacks"]
    measured = ["a.loss", "a.rouge_l", "a.exact_match"]
    assert Evaluate.metrics(config, {"models.0": "gguf"}) == [*measured, *files, "replies"]
    assert Evaluate.metrics(config, {"models.0": "adapter"}) == [*measured, "replies"]
    judged = msgspec.structs.replace(config, reward_model="r")
    assert Evaluate.metrics(judged, {"models.0": "model"}) == [*measured, "a.reward", "replies"]
    assert "reward_model" in Evaluate.ports(judged).inputs


@pytest.mark.heavy
def test_a_reward_model_marks_the_answers(run_evaluate, tiny_llama, tmp_path):
    """By the number that it gives to the conversation; another kind of model is refused."""
    import torch
    from transformers import AutoConfig, AutoTokenizer, LlamaForSequenceClassification

    torch.manual_seed(0)
    settings = AutoConfig.from_pretrained(tiny_llama, num_labels=1)
    judge = LlamaForSequenceClassification(settings).eval()
    judge.save_pretrained(tmp_path / "judge")
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    tokenizer.save_pretrained(tmp_path / "judge")
    model = Artifact(tiny_llama, "model", "", "m")
    given = {"m": model, "r": Artifact(tmp_path / "judge", "model", "", "r")}
    fields = {
        "models": ["m"],
        "data": "test.jsonl",
        "metrics": ["exact_match"],
        "max_new_tokens": 4,
        "reward_model": "r",
    }
    result, metrics, predictions = run_evaluate(given, **fields)
    expected = []
    for row, predicted in zip(ROWS, predictions, strict=True):
        turns = [
            {"role": "user", "content": row["instruction"]},
            {"role": "assistant", "content": predicted["answers"]["m"]},
        ]
        ids = tokenizer.apply_chat_template(turns, return_tensors="pt", return_dict=True)
        with torch.no_grad():
            expected.append(float(judge(input_ids=ids["input_ids"]).logits[0, 0]))
    found = metrics["models"]["m"]["reward"]
    assert found["mean"] == pytest.approx(sum(expected) / len(expected), abs=1e-5)
    assert found["low"] < found["mean"] < found["high"]
    assert "reward" in result.summary
    with pytest.raises(StageError, match="m is not a reward model: it is LlamaForCausalLM"):
        run_evaluate({"m": model}, **{**fields, "reward_model": "m"})
