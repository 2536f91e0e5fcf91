"""The how-to of stage kinds, followed to the letter: its blocks are a package that works."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.request import urlopen

import pytest

from llmpipe.contracts import Input

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parent.parent / "docs" / "how-to" / "write-a-stage-kind.md"
BLOCK = re.compile(r"(?:^`(\S+)`:\n\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BIN = str(Path(sys.executable).parent)


@pytest.fixture(scope="module")
def blocks() -> list[tuple[str, str, str]]:
    """The page's blocks: the file's name, the language, the text."""
    return [match.groups(default="") for match in BLOCK.finditer(PAGE.read_text("utf-8"))]  # type: ignore[misc]


def install(folder: Path) -> None:
    """Install the package as the page does, but beside the others of this environment."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    command += ["--no-build-isolation", "--upgrade", "--target", "packages", "./redact-kind"]
    subprocess.run(command, cwd=folder, check=True)


def shell(folder: Path, command: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run commands of the page where the package is installed."""
    path = os.pathsep.join(filter(None, [str(folder / "packages"), os.environ.get("PYTHONPATH")]))
    env = {"PYTHONPATH": path, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", **env}
    command = re.sub(r"^llmpipe ", f"{sys.executable} -m llmpipe ", command, flags=re.MULTILINE)
    return subprocess.run(
        ["bash", "-ec", command],
        cwd=folder,
        env={**os.environ, **env, "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
    )


def lines_missing(shown: str, printed: str) -> list[str]:
    """Return the lines that the page shows and that were not printed, whatever they say of time."""
    varying = re.compile(r"\d+\.\d+ s|\(run \S+\)")
    return [
        line for line in varying.sub("", shown).splitlines() if line not in varying.sub("", printed)
    ]


def test_inputs_that_are_optional_or_several(blocks: list[tuple[str, str, str]]) -> None:
    """The page's lines make one port for each row file, and one for the words where they are."""
    snippet = next(text for name, language, text in blocks if language == "python" and not name)
    for words, ports in ((None, ["data.0", "data.1"]), ("w", ["data.0", "data.1", "words"])):
        names: dict[str, Any] = {
            "Input": Input,
            "config": SimpleNamespace(data=["a", "b"], words=words),
        }
        exec(snippet, names)
        assert [*names["inputs"]] == ports


def test_the_page_works_from_top_to_bottom(
    blocks: list[tuple[str, str, str]], tmp_path: Path
) -> None:
    """Files are written, tests pass, the spec runs, and the kind is served."""
    for name, _, text in blocks:
        if name:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text, "utf-8")
    commands = [text for name, language, text in blocks if not name and not language]
    setting_up, running, serving = commands
    install(tmp_path)
    tested = shell(tmp_path, setting_up.replace("pip install --editable redact-kind\n", ""))
    of_tests, of_running, of_serving = [text for _, language, text in blocks if language == "text"]
    assert lines_missing(of_tests, tested.stdout) == []
    ran = shell(tmp_path, running)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "clean.jsonl").read_text() == '{"text":"Ask [e-mail] or [e-mail]."}\n'
    assert lines_missing(of_running, ran.stderr + ran.stdout) == []
    _, lines, imports, method = (
        text for name, language, text in blocks if language == "python" and not name
    )
    module = tmp_path / "redact-kind" / "redact_kind.py"
    code = module.read_text().replace("import re\n", f"import re\n{imports}", 1)
    for line in lines.splitlines():
        code = re.sub(rf"^{line.partition('(')[0]}\(.*:$", line, code, flags=re.MULTILINE)
    above = "    @staticmethod\n    def run("
    module.write_text(code.replace(above, f"{method}\n{above}"))
    install(tmp_path)
    assert shell(tmp_path, "llmpipe run spec.yaml").returncode == 0
    start = serving.splitlines()[0].removeprefix("llmpipe ").replace("8000", "0")
    process = subprocess.Popen(
        [sys.executable, "-m", "llmpipe", *start.split()],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(tmp_path / "packages"), os.environ.get("PYTHONPATH")]))},
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert process.stderr is not None
    with process:
        line = process.stderr.readline()
        assert line.endswith("(POST a text to /); Ctrl-C stops\n"), line + process.stderr.read()
        shown = of_serving.replace("8000", line.split()[2].rpartition(":")[2])
        assert shown.startswith(line)
        with urlopen(line.split()[2], data=b"ask ada@example.org", timeout=10) as answer:
            assert answer.read() == b'{"text": "ask [e-mail]"}'
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
