"""Hub ids, against a local endpoint that speaks the hub's protocol for one small repository."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.heavy

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {"config.json": b'{"model_type": "llama"}', "pytorch_model.bin": b"a pickle"}


SETS = {
    "org/rows": ["README.md", "dataset_infos.json", "data/train.jsonl"],
    "org/splits": ["test.csv", "train.csv"],
    "org/parts": [
        "en/test.jsonl",
        "en/train-00000-of-00001.jsonl",
        "de/train.jsonl",
        "trained.csv",
    ],
    "org/archive": [".gitattributes", "data/train-00000.tar"],
}
"""The data sets that the hub has, with their files."""


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers what ``huggingface_hub`` asks about ``org/name``; anything else does not exist."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        if path in ("/api/models/org/name", f"/api/models/org/name/revision/{COMMIT}"):
            siblings = [{"rfilename": name} for name in FILES]
            data = {"id": "org/name", "modelId": "org/name", "sha": COMMIT, "siblings": siblings}
            self._send(200, json.dumps(data).encode(), "application/json", body)
        elif path.startswith("/api/models/org/name/tree/"):
            tree = [
                {"type": "file", "path": n, "size": len(b), "oid": "0"} for n, b in FILES.items()
            ]
            self._send(200, json.dumps(tree).encode(), "application/json", body)
        elif path.startswith(f"/org/name/resolve/{COMMIT}/"):
            name = path.rpartition("/")[2]
            if name in FILES:
                self._send(200, FILES[name], "application/octet-stream", body)
            else:
                self._send(404, b"", "text/plain", body, "EntryNotFound")
        elif set_ := next((n for n in SETS if path.startswith(f"/api/datasets/{n}")), None):
            data = {"id": set_, "sha": COMMIT, "siblings": [{"rfilename": n} for n in SETS[set_]]}
            self._send(200, json.dumps(data).encode(), "application/json", body)
        elif path.startswith(f"/datasets/org/parts/resolve/{COMMIT}/"):
            rows = [{"instruction": f"q{n} of {path[-30:]}", "output": "a"} for n in range(5)]
            told = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
            self._send(200, told, "application/octet-stream", body)
        elif path == f"/datasets/org/rows/resolve/{COMMIT}/data/train.jsonl":
            self._send(200, b'{"text": "one"}\n', "application/octet-stream", body)
        else:
            self._send(404, b"{}", "application/json", body, "RepoNotFound")

    def _send(
        self, status: int, data: bytes, kind: str, body: bool, error: str | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"etag-{len(data)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        if error:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Keep the test's output quiet."""


@pytest.fixture
def endpoint() -> Iterator[str]:
    """A hub on a free port of the loopback address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def ask(code: str, endpoint: str, home: Path) -> str:
    """Run code in a process that takes ``endpoint`` for the hub; return what it prints."""
    program = (
        "from llmpipe.backends.huggingface import hub\nfrom llmpipe.errors import LlmpipeError\n"
        f"try:\n    {code}\nexcept LlmpipeError as error:\n    print(error.render())\n"
    )
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
    }
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_a_repository_becomes_a_commit(endpoint: str, tmp_path: Path) -> None:
    """The default branch is resolved to the commit that it stands at."""
    assert ask("print(hub.resolve_commit('org/name', None))", endpoint, tmp_path) == COMMIT


def test_a_commit_becomes_a_folder_without_pickles(endpoint: str, tmp_path: Path) -> None:
    """A model's files are fetched, pickled weights are not."""
    code = f"print(sorted(p.name for p in hub.download('org/name', '{COMMIT}').iterdir()))"
    assert ask(code, endpoint, tmp_path) == "['config.json']"


def test_what_does_not_exist_is_named(endpoint: str, tmp_path: Path) -> None:
    """A repository that the hub does not have is a message with its name and a suggestion."""
    found = ask("print(hub.resolve_commit('org/nope', None))", endpoint, tmp_path)
    assert "the hub has no model 'org/nope'" in found
    assert "./org/nope" in found


def test_a_hub_out_of_reach_is_a_message(tmp_path: Path) -> None:
    """Without a network there is one clear message."""
    found = ask("print(hub.resolve_commit('org/name', None))", "http://127.0.0.1:9", tmp_path)
    assert "org/name could not be resolved on the hub" in found


def test_a_data_set_is_looked_up_as_one(endpoint: str, tmp_path: Path) -> None:
    """It was asked for as a model, which the hub does not have."""
    code = "print(hub.resolve_commit('org/rows', None, rows=True))"
    assert ask(code, endpoint, tmp_path) == COMMIT
    found = ask("print(hub.resolve_commit('org/nope', None, rows=True))", endpoint, tmp_path)
    assert "the hub has no data set 'org/nope'" in found
    assert "for a file write ./org/nope" in found


def test_a_data_set_is_its_one_file_of_rows(endpoint: str, tmp_path: Path) -> None:
    """A file that describes the set is not a file of rows."""
    code = f"print(hub.download_rows('org/rows', '{COMMIT}').read_text())"
    assert ask(code, endpoint, tmp_path) == '{"text": "one"}'


@pytest.mark.parametrize(
    ("name", "told", "way"),
    [
        (
            "splits",
            "'org/splits' of the hub has 2 files of rows: test.csv, train.csv",
            'run: "curl -fsSL https://huggingface.co/datasets/org/splits/resolve/',
        ),
        (
            "archive",
            "'org/archive' of the hub has no file of rows: data/train-00000.tar",
            "load_dataset('org/archive', revision=",
        ),
    ],
)
def test_a_data_set_of_other_files_says_what_one_can_be(
    endpoint: str, tmp_path: Path, name: str, told: str, way: str
) -> None:
    """With a stage that fetches the file that is meant, or writes one."""
    found = ask(f"print(hub.download_rows('org/{name}', '{COMMIT}'))", endpoint, tmp_path)
    assert found.startswith(f"the data set {told}")
    assert "JSON, CSV, TSV, Parquet or Arrow" in found
    assert way in found


@pytest.mark.parametrize(
    ("chosen", "found"),
    [
        ("split='test'", "en/test.jsonl"),
        ("subset='de'", "de/train.jsonl"),
        ("split='train', subset='en'", "en/train-00000-of-00001.jsonl"),
    ],
)
def test_one_file_of_several_is_chosen(
    endpoint: str, tmp_path: Path, chosen: str, found: str
) -> None:
    """By the words of its path: a split, a subset, or both."""
    code = f"print(hub.download_rows('org/parts', '{COMMIT}', {chosen}))"
    assert ask(code, endpoint, tmp_path).endswith(f"/{found}")


@pytest.mark.parametrize(
    ("chosen", "told"),
    [
        ("split='train'", "2 files of rows for split 'train': de/train.jsonl, en/train-00000"),
        ("split='dev'", "no file of rows for split 'dev': de/train.jsonl, en/test.jsonl"),
        ("split='test', subset='de'", "no file of rows for split 'test', subset 'de': de/train"),
    ],
)
def test_a_choice_of_none_or_several_is_refused(
    endpoint: str, tmp_path: Path, chosen: str, told: str
) -> None:
    """The message says what was asked for, and what there is."""
    found = ask(f"print(hub.download_rows('org/parts', '{COMMIT}', {chosen}))", endpoint, tmp_path)
    assert found.startswith(f"the data set 'org/parts' of the hub has {told}")


def test_a_source_is_the_first_rows_of_a_split(endpoint: str, tmp_path: Path) -> None:
    """A run takes the file of the split from the hub, and of that as many rows as it says."""
    source = f"{{data: org/parts@{COMMIT}, subset: en, split: 'train[:2]'}}"
    (tmp_path / "spec.yaml").write_text(
        f"version: 1\nname: parts\nstages:\n  rows: {{kind: format, sources: [{source}]}}\n"
    )
    result = subprocess.run(
        [sys.executable, "-m", "llmpipe", "run", "spec.yaml", "--json"],
        cwd=tmp_path,
        env={
            **os.environ,
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_OFFLINE": "0",
        },
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    rows = Path(json.loads(result.stdout)["stages"]["rows"]["outputs"]["train"]).read_text()
    assert [line.count("train-00000") for line in rows.splitlines()] == [1, 1]
