"""Every example is sound: its spec, its references, and its Axolotl settings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from in_process import llmpipe

from llmpipe.spec.load import load_file

pytestmark = pytest.mark.heavy

EXAMPLES = Path(__file__).parent.parent.parent / "examples"

DEBIAN = "python3.[0-9][0-9]/html/faq/*.html"
"""What the profile ``debian`` of rag-docs reads where Debian's package of it is installed."""


@pytest.mark.parametrize("spec", sorted(EXAMPLES.glob("*/spec.yaml")), ids=lambda p: p.parent.name)
def test_an_example_is_sound(spec: Path, tmp_path: Path) -> None:
    """``validate`` finds nothing, with each profile and without, and a README stands beside."""
    profiles = load_file(spec).find(("profiles",))
    names = profiles.children() if profiles else ()
    for profile in ([], *(["--profile", name] for name in names)):
        result = llmpipe(tmp_path, "validate", str(spec), *profile)
        if profile[1:] == ["debian"] and not any(Path("/usr/share/doc").glob(DEBIAN)):
            assert f"{DEBIAN} matches no file" in result.stderr
        else:
            assert result.returncode == 0, result.stderr
    assert (spec.parent / "README.md").exists()


def test_the_model_that_answers_is_trained_as_the_quickstart_s() -> None:
    """In rag-finetuned, setting by setting: what is measured of the one holds for the other."""
    quickstart, answering = (
        load_file(EXAMPLES / name / "spec.yaml") for name in ("quickstart", "rag-finetuned")
    )
    for place in [("stages", name) for name in ("sft", "merged", "gguf")] + [
        ("params", name) for name in ("base", "faq", "steps")
    ]:
        one, other = quickstart.find(place), answering.find(place)
        assert one is not None
        assert other is not None
        assert one.plain() == other.plain()


def test_the_rows_of_the_tickets_are_always_the_same(tmp_path: Path) -> None:
    """The script of extract-json gives the same bytes twice, and no ticket in both files."""
    made = []
    for name in ("a", "b"):
        files = [tmp_path / f"{name}-train.jsonl", tmp_path / f"{name}-test.jsonl"]
        script = EXAMPLES / "extract-json" / "make_rows.py"
        subprocess.run([sys.executable, script, *files], check=True)
        made.append([file.read_text("utf-8") for file in files])
    assert made[0] == made[1]
    train, test = (set(text.splitlines()) for text in made[0])
    assert (len(train), len(test)) == (240, 40)
    assert not train & test
