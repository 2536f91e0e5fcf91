"""Damage what a store holds for a while: no traceback, no hang, no artifact that is wrong.

This is a separate program: ``python fuzz_records.py SECONDS FOLDER``. It runs a small spec in
FOLDER once. Then it damages files of the store and the lock file again and again, and calls the
commands that read them. Damaged folders that a command fails on are kept. It prints the number of
folders tried, and how many the next run repaired.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import yaml
from mutations import bytes_changed, tree_changed
from openai_endpoint import Endpoint

from llmpipe.cli.main import main
from llmpipe.runner import lease
from llmpipe.runner.trees import remove_tree

LEAST = 10
"""Folders that are damaged on the slowest machine, too."""
MAX_SECONDS = 120
"""Seconds for one damaged folder, with all commands; most take one or two."""

ENDS = ("read", "refused", "healed")
"""How a damaged folder fares: it was only read, or a run refused it, or repaired it."""

SPEC = """\
version: 1
name: chain
stages:
  rows: {{kind: generate, method: evol-instruct, seeds: ./seeds.jsonl, count: 2, rounds: 1,
         map: {{user: q}}, teacher: {{engine: openai, model: m, base_url: "{url}"}}}}
  first: {{kind: command, run: "cat ${{inputs.src}} > ${{outputs.o}}", inputs: {{src: ./src}}, outputs: {{o: o.txt}}}}
  second: {{kind: command, run: "sort ${{inputs.i}} > ${{outputs.o}}; mkdir ${{outputs.d}}; echo a > ${{outputs.d}}/a",
           inputs: {{i: first}}, outputs: {{o: o.txt, d: d}}}}
  third: {{kind: command, run: "wc -l < ${{inputs.i}} > ${{outputs.o}}", inputs: {{i: second.o}}, outputs: {{o: o.txt}}}}
  data: {{kind: format, data: rows, to: messages}}
"""
OUTPUTS = ("rows", "first", "second.o", "second.d", "third", "data")

UNREAD = (".log", ".html", ".lock")
"""Files of a store that no command reads."""

READING = [
    ["plan", "spec.yaml"], ["plan", "spec.yaml", "--json"], ["runs"], ["runs", "--json"],
    ["runs", "show"], ["runs", "show", "--json"], ["runs", "compare"], ["runs", "compare", "--json"],
    ["report", "--output", "page.html"], ["get", "spec.yaml", "third", "copy"], ["gc", "--dry-run"],
    ["graph", "spec.yaml"], ["runs", "compare", "--html", "page.html"], ["report"], ["cache", "verify"],
    ["plan", "spec.yaml", "--set", "stages.second.run=x"], ["gc", "--keep-runs", "1", "--json"],
]  # fmt: skip


def call(*arguments: str) -> tuple[int, str, str]:
    """Call the command line in this process; return the exit code and what it printed.

    Raises:
        AssertionError: It failed without a message.
    """
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(list(arguments))
    gc.collect()  # closes the databases, as the end of a process does
    told = err.getvalue()
    assert code in (0, 1, 2, 3), (arguments, code, told)
    assert "Traceback" not in told, (arguments, told)
    assert code == 0 or told.strip() or out.getvalue().strip(), (arguments, "fails without a word")
    return code, out.getvalue(), told


def artifact(name: str) -> dict[str, bytes] | None:
    """Return the files of an artifact as `get` writes them, or None where it refuses."""
    forget_copy()
    code, _, _ = call("get", "spec.yaml", name, "copy")
    if code:
        return None
    copy = Path("copy")
    files = copy.rglob("*") if copy.is_dir() else [copy]
    return {str(path.relative_to(copy)): path.read_bytes() for path in files if path.is_file()}


def forget_copy() -> None:
    """Remove what `get` wrote: it replaces nothing."""
    if Path("copy").is_dir():
        shutil.rmtree("copy")
    Path("copy").unlink(missing_ok=True)


def as_data_changed(path: Path, chance: random.Random) -> bytes | None:
    """Return the text of a JSON, JSON Lines or YAML file with other data, or None for others."""
    try:
        if path.suffix == ".yaml":
            changed = tree_changed(yaml.safe_load(path.read_text()), chance)
            return yaml.safe_dump(changed).encode("utf-8", "replace")
        if path.suffix == ".jsonl":
            lines = path.read_bytes().splitlines(keepends=True)
            at = chance.randrange(len(lines))
            changed = tree_changed(json.loads(lines[at]), chance)
            lines[at] = json.dumps(changed).encode() + b"\n"
            return b"".join(lines)
        return json.dumps(tree_changed(json.loads(path.read_bytes()), chance)).encode()
    except (OSError, ValueError, IndexError, TypeError, yaml.YAMLError):
        return None


def tables_changed(path: Path, chance: random.Random) -> None:
    """Change the tables of a database, or what they hold."""
    with contextlib.closing(sqlite3.connect(path)) as db, contextlib.suppress(sqlite3.Error), db:
        tables = [row[0] for row in db.execute("select name from sqlite_master where type='table'")]
        table = chance.choice(tables)
        columns = [row[1] for row in db.execute(f"pragma table_info({table})")]
        column = chance.choice(columns)
        db.execute(
            chance.choice(
                [
                    f"drop table {table}",
                    f"alter table {table} rename to other",
                    f"alter table {table} drop column {column}",
                    f"alter table {table} add column more",
                    f"update {table} set {column} = null",
                    f"update {table} set {column} = 'x'",
                    f"update {table} set {column} = x'ff'",
                    "create table more (x)",
                    "pragma user_version = 99",
                ]
            )
        )


def as_other_entry(path: Path, others: list[Path], chance: random.Random) -> str:
    """Put something else in the place of a file: a folder, a link, another file, nothing."""
    how = chance.choice(
        ["gone", "folder", "full folder", "link", "dangling", "circle", "other", "near"]
    )
    near = [other for other in others if other.parent == path.parent and other != path]
    source = chance.choice(near if near and how == "near" else others)
    data = source.read_bytes() if source.is_file() else b""
    if path.is_dir() and not path.is_symlink():
        remove_tree(path)
    else:
        path.unlink()
    if how == "folder":
        path.mkdir()
    elif how == "full folder":
        path.mkdir()
        (path / "x.json").write_text("{}")
    elif how == "link":
        path.symlink_to(source)
    elif how == "dangling":
        path.symlink_to("nowhere")
    elif how == "circle":
        path.symlink_to(path.name)
    elif how in ("other", "near"):
        path.write_bytes(data)
    return how


def damage(folder: Path, chance: random.Random) -> str:
    """Damage one file or folder; return what was done."""
    entries = sorted(p for p in folder.rglob("*") if ".llmpipe" in p.parts or ".lock." in p.name)
    files = [path for path in entries if path.is_file() and path.suffix not in UNREAD]
    folders = [path for path in entries if path.is_dir()]
    groups: dict[str, list[Path]] = {}
    for path in folders if folders and chance.random() < 0.1 else files:
        groups.setdefault(group_of(path.relative_to(folder)), []).append(path)
    if not groups:
        return "nothing is left"
    path = chance.choice(groups[chance.choice(sorted(groups))])
    name = path.relative_to(folder)
    if not path.is_file() or chance.random() < 0.2:
        return f"{name}: {as_other_entry(path, files, chance)}"
    path.chmod(0o644)
    if path.suffix == ".sqlite" and chance.random() < 0.6:
        tables_changed(path, chance)
        return f"{name}: tables"
    data = as_data_changed(path, chance) if chance.random() < 0.6 else None
    how = "bytes" if data is None else "data"
    path.write_bytes(bytes_changed(path.read_bytes(), chance) if data is None else data)
    return f"{name}: {how}"


def group_of(name: Path) -> str:
    """Return what kind of thing a path of a store is, so that each kind has its share."""
    parts = name.parts
    if parts[:3] == (".llmpipe", "store", "objects") and len(parts) > 4:
        return "object: " + ("manifest" if parts[4] == "manifest.json" else "data")
    return "/".join(parts[:3] if "store" in parts else parts[:2]) + name.suffix + str(len(parts))


def try_one(folder: Path, expected: dict[str, dict[str, bytes]], chance: random.Random) -> str:
    """Damage the folder's store and call commands; return how the run after that ended.

    Raises:
        AssertionError: A command does not say what is wrong, or an artifact is wrong.
    """
    os.chdir(folder)
    lease.EXPIRY = 0.2
    if chance.random() < 0.3:
        assert call("run", "spec.yaml")[0] == 0  # leaves a memory that there is nothing to do
    before = {path: path.read_bytes() for path in folder.glob(".llmpipe/store/objects/*/data/**/*")
              if path.is_file()}  # fmt: skip
    done = [damage(folder, chance) for _ in range(chance.choice([1, 1, 1, 2, 4]))]
    print("; ".join(done), file=sys.stderr)
    same_size = any(
        path.is_file() and path.stat().st_size == len(data) and path.read_bytes() != data
        for path, data in before.items()
    )
    for arguments in chance.sample(READING, 5):
        forget_copy()
        say(arguments, call(*arguments))
    if chance.random() < 0.6:
        return "read"
    if chance.random() < 0.3:
        say(["gc"], call("gc", "spec.yaml"))
    if same_size or chance.random() < 0.3:
        code = say(["cache"], call("cache", "verify", "spec.yaml"))
        assert code or not same_size, "an artifact with other bytes is not found"
    journal_touched = any("journal" in one for one in done)
    force = ["--force", "rows"] if journal_touched or chance.random() < 0.05 else []
    result = call("run", "spec.yaml", *force)
    if say(["run"], result):
        return "refused"
    for name, files in expected.items():
        found = artifact(name)
        assert found is not None, (name, "is not there after a run that says that all is done")
        assert found == files or (journal_touched and name in ("rows", "data")), (name, found)
    code, out, _ = call("plan", "spec.yaml", "--json")
    stages = json.loads(out)["stages"]
    assert {stage["status"] for stage in stages.values()} == {"cached"}, stages
    return "healed"


def say(arguments: list[str], result: tuple[int, str, str]) -> int:
    """Print a refusal, for people who read the messages; return the exit code."""
    code, out, err = result
    if code:
        print(f"{' '.join(arguments)} -> {code}: {(err or out).strip()[:500]}", file=sys.stderr)
    return code


def in_child(work: Callable[[], str], log: Path) -> str:
    """Run a function in its own process; return its answer, or how it failed."""
    child = os.fork()
    if not child:
        status = len(ENDS)
        with log.open("w") as stream:
            os.dup2(stream.fileno(), 2)
        try:
            status = ENDS.index(work())
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    deadline = time.monotonic() + MAX_SECONDS
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            found = os.waitstatus_to_exitcode(status)
            return ENDS[found] if 0 <= found < len(ENDS) else f"failed: status {found}"
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "failed: it did not end"


def fuzz(seconds: float, folder: Path, start: int) -> Counter[str]:
    """Damage copies of a store for some time; return how many there were of each outcome."""
    work, base, logs = folder / "work", folder / "base", folder / "logs"
    work.mkdir()
    logs.mkdir()
    tried: Counter[str] = Counter()
    with Endpoint() as endpoint:
        expected = prepare(work, endpoint.url)
        shutil.copytree(work, base, symlinks=True)
        deadline, number = time.monotonic() + seconds, start
        while time.monotonic() < deadline or tried.total() < LEAST:
            remove_tree(work)
            shutil.copytree(base, work, symlinks=True)
            chance, log = random.Random(number), logs / f"{number}.log"
            outcome = in_child(lambda c=chance: try_one(work, expected, c), log)  # type: ignore[misc]
            tried[outcome] += 1
            if outcome.startswith("failed"):
                print(f"{number}: {outcome}\n{log.read_text()}", file=sys.stderr, flush=True)
            elif "FUZZ_LOGS" not in os.environ:
                log.unlink()
            number += 1
    return tried


def prepare(work: Path, url: str) -> dict[str, dict[str, bytes]]:
    """Run the spec twice with other inputs, and once so that it fails; return its artifacts."""
    os.chdir(work)
    Path("src").mkdir()
    Path("src.txt").write_text("b\na\n")
    Path("seeds.jsonl").write_text("".join(f'{{"q": "How heavy is {i}?"}}\n' for i in range(4)))
    for text, code in (("x\n", 0), ("b\na\n", 0)):
        Path("src/a.txt").write_text(text)
        Path("spec.yaml").write_text(
            SPEC.format(url=url).replace("src: ./src}", "src: ./src/a.txt}")
        )
        found = call("run", "spec.yaml")
        assert found[0] == code, found
    assert call("run", "spec.yaml", "--set", "stages.third.run=exit 1")[0] == 1
    assert call("run", "spec.yaml")[0] == 0
    found_all = {name: artifact(name) for name in OUTPUTS}
    killed = sorted(Path(".llmpipe/runs").iterdir())[0]
    (killed / "run.json").unlink()  # as a run that was killed leaves it
    return {name: files for name, files in found_all.items() if files is not None}


if __name__ == "__main__":
    first = int(os.environ.get("FUZZ_START", "0"))
    total = fuzz(float(sys.argv[1]), Path(sys.argv[2]), first)
    print(json.dumps(total))
    sys.exit(any(outcome.startswith("failed") for outcome in total))
