"""An output that came to a kind later: what was made before stays up to date without it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from offered import llmpipe, offer

pytestmark = pytest.mark.slow

KIND = """
from llmpipe.contracts import Input, Output, Ports, StageConfig, StageDefaults, StageResult, semantic_fields

class Config(StageConfig, frozen=True, kw_only=True):
    logs: bool = False

class Fit(StageDefaults):
    VERSION, determinism = 1, "exact"
    Config = Config
    @staticmethod
    def ports(config):
        logs = {"log": Output("file", optional=True)} if config.logs else {}
        return Ports({}, {"made": Output("file"), **logs}, default="made")
    @staticmethod
    def fingerprint(config):
        return semantic_fields(config, without=frozenset({"logs"}))
    @staticmethod
    def run(ctx):
        made = {name: ctx.out / name for name in Fit.ports(ctx.config).outputs}
        for path in made.values():
            path.write_text("1")
        return StageResult(made)
"""
BEFORE = "version: 1\nname: x\ncache: {remote: ./shared}\nstages:\n  fit: {kind: fit}\n"
NOW = BEFORE.replace("fit}", "fit, logs: true}")
TAKEN = NOW + (
    '  last: {kind: command, run: "cp ${inputs.i} ${outputs.o}", '
    "inputs: {i: fit.log}, outputs: {o: o}}\n"
)


class Fitted:
    """A folder with a spec, and the package of its kind."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.packages = folder, offer(folder, "fit = odd:Fit", KIND)

    def call(self, text: str, *arguments: str, code: int = 0, **env: str) -> str:
        """Run a command on a spec; return what it says."""
        (self.folder / "spec.yaml").write_text(text)
        result = llmpipe(self.folder, self.packages, *arguments, **env)
        assert result.returncode == code, result.stderr
        return result.stdout if "--json" in arguments else result.stdout + result.stderr

    def plan(self, text: str) -> dict[str, Any]:
        """Return the plan of the first stage."""
        found: dict[str, Any] = json.loads(self.call(text, "plan", "spec.yaml", "--json"))
        return found["stages"]["fit"]


def test_only_a_stage_that_takes_it_makes_it_worth_a_run(tmp_path: Path) -> None:
    """Else the plan says that it is not there, and `get` how to make it."""
    fitted = Fitted(tmp_path)
    fitted.call(BEFORE, "run", "spec.yaml")
    assert "lacks" not in fitted.plan(BEFORE)
    now = fitted.plan(NOW)
    assert (now["status"], now["causes"], now["lacks"]) == ("cached", [], ["log"])
    assert "cached, made without log" in fitted.call(NOW, "plan", "spec.yaml")
    fitted.call(NOW, "get", "spec.yaml", "fit.made", "./made")
    said = fitted.call(NOW, "get", "spec.yaml", "fit.log", "./log", code=1)
    assert "fit was made without its output log" in said
    assert "force" in said
    (cause,) = fitted.plan(TAKEN)["causes"]
    assert cause == {"cause": "missing", "output": "log"}
    fitted.call(TAKEN, "run", "spec.yaml")
    assert "lacks" not in fitted.plan(NOW)
    fitted.call(NOW, "get", "spec.yaml", "fit.log", "./log")


def test_a_remote_store_has_it_or_lacks_it(tmp_path: Path) -> None:
    """What was pushed without it is fetched; where a stage takes it, it is said and made."""
    fitted = Fitted(tmp_path)
    fitted.call(BEFORE, "run", "spec.yaml")
    fitted.call(BEFORE, "push", "spec.yaml")
    there = {"LLMPIPE_HOME": str(tmp_path / "there")}
    fitted.call(NOW, "pull", "spec.yaml", **there)
    made = json.loads(fitted.call(NOW, "run", "spec.yaml", "--json", **there))
    assert made["stages"]["fit"]["status"] == "cached"
    fresh = {"LLMPIPE_HOME": str(tmp_path / "fresh")}
    said = fitted.call(TAKEN, "run", "spec.yaml", **fresh)
    assert "lacks log" in said
    assert "▸ fit" in said
