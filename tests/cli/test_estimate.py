"""``llmpipe estimate``, and the gate that it is before a run."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from workspace import Workspace

from llmpipe.api.estimate import Estimate, StageEstimate
from llmpipe.cli import estimate
from llmpipe.contracts import Hardware, Needs
from llmpipe.needs import is_here

SPEC = """\
version: 1
name: fit
stages:
  sft:
    kind: train
    base_model: ./base
    data: ./rows.jsonl
    axolotl: {chat_template: chatml, sequence_len: 1024, micro_batch_size: 1, max_steps: 1}
"""

LLAMA_70B = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8192, "intermediate_size": 28672,
    "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 128256,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A spec that trains all weights of a model of which only the configuration is there."""
    made = Workspace(tmp_path)
    made.write(SPEC)
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text(json.dumps(LLAMA_70B))
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    (tmp_path / "rows.jsonl").write_text(json.dumps({"messages": turns}) + "\n")
    return made


def test_an_unknown_gpu_is_refused(workspace: Workspace) -> None:
    """Exit 2, with what can be written."""
    result = workspace.call("estimate", "spec.yaml", "--gpu", "huge")
    assert result.returncode == 2
    assert "--gpu 'huge': this is not the size of a GPU" in result.stderr
    assert "24GB, 80GBx8" in result.stderr


def test_a_model_that_cannot_be_had_is_named(workspace: Workspace) -> None:
    """Its memory is not known; that is not a failure."""
    workspace.write(SPEC.replace("./base", "nobody/nothing"))
    result = workspace.call(
        "estimate", "spec.yaml", "--offline", HF_HUB_CACHE=str(workspace.folder)
    )
    assert result.returncode == 0, result.stderr
    assert (
        "memory is not known: config.json of nobody/nothing is not on this machine" in result.stdout
    )


def test_a_hub_that_cannot_be_reached_is_named(workspace: Workspace) -> None:
    """In one line of the estimate: neither the client's retries nor its last error."""
    workspace.write(SPEC.replace("./base", "nobody/nothing"))
    hub = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_CACHE": str(workspace.folder)}
    result = workspace.call("estimate", "spec.yaml", **hub, HF_HUB_OFFLINE="0")
    assert result.returncode == 0, result.stderr
    assert "could not be downloaded: the hub cannot be reached" in result.stdout
    assert "--offline does not try" in result.stdout
    assert "Retry" not in result.stderr + result.stdout
    result = workspace.call("estimate", "spec.yaml", **hub, HF_HUB_OFFLINE="1")
    assert "could not be downloaded: Cannot reach http" in result.stdout
    assert "offline mode is enabled" in result.stdout


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([True, True], True),
        ([True, None], None),
        ([None], None),
        ([None, False], False),
        ([], True),
    ],
)
def test_what_is_unknown_is_neither_yes_nor_no(
    verdicts: list[bool | None], expected: bool | None
) -> None:
    """One stage that is too large decides; else one that is unknown leaves the whole unknown."""
    stages = {
        str(n): StageEstimate(str(n), "train", Needs(), fits, None, None)
        for n, fits in enumerate(verdicts)
    }
    whole = Estimate("spec.yaml", Hardware(), stages)
    assert whole.fits is expected
    assert whole.as_json()["fits"] is expected
    assert [stage["fits"] for stage in whole.as_json()["stages"].values()] == verdicts


def test_a_slow_estimate_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On standard error, whether or not that is a terminal."""
    monkeypatch.setattr(estimate, "PATIENCE", 0.0)
    with estimate._told_if_slow("estimating sft …"):
        time.sleep(0.1)
    assert capsys.readouterr().err == "estimating sft …\n"


def test_a_run_that_cannot_fit_is_refused(workspace: Workspace) -> None:
    """Before anything starts; the message names the stage, the size and the way out."""
    if not is_here("axolotl"):
        pytest.skip("without Axolotl that is said first")
    refused = workspace.call("run", "spec.yaml")
    assert refused.returncode == 2
    assert "stages.sft: it needs about" in refused.stderr
    assert "GB of memory, and this machine has" in refused.stderr
    assert "--ignore-estimate" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.heavy
def test_seventy_billion_parameters_do_not_fit_on_one_card(workspace: Workspace) -> None:
    """Exit 1 with what would fit."""
    result = workspace.call("estimate", "spec.yaml", "--gpu", "24GB", "--json")
    assert result.returncode == 1, result.stderr
    found = json.loads(result.stdout)
    sft = found["stages"]["sft"]
    assert found["fits"] is sft["fits"] is False
    assert sft["gpu_memory"] > 500e9
    assert sft["parts"]["weights"] > 140e9
    assert sft["micro_batch"] == 0
    assert "70.6 billion parameters" in sft["changes"][0]
