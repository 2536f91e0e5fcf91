"""The block checked against the installed Axolotl, strictly; the answer kept."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmpipe.backends.axolotl import check as axolotl_check
from llmpipe.backends.axolotl.check import CheckResult, check_block
from llmpipe.backends.axolotl.config import BlockProblem, DataFile, Sources, compile_config
from llmpipe.backends.device import Device
from llmpipe.errors import StageError

pytestmark = pytest.mark.heavy


DATA = DataFile("train.parquet", {"type": "chat_template"})


def check(
    block: dict[str, Any],
    memo: Path,
    *,
    evaluates: bool = False,
    dataset: dict[str, Any] | None = None,
) -> CheckResult:
    """Check a block as a run on a CPU would compile it."""
    data = replace(DATA, layout={**DATA.layout, **(dataset or {})})
    sources = Sources("base", data, "out", "prepared", test=data if evaluates else None)
    document = compile_config(block, sources, Device("cpu", "float32")).config
    return check_block(block, document, memo_dir=memo, dataset=dataset)


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
    result = check(block, memo)
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
    assert check(dict(reversed(block.items())), memo) == result
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
    found = by_path(check_block(whole, whole, memo_dir=memo))
    assert set(found) == {"datasets.0.field_mesages", "warmup_steps"}
    assert "mutually exclusive" in found["warmup_steps"].message


def test_the_configuration_that_will_run_is_judged(memo: Path) -> None:
    """With rows to evaluate on, evaluation by steps or epoch is taken; without them refused."""
    for block in ({"eval_steps": 2}, {"eval_strategy": "epoch"}, {"evals_per_epoch": 2}):
        assert check(block, memo, evaluates=True).problems == []
    early = {"eval_steps": 2, "save_steps": 2, "early_stopping_patience": 1}
    assert check(early, memo, evaluates=True).problems == []
    uneven = check({**early, "save_steps": 3}, memo, evaluates=True)
    assert list(by_path(uneven)) == ["early_stopping_patience"]
    assert list(by_path(check({"eval_steps": 2}, memo))) == ["eval_steps"]


def test_what_axolotl_translates_is_no_unknown_key(memo: Path) -> None:
    """It is asked, not listed here: a key it reads under another name is a warning with that name.

    What is left out on a CPU is checked all the same; a typo behind the old prefix is an error.
    """
    block = {
        "fsdp_version": 2,
        "fsdp_config": {
            "fsdp_offload_params": True,
            "fsdp_auto_wrap_policy": "SIZE_BASED_WRAP",
            "fsdp_min_num_params": 100,
            "fsdp_state_dict_typo": "FULL_STATE_DICT",
        },
        "gc_steps": 3,
        "pretrain_multipack_buffer_size": 10_000,
    }
    found = by_path(check(block, memo))
    errors = {path for path, problem in found.items() if not problem.warning}
    assert errors == {"fsdp_config.fsdp_state_dict_typo"}
    assert {path: found[path].hint for path in found if path.startswith("fsdp")} == {
        "fsdp_config.fsdp_offload_params": "write offload_params",
        "fsdp_config.fsdp_auto_wrap_policy": "write auto_wrap_policy",
        "fsdp_config.fsdp_min_num_params": "write min_num_params",
        "fsdp_config.fsdp_state_dict_typo": "did you mean 'state_dict_type'?",
    }
    assert "torch_empty_cache_steps" in found["gc_steps"].message
    assert "streaming_multipack" in found["pretrain_multipack_buffer_size"].message


def test_a_plugin_is_looked_for_where_the_training_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in the folder that llmpipe runs in; in the training's own PYTHONPATH."""
    (tmp_path / "my_plugin.py").write_text(
        "from axolotl.integrations.base import BasePlugin\nclass Mine(BasePlugin): pass\n"
    )
    monkeypatch.chdir(tmp_path)
    axolotl_check._CHILD.forget()
    block = {"plugins": ["my_plugin.Mine"]}
    ((path, problem),) = by_path(check(block, tmp_path)).items()
    assert (path, problem.warning) == ("plugins", False)
    sources = Sources("base", DATA, "out", "prepared")
    document = compile_config(block, sources, Device("cpu", "float32")).config
    found = check_block(block, document, memo_dir=tmp_path, modules=str(tmp_path))
    assert found.problems == []
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    axolotl_check._CHILD.forget()
    assert check(block, tmp_path).problems == []
    elsewhere = check_block(block, document, memo_dir=tmp_path, modules="/nowhere")
    assert list(by_path(elsewhere)) == ["plugins"]  # the stage's PYTHONPATH replaces ours


def test_an_answer_about_somebodys_plugin_is_not_kept(tmp_path: Path) -> None:
    """Its keys may have changed, or it may have been installed, since it was asked."""
    source, modules = tmp_path / "rules_plugin.py", str(tmp_path)
    block = {"plugins": ["rules_plugin.Rules"], "rule_one": 1}
    sources = Sources("base", DATA, "out", "prepared")
    document = compile_config(block, sources, Device("cpu", "float32")).config

    def ask() -> list[str]:
        return list(by_path(check_block(block, document, memo_dir=tmp_path, modules=modules)))

    assert ask() == ["plugins"]
    source.write_text(
        "from axolotl.integrations.base import BasePlugin\n"
        "from pydantic import BaseModel\n"
        "class Args(BaseModel): rule_one: int | None = None\n"
        "class Rules(BasePlugin):\n"
        "    def get_input_args(self): return 'rules_plugin.Args'\n"
    )
    assert ask() == []
    source.write_text(source.read_text().replace("rule_one", "the_rule"))
    os.utime(source, (1, 1))  # the compiled one is told from it by its time
    assert ask() == ["rule_one"]


@pytest.mark.parametrize("plugin", ["axolotl.integrations.gone.GonePlugin", "rules.Rules"])
def test_a_plugin_that_was_not_found_is_looked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plugin: str
) -> None:
    """The user brings it to where it is looked for and asks again."""
    asked: list[Any] = []
    failed = {"path": ["plugins"], "message": f"{axolotl_check.NOT_LOADED}: No module named 'x'"}
    monkeypatch.setattr(axolotl_check, "_ask_child", lambda q: asked.append(q) or [failed])
    for _ in range(2):
        assert list(by_path(check({"plugins": [plugin]}, tmp_path))) == ["plugins"]
    assert len(asked) == 2


def test_an_answer_is_kept_for_the_packages_that_are_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Axolotl's validators ask which others there are, and of which version."""
    asked: list[Any] = []
    monkeypatch.setattr(axolotl_check, "_ask_child", lambda q: asked.append(q) or [])
    packages = tmp_path / "packages"
    packages.mkdir()
    monkeypatch.syspath_prepend(str(packages))
    for name in ("flash_attn-2.8.0.dist-info", "flash_attn-2.8.1.dist-info"):
        (packages / name).mkdir()
        check({"seed": 1}, tmp_path / "memo")
        check({"seed": 1}, tmp_path / "memo")
    assert len(asked) == 2


def test_without_axolotl_the_answer_says_so(memo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """validate warns and run stops; neither is told that the block is fine."""
    monkeypatch.setattr(axolotl_check, "installed_version", lambda: None)
    assert check({"nonsense": 1}, memo) == CheckResult(installed=False)


def test_a_torn_memo_is_asked_again(memo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A memo cut off by a crash is not an answer."""
    asked: list[Any] = []
    monkeypatch.setattr(axolotl_check, "_ask_child", lambda q: asked.append(q) or [])
    for _ in range(2):
        check({"seed": 1}, memo / "torn")
    assert len(asked) == 1
    (kept,) = (memo / "torn").iterdir()
    kept.write_text('[{"pa')
    check({"seed": 1}, memo / "torn")
    assert len(asked) == 2


def test_one_child_answers_many_questions(tmp_path: Path) -> None:
    """Its import is paid once; and the plugins of one block are unknown to the next."""
    plugin = {"plugins": ["axolotl.integrations.liger.LigerPlugin"], "liger_rope": True}
    assert check(plugin, tmp_path).problems == []
    child = axolotl_check._CHILD.process.pid
    assert list(by_path(check({"liger_rope": True}, tmp_path))) == ["liger_rope"]
    start = time.perf_counter()
    for rate in (1e-4, 2e-4, 3e-4):
        assert check({"learning_rate": rate}, tmp_path).problems == []
    assert time.perf_counter() - start < 5
    assert axolotl_check._CHILD.process.pid == child


def test_a_child_that_ended_is_followed_by_another(tmp_path: Path) -> None:
    """Whether it had nothing to do or was killed."""
    check({"seed": 1}, tmp_path)
    first = axolotl_check._CHILD.process
    first.kill()
    first.wait()
    assert check({"seed": 2}, tmp_path).problems == []
    assert axolotl_check._CHILD.process.pid != first.pid


def test_an_axolotl_that_cannot_be_imported_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its last words, and how to go on all the same."""
    (tmp_path / "axolotl").mkdir()
    (tmp_path / "axolotl" / "__init__.py").write_text("raise RuntimeError('half installed')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    axolotl_check._CHILD.forget()
    with pytest.raises(StageError) as caught:
        check({"seed": 3}, tmp_path / "memo")
    assert "RuntimeError: half installed" in caught.value.message
    assert "allow_unknown_axolotl" in (caught.value.hint or "")


def test_the_entry_of_the_rows_is_checked_by_its_own_model(memo: Path) -> None:
    """Unknown keys with a suggestion, wrong values too: in the union another model takes them."""
    dataset = {"roles_to_trian": ["user"], "train_on_eos": "sometimes", "train_on_eot": "all"}
    found = by_path(check({}, memo, dataset=dataset))
    assert set(found) == {"roles_to_trian", "train_on_eos"}
    assert {problem.field for problem in found.values()} == {"dataset"}
    assert "did you mean 'roles_to_train'?" in (found["roles_to_trian"].hint or "")
    assert "'turn'" in found["train_on_eos"].message
    sound = {"type": {"format": "{instruction}", "field_instruction": "q"}}
    assert not check({}, memo, dataset=sound).problems
    pairs = {"type": "chatml.intel", "roles_to_train": ["user"]}
    assert set(by_path(check({"rl": "dpo"}, memo, dataset=pairs))) == {"roles_to_train"}


def test_a_key_of_the_entry_in_the_block_is_told_its_place(memo: Path) -> None:
    """Axolotl would drop it there without a word."""
    found = by_path(check({"roles_to_train": ["user"], "type": "alpaca"}, memo))
    assert set(found) == {"roles_to_train", "type"}
    assert found["roles_to_train"].message == "'roles_to_train' has no effect here"
    assert "the stage's own field dataset: {roles_to_train: …}" in (
        found["roles_to_train"].hint or ""
    )
