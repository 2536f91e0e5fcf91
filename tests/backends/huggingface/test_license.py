"""The license of a model, from where the model states it."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmpipe.api.published import find_license, require_license
from llmpipe.backends.huggingface.license import License, license_at
from llmpipe.errors import UsageError
from llmpipe.model_card.facts import BaseModel


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("---\nlicense: apache-2.0\n---\n# x\n", {"license": "apache-2.0"}),
        ("---\r\nlicense: mit\r\n---\r\n", {"license": "mit"}),
        ("---\nlicense: [mit, cc-by-4.0]\n---\n", {"license": ["mit", "cc-by-4.0"]}),
        (
            "---\nlicense: other\nlicense_name: gemma\nlicense_link: https://x.org/l\n---\n",
            {"license": "other", "license_name": "gemma", "license_link": "https://x.org/l"},
        ),
        ("---\ntags: [x]\n---\n", None),
        ("---\nlicense: 3\n---\n", None),
        ("---\nlicense: [\n---\n", None),
        ("# license: mit\n", None),
        (None, None),
    ],
)
def test_a_folder_states_it_in_its_readme(
    tmp_path: Path, card: str | None, expected: dict[str, object] | None
) -> None:
    """In the metadata above the text, and nowhere else: a file LICENSE is not interpreted."""
    (tmp_path / "LICENSE").write_text("MIT License")
    if card is not None:
        (tmp_path / "README.md").write_bytes(card.encode())
    found = license_at(tmp_path)
    assert (found.metadata() if found else None) == expected


@pytest.mark.heavy
def test_a_gguf_states_it_in_its_header(smollm2_gguf: Path) -> None:
    """The packaged model is of the license that its header names."""
    found = license_at(smollm2_gguf)
    assert found is not None
    assert found.metadata() == {"license": "apache-2.0"}
    assert found.stated == f"the header of {smollm2_gguf.name}"


MIT, APACHE = License(("mit",)), License(("apache-2.0",))
LLAMA, GEMMA = License(("other",), "llama-3"), License(("other",), "gemma")
LINKED = License(("other",), "gemma", "https://a.test/terms")


@pytest.mark.parametrize(
    ("bases", "message"),
    [
        ([BaseModel("base", "1")], "the base model base states no license"),
        (
            [BaseModel("base", "1", license=MIT), BaseModel("", "", of="run.o")],
            "the base model of run.o is not known, and neither is its license",
        ),
        (
            [BaseModel("base", "1", license=MIT), BaseModel("other", "2")],
            "the base model other states no license",
        ),
        (
            [BaseModel("base", "1", license=MIT), BaseModel("other", "2", license=APACHE)],
            r"several licenses \(base: mit; other: apache-2.0\)",
        ),
        (
            [BaseModel("base", "1", license=LLAMA), BaseModel("other", "2", license=GEMMA)],
            r"several licenses \(base: other \(llama-3\); other: other \(gemma\)\)",
        ),
        (
            [BaseModel("base", "1", license=GEMMA), BaseModel("other", "2", license=LINKED)],
            r"\(base: other \(gemma\); other: other \(gemma\) https://a.test/terms\)",
        ),
        ([], "the base model is not known"),
    ],
)
def test_what_is_not_stated_once_is_asked_for(bases: list[BaseModel], message: str) -> None:
    """No license is guessed from another model's, or from a part of the models."""
    with pytest.raises(UsageError, match=message) as caught:
        find_license(bases, None, print)
    assert "--license ID" in str(caught.value.hint)
    assert find_license(bases, "mit", print) == License(("mit",))


def test_one_statement_of_all_is_taken() -> None:
    """A choice that says something else is said to do so."""
    bases = [BaseModel("base", "1", license=MIT), BaseModel("other", "2", license=MIT)]
    assert find_license(bases, None, print) == MIT
    said: list[str] = []
    find_license(bases[:1], "apache-2.0", said.append)
    assert said == ["base states the license mit, and --license says apache-2.0"]
    find_license([BaseModel("base", "1", license=GEMMA)], "other", said.append)
    assert said[1:] == ["base states the license other (gemma), and --license says other"]
    for wrong in ("My Own", "MIT", ""):
        with pytest.raises(UsageError, match="not a name of a license"):
            require_license(wrong)
