"""The remote store: what one machine pushed another does not run, and what is damaged is refused.

The services are a folder and moto's S3 server on loopback, found the way MinIO's users have theirs
found: by ``AWS_ENDPOINT_URL``.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llmpipe.canonical import digest

SPEC = """\
version: 1
name: shared
cache: {remote: REMOTE}
stages:
  first:
    kind: command
    run: "echo first >> trace; cat ${inputs.src} > ${outputs.o}"
    inputs: {src: ./a.txt}
    outputs: {o: o.txt}
  tree:
    kind: command
    run: "echo tree >> trace; mkdir -p ${outputs.o}/a/b; cp ${inputs.i} '${outputs.o}/a/b/x#y? é%41.txt'; touch ${outputs.o}/empty"
    inputs: {i: first}
    outputs: {o: tree}
  last: {kind: command, run: "echo last >> trace; cat ${inputs.i}/a/b/* > ${outputs.o}", inputs: {i: tree}, outputs: {o: l.txt}}
"""

SECRET = "sekret-5b1e-77aa"
REGION = {
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "us",
    "AWS_SECRET_ACCESS_KEY": SECRET,
}
EVERYTHING = {"first", "tree", "last"}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A fake S3 on loopback; gives its address."""
    from moto.server import ThreadedMotoServer

    service = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    service.start()
    host, port = service.get_host_and_port()
    yield f"http://{host}:{port}"
    service.stop()


@pytest.fixture
def bucket(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An empty bucket, and the environment in which it is found; gives the bucket's client."""
    import boto3

    for name, value in {**REGION, "AWS_ENDPOINT_URL": server}.items():
        monkeypatch.setenv(name, value)
    name = f"b-{digest(str(tmp_path))[:16]}"
    return boto3.resource("s3").create_bucket(Bucket=name)


@pytest.fixture(params=["folder", "s3"])
def address(request: pytest.FixtureRequest) -> str:
    """The address of a remote store with nothing in it, as a spec would name it."""
    if request.param == "folder":
        return "./shared"
    return f"s3://{request.getfixturevalue('bucket').name}/team/store"


def lay(workspace: Any, address: str) -> None:
    """Write the spec with its remote store."""
    workspace.write(SPEC.replace("REMOTE", address))


def transfer(workspace: Any, command: str, *arguments: str, code: int = 0, **env: str) -> Any:
    """Push or pull; return the JSON result."""
    result = workspace.call(command, "spec.yaml", "--json", *arguments, **env)
    assert result.returncode == code, result.stderr
    return json.loads(result.stdout)


def elsewhere(workspace: Any) -> dict[str, str]:
    """Return the environment of another machine: the same spec, a store of its own, nothing in it."""
    shutil.rmtree(workspace.folder / "other", ignore_errors=True)
    return {"LLMPIPE_HOME": str(workspace.folder / "other")}


def events(workspace: Any, run: str, home: str = ".llmpipe") -> list[dict[str, Any]]:
    """Return the events of a run."""
    lines = (workspace.folder / home / "runs" / run / "events.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def left_behind(workspace: Any, home: str = "other") -> list[str]:
    """Return what lies in a store's workshop."""
    return [path.name for path in (workspace.folder / home / "store" / "tmp").glob("*/*")]


def test_what_was_pushed_is_fetched_and_not_run(
    workspace: Any, address: str, statuses: Callable[..., dict[str, str]]
) -> None:
    """A second machine runs nothing, says where it had it from, and has the same bytes."""
    lay(workspace, address)
    made = workspace.run()
    assert set(workspace.trace()) == EVERYTHING
    pushed = transfer(workspace, "push")
    assert pushed["stages"] == dict.fromkeys(("first", "tree", "last"), "pushed")
    assert pushed["bytes"] == 12
    assert transfer(workspace, "push") == {
        **pushed, "bytes": 0, "stages": dict.fromkeys(pushed["stages"], "there already"),
    }  # fmt: skip
    (workspace.folder / "shared.lock.yaml").unlink()
    result = workspace.run(**elsewhere(workspace))
    assert set(statuses(result).values()) == {"cached"}
    assert workspace.trace() == []
    told = [e for e in events(workspace, result["run"], "other") if e["event"] == "fetched"]
    assert {e["stage"] for e in told} == EVERYTHING
    assert {e["remote"] for e in told} == {pushed["remote"]}
    tree = Path(result["stages"]["tree"]["outputs"]["o"])
    assert (tree / "a" / "b" / "x#y? é%41.txt").read_text() == "x\ny\n"
    assert (tree / "empty").read_bytes() == b""
    assert [s["key"] for s in result["stages"].values()] == [
        s["key"] for s in made["stages"].values()
    ]
    assert left_behind(workspace) == []


def test_pull_brings_all_without_running(workspace: Any, address: str) -> None:
    """``pull`` brings what is there, by stage or all of it; the run that follows finds it cached."""
    lay(workspace, address)
    workspace.run()
    transfer(workspace, "push", "first")
    workspace.trace()
    other = elsewhere(workspace)
    assert transfer(workspace, "pull", code=1, **other)["stages"] == {
        "first": "pulled", "tree": "not there", "last": "not there",
    }  # fmt: skip
    transfer(workspace, "push")
    assert transfer(workspace, "pull", "tree", **other)["stages"] == {
        "first": "here already", "tree": "pulled",
    }  # fmt: skip
    workspace.call("pull", "spec.yaml", **other)
    result = workspace.run(**other)
    assert {e["event"] for e in events(workspace, result["run"], "other")} == {
        "run-started", "stage-ended", "run-ended",
    }  # fmt: skip
    assert workspace.trace() == []


def test_only_what_is_up_to_date_is_pushed(workspace: Any) -> None:
    """A stage that has not run is named, and the exit status says that not all is there."""
    lay(workspace, "./shared")
    workspace.run("--only", "first")
    assert transfer(workspace, "push", code=1)["stages"] == {
        "first": "pushed", "tree": "not up to date here", "last": "not up to date here",
    }  # fmt: skip


# what is damaged


@pytest.fixture(scope="module")
def pushed_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which everything was run and pushed to ./shared."""
    folder = tmp_path_factory.mktemp("pushed")
    (folder / "spec.yaml").write_text(SPEC.replace("REMOTE", "./shared"), "utf-8")
    (folder / "a.txt").write_text("x\ny\n")
    for command in ("run", "push"):
        subprocess.run(
            [sys.executable, "-m", "llmpipe", command, "spec.yaml"], cwd=folder, check=True
        )
    return folder


class Shared:
    """The remote folder, seen by who damages what it has of the stage ``first``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        paths = (folder / "keys").glob("*.json")
        (self.key,) = (p for p in paths if "a.txt" not in p.read_text() and self.is_first(p))
        self.record: dict[str, Any] = json.loads(self.key.read_bytes())
        self.object = folder / "objects" / self.record["outputs"]["o"]["object"]
        self.data = self.object / "data" / "o.txt"
        self.manifest = self.object / "manifest.json"

    @staticmethod
    def is_first(path: Path) -> bool:
        return "echo first" in path.read_text()

    def forge(self, **changes: Any) -> None:
        """Change the record; a forger leaves the seal out, since one that is broken tells."""
        data = {name: value for name, value in self.record.items() if name != "seal"}
        self.key.write_text(json.dumps({**data, **changes}))

    def forge_output(self, **changes: Any) -> None:
        """Change what the record says of the output."""
        self.forge(outputs={"o": {**self.record["outputs"]["o"], **changes}})

    def forge_object(self, path: str) -> None:
        """Put an object of one file there whose name is ``path``, and have the record name it."""
        entry = {"path": path, "sha256": self.record["outputs"]["o"]["digest"], "size": 4}
        name = digest({"folder": True, "files": [entry]})
        forged = self.folder / "objects" / name
        (forged / "data").mkdir(parents=True)
        (forged / "manifest.json").write_text(json.dumps([entry]))
        rows = json.dumps([[path, entry["sha256"]]], separators=(",", ":"), ensure_ascii=False)
        content = hashlib.sha256(rows.encode()).hexdigest()
        self.forge_output(object=name, path="", digest=content, size=4)


def flip(shared: Shared) -> None:
    shared.data.write_text("x\nz\n")


def truncate(shared: Shared) -> None:
    shared.data.write_text("x\n")


def link_away(shared: Shared) -> None:
    shared.data.unlink()
    shared.data.symlink_to("/proc/self/cmdline")


def foreign_manifest(shared: Shared) -> None:
    others = (shared.folder / "objects").glob("*/manifest.json")
    shared.manifest.write_bytes(next(p for p in others if p != shared.manifest).read_bytes())


DAMAGES: dict[str, tuple[Callable[[Shared], object], str]] = {
    "flipped": (flip, "o.txt has other bytes"),
    "truncated": (truncate, "o.txt has 2 bytes of 4"),
    "missing file": (lambda s: s.data.unlink(), "o.txt is missing"),
    "a link": (link_away, "o.txt has "),
    "missing manifest": (lambda s: s.manifest.unlink(), "its manifest is missing"),
    "foreign manifest": (foreign_manifest, "its manifest has changed"),
    "cut manifest": (lambda s: s.manifest.write_text('[{"pa'), "its manifest has changed"),
    "record cut": (lambda s: s.key.write_text('{"key":'), "the record of"),
    "broken seal": (lambda s: s.key.write_text(json.dumps(s.record | {"x": 1})), "the record of"),
    "record of another": (lambda s: s.forge(key="0" * 64), "the record of"),
    "other ingredients": (lambda s: s.forge(ingredients={"kind": "x"}), "the record of"),
    "ingredients no JSON": (lambda s: s.forge(ingredients={"x": None, "y": []}), "the record of"),
    "no outputs": (lambda s: s.forge(outputs={}), "the record of"),
    "other type": (lambda s: s.forge_output(type="model"), "the record of"),
    "object leads out": (lambda s: s.forge_output(object="../../../x"), "the record of"),
    "path leads out": (lambda s: s.forge_output(path="../../../a.txt"), "the record of"),
    "absolute path": (lambda s: s.forge_output(path="/etc/hostname"), "the record of"),
    "path is another": (lambda s: s.forge_output(path="p.txt"), "its manifest has changed"),
    "digest is another": (lambda s: s.forge_output(digest="0" * 64), "its manifest has changed"),
    "entry leads out": (lambda s: s.forge_object("../../evil"), "'../../evil' leads outside of it"),
    "entry absolute": (
        lambda s: s.forge_object("/tmp/evil-5b1e"),
        "'/tmp/evil-5b1e' leads outside",
    ),
    "entry winds out": (lambda s: s.forge_object("a/../../../evil"), "leads outside of it"),
    "entry is empty": (lambda s: s.forge_object(""), "leads outside of it"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_refused_by_name(workspace: Any, pushed_once: Path, damage: str) -> None:
    """``pull`` ends in 1 and names stage and damage; ``run`` warns and works; nothing half remains."""
    lay(workspace, "./shared")
    shutil.copytree(pushed_once / "shared", workspace.folder / "shared")
    shared = Shared(workspace.folder / "shared")
    spoil, message = DAMAGES[damage]
    spoil(shared)
    other = elsewhere(workspace)
    pulled = workspace.call("pull", "spec.yaml", **other)
    assert pulled.returncode == 1
    assert pulled.stderr.startswith(f"first: {shared.folder}: ")
    assert message in pulled.stderr
    assert "Traceback" not in pulled.stderr
    store = workspace.folder / "other" / "store"
    assert [p for name in ("objects", "keys", "tmp/*") for p in store.glob(f"{name}/*")] == []
    result = workspace.run(**other)
    (warning,) = (e for e in events(workspace, result["run"], "other") if e["event"] == "warning")
    assert warning["stage"] == "first"
    assert message in warning["message"]
    assert result["stages"]["first"]["status"] == "done"
    assert workspace.trace() == ["first"]  # the others are sound, and are fetched
    assert left_behind(workspace) == []
    assert not Path("/tmp/evil-5b1e").exists()
    assert not list(workspace.folder.rglob("evil"))


def test_a_damaged_object_on_s3_is_refused(workspace: Any, bucket: Any) -> None:
    """Bytes that were flipped on the server are noticed there as well."""
    lay(workspace, f"s3://{bucket.name}")
    made = workspace.run()
    transfer(workspace, "push")
    name = Path(made["stages"]["first"]["outputs"]["o"]).parents[1].name
    bucket.Object(f"objects/{name}/data/o.txt").put(Body=b"x\nz\n")
    pulled = workspace.call("pull", "spec.yaml", **elsewhere(workspace))
    assert pulled.returncode == 1
    assert f"the artifact {name[:16]} is damaged: o.txt has other bytes" in pulled.stderr
    assert f"remove objects/{name} there" in pulled.stderr


def test_a_push_completes_what_is_missing_there(workspace: Any, pushed_once: Path) -> None:
    """Missing and truncated files, manifests and cut records are pushed again; all is sound after."""
    shutil.copytree(pushed_once, workspace.folder, dirs_exist_ok=True)
    workspace.trace()
    shared = Shared(workspace.folder / "shared")
    for spoil in (truncate, lambda s: s.data.unlink(), lambda s: s.manifest.unlink(),
                  foreign_manifest, lambda s: s.key.write_text("{"), lambda s: s.key.unlink()):  # fmt: skip
        spoil(shared)
        assert transfer(workspace, "push")["stages"] == {
            "first": "pushed", "tree": "there already", "last": "there already",
        }  # fmt: skip
        assert transfer(workspace, "pull", **elsewhere(workspace))["bytes"] == 12


def test_rotten_objects_are_not_pushed(workspace: Any) -> None:
    """Bytes that have changed here never reach the others."""
    lay(workspace, "./shared")
    made = workspace.run()
    path = Path(made["stages"]["first"]["outputs"]["o"])
    path.chmod(0o644)
    path.write_text("x\nz\n")
    pushed = workspace.call("push", "spec.yaml")
    assert pushed.returncode == 1
    assert "is damaged here: o.txt has changed since it was stored" in pushed.stderr
    assert "llmpipe cache verify" in pushed.stderr
    assert [p.name for p in (workspace.folder / "shared").rglob("*") if p.is_file()] == ["format"]


def test_the_first_making_stays(workspace: Any) -> None:
    """Where two machines made something else under one key, what was pushed first is what all get."""
    workspace.write(
        "version: 1\nname: noise\ncache: {remote: ./shared}\nstages:\n"
        '  noise: {kind: command, run: "date +%N > ${outputs.o}", outputs: {o: o.txt}}\n'
    )
    ours = workspace.run()["stages"]["noise"]["outputs"]["o"]
    other = elsewhere(workspace)
    workspace.run(**other)
    transfer(workspace, "push")
    assert transfer(workspace, "push", **other)["stages"] == {"noise": "there already"}
    third = {"LLMPIPE_HOME": str(workspace.folder / "third")}
    theirs = workspace.run(**third)["stages"]["noise"]["outputs"]["o"]
    assert Path(theirs).read_text() == Path(ours).read_text()


def test_a_newer_remote_store_is_refused_by_name(workspace: Any, pushed_once: Path) -> None:
    """The layout has a version; push and pull stop, a run says it once and works."""
    shutil.copytree(pushed_once, workspace.folder, dirs_exist_ok=True)
    workspace.trace()
    (workspace.folder / "shared" / "format").write_text("2\n")
    for command in ("push", "pull"):
        result = workspace.call(command, "spec.yaml")
        assert result.returncode == 1
        assert "is of format '2'; this llmpipe knows format 1" in result.stderr
    result = workspace.call("run", "spec.yaml", **elsewhere(workspace))
    assert result.stderr.count("is of format '2'") == 1
    assert len(workspace.trace()) == 3


# kills and interrupts

BIG = """\
version: 1
name: big
cache: {remote: ./shared}
stages:
"""


def test_a_push_that_is_killed_leaves_no_record_without_its_objects(workspace: Any) -> None:
    """kill -9 at any moment: every record there can be fetched, and the next push completes all."""
    stages = [
        f'  s{i}: {{kind: command, run: "mkdir ${{outputs.o}}; for j in 1 2 3; do head -c 3000000 /dev/urandom > '
        f'${{outputs.o}}/$j; done; true {i}", outputs: {{o: o}}}}\n'
        for i in range(4)
    ]
    workspace.write(BIG + "".join(stages))
    workspace.run()
    shared = workspace.folder / "shared"
    chance, seen = random.Random(5), set()
    for files in range(12):
        shutil.rmtree(shared, ignore_errors=True)
        process = workspace.start("push", "spec.yaml")
        while process.poll() is None and len(list(shared.glob("objects/*/data/*"))) < files:
            pass
        time.sleep(chance.uniform(0, 0.01))
        process.kill()
        process.communicate()
        records = list((shared / "keys").glob("*.json"))
        seen.add(len(records))
        for path in records:
            for output in json.loads(path.read_bytes())["outputs"].values():
                folder = shared / "objects" / output["object"]
                sizes = {p.name: p.stat().st_size for p in (folder / "data").iterdir()}
                assert sizes == dict.fromkeys("123", 3_000_000)
                assert json.loads((folder / "manifest.json").read_bytes())
    assert len(seen) > 2, "the pushes were not killed at different moments"
    transfer(workspace, "push")
    pulled = transfer(workspace, "pull", **elsewhere(workspace))
    assert pulled["bytes"] == 4 * 9_000_000


def test_an_interrupt_while_fetching_starts_nothing(workspace: Any, pushed_once: Path) -> None:
    """Ctrl-C while a download hangs ends the run in five seconds; the stage is not run instead."""
    lay(workspace, "./shared")
    shutil.copytree(pushed_once / "shared", workspace.folder / "shared")
    shared = Shared(workspace.folder / "shared")
    shared.key.unlink()
    os.mkfifo(shared.key)  # a reader waits for ever
    process = workspace.start("run", "spec.yaml", "--json", **elsewhere(workspace))
    deadline = time.monotonic() + 20
    log = workspace.folder / "other" / "runs"
    while (
        not list(log.glob("*/events.jsonl"))
        or "stage-started" not in next(log.glob("*/events.jsonl")).read_text()
    ):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(1)
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert time.monotonic() - begun < 5
    assert process.returncode == 130, err
    assert json.loads(out)["stages"]["first"]["status"] == "interrupted"
    assert workspace.trace() == []


# who cannot be reached


def test_an_unreachable_server_costs_no_more_than_the_work(workspace: Any, bucket: Any) -> None:
    """It is said once in a run, which works by itself; push and pull end in 1. No secret is told."""
    lay(workspace, f"s3://{bucket.name}/x")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/{SECRET}"
        gone = {"AWS_ENDPOINT_URL": url, "AWS_MAX_ATTEMPTS": "1"}
        run = workspace.call("run", "spec.yaml", **gone)
        pull = workspace.call("pull", "spec.yaml", **gone)
    assert run.returncode == 0
    assert set(workspace.trace()) == EVERYTHING
    assert run.stderr.count("the remote store is not used: s3://") == 1
    assert pull.returncode == 1
    for text in (run.stderr, pull.stderr):
        assert "cannot be used: Could not connect to the endpoint URL" in text
        assert "[redacted]" in text
        assert "check the address, the network and the credentials" in text
        assert SECRET not in text
        assert "Traceback" not in text


def test_a_server_that_never_answers_is_not_waited_for(workspace: Any, bucket: Any) -> None:
    """The first answer has a deadline, whatever the client's own retries would take."""
    lay(workspace, f"s3://{bucket.name}/x")
    program = (
        "import sys; from llmpipe.runner import remote; remote.FIRST_ANSWER = 1.0\n"
        "from llmpipe.cli.main import main; sys.exit(main(['pull', 'spec.yaml']))"
    )
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        begun = time.monotonic()
        result = subprocess.run(
            [sys.executable, "-c", program], cwd=workspace.folder, capture_output=True, text=True,
            env={**os.environ, "AWS_ENDPOINT_URL_S3": url}, timeout=60,
        )  # fmt: skip
    assert result.returncode == 1
    assert "there was no answer within 1 s" in result.stderr
    assert time.monotonic() - begun < 15


def test_a_bucket_that_is_not_there_is_not_made(workspace: Any, bucket: Any) -> None:
    """A misspelled bucket is an error and does not come into being."""
    import boto3

    lay(workspace, "s3://no-such-bucket-5b1e/x")
    workspace.run("--only", "first")
    pushed = workspace.call("push", "spec.yaml")
    assert pushed.returncode == 1
    assert "The specified bucket does not exist" in pushed.stderr
    assert "no-such-bucket-5b1e" not in {b.name for b in boto3.resource("s3").buckets.all()}
    assert "nothing has been pushed there yet" in workspace.call("pull", "spec.yaml").stderr


def test_missing_credentials_are_said(workspace: Any, bucket: Any) -> None:
    """Without credentials the message says what is missing."""
    lay(workspace, f"s3://{bucket.name}/x")
    none = {name: "" for name in REGION if name != "AWS_DEFAULT_REGION"}
    result = workspace.call("pull", "spec.yaml", AWS_EC2_METADATA_DISABLED="true", **none)
    assert result.returncode == 1
    assert "Unable to locate credentials" in result.stderr


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("s3://us:sekret-5b1e-77aa@bucket/x", "a password does not belong here"),
        ("s3://:sekret-5b1e-77aa@bucket/x", "a password does not belong here"),
        ("http://[sekret-5b1e-77aa/x", "this is not an address"),
        ("file:///tmp::s3://us:sekret-5b1e-77aa@bucket/x", "not a chain of them"),
    ],
)
@pytest.mark.parametrize("command", ["run", "plan", "push"])
def test_a_password_in_the_address_is_refused(
    workspace: Any, command: str, address: str, message: str
) -> None:
    """It ends in 2 at its line before anything is written, and is not shown."""
    lay(workspace, f'"{address}"')
    result = workspace.call(command, "spec.yaml")
    assert result.returncode == 2
    assert result.stderr.startswith("spec.yaml:3:17: cache.remote: ")
    assert message in result.stderr
    assert "AWS_SECRET_ACCESS_KEY" in result.stderr
    assert SECRET not in result.stderr + result.stdout
    written = (p for p in workspace.folder.rglob("*") if p.is_file() and p.name != "spec.yaml")
    assert not [p for p in written if SECRET in p.read_text("utf-8", "replace")]


def test_a_missing_package_is_named_with_what_installs_it(workspace: Any, bucket: Any) -> None:
    """Without s3fs, push ends in 2 with the pip command; a run says it once and works."""
    lay(workspace, f"s3://{bucket.name}/x")
    blocker = workspace.folder / "without"
    blocker.mkdir()
    (blocker / "s3fs.py").write_text("raise ImportError('there is no s3fs')\n")
    result = workspace.call("push", "spec.yaml", PYTHONPATH=str(blocker))
    assert result.returncode == 2
    assert "pip install 'llmpipe[s3]'" in result.stderr
    run = workspace.call("run", "spec.yaml", PYTHONPATH=str(blocker))
    assert run.returncode == 0
    assert run.stderr.count("pip install 'llmpipe[s3]'") == 1
    assert set(workspace.trace()) == EVERYTHING


def test_a_spec_without_a_remote_store_says_how_to_name_one(workspace: Any) -> None:
    """push and pull need one; the hint is the line to add."""
    for command in ("push", "pull"):
        result = workspace.call(command, "spec.yaml")
        assert result.returncode == 2
        assert "cache: {remote: s3://bucket/folder}" in result.stderr


# who prefers what


def test_a_rotten_artifact_is_fetched_again(workspace: Any, pushed_once: Path) -> None:
    """What `cache verify` took out comes from the remote store, not from another run of the stage."""
    shutil.copytree(pushed_once, workspace.folder, dirs_exist_ok=True)
    workspace.trace()
    path = Path(workspace.run()["stages"]["first"]["outputs"]["o"])
    path.chmod(0o644)
    path.write_text("x\nz\n")
    assert workspace.call("cache", "verify", "spec.yaml").returncode == 1
    result = workspace.run()
    assert Path(result["stages"]["first"]["outputs"]["o"]).read_text() == "x\ny\n"
    assert workspace.trace() == []


def test_force_runs_whatever_the_remote_store_has(workspace: Any, pushed_once: Path) -> None:
    """--force means the stage's own work, on a machine without its artifact too."""
    lay(workspace, "./shared")
    shutil.copytree(pushed_once / "shared", workspace.folder / "shared")
    result = workspace.run("--force", "first", **elsewhere(workspace))
    assert result["stages"]["first"]["status"] == "done"
    assert workspace.trace() == ["first"]


def test_what_is_kept_is_not_pushed(workspace: Any) -> None:
    """An artifact under a key that it was not made of stays here; what is really made goes."""
    lay(workspace, "./shared")
    workspace.run()
    workspace.write(
        workspace.spec.read_text().replace("cat ${inputs.src}", "sort -r ${inputs.src}")
    )
    workspace.run("--keep", "first")
    assert transfer(workspace, "push", code=1)["stages"] == {
        "first": "kept although it has changed: not pushed", "tree": "pushed", "last": "pushed",
    }  # fmt: skip
    made = workspace.run(**elsewhere(workspace))["stages"]["first"]["outputs"]["o"]
    assert Path(made).read_text() == "y\nx\n"
