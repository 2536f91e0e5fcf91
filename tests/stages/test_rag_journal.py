"""A check that is killed: what an endpoint has answered is not asked, or paid for, again."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai_endpoint import Answer, Endpoint
from processes import kill, run_processes, wait_for
from town import INDEXED, write_texts
from workspace import Workspace

pytestmark = pytest.mark.heavy

SPEC = (
    INDEXED
    + """\
  answers:
    kind: rag
    index: index
    generator: {{engine: openai, model: m, base_url: "{url}"}}
    mode: bm25
    questions: ["When does the kiosk open?"]
    data: ./labeled.jsonl
"""
)
LABELED = [
    {"question": "When does the kiosk close?", "documents": "docs/kiosk.md"},
    {"question": "How long is a building permit valid?", "answerable": True},
    {"question": "Must dogs be kept on a lead?", "answerable": True},
]


class Town(Workspace):
    """A workspace with an endpoint whose every answer is another one."""

    def __init__(self, folder: Path, endpoint: Endpoint) -> None:
        super().__init__(folder)
        self.endpoint = endpoint
        endpoint.reply = lambda body: (f"Answer {len(self.asked())} [1].", "stop")
        self.write(SPEC.format(url=endpoint.url))
        write_texts(folder)
        rows = "".join(json.dumps(row) + "\n" for row in LABELED)
        (folder / "labeled.jsonl").write_text(rows, "utf-8")

    def asked(self) -> list[str]:
        """Return the questions that reached the model."""
        asked = [body["messages"] for body in self.endpoint.received if "messages" in body]
        return [messages[-1]["content"].rpartition("\n")[2] for messages in asked]

    def answers(self, *arguments: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Run; return what the check made of the stage, and its metrics."""
        stage = self.run(*arguments)["stages"]["answers"]
        texts = {name: Path(path).read_text("utf-8") for name, path in stage["outputs"].items()}
        return texts, stage["metrics"]


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    """A town whose index is not there yet."""
    with Endpoint() as endpoint:
        yield Town(tmp_path, endpoint)


def test_a_killed_check_asks_only_what_was_not_answered(town: Town) -> None:
    """Killed at the third of four questions, it asks two more; nothing shows in what it makes."""
    asking = threading.Event()

    def hold(body: dict[str, Any], number: int) -> Answer | None:
        if "messages" in body and len(town.asked()) == 3:
            asking.set()
            threading.Event().wait(20)
        return None

    town.endpoint.before = hold
    process = town.start("run", "spec.yaml")
    wait_for(asking.is_set)
    kill([process.pid, *run_processes(town.folder / ".llmpipe")])
    process.communicate(timeout=60)
    town.endpoint.before = lambda body, number: None
    before = town.asked()
    made, metrics = town.answers()
    questions = ["When does the kiosk open?", *(row["question"] for row in LABELED)]
    assert before == questions[:3]
    assert town.asked()[3:] == questions[2:]
    assert metrics["replies_from_journal"] == 2
    assert "seconds" not in metrics
    assert json.loads(made["check"])["answers"][0]["usage"]["completion_tokens"] == 5

    again, metrics = town.answers("--force", "answers")
    assert again == made
    assert (len(town.asked()), metrics["replies_from_journal"]) == (5, 4)

    anew, metrics = town.answers("--resample", "answers")
    assert anew != made
    assert (len(town.asked()), metrics["replies_from_journal"]) == (9, 0)
    assert metrics["seconds"][0]["generate"] > 0


def test_a_question_asked_twice_is_not_one_of_an_earlier_run(town: Town) -> None:
    """A sample that is also among the labeled questions is asked once."""
    rows = [{"question": "When does the kiosk open?"}, *LABELED]
    (town.folder / "labeled.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    for arguments in ((), ("--resample", "answers")):
        _, metrics = town.answers(*arguments)
        assert metrics["replies_from_journal"] == 0
    assert len(town.asked()) == 8


def test_asking_is_not_journaled(town: Town) -> None:
    """A question by `llmpipe ask` is answered by the model."""
    town.answers()
    before = len(town.asked())
    for _ in range(2):
        assert town.call("ask", "spec.yaml", "When does the kiosk open?").returncode == 0
    assert len(town.asked()) == before + 2
