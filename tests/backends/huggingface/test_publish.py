"""Publish to a local hub by the real client: what arrives, what is refused, what a stop leaves."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_server import PART, Account, HubServer, Refusal, running_hub

from llmpipe.backends.huggingface.publish import HubFile, Repository
from llmpipe.errors import StoreError

pytestmark = pytest.mark.slow

PROGRAM = """
import hashlib, json, sys
from pathlib import Path
from llmpipe.backends.huggingface.publish import HubFile, Repository
from llmpipe.errors import LlmpipeError

repo, folder, remove, lie = sys.argv[1], Path(sys.argv[2]), sys.argv[3].split(), sys.argv[4]
files = []
for path in sorted(p for p in folder.rglob("*") if p.is_file()):
    data, name = path.read_bytes(), path.relative_to(folder).as_posix()
    digest = hashlib.sha256(data).hexdigest() if name != lie else "0" * 64
    files.append(HubFile(name, path, digest, len(data)))
try:
    there = Repository(repo)
    there.require_writer()
    found = there.state()
    ready = there.prepare(files, found)
    state = found or there.create(private=True)
    done = there.push(ready, state, "a test", remove=remove)
except LlmpipeError as error:
    print(json.dumps({"error": error.message, "hint": error.hint, "code": error.exit_code}))
else:
    print(json.dumps({"uploaded": done.uploaded, "unchanged": done.unchanged,
                      "removed": done.removed, "commit": done.commit}))
"""

REPO = "ana/tickets"


@pytest.fixture
def hub() -> Iterator[HubServer]:
    """A hub with one account."""
    with running_hub() as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two large files, one of them in three parts, and a small one."""
    found = tmp_path / "files"
    (found / "adapter").mkdir(parents=True)
    (found / "config.json").write_text('{"model_type": "llama"}')
    (found / "model.safetensors").write_bytes(bytes(range(256)) * (10 * PART // 1024))
    (found / "adapter" / "adapter_model.safetensors").write_bytes(b"small" * 100)
    return found


def start(
    hub: HubServer | str,
    folder: Path,
    *,
    token: str | None = "hf_writer",
    repo: str = REPO,
    remove: str = "",
    lie: str = "",
) -> subprocess.Popen[str]:
    """Start to publish a folder."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub if isinstance(hub, str) else hub.url,
        "HF_HOME": str(folder.parent / "hf"),
        "HF_HUB_OFFLINE": "0",
    }
    environment.pop("HF_TOKEN", None)
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, repo, str(folder), remove, lie],
        env={**environment, **({"HF_TOKEN": token} if token else {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def publish(hub: HubServer | str, folder: Path, **how: Any) -> dict[str, Any]:
    """Publish a folder; return what became of it."""
    out, err = start(hub, folder, **how).communicate(timeout=120)
    assert out, err
    found: dict[str, Any] = json.loads(out)
    return found


def on_disk(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def seen(hub: HubServer) -> dict[str, bytes]:
    """Return what readers see, but for what the hub itself puts there."""
    return {p: data for p, data in hub.files(REPO).items() if p != ".gitattributes"}


def test_what_is_here_is_there(hub: HubServer, folder: Path) -> None:
    """A private repository is created, byte for byte, and a second publish sends nothing."""
    first = publish(hub, folder)
    assert first["uploaded"] == [
        "adapter/adapter_model.safetensors", "config.json", "model.safetensors",
    ]  # fmt: skip
    assert seen(hub) == on_disk(folder)
    assert hub.repos[REPO].private
    parts = [request for request in hub.sent() if request.rpartition("/")[2].isdigit()]
    assert len(parts) == 3
    assert len(hub.repos[REPO].commits) == 2
    hub.asked.clear()
    second = publish(hub, folder)
    assert (second["uploaded"], len(second["unchanged"])) == ([], 3)
    assert second["commit"] == first["commit"]
    assert [request for request in hub.asked if not request.startswith("GET ")] == []


def test_only_what_changed_is_sent(hub: HubServer, folder: Path) -> None:
    """A changed file is sent alone; what is to be removed goes in the same commit."""
    publish(hub, folder)
    hub.asked.clear()
    (folder / "config.json").write_text("{}")
    (folder / "adapter" / "adapter_model.safetensors").unlink()
    done = publish(hub, folder, remove="adapter/adapter_model.safetensors")
    assert (done["uploaded"], done["unchanged"]) == (["config.json"], ["model.safetensors"])
    assert seen(hub) == on_disk(folder)
    assert hub.sent() == []
    assert len(hub.repos[REPO].commits) == 3


def test_a_killed_publish_continues(hub: HubServer, folder: Path) -> None:
    """Readers see nothing of it, and the next one sends only what had not arrived."""
    held, go = threading.Event(), threading.Event()
    large = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()

    def hold(request: str) -> Refusal | None:
        if request == f"PUT /storage/{large}/2":
            held.set()
            go.wait(60)
        return None

    hub.before = hold
    process = start(hub, folder)
    assert held.wait(60)
    small = hashlib.sha256((folder / "adapter/adapter_model.safetensors").read_bytes()).hexdigest()
    for _ in range(100):  # the other file is sent at the same time
        if small in hub.large:
            break
        threading.Event().wait(0.1)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    go.set()
    assert seen(hub) == {}
    hub.before = lambda request: None
    hub.asked.clear()
    done = publish(hub, folder)
    assert len(done["uploaded"]) == 3
    assert seen(hub) == on_disk(folder)
    assert not [request for request in hub.sent() if small in request]


def refused(found: dict[str, Any], message: str, hint: str) -> None:
    """Check an error of the hub."""
    assert message in found["error"]
    assert "unknown" not in found["error"]
    assert hint in found["hint"]
    assert found["code"] == 1
    assert "hf_" not in found["error"].replace("hf_hub", "")


def test_a_wrong_token(hub: HubServer, folder: Path) -> None:
    """A token that the hub does not know, one that only reads, or none: nothing is created."""
    found = publish(hub, folder, token="hf_wrong_0123456789")
    refused(found, "does not accept the token; nothing was published", "export HF_TOKEN=")
    hub.accounts["hf_reader"] = Account("ana", "read", ("ana",))
    found = publish(hub, folder, token="hf_reader")
    refused(found, "the token of ana may only read; nothing was published", "with write access")
    refused(publish(hub, folder, token=None), "there is no token for the hub", "/settings/tokens")
    assert hub.repos == {}


def test_a_missing_right(hub: HubServer, folder: Path) -> None:
    """In the namespace of others nothing can be created, nor written to what they show."""
    found = publish(hub, folder, repo="others/tickets")
    refused(
        found, "the token may not write to others/tickets; nothing", "choose a name of your own"
    )
    hub.accounts["hf_others"] = Account("others", writes=("others",))
    publish(hub, folder, repo="others/tickets", token="hf_others")
    hub.repos["others/tickets"].private = False
    (folder / "config.json").write_text("{}")
    found = publish(hub, folder, repo="others/tickets")
    refused(
        found, "is as it was before: nothing of this was published", "choose a name of your own"
    )


def test_a_name_that_is_taken(hub: HubServer, folder: Path) -> None:
    """By a repository that the token does not see."""
    hub.before = lambda request: (409, "taken") if request == "POST /api/repos/create" else None
    refused(publish(hub, folder), f"the name {REPO} is taken", "choose another name")


def test_no_network(folder: Path) -> None:
    """One clear message."""
    found = publish("http://127.0.0.1:9", folder)
    refused(found, "the hub at http://127.0.0.1:9 cannot be reached", "HF_ENDPOINT")
    assert "nothing was published" in found["error"]


def test_a_refused_file_leaves_an_empty_repository_and_says_so(
    hub: HubServer, folder: Path
) -> None:
    """The storage refuses a file: the repository exists, and nothing is in it."""
    hub.before = lambda request: (403, "no space") if request.startswith("PUT ") else None
    found = publish(hub, folder)
    refused(found, f"{hub.url}/{REPO} exists and is empty: nothing was published", "it continues")
    assert "no space" in found["error"]
    assert seen(hub) == {}


def test_someone_else_was_faster(hub: HubServer, folder: Path) -> None:
    """A commit between the comparison and ours is not overwritten."""

    def intrude(request: str) -> None:
        if request == "POST /api/validate-yaml" or request.endswith("/preupload/main"):
            hub.repos[REPO].commit({"config.json": b"theirs"})

    hub.after = intrude
    found = publish(hub, folder)
    refused(
        found, "was changed by someone else, and nothing of this was published", "publish again"
    )
    assert seen(hub) == {"config.json": b"theirs"}


def test_a_lost_answer_is_no_failure(hub: HubServer, folder: Path) -> None:
    """The commit was made, and only its answer was lost: what is there decides."""

    hub.lose = f"{REPO}/commit/main"
    done = publish(hub, folder)
    assert hub.lose is None
    assert len(done["uploaded"]) == 3
    assert seen(hub) == on_disk(folder)


def test_a_gitignore_that_drops_files_is_seen(hub: HubServer, folder: Path) -> None:
    """The client leaves ignored files out without a word; the check after the commit does not."""
    publish(hub, folder)
    repo = hub.repos[REPO]
    repo.commit({**repo.commits[-1][1], ".gitignore": b"config.json"})
    (folder / "config.json").write_text("{}")
    (folder / "generation_config.json").write_text("{}")
    found = publish(hub, folder)
    refused(found, "was published, but config.json differs", ".gitignore")


def test_a_file_that_is_not_what_it_was(hub: HubServer, folder: Path) -> None:
    """A file whose bytes are not those of its digest is not sent."""
    found = publish(hub, folder, lie="model.safetensors")
    assert found["error"].startswith("model.safetensors is damaged here")
    assert hub.sent() == []
    assert hub.repos == {}


def test_a_token_in_an_answer_is_hidden_before_it_is_cut(hub: HubServer, folder: Path) -> None:
    """The answer is longer than what is shown of it, so a token stands across the cut."""
    answer = (400, "you sent hf_writer " + "hf_writer" * 100)
    hub.before = lambda request: answer if request == "POST /api/repos/create" else None
    found = publish(hub, folder)
    assert "you sent [redacted]" in found["error"]
    assert "hf_w" not in found["error"]


def test_a_refusal_that_would_come_again(hub: HubServer, folder: Path) -> None:
    """What the hub finds wrong is to be corrected; a hub that is busy is to be asked again."""
    for status, hint in ((400, "correct what the answer names, then"), (429, "it continues")):
        answer = (status, "license must be one of")
        hub.before = lambda request, answer=answer: answer if "/preupload/" in request else None
        found = publish(hub, folder)
        refused(found, "refused: ", hint)
        assert "license must be one of" in found["error"]
        assert "exists and is empty: nothing was published" in found["error"]


def test_metadata_that_the_hub_refuses(hub: HubServer, folder: Path) -> None:
    """They are to be corrected."""
    (folder / "README.md").write_text("---\nlicense: [7]\n---\n")
    found = publish(hub, folder)
    refused(found, "license", "correct what the answer names, then publish again")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("/nowhere/config.json", "/nowhere/config.json: No such file or directory; nothing was"),
        ("/proc/self/mem", "a file here: Input/output error; nothing was published"),
    ],
)
def test_a_file_that_cannot_be_read(source: str, message: str) -> None:
    """Neither the network nor the hub is to blame; nothing is asked of it."""
    file = HubFile("config.json", Path(source), "0" * 64, 2)
    with pytest.raises(StoreError, match=message) as caught:
        Repository(REPO).prepare([file], None)
    assert "an error of this machine" in str(caught.value.hint)


def test_a_repository_that_was_created_and_could_not_be_read(hub: HubServer, folder: Path) -> None:
    """It exists, and the message says so."""

    def fail(request: str) -> Refusal | None:
        return (500, "down") if REPO in hub.repos and request.startswith("GET ") else None

    hub.before = fail
    refused(publish(hub, folder), f"{hub.url}/{REPO} exists and is empty: nothing was", "continues")
    hub.before = lambda request: None
    assert len(publish(hub, folder)["uploaded"]) == 3
