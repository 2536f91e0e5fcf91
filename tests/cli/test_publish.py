"""`publish` by the real client to a hub of one's own: a tiny model, trained, merged, exported."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hub_server import HubServer, running_hub

import llmpipe

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

pytestmark = pytest.mark.heavy

SECRET = "sk-0123456789abcdef"
SPEC = """\
version: 1
name: parcels
params: {base: ./base}
stages:
  dataset:
    kind: format
    data: ./rows.jsonl
    map: {user: question, assistant: answer}
    to: messages
    split: {test: 4}
  sft:
    kind: train
    base_model: "${params.base}"
    data: dataset
    launch: {env: {MY_KEY: "${secret:MY_KEY}"}}
    axolotl: {adapter: lora, lora_r: 4, lora_alpha: 8, lora_target_linear: true, sequence_len: 128, micro_batch_size: 2, max_steps: 2, learning_rate: 5e-2, seed: 7}
  merged: {kind: merge, adapter: sft}
  gguf: {kind: export, model: merged, quantize: [f16, q8_0], parity: {continuations: 0}}
  quality:
    kind: evaluate
    models: [base, merged, gguf.q8_0]
    data: dataset.test
    metrics: [loss, kl, same_top, exact_match]
    max_new_tokens: 4
"""
README = "---\nlicense: apache-2.0\ntags: [tiny]\n---\n# A tiny model\n"


class Parcels:
    """A folder with a run pipeline, and a hub."""

    def __init__(self, folder: Path, hub: HubServer) -> None:
        self.folder, self.hub = folder, hub
        self.spec = folder / "spec.yaml"

    def call(self, *arguments: str, code: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
        """Run the command line."""
        result = subprocess.run(
            [sys.executable, "-m", "llmpipe", *arguments],
            cwd=self.folder,
            env={**self.env(), **env},
            capture_output=True,
            text=True,
        )
        assert result.returncode == code, result.stderr
        assert "Traceback" not in result.stderr
        assert SECRET not in result.stdout + result.stderr
        assert "hf_writer" not in result.stdout + result.stderr
        return result

    def python(self, code: str) -> str:
        """Run code that asks the hub; return what it prints."""
        return subprocess.run(
            [sys.executable, "-c", code], env=self.env(), capture_output=True, text=True, check=True
        ).stdout

    def env(self) -> dict[str, str]:
        """Return the environment of one who publishes."""
        return {
            **os.environ,
            "HF_ENDPOINT": self.hub.url,
            "HF_TOKEN": "hf_writer",
            "HF_HOME": str(self.folder / "hf"),
            "HF_HUB_OFFLINE": "0",
            "MY_KEY": SECRET,
        }

    def publish(self, *arguments: str, to: str = "ana/parcels", **how: Any) -> dict[str, Any]:
        """Publish; return the result as data."""
        result = self.call("publish", "spec.yaml", "--to", to, "--json", *arguments, **how)
        found: dict[str, Any] = json.loads(result.stdout)
        return found

    def refused(self, *arguments: str, code: int, to: str = "ana/parcels", **env: str) -> str:
        """Publish what is refused; return the error."""
        return self.call("publish", "spec.yaml", "--to", to, *arguments, code=code, **env).stderr


@pytest.fixture(scope="module")
def made(tiny_llama: Path, build_once: Callable[..., Path]) -> Path:
    """A folder in which the pipeline has run, once for all tests."""

    def build(folder: Path) -> None:
        shutil.copytree(tiny_llama, folder / "base")
        (folder / "base" / "README.md").write_text(README)
        rows = [
            {"question": f"Where is parcel {n}?", "answer": f"In hall {n % 3}."} for n in range(24)
        ]
        text = "".join(f"{json.dumps(row)}\n" for row in rows)
        (folder / "rows.jsonl").write_text(text)
        (folder / "spec.yaml").write_text(SPEC)
        result = subprocess.run(
            [sys.executable, "-m", "llmpipe", "run", "spec.yaml"],
            cwd=folder,
            env={**os.environ, "MY_KEY": SECRET},
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr

    return build_once("parcels", build)


@pytest.fixture
def parcels(made: Path, tmp_path: Path) -> Iterator[Parcels]:
    """A copy of that folder, and a hub that knows nothing of it."""
    folder = tmp_path / "parcels"
    shutil.copytree(made, folder, symlinks=True)
    for record in folder.glob(".llmpipe/runs/*/run.json"):
        told = json.loads(record.read_text())
        record.write_text(json.dumps({**told, "spec": str(folder / "spec.yaml")}))
    with running_hub() as hub:
        yield Parcels(folder, hub)


EVERYTHING = {
    "README.md",
    "config.json", "generation_config.json", "model.safetensors",
    "chat_template.jinja", "tokenizer.json", "tokenizer_config.json",
    "adapter/adapter_config.json", "adapter/adapter_model.safetensors",
    "adapter/chat_template.jinja", "adapter/tokenizer.json", "adapter/tokenizer_config.json",
    "parcels-F16.gguf", "parcels-Q8_0.gguf",
}  # fmt: skip
REPO = "ana/parcels"


def digests(files: dict[str, bytes]) -> dict[str, str]:
    """Return the digest of each file."""
    return {path: hashlib.sha256(data).hexdigest() for path, data in files.items()}


def stored(parcels: Parcels) -> dict[str, bytes]:
    """Return what the store has, by the names in a repository."""
    pipe = llmpipe.load(parcels.spec)
    found = {
        f"{prefix}{path.name}": path.read_bytes()
        for stage, prefix in (("merged", ""), ("sft", "adapter/"))
        for path in pipe.path(stage).iterdir()
    }
    for name in ("f16", "q8_0"):
        found[f"parcels-{name.upper()}.gguf"] = pipe.path(f"gguf.{name}").read_bytes()
    return found


def card_of(hub: HubServer, repo: str = REPO) -> ModelCard:
    """Return a card as the hub's own parser reads it."""
    from huggingface_hub import ModelCard

    return ModelCard(hub.files(repo)["README.md"].decode())


def test_what_the_store_holds_is_what_readers_get(parcels: Parcels) -> None:
    """Byte for byte, private; the client gets it back; a second publish sends nothing."""
    done = parcels.publish()
    assert set(done["uploaded"]) == EVERYTHING
    assert (done["private"], done["created"], done["left"]) == (True, True, [])
    there = parcels.hub.files(REPO)
    assert there.keys() == {*EVERYTHING, ".gitattributes"}
    expected = digests(stored(parcels))
    assert {p: d for p, d in digests(there).items() if p in expected} == expected
    code = f"import huggingface_hub as h; print(h.snapshot_download('{REPO}'))"
    got = Path(parcels.python(code).strip())
    for path, digest in expected.items():
        assert hashlib.sha256((got / path).read_bytes()).hexdigest() == digest
    parcels.hub.asked.clear()
    again = parcels.publish()
    assert (again["uploaded"], len(again["unchanged"])) == ([], len(EVERYTHING))
    assert again["commit"] == done["commit"]
    assert all(request.startswith(("GET ", "HEAD ")) for request in parcels.hub.asked)


def test_the_card_has_facts_and_nothing_else(parcels: Parcels) -> None:
    """Its metadata are those that the hub's parser reads, its figures those of the store."""
    parcels.publish()
    card = card_of(parcels.hub)
    metadata = card.data.to_dict()
    assert metadata.pop("llmpipe")["spec"] == "parcels"
    assert metadata == {
        "license": "apache-2.0", "library_name": "transformers",
        "pipeline_tag": "text-generation", "tags": ["llmpipe", "axolotl", "lora", "gguf"],
    }  # fmt: skip
    summary = json.loads(llmpipe.load(parcels.spec).path("quality.metrics").read_bytes())
    q8_0 = summary["models"]["gguf.q8_0"]
    for metric in ("loss", "kl", "same_top", "exact_match"):
        assert "{mean:.3f} [{low:.3f}, {high:.3f}]".format(**q8_0[metric]) in card.text
    (over,) = (
        pair for pair in summary["paired"]
        if (pair["a"], pair["b"], pair["metric"]) == ("merged", "gguf.q8_0", "loss")
    )  # fmt: skip
    row = next(
        line for line in card.text.splitlines() if line.startswith("| `parcels-Q8_0.gguf` | 5.2")
    )
    assert "{difference:+.3f} [{low:+.3f}, {high:+.3f}]".format(**over).replace("-", "−") in row
    assert "| 8.50 | none |" in row
    assert "| `dataset` | 24 | 20 train, 4 test | none |" in card.text
    assert hashlib.sha256((parcels.folder / "rows.jsonl").read_bytes()).hexdigest() in card.text
    for path, digest in digests(stored(parcels)).items():
        if path.endswith((".gguf", ".safetensors")):
            assert f"| `{digest}` |" in card.text
    for package in ("axolotl", "torch", "xllamacpp"):
        assert re.search(rf"\b{package} {re.escape(version(package))}", card.text)
    text = card.content
    assert "MY_KEY: ${secret:MY_KEY}" in text
    assert SECRET not in text
    assert str(parcels.folder) not in text


def test_a_dry_run_asks_nobody(parcels: Parcels) -> None:
    """It shows the files with their sizes, and the card as it will be."""
    shown = parcels.publish("--dry-run", HF_TOKEN="")
    assert parcels.hub.asked == []
    assert {file["path"] for file in shown["files"]} == EVERYTHING
    text = parcels.call("publish", "spec.yaml", "--to", REPO, "--dry-run").stdout
    assert text.endswith(shown["card"])
    assert "14 files, 33 MB, for ana/parcels" in text
    parcels.publish()
    there = parcels.hub.files(REPO)
    assert there["README.md"].decode() == shown["card"]
    assert {file["path"]: file["sha256"] for file in shown["files"]}.items() <= digests(
        there
    ).items()
    error = parcels.refused("--dry-run", "--public", code=2)
    assert "--dry-run shows files and card" in error


def test_a_secret_that_stands_in_the_spec_is_not_in_the_card(parcels: Parcels) -> None:
    """A value that a description takes from the environment is also that of a secret."""
    text = SPEC.replace("    kind: train\n", '    kind: train\n    description: "${env:MY_KEY}"\n')
    parcels.spec.write_text(text)
    result = parcels.call("publish", "spec.yaml", "--to", REPO, "--dry-run")
    assert "description: '[redacted]'" in result.stdout
    assert "the value of a secret stands in the spec" in result.stderr


def test_a_license_is_read_and_never_guessed(parcels: Parcels) -> None:
    """A base that states none is refused without --license; a choice beside a statement is said."""
    result = parcels.call("publish", "spec.yaml", "--to", REPO, "--dry-run", "--license", "mit")
    assert "base states the license apache-2.0, and --license says mit" in result.stderr
    assert "License of these files: mit, chosen by the publisher" in result.stdout
    assert "License of the base model: apache-2.0, stated in README.md of base" in result.stdout
    (parcels.folder / "base" / "README.md").write_text("# A tiny model\n")
    result = parcels.call("publish", "spec.yaml", "--to", REPO, "--run", "last", code=2)
    assert "base has changed since these files were made of it" in result.stderr
    assert "the base model base has a license that was not read" in result.stderr
    assert "--license ID" in result.stderr
    assert "this is not a name of a license" in parcels.refused("--license", "My Own", code=2)


def test_an_edited_card_is_not_overwritten(parcels: Parcels) -> None:
    """What someone wrote on the hub is kept or replaced as asked, and refused without a choice."""
    parcels.publish()
    there = parcels.hub.files(REPO)
    edited = there["README.md"].replace(b"# parcels", b"# Parcels of our town")
    parcels.hub.add(REPO, {**there, "README.md": edited})
    error = parcels.refused(code=1)
    assert f"{REPO} has a card that was edited since llmpipe wrote it; nothing" in error
    kept = parcels.publish("--card", "keep")
    assert (kept["uploaded"], kept["left"]) == ([], [])
    assert parcels.hub.files(REPO)["README.md"] == edited
    assert parcels.publish("--card", "replace")["uploaded"] == ["README.md"]
    assert parcels.hub.files(REPO) == there


def test_a_name_with_other_files_is_refused(parcels: Parcels) -> None:
    """Files that llmpipe did not publish, and those of another spec, are not mixed with ours."""
    parcels.hub.add(REPO, {"theirs.safetensors": b"x", "config.json": b"{}"}, private=True)
    error = parcels.refused(code=1)
    assert f"{REPO} holds files that llmpipe did not publish: config.json, theirs.safet" in error
    assert parcels.hub.files(REPO)["config.json"] == b"{}"
    parcels.publish(to="ana/other")
    parcels.spec.write_text(SPEC.replace("name: parcels", "name: fields"))
    error = parcels.refused(to="ana/other", code=1)
    assert "ana/other holds what another spec, 'parcels', published" in error
    done = parcels.publish("gguf.q8_0", "--card", "replace", "--prune")
    assert done["removed"] == ["config.json", "theirs.safetensors"]
    assert parcels.hub.files(REPO).keys() == {".gitattributes", "README.md", "parcels-Q8_0.gguf"}


def test_what_is_no_longer_published_is_named(parcels: Parcels) -> None:
    """It stays until --prune."""
    parcels.publish("gguf")
    done = parcels.publish("gguf.q8_0")
    assert (done["uploaded"], done["left"]) == (["README.md"], ["parcels-F16.gguf"])
    assert parcels.publish("gguf.q8_0", "--prune")["removed"] == ["parcels-F16.gguf"]


def test_who_sees_it(parcels: Parcels) -> None:
    """Everybody only if asked; an existing repository is not published to by mistake."""
    assert not parcels.publish("gguf.q8_0", "--public")["private"]
    error = parcels.refused("gguf.q8_0", code=1)
    assert f"{REPO} exists and is public, and private was asked for; nothing" in error
    assert "or publish with --public" in error
    parcels.publish("gguf.q8_0", to="ana/mine")
    assert "is private, and public" in parcels.refused(
        "gguf.q8_0", "--public", to="ana/mine", code=1
    )


def test_parts_of_a_pipeline(parcels: Parcels) -> None:
    """An adapter alone stands at the top; what cannot be published is refused with what can."""
    done = parcels.publish("sft", to="ana/adapter")
    assert "adapter_config.json" in done["uploaded"]
    assert card_of(parcels.hub, "ana/adapter").data.library_name == "peft"
    error = parcels.refused("dataset", code=2)
    assert "dataset is neither a model, an adapter nor a GGUF" in error
    assert "sft.adapter, merged.model, gguf.f16, gguf.q8_0" in error
    assert "did you mean 'gguf'" in parcels.refused("ggf", code=2)
    assert "this is not the name of a repository" in parcels.refused(to="parcels", code=2)


def test_what_is_not_up_to_date_is_not_published(parcels: Parcels) -> None:
    """Unless as a run made it; a measurement that is not up to date is left out, and said."""
    change = ["--set", "stages.sft.axolotl.max_steps=3"]
    error = parcels.refused(*change, code=1)
    assert "is not up to date in the store" in error
    result = parcels.call(
        *("publish", "spec.yaml", "--to", REPO, "--dry-run"),
        *("--set", "stages.quality.max_new_tokens=5"),
    )
    assert "quality is not up to date: the card does not have what it measures" in result.stderr
    assert "no up-to-date measurement" in result.stdout
    parcels.spec.write_text(SPEC.replace("max_steps: 2", "max_steps: 3"))
    done = parcels.publish("gguf", "--run", "last")
    assert "parcels-Q8_0.gguf" in done["uploaded"]
    text = parcels.hub.files(REPO)["README.md"].decode()
    assert "max_steps: 2" in text  # the recipe is the run's, not that of the spec as it is now
    assert "max_steps: 3" not in text


def test_a_damaged_artifact_is_not_published(parcels: Parcels) -> None:
    """Bytes that changed in the store are seen before anything is sent."""
    path = llmpipe.load(parcels.spec).path("gguf.q8_0")
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    error = parcels.refused("gguf.q8_0", code=1)
    assert "parcels-Q8_0.gguf is damaged here" in error
    assert "llmpipe cache verify" in error
    assert parcels.hub.sent() == []


def test_a_token_that_is_wrong(parcels: Parcels) -> None:
    """Exit code 1, what is published (nothing), and what to do."""
    error = parcels.refused(code=1, HF_TOKEN="hf_wrong_0123456789")
    assert "does not accept the token; nothing was published" in error
    assert "export HF_TOKEN=" in error
    assert "hf_wrong" not in error


def test_a_base_model_of_the_hub(parcels: Parcels) -> None:
    """Its id, its commit and its license come from the hub; a conversion is called one."""
    base = parcels.folder / "base"
    files = {path.name: path.read_bytes() for path in base.iterdir()}
    commit = parcels.hub.add("acme/tiny", files)
    spec = f"version: 1\nname: converted\nstages:\n  gguf: {{kind: export, model: acme/tiny@{commit}, quantize: q8_0, parity: {{continuations: 0}}}}\n"
    parcels.spec.write_text(spec)
    parcels.call("run", "spec.yaml")
    assert "trains no model to publish" in parcels.refused(code=2)
    parcels.publish("gguf")
    card = card_of(parcels.hub)
    assert (card.data.base_model, card.data.license) == ("acme/tiny", "apache-2.0")
    assert f"`acme/tiny` at commit `{commit}`" in card.text
    assert "Nothing was trained" in card.text
    unreadable = parcels.refused("gguf", "--dry-run", code=1, HF_ENDPOINT="http://127.0.0.1:9")
    assert "--license ID" in unreadable
    shown = parcels.call(
        *("publish", "spec.yaml", "gguf", "--to", REPO, "--dry-run", "--license", "mit"),
        HF_ENDPOINT="http://127.0.0.1:9",
    )
    assert "the license of acme/tiny was not read" in shown.stderr
    assert "License of the base model: not read." in shown.stdout
