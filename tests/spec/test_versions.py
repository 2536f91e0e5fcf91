"""The version of the spec language: what llmpipe says of one that it does not read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llmpipe.errors import SpecError
from llmpipe.spec.read import read_spec

SPEC = """\
{version}name: sample
color: blue
stages:
  dataset: {{kind: format, data: ./rows.jsonl, shape: round}}
"""


def refused(tmp_path: Path, version: str) -> str:
    """Read a spec with this first line and return the message; its later mistakes are planted."""
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC.format(version=version), "utf-8")
    with pytest.raises(SpecError) as caught:
        read_spec(path)
    return re.sub(r"\S*spec\.yaml", "spec.yaml", caught.value.render())


@pytest.mark.parametrize("version", ["2", "17"])
def test_a_newer_version_asks_for_a_newer_llmpipe(tmp_path: Path, version: str) -> None:
    """A spec of the future is refused by name and place; its unknown keys are not judged."""
    assert refused(tmp_path, f"version: {version}\n") == (
        f"spec.yaml:1:10: version: version {version} of the spec language; this llmpipe reads 1\n"
        f"    1 | version: {version}\n"
        f"      |          {'^' * len(version)}\n"
        "   upgrade llmpipe: pip install --upgrade llmpipe"
    )


@pytest.mark.parametrize("version", ["0", "-1", "1.5", "'1'", "v1", "latest", "[1]"])
def test_a_version_that_never_was_is_named(tmp_path: Path, version: str) -> None:
    """What is not a version says what to write."""
    message = refused(tmp_path, f"version: {version}\n")
    assert message.startswith("spec.yaml:1:10: version: there is no version ")
    assert message.endswith("\n   write version: 1")
    assert "color" not in message


def test_a_missing_version_is_one_problem_among_the_others(tmp_path: Path) -> None:
    """Without a version the spec is read as today's, and all that is wrong with it is said."""
    message = refused(tmp_path, "")
    assert "spec.yaml:1:1: 'version' is missing" in message
    assert "unknown key 'color'" in message
    assert "stages.dataset: unknown key 'shape'" in message


@pytest.mark.parametrize(("version", "shown"), [("", "null"), ("true", "true")])
def test_an_empty_version_is_no_number(tmp_path: Path, version: str, shown: str) -> None:
    """Nothing, or a word that Python takes for one, is told what is needed, among the others."""
    message = refused(tmp_path, f"version: {version}\n")
    assert f"version: must be 1, not {shown}" in message
    assert "unknown key 'color'" in message


def test_a_base_brings_its_version(tmp_path: Path) -> None:
    """A spec that extends one of another version is refused at the place in that file."""
    (tmp_path / "base.yaml").write_text("version: 3\nname: base\n", "utf-8")
    message = refused(tmp_path, "extends: ./base.yaml\n")
    assert "base.yaml:1:10: version: version 3 of the spec language" in message
