"""`publish --dry-run` of files that stage kinds of another package train and measure."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hub_server import running_hub
from offered import llmpipe, offer

pytestmark = pytest.mark.slow

KINDS = """
import hashlib
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
        inputs = {"model": Input(("model",), config.model, ("gguf", "model"))}
        if config.rows:
            inputs["rows"] = Input(("rows",), config.rows, ("records",))
        return Ports(inputs, {"tuned": Output("gguf", origin="model", trained=True)}, default="tuned")
    @staticmethod
    def run(ctx):
        out = ctx.out / "tuned.gguf"
        path = ctx.input("model").path
        data = (path / "config.json" if path.is_dir() else path).read_bytes()
        out.write_bytes(data + ctx.config.word.encode())
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

    def run(self, *arguments: str, **env: str) -> None:
        """Run the spec."""
        result = llmpipe(self.folder, self.packages, "run", "spec.yaml", *arguments, **env)
        assert result.returncode == 0, result.stderr

    def card(self, *arguments: str, **env: str) -> tuple[str, str]:
        """Return the card, and what the command says about it."""
        how = ("--to", "ana/tuned", "--license", "mit", "--dry-run", "--json")
        command = ("publish", "spec.yaml", *arguments, *how)
        result = llmpipe(self.folder, self.packages, *command, **env)
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


def test_a_run_is_of_the_model_and_rows_that_it_read(tuned: Tuned) -> None:
    """The card never has the name of one file beside the digest of another."""
    text = SPEC.replace("base.gguf", "base.gguf, rows: ./rows.jsonl")
    for name in ("rows.jsonl", "more.jsonl"):
        (tuned.folder / name).write_text(json.dumps({"text": name}) + "\n")
    (tuned.folder / "new.gguf").write_bytes(b"new")
    tuned.write(text)
    tuned.run()
    model, rows = (
        hashlib.sha256((tuned.folder / name).read_bytes()).hexdigest()
        for name in ("base.gguf", "rows.jsonl")
    )
    whole = (f"Base model: `base.gguf`, digest `{model}`.", f"| `tune` | `rows.jsonl` | `{rows}` |")
    tuned.write(text.replace("tuned\n", "renamed\n"))
    card, _ = tuned.card("--run", "last")
    assert all(line in card for line in whole)
    tuned.write(text.replace("base.gguf", "new.gguf").replace("./rows", "./more"))
    card, said = tuned.card("--run", "last")
    assert f"Base model: digest `{model}`.\nLicense of the base model: not read." in card
    assert f"| `tune` | `{rows}` |" in card
    assert "new.gguf" not in card
    assert "more.jsonl" not in card
    assert "these files were made of another model than new.gguf" in said
    tuned.write(text.replace("./base.gguf", "acme/tiny@" + "a" * 40))
    card, said = tuned.card("--run", "last")
    assert f"Base model: digest `{model}`." in card
    assert "acme" not in card


def test_a_run_is_of_the_repository_that_it_read(tuned: Tuned) -> None:
    """The name and the commit of a base model are of one repository, also after an edit."""
    with running_hub() as hub:
        env = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tuned.folder / "hf"), "HF_HUB_OFFLINE": "0"}
        old = hub.add("old/a", {"config.json": b"{}", "README.md": b"---\nlicense: mit\n---\n"})
        new = hub.add("new/b", {"config.json": b"{}", "README.md": b"---\nlicense: gpl\n---\n"})
        tuned.write(SPEC.replace("./base.gguf", f"old/a@{old}"))
        tuned.run(**env)
        tuned.write(SPEC.replace("./base.gguf", f"new/b@{new}"))
        card, _ = tuned.card("--run", "last", **env)
    assert f"Base model: `old/a` at commit `{old}`." in card
    assert "License of the base model: mit, stated in the card of old/a." in card
    assert "base_model: old/a\n" in card
    assert "new/b" not in card


def test_how_the_files_were_made_is_not_guessed(tuned: Tuned) -> None:
    """A training of any kind is one, a conversion is one, and of a command neither is known."""
    tuned.write(
        SPEC + "  more: {kind: convert, model: ./base.gguf}\n"
        '  run: {kind: command, run: "echo > ${outputs.o}", outputs: {o: o.gguf}}\n'
        "  rows: {kind: write, model: tune}\n"
        "  taught: {kind: tune, model: more, rows: rows}\n"
        '  asked: {kind: command, run: "cat ${inputs.i} > ${outputs.o}", inputs: {i: tune}, outputs: {o: p.gguf}}\n'
    )
    tuned.run()
    conversion, unknown = "Nothing was trained: the files are conv", "was made is not known"
    card, _ = tuned.card("tune")
    assert "| `tune` | stage kind tune |" in card
    assert conversion not in card
    assert unknown not in card
    card, _ = tuned.card("more")
    assert conversion in card
    assert unknown not in card
    for names in (["run"], ["asked"], ["run", "more"]):
        card, _ = tuned.card(*names)
        assert f"How `{names[0]}.o` {unknown}." in card
        assert conversion not in card
    card, _ = tuned.card("taught")  # its teacher was trained, too, and is not what is published
    assert "| `taught` | stage kind tune |" in card
    assert "| `tune` | stage kind" not in card
