"""Patterns and folders where a spec names inputs: what they mean, and what is said if nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llmpipe.errors import SpecError
from llmpipe.graph.compile import compile_spec
from llmpipe.graph.model import Binding
from llmpipe.graph.sources import LocalGlob, LocalPath
from llmpipe.spec.read import read_spec


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A spec's folder with some documents."""
    for name in ("docs/a.md", "docs/b.rst", "docs/sub/c.md", "docs/[v1].md", "img/x.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("# x\n", "utf-8")
    (tmp_path / "empty").mkdir()
    (tmp_path / "docs" / "config.json").write_text("{}", "utf-8")
    return tmp_path


def bound(folder: Path, path: str, kind: str = "ingest", field: str = "paths") -> Binding:
    """Compile a stage with one path; return what it is bound to."""
    text = f"version: 1\nname: x\nstages:\n  docs: {{kind: {kind}, {field}: [{path!r}]}}\n"
    (folder / "spec.yaml").write_text(text, "utf-8")
    graph = compile_spec(read_spec(folder / "spec.yaml"))
    return next(iter(graph.nodes["docs"].bindings.values()))


def refused(folder: Path, path: str) -> str:
    """Compile a stage with one path that means nothing; return what is said."""
    with pytest.raises(SpecError) as caught:
        bound(folder, path)
    return re.sub(r"\S*spec\.yaml", "spec.yaml", caught.value.render())


@pytest.mark.parametrize(
    ("path", "root", "pattern"),
    [
        ("./docs/**/*.md", "docs", "**/*.md"),
        ("./docs", "docs", "**"),
        ("./docs/", "docs", "**"),
        (".", "", "**"),
        ("./*/*.rst", "", "*/*.rst"),
    ],
)
def test_patterns_and_folders(folder: Path, path: str, root: str, pattern: str) -> None:
    """A folder is all that lies in it, whatever that is: a config.json makes it no model."""
    found = bound(folder, path)
    assert found.source == LocalGlob((folder / root).resolve(), pattern)
    assert (found.type, found.label) == ("file", path)


def test_a_file_whose_name_looks_like_a_pattern(folder: Path) -> None:
    """What exists under the very name is meant."""
    assert bound(folder, "./docs/[v1].md").source == LocalPath(
        folder.resolve() / "docs" / "[v1].md"
    )


def test_a_package_has_patterns_too(folder: Path) -> None:
    """Data that a package carries is found by pattern."""
    found = bound(folder, "pkg://llmpipe/documents/*.py").source
    assert isinstance(found, LocalGlob)
    assert (found.root.name, found.pattern) == ("documents", "*.py")


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("./docs/*.pdf", "./docs/*.pdf matches no file\n"),
        (
            "./docs/*.pdf",
            "no file there is called '*.pdf'; there are: .md (2), .json (1), .rst (1)",
        ),
        (
            "./docs/v*/*.md",
            "no folder 'v*' in docs/; it holds [v1].md, a.md, b.rst, config.json, sub",
        ),
        ("./empty/*.md", "empty/ holds nothing"),
        ("./empty", "./empty matches no file"),
        ("./dcos/*.md", "./dcos/*.md: the folder dcos does not exist\n"),
        ("./dcos/*.md", "did you mean 'docs'?"),
        ("./docs/a.md/*.md", "the folder a.md is a file"),
        ("./docs/*/../a.md", "'..' cannot follow a wildcard"),
        ("/**/*.md", "/**/*.md contains whole home folders"),
        ("./docs/none.md", "no such file or folder: ./docs/none.md"),
        ("docs/**/*.md", "'docs/**/*.md' is no stage and no path"),
        ("org/dataset", "'org/dataset' is no stage and no path"),
        ("https://example.org/faq.html", "is on the web, where it may change without a trace"),
        ("http://example.org/faq.html", 'run: "curl -fsSL URL -o ${outputs.page}"'),
        ("pkg://llmpipe/nothing/*.py", "the package 'llmpipe' has no 'nothing'"),
    ],
)
def test_what_means_nothing(folder: Path, path: str, told: str) -> None:
    """The place in the spec is named, and what there is instead."""
    rendered = refused(folder, path)
    assert rendered.startswith("spec.yaml:4:32: stages.docs.paths.0: ")
    assert told in rendered


def test_other_inputs_take_no_patterns(folder: Path) -> None:
    """Where one file is needed, a pattern is a name that nothing has."""
    (folder / "a.jsonl").write_text("{}\n", "utf-8")
    spec = folder / "spec.yaml"
    spec.write_text(
        'version: 1\nname: x\nstages:\n  d: {kind: format, data: "./*.jsonl", to: messages}\n',
        "utf-8",
    )
    with pytest.raises(SpecError, match=r"no such file or folder: \./\*\.jsonl"):
        compile_spec(read_spec(spec))
