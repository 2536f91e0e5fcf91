"""Where the configuration of a base model is found, without its weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmpipe.estimate.model_config import find_config
from llmpipe.needs import Given

LLAMA = {"model_type": "llama", "hidden_size": 8}


def test_a_folder_a_gguf_and_a_chain_of_stages(tmp_path: Path) -> None:
    """A stage's model is that of the input that it descends from."""
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    folder = Given("model", tmp_path)
    assert find_config(folder, online=False).content == LLAMA
    merged = Given(
        "model",
        output="model",
        inputs={"adapter": Given("adapter", output="adapter", inputs={"base_model": folder})},
    )
    assert find_config(merged, online=False).content == LLAMA
    file = tmp_path / "m.gguf"
    file.write_bytes(b"GGUF")
    found = find_config(Given("gguf", file), online=False)
    assert found.gguf == file
    assert found.identity() == [str(file), 4, file.stat().st_mtime_ns]


def test_a_hub_id_is_looked_up_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache is read as huggingface_hub lays it out; a model that is not there is named."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    model = Given("model", repo="org/name")
    missing = find_config(model, online=False)
    assert missing.missing == "config.json of org/name is not on this machine"
    assert missing.absent == "org/name"
    folder = tmp_path / "models--org--name"
    snapshot = folder / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    (snapshot / "config.json").write_text(json.dumps(LLAMA))
    found = find_config(model, online=False)
    assert (found.content, found.absent) == (LLAMA, "org/name")  # its weights are not there
    (snapshot / "model.safetensors").write_bytes(b"")
    assert find_config(model, online=False).absent == ""


@pytest.mark.parametrize("text", ["", "[]", "{}", "{", "\\xff"])
def test_a_damaged_configuration_is_named(tmp_path: Path, text: str) -> None:
    """It is not guessed at."""
    (tmp_path / "config.json").write_text(text)
    found = find_config(Given("model", tmp_path), online=False)
    assert str(tmp_path / "config.json") in found.missing
    assert found.content is None


def test_an_adapter_names_its_base(tmp_path: Path) -> None:
    """A base that is not a folder is said."""
    adapter, base = tmp_path / "a", tmp_path / "b"
    adapter.mkdir()
    base.mkdir()
    (base / "config.json").write_text(json.dumps(LLAMA))
    named = adapter / "adapter_config.json"
    named.write_text(json.dumps({"base_model_name_or_path": str(base)}))
    assert find_config(Given("adapter", adapter), online=False).content == LLAMA
    named.write_text(json.dumps({"base_model_name_or_path": "org/name"}))
    assert "org/name" in find_config(Given("adapter", adapter), online=False).missing
    named.write_text("{}")
    assert "does not name its base" in find_config(Given("adapter", adapter), online=False).missing
