"""What the store holds is believed as it was written: every command sees the same damage."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from workspace import CHAIN, Workspace

from llmpipe.cli.main import main
from llmpipe.runner.plan import make_plan
from llmpipe.runner.project import Project
from llmpipe.runner.records import decode_record
from llmpipe.runner.store import Store

pytestmark = pytest.mark.slow

Damage = Callable[[dict[str, Any], dict[str, Any]], object]
"""Damages the data of a record; the data of another one is at hand."""


def _record_file(workspace: Workspace, key: str) -> Path:
    return workspace.folder / ".llmpipe" / "store" / "keys" / f"{key}.json"


def _other_path(data: dict[str, Any], other: dict[str, Any]) -> None:
    data["outputs"]["o"]["path"] = "p.txt"


def _other_object(data: dict[str, Any], other: dict[str, Any]) -> None:
    data["outputs"]["o"]["object"] = other["outputs"]["o"]["object"]


def _other_output(data: dict[str, Any], other: dict[str, Any]) -> None:
    data["outputs"] = other["outputs"]


def _other_digest(data: dict[str, Any], other: dict[str, Any]) -> None:
    data["outputs"]["o"]["digest"] = other["outputs"]["o"]["digest"]


def _other_type(data: dict[str, Any], other: dict[str, Any]) -> None:
    data["outputs"]["o"]["type"] = "model"


def _other_figures(data: dict[str, Any], other: dict[str, Any]) -> None:
    data["metrics"] = {"loss": 0.1}


def _other_ingredients(data: dict[str, Any], other: dict[str, Any]) -> None:
    data["ingredients"] = other["ingredients"]


def _other_key(data: dict[str, Any], other: dict[str, Any]) -> None:
    data.update(other)


def _other_seal(data: dict[str, Any], other: dict[str, Any]) -> None:
    data["seal"] = "0" * 64


def _no_outputs(data: dict[str, Any], other: dict[str, Any]) -> None:
    data["outputs"] = {}


DAMAGES = [
    _other_path,
    _other_object,
    _other_output,
    _other_digest,
    _other_type,
    _other_figures,
    _other_ingredients,
    _other_key,
    _other_seal,
    _no_outputs,
]
UNSEALED = [_other_path, _other_object, _other_digest, _other_ingredients, _other_key]
"""What is seen without a seal, too: what a record says of its key and of its artifacts."""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a spec that has run, to be copied."""
    folder = tmp_path_factory.mktemp("ran")
    (folder / "a.txt").write_text("x\ny\n")
    workspace = Workspace(folder)
    workspace.write(CHAIN)
    workspace.run()
    workspace.trace()
    return folder


@pytest.fixture
def made(ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A folder of its own in which the chain has run; commands are called from within it."""
    folder = shutil.copytree(ran, tmp_path / "made")
    monkeypatch.chdir(folder)
    return Workspace(folder)


def _planned(workspace: Workspace) -> dict[str, Any]:
    """Return the plan of the second stage."""
    return make_plan(Project.open(workspace.spec))["second"].as_json()


def _keys(workspace: Workspace) -> list[str]:
    return [str(plan.key) for plan in make_plan(Project.open(workspace.spec)).values()]


def _damage(workspace: Workspace, damage: Damage, *, sealed: bool = True) -> Path:
    """Damage the record of the second stage; return its file."""
    first, second = (_record_file(workspace, key) for key in _keys(workspace)[:2])
    data = json.loads(second.read_text())
    damage(data, json.loads(first.read_text()))
    if not sealed:
        del data["seal"]
    second.write_text(json.dumps(data, indent=1))
    return second


def _verify(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    main(["cache", "verify", "spec.yaml", "--json"])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("damage", DAMAGES)
def test_plan_get_and_verify_see_a_damaged_record(
    made: Workspace, damage: Damage, capsys: pytest.CaptureFixture[str]
) -> None:
    """Plan says so, get refuses; verify names it by its key and takes it out, but no artifact."""
    path = _damage(made, damage)
    (cause,) = _planned(made)["causes"]
    assert cause["cause"] == "damaged"
    assert main(["get", "spec.yaml", "second", "copy.txt"]) == 1
    found = _verify(capsys)
    assert (found["artifacts"], found["rotten"]) == (3, [])
    (item,) = found["records"]
    assert (item["key"], item["taken_out"]) == (path.stem, True)
    assert not path.exists()
    assert not _verify(capsys)["records"]


@pytest.mark.parametrize("damage", [_other_path, _other_object])
def test_a_run_makes_what_a_damaged_record_stands_for_again(
    made: Workspace, damage: Damage
) -> None:
    """Exactly that stage runs, says why, and then all is well."""
    path = _damage(made, damage)
    result = made.call("run", "spec.yaml", "--plain")
    assert result.returncode == 0
    assert "second (command): its record in the store is damaged: it has changed" in result.stderr
    assert made.trace() == ["second"]
    assert _planned(made)["status"] == "cached"
    assert json.loads(path.read_text())["outputs"]["o"]["path"] == "o.txt"
    assert made.call("cache", "verify", "spec.yaml").returncode == 0


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"\xff\xfe", b'{"key": 1}', b"null", b'{"key": ' + b"[" * 9999]
)
def test_what_is_no_record_is_named(
    made: Workspace, text: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """A record that is torn or something else is damage like any other."""
    path = _record_file(made, _keys(made)[1])
    path.write_bytes(text)
    (cause,) = _planned(made)["causes"]
    assert cause["cause"] == "damaged"
    assert main(["cache", "verify", "spec.yaml"]) == 1
    told = capsys.readouterr().out
    assert f"the record of key {path.stem[:16]}: it is not a record" in told
    assert "1 records damaged, 1 of them removed" in told


@pytest.mark.parametrize("damage", UNSEALED)
def test_a_record_of_before_there_were_seals_is_held_against_its_artifacts(
    made: Workspace, damage: Damage, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it says of its key and its artifacts must hold; else its stage runs again."""
    _damage(made, damage, sealed=False)
    assert _planned(made)["status"] == "run"
    assert len(_verify(capsys)["records"]) == 1


def test_a_record_of_before_there_were_seals_is_sealed_by_the_next_run(
    made: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is made again, and from then on every change of it is seen."""
    path = _damage(made, lambda data, other: None, sealed=False)
    assert not _verify(capsys)["records"]
    assert _planned(made)["status"] == "cached"
    made.run()
    assert made.trace() == []
    assert decode_record(path.read_bytes(), path.stem).seal


def _manifest_names(text: str) -> str:
    return text.replace("o.txt", "p.txt")


def _manifest_digests(text: str) -> str:
    return re.sub(r'"sha256": "..', '"sha256": "00', text)


@pytest.mark.parametrize(
    "spoil", [_manifest_names, _manifest_digests, lambda text: "[]", lambda text: "[{"]
)
def test_plan_and_run_see_a_damaged_manifest_alike(
    made: Workspace, spoil: Callable[[str], str]
) -> None:
    """Also a run after one that had nothing to do, which is recalled otherwise."""
    made.call("run", "spec.yaml")
    (output,) = Store(made.folder / ".llmpipe").record(_keys(made)[1]).outputs.values()  # type: ignore[union-attr]
    manifest = made.folder / ".llmpipe/store/objects" / output.object / "manifest.json"
    manifest.write_text(spoil(manifest.read_text()))
    assert _planned(made)["causes"] == [{"cause": "missing", "output": "o"}]
    assert main(["get", "spec.yaml", "second", "copy.txt"]) == 1
    assert made.call("run", "spec.yaml").returncode == 0
    assert made.trace() == ["second"]
    assert main(["cache", "verify", "spec.yaml"]) == 0


def test_a_field_that_a_later_version_adds_is_sealed_too(made: Workspace) -> None:
    """The seal is of what was written, so that this llmpipe can check what a later one wrote."""
    path = _record_file(made, _keys(made)[1])
    with pytest.raises(ValueError, match="changed since"):
        decode_record(path.read_text().replace("{", '{"later": 1,', 1).encode(), path.stem)
