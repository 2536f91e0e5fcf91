"""Patterns of file names: which files they mean, as the standard library's glob has it."""

from __future__ import annotations

import glob
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmpipe.patterns import escaped, is_pattern, matching_files, split_pattern

FILES = (
    "a.md", "b.txt", "ab.md", "sub/a.md", "sub/deep/a.md", "sub/deep/b.txt", "other/a.md", "other/c",
    ".hidden.md", ".dir/a.md", "sub/.dir/a.md", ".git/a.md", "__pycache__/a.md", "spec.lock.yaml",
)  # fmt: skip


def matching(root: Path, pattern: str) -> set[str]:
    """The names that match."""
    found = [name for name, _ in matching_files(root, pattern)]
    assert len(found) == len(set(found))
    return set(found)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with the files of `FILES`, each empty."""
    for name in FILES:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.md", {"a.md", "ab.md"}),
        ("?.md", {"a.md"}),
        ("[!a]*", {"b.txt"}),
        ("*/a.md", {"sub/a.md", "other/a.md"}),
        ("**/b.txt", {"b.txt", "sub/deep/b.txt"}),
        ("sub/**/a.md", {"sub/a.md", "sub/deep/a.md"}),
        ("**/deep/*", {"sub/deep/a.md", "sub/deep/b.txt"}),
        ("sub/**", {"sub/a.md", "sub/deep/a.md", "sub/deep/b.txt"}),
        ("**/**/c", {"other/c"}),
        (".*.md", {".hidden.md"}),
        (".d*/*", {".dir/a.md"}),
        (".git/*", set()),
        ("*.yaml", set()),
        ("sub", set()),
    ],
)
def test_what_a_pattern_means(tree: Path, pattern: str, names: set[str]) -> None:
    """Hidden names must be asked for; version control and lock files are not data."""
    assert matching(tree, pattern) == names


PARTS = st.sampled_from(["**", "*", "a*", "*.md", "?b*", "sub", "[ab].*", "**"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(PARTS, min_size=1, max_size=4))
def test_it_is_what_the_standard_library_finds(tree: Path, parts: list[str]) -> None:
    """Apart from the folders that are never seen, which files match is glob's own meaning."""
    pattern = "/".join(parts)
    expected = {
        name
        for name in glob.glob(pattern, root_dir=tree, recursive=True)  # noqa: PTH207
        if (tree / name).is_file() and "__pycache__" not in name and not name.endswith(".lock.yaml")
    }
    assert matching(tree, pattern) == {str(Path(name)) for name in expected}


NOWHERE = ["gone", "a.md/below", "round"]
"""What links lead to that lead to no file."""


@pytest.mark.parametrize("target", NOWHERE)
@pytest.mark.parametrize("name", ["round", "report.html", "x.lock.yaml"])
def test_links_that_lead_nowhere_are_passed_over(tree: Path, name: str, target: str) -> None:
    """One of them took all the others along."""
    (tree / name).symlink_to(name if target == "round" else target)
    assert matching(tree, "*") == {"a.md", "ab.md", "b.txt"}
    assert matching(tree, "sub/*") == {"sub/a.md"}


def test_links_are_followed_but_no_circles(tree: Path) -> None:
    """A linked folder is one like any other; one that leads back up is not gone into."""
    (tree / "linked").symlink_to("other")
    (tree / "sub" / "up").symlink_to("..")
    (tree / "gone").symlink_to("nowhere")
    assert matching(tree, "linked/*") == {"linked/a.md", "linked/c"}
    found = matching(tree, "**")
    assert "linked/c" in found
    assert not any(name.startswith("sub/up") or name == "gone" for name in found)


@pytest.mark.parametrize(
    ("text", "root", "pattern"),
    [
        ("./docs/**/*.md", "./docs", "**/*.md"),
        ("./*.md", ".", "*.md"),
        ("../a/b?/", "../a", "b?"),
        ("/*", "/", "*"),
        ("~/x/./[ab]//c", "~/x/.", "[ab]/c"),
    ],
)
def test_the_part_without_wildcards(text: str, root: str, pattern: str) -> None:
    """What lies before the first wildcard is a folder."""
    assert is_pattern(text)
    assert split_pattern(text) == (root, pattern)


@pytest.mark.parametrize("name", ["a*", "b?", "[ab]", "a]b", "[", "plain"])
def test_an_escaped_name_means_itself(tmp_path: Path, name: str) -> None:
    """As that of a folder it is a part of the path; as that of a file, a pattern of one name."""
    (tmp_path / name).mkdir()
    (tmp_path / name / name).touch()
    (tmp_path / name / "abc").touch()
    text = escaped(f"{tmp_path}/{name}")
    assert split_pattern(f"{text}/**/*.md") == (f"{tmp_path}/{name}", "**/*.md")
    assert split_pattern(f"{text}*/x") == (str(tmp_path), f"{escaped(name)}*/x")
    assert matching(tmp_path / name, escaped(name)) == {name}


@pytest.mark.parametrize("text", ["./docs", "./a[b", "./a]b", "./a[]", "."])
def test_paths_that_are_no_patterns(text: str) -> None:
    """A lone bracket is a character of a name."""
    assert not is_pattern(text)
