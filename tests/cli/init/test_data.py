"""What there is: files, folders, patterns and packages, each by its name and once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from init_command import FAQ, compiled, init, refused, write_rows

from llmpipe.cli.init.data import look


@pytest.mark.slow
@pytest.mark.parametrize("named", ["docs [old]", "docs [[]old]/*.md", "~/docs [old]"])
def test_a_folder_may_be_called_like_a_pattern(
    folder: Path, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read itself, and not what its name would fit; be it a folder of one's home."""
    monkeypatch.setenv("HOME", str(folder))
    Path("docs").rename("docs [old]")
    Path("docs o").mkdir()
    Path("docs o", "wrong.md").write_text("# Wrong\n", "utf-8")
    assert init("new", "--data", named, "--goal", "answer") == 0
    for binding in compiled("new/spec.yaml").nodes["docs"].bindings.values():
        assert binding.source.root == folder / "docs [old]"  # type: ignore[union-attr]


def test_the_same_file_counts_once(german: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever it is called, and in whatever folders it is found."""
    Path("same.jsonl").symlink_to("faq.jsonl")
    named = [".", "./faq.jsonl", "faq.jsonl", str(german / "faq.jsonl"), "same.jsonl", "docs"]
    data = look([*named, "docs/odd.jsonl", "docs/a.md", "./docs/*.md"], german)
    assert [rows.written for rows in data.rows] == [
        "./chats.jsonl", "./faq.jsonl", "./docs/odd.jsonl",
    ]  # fmt: skip
    assert list(data.documents) == ["."]
    assert data.count == 3 + 2 + 600 + 9
    assert "odd.jsonl: columns of unknown meaning" not in "\n".join(data.described())
    partly = look(["docs/a.md", "docs"], german)
    assert (next(iter(partly.documents)), partly.count) == ("./docs/a.md", 3)


def test_a_package_is_looked_into(folder: Path) -> None:
    """Its address is what the spec names; no path on this machine gets into it."""
    address = "pkg://zaragoza_construction_faq/data/faq-en-alpaca.jsonl"
    assert init("--data", address, "--yes") == 0
    config: Any = compiled().nodes["dataset"].config
    assert (config.data, config.map) == (address, None)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("e.jsonl", b"", "holds no rows"),
        ("p.jsonl", b'{"prompt": "a", "chosen": "b", "rejected": "c"}\n', "chosen and a rejected"),
        ("b.bin", b"\0\1", "is not text"),
        ("turns.jsonl", b'{"messages": [{"role": "nobody", "content": "a"}]}\n', "nobody"),
    ],
)
def test_files_of_no_use_are_refused(
    folder: Path, name: str, content: bytes, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is written."""
    (folder / name).write_bytes(content)
    assert message in refused(capsys, "--data", name, "--goal", "answer")


def test_a_broken_file_of_rows_is_named_by_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It could not be read by the run either: 1, as there."""
    (folder / "bad.jsonl").write_text('{"text": "a"}\n{"text": \n', "utf-8")
    assert init("--data", "bad.jsonl", "--yes") == 1
    assert "bad.jsonl:2: not JSON" in capsys.readouterr().err
    (folder / "empty").mkdir()
    assert "files there, by extension: none" in refused(capsys, "--data", "empty", "--yes")


def test_any_name_of_a_file_is_written_as_it_is(folder: Path) -> None:
    """What YAML or the spec language would read in a name is taken for the name."""
    names = ["a b.md", "a${params.x}.md", 'quo"te.md', "back\\slash.md", "# no.md", "é\x85字.md"]
    for name in names:
        (folder / name).write_text("# Title\n\nText.\n", "utf-8")
    assert init("--yes", *(part for name in names for part in ("--data", name))) == 0
    bindings = compiled().nodes["docs"].bindings.values()
    assert [binding.source.path.name for binding in bindings] == names  # type: ignore[union-attr]


def test_a_name_that_is_no_text_is_passed_over(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a folder, like whatever else no spec can name; named by a pattern, it is refused."""
    write_rows(folder / "docs" / os.fsdecode(b"caf\xe9.jsonl"), FAQ[:3])
    assert init("--data", "docs", "--yes") == 0
    assert "caf\\udce9.jsonl': the name is not UTF-8" in capsys.readouterr().out
    assert "the name is not UTF-8" in refused(capsys, "new", "--data", "docs/c*.jsonl", "--yes")


def test_files_of_other_kinds_are_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a folder and by a pattern they are counted; one that is named is refused as what it is."""
    (folder / "mixed").mkdir(exist_ok=True)
    (folder / "mixed" / "a.md").write_text("# A\n\nText.\n", "utf-8")
    for name in ("b.rtf", "c.rtf", "d.mht"):
        (folder / "mixed" / name).write_text("{\\rtf1 words}", "utf-8")
    assert init("--data", "mixed", "--yes") == 0
    assert "skipped, of other kinds: 2 .rtf, 1 .mht" in capsys.readouterr().out
    assert init("new", "--data", "mixed/*.*", "--yes") == 0
    assert "skipped, of other kinds: 2 .rtf, 1 .mht" in capsys.readouterr().out
    assert "mixed/b.rtf is Rich Text (RTF), which is not read" in refused(
        capsys, "other", "--data", "mixed/b.rtf", "--yes"
    )
