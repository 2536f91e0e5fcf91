"""What would be published, and its model card, of specs whose files command stages make."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import llmpipe
from llmpipe.api.publishing import Publication
from llmpipe.errors import StoreError
from llmpipe.model_card.card import is_unedited
from llmpipe.model_card.facts import without_places
from llmpipe.model_card.markdown import code, hiding, plain, text
from llmpipe.runner.redact import Redactor

SPEC = """\
version: 1
name: files
stages:
  make: {kind: command, run: "echo one > ${outputs.o}", outputs: {o: out.gguf}}
"""
REPO = "ana/files"


@pytest.fixture(autouse=True)
def every_warning() -> Iterator[None]:
    """Let warnings pass; a test that is about one records it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """A spec of one stage that writes a GGUF, nothing run."""
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC, "utf-8")
    return path


def publication(spec: Path, stage: str = "make") -> Publication:
    """Return what would be published of a stage."""
    return llmpipe.load(spec).publication(REPO, [stage], license="mit")


def made(spec: Path, stage: str = "make") -> Publication:
    """Run a spec; return what would be published of a stage."""
    assert llmpipe.load(spec).run(progress=False).status == "done"
    return publication(spec, stage)


SECRETS = [
    "pass'word: s3cret~x",  # YAML doubles its quote
    "correct horse battery staple " * 5 + "end",  # YAML folds it
    "back\\slash \"quote\" and 'quote'",  # JSON and YAML escape it
    "*star* [link] _a_b_ ~",  # Markdown escapes it
    "two  spaces  between  words",  # Markdown has one
]


@pytest.mark.slow
@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_is_hidden_before_it_is_quoted_folded_or_escaped(
    spec: Path, monkeypatch: pytest.MonkeyPatch, secret: str
) -> None:
    """It is not in the card as a value, a key or the name of a file, in whatever spelling."""
    monkeypatch.setenv("MY_KEY", secret)
    (spec.parent / f"{secret}.jsonl").write_text("{}\n")
    said = json.dumps(f"it is {secret}, really")
    inputs = json.dumps({"rows": f"./{secret}.jsonl"})
    spec.write_text(
        SPEC.replace("{kind", f"{{description: {said}, inputs: {inputs}, kind").replace(
            "outputs: {", f'env: {{A: "${{secret:MY_KEY}}", B: {said}}}, outputs: {{'
        )
    )
    with pytest.warns(UserWarning, match="the value of a secret stands in the spec"):
        card = made(spec).card
    assert letters(secret) not in letters(card)
    assert "it is [redacted], really" in card
    assert "${secret:MY_KEY}" in card
    assert is_unedited(card)


def letters(value: str) -> str:
    """Return the letters and digits of a text, in which all its spellings agree."""
    return "".join(filter(str.isalnum, value))


@pytest.mark.parametrize("secret", SECRETS)
def test_a_cell_hides_a_secret_before_it_escapes_it(secret: str) -> None:
    """A table's cell, a code span and a line of code have no spelling of it."""
    with hiding(Redactor([secret]).in_json):
        cells = [write(f"it is {secret}, really") for write in (text, code, plain)]
    assert [letters(cell) for cell in cells] == ["itisredactedreally"] * 3


@pytest.mark.slow
def test_files_that_were_kept_are_refused(spec: Path) -> None:
    """A card would show the recipe as it is beside the files of another one."""
    frozen = SPEC.replace("kind: command", "kind: command, freeze: true")
    spec.write_text(frozen)
    assert "echo one" in made(spec).card  # frozen, and nothing has changed
    spec.write_text(frozen.replace("echo one", "echo two"))
    with pytest.raises(StoreError, match="make was kept although it has changed"):
        publication(spec)
    before = llmpipe.load(spec, run="last").publication(REPO, ["make"], license="mit")
    assert "echo one" in before.card
    assert llmpipe.load(spec).run(progress=False).status == "done"
    with pytest.raises(StoreError, match="make was kept although it has changed") as caught:
        llmpipe.load(spec, run="last").publication(REPO, ["make"], license="mit")
    assert "--force" in str(caught.value.hint)
    llmpipe.load(spec).run(force="make", progress=False)
    assert "echo two" in publication(spec).card


def test_files_that_were_kept_once_are_refused(spec: Path) -> None:
    """Also by the run that kept them, and later."""
    made(spec)
    spec.write_text(SPEC.replace("echo one", "echo two"))
    llmpipe.load(spec).run(keep="make", progress=False)
    for run in (None, "last"):
        with pytest.raises(StoreError, match="make was kept although it has changed"):
            llmpipe.load(spec, run=run).publication(REPO, ["make"], license="mit")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/spec", "."),
        ("/spec/data", "./data"),
        ("cp /spec/a '/spec/b' >/spec; ls /spec.", "cp ./a './b' >.; ls .."),
        ("--out=/spec/x:/home/ana/y", "--out=./x:~/y"),
        ("-I/home/ana/a -L/home/ana/b", "-I~/a -L~/b"),
        ("./spec/x data/spec", "./spec/x data/spec"),
        ("file:///spec/x", "file://./x"),
        ("/spec2/data", "/spec2/data"),
        ("/spec-old/x /spec.old/x", "/spec-old/x /spec.old/x"),
        ("/data/spec/x", "/data/spec/x"),
        ("/home/anabel/x", "/home/anabel/x"),
        ({"/home/ana/a": ["/home/ana", 1]}, {"~/a": ["~", 1]}),
    ],
)
def test_a_folder_is_shortened_where_it_is_one(
    monkeypatch: pytest.MonkeyPatch, value: Any, expected: Any
) -> None:
    """The folders of the spec and of the user are, and not names that begin or end like them."""
    monkeypatch.setenv("HOME", "/home/ana")
    assert without_places(value, Path("/spec")) == expected
