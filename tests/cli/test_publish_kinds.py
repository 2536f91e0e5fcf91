"""`publish --dry-run` of files that stage kinds of another package train and measure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from offered import llmpipe, offer

pytestmark = pytest.mark.slow

KINDS = """
import json
from pathlib import Path
from llmpipe.contracts import Input, Output, Ports, StageConfig, StageDefaults, StageResult, write_json

class Model(StageConfig, frozen=True, kw_only=True):
    model: str
    rows: str | None = None
    word: str = "one"

class Tune(StageDefaults):
    Config, VERSION, determinism = Model, 1, "exact"
    @staticmethod
    def ports(config):
        inputs = {"model": Input(("model",), config.model, ("gguf",))}
        if config.rows:
            inputs["rows"] = Input(("rows",), config.rows, ("records",))
        return Ports(inputs, {"tuned": Output("gguf", origin="model", trained=True)}, default="tuned")
    @staticmethod
    def run(ctx):
        out = ctx.out / "tuned.gguf"
        out.write_bytes(ctx.input("model").path.read_bytes() + ctx.config.word.encode())
        return StageResult({"tuned": out})

class Convert(StageDefaults):
    Config, VERSION, determinism = Model, 1, "exact"
    @staticmethod
    def ports(config):
        inputs = {"model": Input(("model",), config.model, ("gguf",))}
        return Ports(inputs, {"file": Output("gguf", origin="model")}, default="file")
    @staticmethod
    def run(ctx):
        out = ctx.out / "file.gguf"
        out.write_bytes(ctx.input("model").path.read_bytes() + b" converted")
        return StageResult({"file": out})

class Write(StageDefaults):
    Config, VERSION, determinism = Model, 1, "exact"
    @staticmethod
    def ports(config):
        inputs = {"model": Input(("model",), config.model, ("gguf",))}
        return Ports(inputs, {"rows": Output("records")}, default="rows")
    @staticmethod
    def run(ctx):
        out = ctx.out / "rows.jsonl"
        out.write_text(json.dumps({"text": ctx.input("model").digest}) + "\\n")
        return StageResult({"rows": out})

class Measure(StageDefaults):
    Config, VERSION, determinism = Model, 1, "exact"
    @staticmethod
    def ports(config):
        inputs = {"model": Input(("model",), config.model, ("gguf",))}
        return Ports(inputs, {"metrics": Output("metrics")}, default="metrics")
    @staticmethod
    def run(ctx):
        file = ctx.input("model")
        size = float(file.path.stat().st_size)
        loss = {"mean": size, "low": size, "high": size, "n": 1}
        found = {"models": {file.label: {"loss": loss}}, "paired": []}
        return StageResult({"metrics": write_json(ctx.out / "metrics.json", found)})
"""
POINTS = "\n".join(
    f"{kind.lower()} = odd:{kind}" for kind in ("Tune", "Convert", "Write", "Measure")
)
SPEC = """\
version: 1
name: tuned
stages:
  tune: {kind: tune, model: ./base.gguf}
  check: {kind: measure, model: tune}
"""


class Tuned:
    """A folder with a spec, and the package of its kinds."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.packages = folder, offer(folder, POINTS, KINDS)
        (folder / "base.gguf").write_bytes(b"base")
        self.write(SPEC)

    def write(self, text: str) -> None:
        """Write the spec."""
        (self.folder / "spec.yaml").write_text(text)

    def run(self, *arguments: str) -> None:
        """Run the spec."""
        result = llmpipe(self.folder, self.packages, "run", "spec.yaml", *arguments)
        assert result.returncode == 0, result.stderr

    def card(self, *arguments: str) -> tuple[str, str]:
        """Return the card, and what the command says about it."""
        how = ("--to", "ana/tuned", "--license", "mit", "--dry-run", "--json")
        result = llmpipe(self.folder, self.packages, "publish", "spec.yaml", *arguments, *how)
        assert result.returncode == 0, result.stderr
        found: dict[str, Any] = json.loads(result.stdout)
        return str(found["card"]), result.stderr


@pytest.fixture
def tuned(tmp_path: Path) -> Tuned:
    """A model to tune and to measure, nothing run."""
    return Tuned(tmp_path)


def test_results_that_were_kept_are_not_those_of_other_files(tuned: Tuned) -> None:
    """A measurement is in the card, unless ``freeze`` or ``--keep`` kept it for another file."""
    tuned.run()
    card, said = tuned.card()
    assert "| `tune` | `tuned-tuned.gguf` | 7.000 [7.000, 7.000] |" in card
    assert "check" not in said
    frozen = SPEC.replace("kind: measure,", "kind: measure, freeze: true,")
    tuned.write(frozen)
    assert "7.000 [7.000, 7.000]" in tuned.card()[0]  # frozen, and nothing has changed
    tuned.write(frozen.replace("base.gguf}", "base.gguf, word: other}"))
    tuned.run()
    for how in ([], ["--run", "last"]):
        card, said = tuned.card(*how)
        assert "7.000" not in card
        assert "check was kept although it has changed: the card does not have its res" in said
    tuned.write(SPEC.replace("base.gguf}", "base.gguf, word: third}"))
    tuned.run("--keep", "check")
    card, said = tuned.card()
    assert "7.000" not in card
    assert "check was kept although it has changed" in said


def test_results_of_other_files_are_not_those_of_a_run(tuned: Tuned) -> None:
    """What a run measured on another file than the spec names now is left out, and said."""
    other = "  more: {kind: convert, model: tune}\n"
    tuned.write(SPEC + other)
    tuned.run()
    tuned.write(SPEC.replace("model: tune}", "model: more}") + other)
    card, said = tuned.card("more", "--run", "last")
    assert "7.000" not in card
    assert "check measured other files: the card does not have its results" in said
