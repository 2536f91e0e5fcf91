"""Folders for Ollama and vLLM: what lies in them, and what is refused."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from adapters import give_tokenizer, make_adapter
from gguf_files import rewrite
from safetensors.torch import load_file

from llmpipe.contracts import Artifact, StageContext, StageResult
from llmpipe.errors import StageError
from llmpipe.stages.bundle import Bundle, BundleConfig

IDS = torch.tensor([[1, 9690, 198, 2683, 359, 253]])


def config(server: str, **fields: Any) -> BundleConfig:
    """A bundle for a server."""
    data = {"kind": "bundle", "server": server, "model": "m", **fields}
    return msgspec.convert(data, BundleConfig)


def run(
    root: Path,
    server: str,
    model: Artifact,
    given: Artifact | None = None,
    *,
    stage: str = "chat",
    **fields: Any,
) -> tuple[StageResult, str]:
    """Run the stage, with a ``given`` adapter; return its result and what was told."""
    told: list[str] = []
    for name in ("out", "work"):
        (root / name).mkdir(parents=True, exist_ok=True)
    inputs = {"model": model, **({"adapter": given} if given else {})}
    ctx = StageContext(
        config(server, **fields), stage, inputs, root / "out", root / "work", root, root, root,
        threads=2, emit=lambda event: told.append(str(event.get("message", ""))),
    )  # fmt: skip
    return Bundle.run(ctx), "\n".join(told)


def model(folder: Path, base: Artifact | None = None) -> Artifact:
    """A model folder, or an adapter on a base."""
    return Artifact(folder, "adapter" if base else "model", "", folder.name, base=base)


@pytest.mark.heavy
def test_ollama_gets_the_file_and_a_proven_template(tmp_path: Path, smollm2_gguf: Path) -> None:
    """Of a real model: the Modelfile's template, by what llama.cpp renders."""
    gguf = Artifact(smollm2_gguf, "gguf", "", "gguf.q4_1")
    result, told = run(tmp_path, "ollama", gguf, name="smol", context=512, system="Be brief.")
    folder = result.outputs["folder"]
    assert (folder / "model.gguf").read_bytes()[:4] == b"GGUF"
    text = (folder / "Modelfile").read_text()
    assert 'eq $m.Role "user" }}<|im_start|>user\n{{ $m.Content }}<|im_end|>\n{{ else if' in text
    assert 'PARAMETER stop "<|im_end|>"\nPARAMETER num_ctx 512\nSYSTEM """Be brief."""\n' in text
    assert result.metrics["chats"] > 25
    assert result.metrics["refused_chats"] == result.metrics["trimmed_chats"] == []
    assert result.summary == "ollama create smol -f Modelfile && ollama run smol"
    assert told.strip() == ""
    with pytest.raises(StageError, match=r"chat\.context is 99999, but gguf\.q4_1 has \d+"):
        run(tmp_path / "long", "ollama", gguf, context=99999)


@pytest.mark.heavy
def test_ollama_gets_no_template_that_the_model_has_not(tmp_path: Path, smollm2_gguf: Path) -> None:
    """llama.cpp would render with ChatML then, and the Modelfile would say that it is proven."""
    texts = {"tokenizer.chat_template": ""}
    bare = rewrite(smollm2_gguf, tmp_path / "bare.gguf", texts=texts)
    with pytest.raises(StageError, match=r"base\.q4_1 has no chat template"):
        run(tmp_path / "a", "ollama", Artifact(bare, "gguf", "", "base.q4_1"))


def write_adapter(file: Path, width: int) -> Artifact:
    """Write a GGUF adapter of rank 2 for the first query matrix of a Llama of some width."""
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(file, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 4.0)
    writer.add_tensor("blk.0.attn_q.weight.lora_a", np.ones((2, width), np.float32))
    writer.add_tensor("blk.0.attn_q.weight.lora_b", np.ones((width, 2), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return Artifact(file, "gguf_adapter", "", "lora")


@pytest.mark.heavy
def test_ollama_gets_an_adapter_that_fits(tmp_path: Path, smollm2_gguf: Path) -> None:
    """llama.cpp loads it on the model; that of another model is refused."""
    base = Artifact(smollm2_gguf, "gguf", "", "base.q4_1")
    own = write_adapter(tmp_path / "own.gguf", 576)
    result, _ = run(tmp_path / "a", "ollama", base, own, adapter="lora")
    folder = result.outputs["folder"]
    assert "\nFROM ./model.gguf\nADAPTER ./adapter.gguf\n" in (folder / "Modelfile").read_text()
    assert (folder / "adapter.gguf").read_bytes() == own.path.read_bytes()
    other = write_adapter(tmp_path / "other.gguf", 64)
    with pytest.raises(StageError, match=r"lora on base\.q4_1: .*the adapter cannot be loaded"):
        run(tmp_path / "b", "ollama", base, other, adapter="lora")


@pytest.mark.heavy
def test_vllm_gets_a_folder_that_loads(tmp_path: Path, tiny_llama: Path) -> None:
    """Complete, without pickles, with its number format, context, name and chat template."""
    source = shutil.copytree(tiny_llama, tmp_path / "merged")
    (source / "training_args.bin").write_bytes(b"pickle")
    result, told = run(tmp_path / "a", "vllm", model(source), name="tiny")
    folder = result.outputs["folder"]
    command = "vllm serve ./model --served-model-name tiny --max-model-len 2048 --dtype float32"
    assert result.summary == f"{command} --chat-template ./chat_template.jinja"
    assert f'exec {result.summary} "$@"' in (folder / "serve.sh").read_text()
    subprocess.run(["sh", "-n", str(folder / "serve.sh")], check=True)
    assert "<|im_start|>" in (folder / "chat_template.jinja").read_text()
    assert {p.name for p in (folder / "model").iterdir()} == {p.name for p in tiny_llama.iterdir()}
    assert result.metrics["loaded_by"] == "transformers"
    assert told.strip() == ""
    weights = next((folder / "model").glob("*.safetensors"))
    whole = load_file(weights)
    assert torch.equal(whole["model.norm.weight"], torch.ones(64))
    (source / "model.safetensors").unlink()
    with pytest.raises(StageError, match="no weights as safetensors"):
        run(tmp_path / "b", "vllm", model(source))


@pytest.mark.heavy
def test_the_folder_does_not_depend_on_the_stages_name(tmp_path: Path, tiny_llama: Path) -> None:
    """A cache key holds no stage name: a stage may get the folder that another one made."""
    one, other = (
        run(tmp_path / stage, "vllm", model(tiny_llama), stage=stage)[0] for stage in ("a", "b")
    )
    assert one.summary == other.summary
    assert " --served-model-name model " in one.summary
    scripts = [each.outputs["folder"] / "serve.sh" for each in (one, other)]
    assert scripts[0].read_text() == scripts[1].read_text()


@pytest.mark.heavy
def test_vllm_gets_an_adapter_with_its_base(tmp_path: Path, tiny_llama: Path) -> None:
    """The smallest rank that vLLM takes; what it would ignore is refused, with the way out."""
    base = model(tiny_llama)
    made = make_adapter(tiny_llama, tmp_path / "lora", IDS, r=12, target_modules=["q_proj"])
    result, _ = run(tmp_path / "a", "vllm", model(made.folder, base), context=256)
    words = shlex.split(result.summary)
    assert words[2] == "./base"
    assert words[-5:] == [
        "--enable-lora",
        "--max-lora-rank",
        "16",
        "--lora-modules",
        "model=./adapter",
    ]
    assert words[words.index("--max-model-len") + 1] == "256"
    folder = result.outputs["folder"]
    assert (folder / "adapter" / "adapter_model.safetensors").is_file()
    assert (folder / "base" / "config.json").is_file()
    settings = made.folder / "adapter_config.json"
    plain = json.loads(settings.read_text())
    for change, message in (
        ({"use_dora": True}, "vLLM does not apply DoRA"),
        ({"modules_to_save": ["lm_head"]}, "vLLM replaces no whole module"),
        ({"rank_pattern": {"v_proj": 2}}, "vLLM takes one rank and scale"),
        ({"layer_replication": [[0, 2], [0, 2]]}, "the base has each layer once"),
        ({"monteclora_config": {"x": 1}}, "monteclora_config: .* is not known"),
        ({"task_type": "SEQ_CLS"}, "it is for SEQ_CLS"),
        ({"r": 1024}, "its rank is 1024, and vLLM's largest is 512"),
    ):
        settings.write_text(json.dumps({**plain, **change}))
        refused(tmp_path / "b", model(made.folder, base), message)
        shutil.rmtree(tmp_path / "b")


@pytest.mark.heavy
def test_vllm_reads_and_ends_chats_as_the_adapter_was_trained(
    tmp_path: Path, tiny_llama: Path
) -> None:
    """By the adapter's tokenizer, if it is not the base's; what that does to the base is said."""
    base = model(tiny_llama)
    made = make_adapter(tiny_llama, tmp_path / "lora", IDS, target_modules=["q_proj"])
    give_tokenizer(made.folder, tiny_llama)
    result, told = run(tmp_path / "a", "vllm", model(made.folder, base), name="mine")
    assert "--tokenizer" not in result.summary
    assert told.strip() == ""
    give_tokenizer(made.folder, tiny_llama, eos_token="<|endoftext|>")
    result, told = run(tmp_path / "b", "vllm", model(made.folder, base), name="mine")
    assert " --tokenizer ./adapter --enable-lora " in result.summary
    assert (result.outputs["folder"] / "adapter" / "tokenizer.json").is_file()
    assert "answers end with '<|endoftext|>', those of its base with '<|im_end|>'" in told
    assert "mine-base is asked with those of the adapter" in told


def refused(root: Path, adapter: Artifact, message: str) -> None:
    """Require that an adapter is refused for vLLM, with the way out."""
    with pytest.raises(StageError, match=f"cannot be served as an adapter: .*{message}") as caught:
        run(root, "vllm", adapter)
    assert "kind: merge" in (caught.value.hint or "")


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ({"target_modules": ["q_proj", "lm_head"]}, "it changes lm_head, for which"),
        ({"target_modules": r".*(q_proj|lm_head)"}, "it changes lm_head, for which"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, r"it changes model\.embed_tokens, for"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is pissa: PEFT changes the base"),
        ({"init_lora_weights": "olora"}, "init_lora_weights is olora: PEFT changes the base"),
    ],
)
def test_vllm_gets_no_adapter_that_is_another_model_there(
    tmp_path: Path, tiny_llama: Path, lora: dict[str, Any], message: str
) -> None:
    """Outside the layers, also where a pattern says so; or on a base that PEFT changes first."""
    made = make_adapter(tiny_llama, tmp_path / "l", IDS, **{"target_modules": ["q_proj"], **lora})
    refused(tmp_path / "a", model(made.folder, model(tiny_llama)), message)


def test_ports_follow_the_server() -> None:
    """A GGUF for one, a folder for the other, and no conversion in between."""
    ollama = Bundle.ports(config("ollama", adapter="lora")).inputs
    assert (ollama["model"].accepts, ollama["adapter"].accepts) == (("gguf",), ("gguf_adapter",))
    assert "gguf.q4_k_m" in ollama["model"].refuse["adapter"]
    vllm = Bundle.ports(config("vllm")).inputs["model"]
    assert vllm.accepts == ("model", "adapter")
    assert "reader of GGUF files" in vllm.refuse["gguf"]


@pytest.mark.parametrize(
    ("server", "fields", "place"),
    [
        ("vllm", {"adapter": "lora"}, ("adapter",)),
        ("vllm", {"system": "x"}, ("system",)),
        ("vllm", {"allow_trimmed": True}, ("allow_trimmed",)),
        ("ollama", {"system": 'say """'}, ("system",)),
    ],
)
def test_fields_without_effect_are_refused(
    server: str, fields: dict[str, Any], place: tuple[str]
) -> None:
    """Rather than ignored."""
    assert [where for where, _ in Bundle.problems(config(server, **fields))] == [place]


def test_a_name_that_a_command_line_would_split_is_no_name() -> None:
    """It stands in a command and in requests."""
    with pytest.raises(msgspec.ValidationError, match=re.escape("$.name")):
        config("ollama", name="a b")
