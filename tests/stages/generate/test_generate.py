"""Generation: replies are paid for once, a dead teacher is named, and the real teacher works."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from openai_endpoint import Endpoint, evolving_reply
from processes import kill, run_processes
from test_plugins import llmpipe, offer

from llmpipe.formats.provenance import PROVENANCE, read_provenance, row_id
from llmpipe.stages.generate.teacher import TeacherConfig

pytestmark = pytest.mark.heavy

SPEC = """\
version: 1
name: extra
stages:
  rows:
    kind: generate
    method: METHOD
    teacher: {engine: openai, model: m, base_url: "%s", api_key: "${secret:KEY}", concurrency: 2}
    seeds: ./seeds.jsonl
    count: %d
"""
EVOL_INSTRUCT = SPEC.replace("METHOD", "evol-instruct") + "    map: {user: q}\n    rounds: 2\n"
SELF_INSTRUCT = SPEC.replace("METHOD", "self-instruct") + (
    "    map: {instruction: q}\n    prompts_per_batch: 2\n    max_instances: 1\n"
)
ORCA = SPEC.replace("METHOD", "orca") + "    map: {user: q}\n"
TEXTBOOK = (
    SPEC.replace("METHOD", "textbook").replace("seeds:", "topic_rows:")
    + "    map: {topic: q}\n    audiences: [pupils]\n    styles: [a story, a list]\n"
)
TEMPLATE = (
    SPEC.replace("METHOD", "template")
    + "    columns: {said: {prompt: 'Explain {{ q }} {{ n }}'}, n: {number: {min: 1, max: 99}}}\n"
)
METHODS = {
    "evol": EVOL_INSTRUCT,
    "self": SELF_INSTRUCT,
    "orca": ORCA,
    "textbook": TEXTBOOK,
    "template": TEMPLATE,
}
by_every_method = pytest.mark.parametrize(
    "recipe", METHODS.values(), indirect=True, ids=METHODS.keys()
)


class Recipe:
    """A spec with one generate stage over twelve seeds, run through the command line."""

    def __init__(self, folder: Path, spec: str) -> None:
        self.folder = folder
        self.spec = spec
        self.seeds = [{"q": f"How heavy is item {i}?", "a": f"{i} kg."} for i in range(12)]
        (folder / "seeds.jsonl").write_text("".join(json.dumps(s) + "\n" for s in self.seeds))

    def start(self, url: str, count: int, *options: str) -> subprocess.Popen[str]:
        """Start a run that asks the endpoint for ``count`` rows."""
        (self.folder / "spec.yaml").write_text(self.spec % (url, count))
        return subprocess.Popen(
            [sys.executable, "-m", "llmpipe", "run", "spec.yaml", "--json", *options],
            cwd=self.folder,
            env={**os.environ, "KEY": "canary-5b1e"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, url: str, count: int, *options: str) -> dict[str, Any]:
        """Run to the end; return the stage's result."""
        out, err = self.start(url, count, *options).communicate(timeout=120)
        assert out, err
        stage: dict[str, Any] = json.loads(out)["stages"]["rows"]
        return stage


@pytest.fixture
def recipe(tmp_path: Path, request: pytest.FixtureRequest) -> Recipe:
    """The recipe in a folder of its own; by Evol-Instruct unless a test names a spec."""
    return Recipe(tmp_path, getattr(request, "param", EVOL_INSTRUCT))


def rows_of(stage: dict[str, Any]) -> list[dict[str, Any]]:
    """Read the rows that a stage made."""
    text = Path(stage["outputs"]["rows"]).read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


@by_every_method
def test_rows_carry_their_provenance_and_no_secret(recipe: Recipe) -> None:
    """Each row names its parents, method and teacher; the key reached the endpoint and no file."""
    with Endpoint() as endpoint:
        stage = recipe.run(endpoint.url, 6)
        sent = {headers["authorization"] for headers in endpoint.headers}
    rows = rows_of(stage)
    assert len(rows) == 6
    seeds = {row_id(seed) for seed in recipe.seeds}
    for row in rows:
        provenance = read_provenance(row)
        assert set(provenance.parents) <= seeds
        assert provenance.parents
        assert provenance.details["method"] in recipe.spec
        assert provenance.details["teacher"]["model"] == "m"
    assert len({row_id(row) for row in rows}) == 6
    assert sent == {"Bearer canary-5b1e"}
    files = [path for path in recipe.folder.rglob("*") if path.is_file()]
    assert [path for path in files if b"canary-5b1e" in path.read_bytes()] == []


@by_every_method
def test_more_rows_pay_for_the_new_ones_only(recipe: Recipe) -> None:
    """Raising ``count`` resends nothing that was answered, and keeps the first rows."""
    with Endpoint() as endpoint:
        first = rows_of(recipe.run(endpoint.url, 4))
        paid = [json.dumps(body, sort_keys=True) for body in endpoint.answered]
        second = rows_of(recipe.run(endpoint.url, 8))
        again = [json.dumps(body, sort_keys=True) for body in endpoint.answered[len(paid) :]]
    assert second[:4] == first
    assert not set(paid) & set(again)


def test_resample_draws_anew(recipe: Recipe) -> None:
    """--resample asks again what the journal holds; the runs that follow take the new replies."""
    with Endpoint() as endpoint:
        first = rows_of(recipe.run(endpoint.url, 4))
        asked = len(endpoint.received)
        endpoint.reply = other_reply
        assert rows_of(recipe.run(endpoint.url, 4)) == first
        again = rows_of(recipe.run(endpoint.url, 4, "--resample", "rows"))
        assert len(endpoint.received) > asked
        assert not {row["messages"][1]["content"] for row in again} & {
            row["messages"][1]["content"] for row in first
        }
        asked = len(endpoint.received)
        assert rows_of(recipe.run(endpoint.url, 4, "--force", "rows")) == again
        assert len(endpoint.received) == asked


def other_reply(body: dict[str, Any]) -> tuple[str, str]:
    """Reply in other words than `evolving_reply` does."""
    text, finish = evolving_reply(body)
    return text.replace("tem ", "tem number "), finish


@by_every_method
def test_kill_9_resends_nothing_that_was_answered(recipe: Recipe, tmp_path: Path) -> None:
    """A run killed with its worker goes on from the journal to the rows of an undisturbed run."""
    slow: Any = lambda body, number: time.sleep(0.1)  # noqa: E731 - returns None: go on
    with Endpoint(slow) as endpoint:
        process = recipe.start(endpoint.url, 12)
        while len(endpoint.answered) < 8:
            assert process.poll() is None
            time.sleep(0.01)
        kill([process.pid, *run_processes(tmp_path / ".llmpipe")])
        process.communicate()
        time.sleep(0.5)
        paid = [json.dumps(body, sort_keys=True) for body in endpoint.answered]
        rows = rows_of(recipe.run(endpoint.url, 12))
        again = [json.dumps(body, sort_keys=True) for body in endpoint.answered[len(paid) :]]
        resent = set(paid[:-4]) & set(again)  # the last four may have been in flight
        assert resent == set()
        other = tmp_path / "undisturbed"
        other.mkdir()
        assert rows_of(Recipe(other, recipe.spec).run(endpoint.url, 12)) == rows


@by_every_method
def test_a_preview_is_paid_for_once(recipe: Recipe) -> None:
    """``show`` makes a few rows, prints them with prompts and rejects, and the run reuses them."""
    with Endpoint() as endpoint:
        (recipe.folder / "spec.yaml").write_text(recipe.spec % (endpoint.url, 6))
        command = [sys.executable, "-m", "llmpipe", "show", "spec.yaml", "rows", "--rows", "2"]
        shown = subprocess.run(
            [*command, "--json"],
            cwd=recipe.folder,
            env={**os.environ, "KEY": "canary-5b1e"},
            capture_output=True,
            text=True,
        )
        assert shown.returncode == 0, shown.stderr
        texts = json.loads(shown.stdout)
        paid = [json.dumps(body, sort_keys=True) for body in endpoint.answered]
        rows = rows_of(recipe.run(endpoint.url, 6))
        again = [json.dumps(body, sort_keys=True) for body in endpoint.answered[len(paid) :]]
    assert [text for text in texts if text.startswith("prompt (")]
    previewed = [json.loads(text.partition("\n")[2]) for text in texts if text.startswith("row ")]
    assert previewed == rows[:2]
    assert texts[-1].startswith("summary\n2 of 2 rows")
    assert not set(paid) & set(again)
    assert "canary" not in shown.stdout


def test_fewer_rows_fail_the_stage_unless_the_spec_accepts_them(recipe: Recipe) -> None:
    """A teacher that repeats itself: the stage says how many and why, and keeps what was paid."""
    with Endpoint() as endpoint:
        endpoint.reply = repeating_reply
        failed = recipe.run(endpoint.url, 4)
        asked = len(endpoint.answered)
        recipe.spec += "    allow_fewer: true\n"
        stage = recipe.run(endpoint.url, 4)
        assert len(endpoint.answered) == asked
    message = "1 of 4 rows: a whole pass over 12 seeds gave nothing new"
    assert message in failed["error"]["message"]
    assert "duplicate" in failed["error"]["message"]
    assert "allow_fewer: true" in failed["error"]["hint"]
    assert len(rows_of(stage)) == 1


def repeating_reply(body: dict[str, Any]) -> tuple[str, str]:
    """Rewrite every prompt to the same one."""
    text, finish = evolving_reply(body)
    return ('{"instruction": "Weigh the moon."}' if '"instruction"' in text else text), finish


def test_a_dead_teacher_is_named(recipe: Recipe) -> None:
    """An endpoint that does not answer is one message with its address."""
    error = recipe.run("http://127.0.0.1:9/v1", 2)["error"]
    assert "http://127.0.0.1:9/v1" in error["message"] + str(error["hint"])
    assert not any("Traceback" in line for line in error["tail"])


def test_a_context_that_can_drop_rows_is_in_the_key() -> None:
    """Of an endpoint without one, the key is what it was."""
    spec = {"engine": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1"}
    plain, small = (
        msgspec.convert({**spec, **more}, TeacherConfig).fingerprint()
        for more in ({}, {"context": 4096})
    )
    assert small == {**plain, "context": 4096}
    assert "context" not in plain


def test_the_embedded_teacher_writes_rows(recipe: Recipe, smollm2_gguf: Path) -> None:
    """The real small model, served by llama.cpp, gives rows or says in rejects why not."""
    spec = (EVOL_INSTRUCT % ("x", 1)).replace(
        'engine: openai, model: m, base_url: "x", api_key: "${secret:KEY}", concurrency: 2',
        f'engine: llama.cpp, model: "{smollm2_gguf}", max_tokens: 96',
    )
    (recipe.folder / "spec.yaml").write_text(spec.replace("rounds: 2", "rounds: 1"))
    result = subprocess.run(
        [sys.executable, "-m", "llmpipe", "run", "spec.yaml", "--json"],
        cwd=recipe.folder,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    stage = json.loads(result.stdout)["stages"]["rows"]
    (row,) = rows_of(stage)
    assert row["messages"][0]["content"].strip()
    assert row["messages"][1]["content"].strip()
    assert row[PROVENANCE]["teacher"]["engine"] == "llama.cpp"


JUDGED = """\
version: 1
name: judged
stages:
  rows:
    kind: generate
    method: template
    teacher: {engine: llama.cpp, model: "%s", concurrency: 1}
    count: 1
    columns: {text: {template: "Water boils at {{ n }} degrees."}, n: {number: {min: 1, max: 99}}}
    validators:
      - {column: text, judge: {rubric: "Is it true?", scale: [1, 5], threshold: 3, repeats: 2}}
"""


def test_the_embedded_teacher_judges(tmp_path: Path, smollm2_gguf: Path) -> None:
    """The real small model scores within the scale, however badly; a preview shows it."""
    (tmp_path / "spec.yaml").write_text(JUDGED % smollm2_gguf)
    result = subprocess.run(
        [sys.executable, "-m", "llmpipe", "show", "spec.yaml", "rows", "--rows", "1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert "malformed judgment" not in result.stdout
    assert re.search(r"\[reply\] \{\s*\"score\": [1-5]\s*\}", result.stdout)
    assert re.search(r"summary\n[01] of 1 rows", result.stdout)


def test_the_method_of_the_how_to_works(tmp_path: Path) -> None:
    """The code on the page is a whole method, offered by a package."""
    page = (Path(__file__).parents[3] / "docs/how-to/generate-rows.md").read_text("utf-8")
    code = page.partition("```python\n")[2].partition("```")[0]
    packages = offer(tmp_path, "echo = odd:Echo", code, group="llmpipe.generation_methods")
    with Endpoint() as endpoint:
        teacher = f"{{engine: openai, model: m, base_url: {endpoint.url}}}"
        (tmp_path / "spec.yaml").write_text(
            "version: 1\nname: x\nstages:\n  rows: {kind: generate, method: echo, count: 2, "
            f"questions: [Why?, How?], teacher: {teacher}}}\n"
        )
        result = llmpipe(tmp_path, packages, "run", "spec.yaml")
    assert result.returncode == 0, result.stderr
    assert "2 rows, 0 rejected, 2 replies" in result.stderr


EMBEDDED = """\
version: 1
name: tasks
stages:
  rows:
    kind: generate
    method: self-instruct
    teacher: {engine: llama.cpp, model: "%s", max_tokens: 160, concurrency: 1}
    seeds: "%s"
    count: 2
    prompts_per_batch: 2
    max_instances: 2
"""


def test_the_embedded_teacher_writes_tasks(tmp_path: Path, smollm2_gguf: Path) -> None:
    """The real small model writes tasks with inputs and outputs: the same rows on every run."""
    seeds = Path(__file__).parents[3] / "examples/self-instruct/seeds.jsonl"
    made = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "spec.yaml").write_text(EMBEDDED % (smollm2_gguf, seeds))
        result = subprocess.run(
            [sys.executable, "-m", "llmpipe", "run", "spec.yaml", "--json"],
            cwd=folder,
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr
        made.append(rows_of(json.loads(result.stdout)["stages"]["rows"]))
    assert made[0] == made[1]
    assert len(made[0]) == 2
    for row in made[0]:
        assert set(row) == {"instruction", "input", "output", PROVENANCE}
        assert row["output"].strip()
        assert len(row[PROVENANCE]["parents"]) >= 6
