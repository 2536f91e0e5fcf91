"""The block checked against the installed Axolotl, strictly; the answer kept."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from llmpipe.backends import axolotl_check
from llmpipe.backends.axolotl_check import BlockProblem, CheckResult, check_block
from llmpipe.errors import StageError

pytestmark = pytest.mark.heavy


def by_path(result: CheckResult) -> dict[str, BlockProblem]:
    """The problems by dotted path."""
    return {".".join(map(str, problem.path)): problem for problem in result.problems}


@pytest.fixture(scope="module")
def memo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where answers are kept."""
    return tmp_path_factory.mktemp("memo")


def test_unknown_keys_and_wrong_types_come_out_together(memo: Path) -> None:
    """At every level, a plugin's keys known, each with its path and what was meant."""
    block = {
        "adapter": "lora",
        "learning_rte": 5e-4,
        "lora_r": "many",
        "trl": {"bta": 1},
        "fsdp_config": {"offload_parms": True},
        "plugins": ["axolotl.integrations.liger.LigerPlugin"],
        "liger_rope": True,
        "liger_ropee": True,
        "chat_template_kwargs": {"anything": {"goes": 1}},
    }
    result = check_block(block, memo_dir=memo)
    found = by_path(result)
    assert set(found) == {
        "learning_rte",
        "lora_r",
        "trl.bta",
        "fsdp_config.offload_parms",
        "liger_ropee",
    }
    assert found["learning_rte"].message == "unknown key 'learning_rte'"
    assert "did you mean 'learning_rate'?" in (found["learning_rte"].hint or "")
    assert "did you mean 'beta'?" in (found["trl.bta"].hint or "")
    assert "integer" in found["lora_r"].message
    assert result.version == axolotl_check.installed_version()
    start = time.perf_counter()
    assert check_block(dict(reversed(block.items())), memo_dir=memo) == result
    assert time.perf_counter() - start < 0.5  # kept, whatever the order of the keys


def test_a_whole_file_is_checked_with_its_data(memo: Path) -> None:
    """Keys inside a list of data sets; Axolotl's own rules come at the key they name."""
    whole = {
        "base_model": "b",
        "datasets": [{"path": "x.jsonl", "type": "chat_template", "field_mesages": "m"}],
        "micro_batch_size": 1,
        "num_epochs": 1,
        "learning_rate": 1e-4,
        "warmup_steps": 3,
        "warmup_ratio": 0.1,
    }
    found = by_path(check_block(whole, memo_dir=memo, whole=True))
    assert set(found) == {"datasets.0.field_mesages", "warmup_steps"}
    assert "mutually exclusive" in found["warmup_steps"].message


def test_without_axolotl_the_answer_says_so(memo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """validate warns and run stops; neither is told that the block is fine."""
    monkeypatch.setattr(axolotl_check, "installed_version", lambda: None)
    assert check_block({"nonsense": 1}, memo_dir=memo) == CheckResult(installed=False)


def test_a_torn_memo_is_asked_again(memo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A memo cut off by a crash is no answer."""
    asked: list[Any] = []
    monkeypatch.setattr(axolotl_check, "_ask_child", lambda q: asked.append(q) or [])
    for _ in range(2):
        check_block({"seed": 1}, memo_dir=memo / "torn")
    assert len(asked) == 1
    (kept,) = (memo / "torn").iterdir()
    kept.write_text('[{"pa')
    check_block({"seed": 1}, memo_dir=memo / "torn")
    assert len(asked) == 2


def test_one_child_answers_many_questions(tmp_path: Path) -> None:
    """Its import is paid once; and the plugins of one block are unknown to the next."""
    plugin = {"plugins": ["axolotl.integrations.liger.LigerPlugin"], "liger_rope": True}
    assert check_block(plugin, memo_dir=tmp_path).problems == []
    child = axolotl_check._child().process.pid
    assert list(by_path(check_block({"liger_rope": True}, memo_dir=tmp_path))) == ["liger_rope"]
    start = time.perf_counter()
    for rate in (1e-4, 2e-4, 3e-4):
        assert check_block({"learning_rate": rate}, memo_dir=tmp_path).problems == []
    assert time.perf_counter() - start < 5
    assert axolotl_check._child().process.pid == child


def test_a_child_that_ended_is_followed_by_another(tmp_path: Path) -> None:
    """Whether it had nothing to do or was killed."""
    check_block({"seed": 1}, memo_dir=tmp_path)
    first = axolotl_check._child().process
    first.kill()
    first.wait()
    assert check_block({"seed": 2}, memo_dir=tmp_path).problems == []
    assert axolotl_check._child().process.pid != first.pid


def test_an_axolotl_that_cannot_be_imported_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its last words, and how to go on all the same."""
    (tmp_path / "axolotl").mkdir()
    (tmp_path / "axolotl" / "__init__.py").write_text("raise RuntimeError('half installed')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    axolotl_check._child.cache_clear()
    with pytest.raises(StageError) as caught:
        check_block({"seed": 3}, memo_dir=tmp_path / "memo")
    assert "RuntimeError: half installed" in caught.value.message
    assert "allow_unknown_axolotl" in (caught.value.hint or "")
