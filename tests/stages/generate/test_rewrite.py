"""rewrite: the same answers to paraphrased questions, and paraphrases that are none."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmpipe.backends.openai.chat import ChatReply, ChatRequest
from llmpipe.contracts import Artifact, StageContext
from llmpipe.errors import StageError
from llmpipe.formats.provenance import PROVENANCE, provenance_column
from llmpipe.formats.records import read_rows, write_rows
from llmpipe.stages.format import Format, FormatConfig
from llmpipe.stages.generate.asking import Teacher
from llmpipe.stages.generate.loop import GenerationState, collect
from llmpipe.stages.generate.methods.rewrite import KINDS, Rewrite, RewriteConfig, reject_paraphrase
from llmpipe.stages.generate.pace import Pace
from llmpipe.stages.generate.protocol import MethodContext

CONFIG = {
    "kind": "generate",
    "method": "rewrite",
    "teacher": {"engine": "openai", "model": "m", "base_url": "http://h/v1", "concurrency": 2},
    "seeds": "./rows.jsonl",
}
ROWS = [
    {
        "question_group": f"g{i}",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": f"Where do I find shelf {i} for `nuts`?"},
            {"role": "assistant", "content": f"In hall {i}."},
        ],
    }
    for i in range(5)
]


class Client:
    """Plays a teacher that asks in words of its own, and a judge that agrees."""

    def __init__(self, reply: Callable[[str], Any] | None = None, *, same: Any = True) -> None:
        self.reply = reply
        self.same = same
        self.asked: list[ChatRequest] = []

    def ask(self, requests: Sequence[ChatRequest]) -> list[ChatReply]:
        """Return one reply to each request, in their order."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: ChatRequest) -> ChatReply:
        text = request.messages[-1]["content"]
        if "same" in (request.schema or {})["properties"]:
            return ChatReply(json.dumps({"same": self.same}))
        self.asked.append(request)
        question = text.removeprefix("Question: ")
        if self.reply:
            reply = self.reply(question)
            return reply if isinstance(reply, ChatReply) else ChatReply(json.dumps(reply))
        number = question.split("shelf ")[1].split()[0]
        kind = next(k for k, (how, _) in KINDS.items() if how in request.messages[0]["content"])
        return ChatReply(json.dumps({"question": f"`nuts` on shelf {number}: say where, {kind}!"}))


class Run:
    """Five rows in a file, and the method over them, run by calling it."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "rows.jsonl"
        write_rows(self.file, ROWS)
        self.told: list[str] = []

    def __call__(self, client: Any, rows: int, **fields: Any) -> GenerationState:
        """Return what the loop collects."""
        config = msgspec.convert({**CONFIG, "count": rows, **fields}, RewriteConfig)
        inputs = {"seeds": Artifact(self.file, "records", "", "rows.jsonl")}
        state = GenerationState(rows)
        method = Rewrite(MethodContext(config, inputs, state.missing, self.told.append))
        state.exclude(method.known_questions())
        teacher = Teacher(client, Pace(lambda note: None), temperature=0.7, max_tokens=256)
        collect(method, teacher, state, self.told.append)
        return state


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """The rows, nothing asked yet."""
    return Run(tmp_path)


def test_only_the_question_changes(run: Run) -> None:
    """System message and answer stay; named columns come along; the row's parent is its source."""
    rows = run(Client(), 5, keep=["question_group"]).rows
    for row in rows:
        system, user, assistant = row.fields["messages"]
        number = row.fields["question_group"].removeprefix("g")
        assert system["content"] == "Be brief."
        assert user["content"].startswith(f"`nuts` on shelf {number}: ")
        assert assistant["content"] == f"In hall {number}."
        assert len(row.made_from) == 1
        assert row.operators[0] in KINDS


def test_every_pass_takes_the_next_kind(run: Run) -> None:
    """Over as many passes as there are kinds, each row is paraphrased in each of them."""
    rows = run(Client(), 25).rows
    kinds: dict[str, list[str]] = {}
    for row in rows:
        kinds.setdefault(row.made_from[0].id, []).append(row.operators[0])
    assert {tuple(sorted(found)) for found in kinds.values()} == {tuple(sorted(KINDS))}


def test_a_split_never_parts_a_row_from_its_paraphrases(run: Run, tmp_path: Path) -> None:
    """`format` drops the paraphrases of rows that it holds out, though they ask in other words."""
    generated = [
        {
            **row.fields,
            PROVENANCE: provenance_column(row.fields, row.made_from, method="rewrite"),
        }
        for row in run(Client(), 20).rows
    ]
    write_rows(tmp_path / "more.jsonl", generated)
    files = [run.file, tmp_path / "more.jsonl"]
    config = msgspec.convert(
        {"kind": "format", "sources": [{"data": str(f)} for f in files], "split": {"test": 2}},
        FormatConfig,
    )
    inputs = {f"sources.{i}.data": Artifact(f, "records", "", f.name) for i, f in enumerate(files)}
    out = tmp_path / "out"
    out.mkdir()
    result = Format.run(context(config, inputs, out))
    answers = {
        name: [row["messages"][-1]["content"] for _, row in read_rows(path, name)]
        for name, path in result.outputs.items()
        if name in ("train", "test")
    }
    assert len(answers["test"]) == 2
    assert len(answers["train"]) == 3 * 5  # three rows, with four paraphrases each
    assert set(answers["train"]).isdisjoint(answers["test"])


def context(config: Any, inputs: dict[str, Artifact], out: Path) -> StageContext[Any]:
    """Return what a stage needs to run."""
    return StageContext(config, "rows", inputs, out, out, out, out, out, 1, lambda event: None)


@pytest.mark.parametrize(
    ("question", "paraphrase", "reason"),
    [
        ("Where is hall 3?", "Where is hall 3?", "too similar"),
        ("Where is hall 3 please?", "Where is hall 3, please!", "too similar"),
        ("Where is hall 3?", "Which way leads to hall 4?", "changes a number or a negation"),
        ("Where is hall 3?", "Which way leads to the hall?", "changes a number or a negation"),
        ("May dogs enter the hall?", "Is the hall not open to dogs?",
         "changes a number or a negation"),
        ("What does `f(x)` do?", "Which result has f(x)?", "loses code or a placeholder"),
        ("Who is {name}, please?", "Tell me the person called name.",
         "loses code or a placeholder"),
        ("Where is it?", "!!!", "empty"),
        ("Where is it?", "Say where. " * 60, "too long a paraphrase"),
        ("Where are the boxes?", KINDS["words"][1], "leaks the prompt"),
        ("Where is hall 3?", "Which way leads to hall three?", None),
        ("What does `f(x)` do in 2 steps?", "In 2 steps, explain `f(x)` to me.", None),
    ],
)  # fmt: skip
def test_what_is_no_paraphrase(question: str, paraphrase: str, reason: str | None) -> None:
    """Numbers count by their value, however they are written."""
    found = reject_paraphrase(question, paraphrase, 0.9)
    assert (found[0] if found else None) == reason


@pytest.mark.parametrize(
    ("reply", "same", "reason"),
    [
        (ChatReply('{"question": "Say', truncated=True), True, "truncated"),
        (ChatReply("Say where."), True, "malformed"),
        (ChatReply("Service Unavailable"), True, "error text"),
        (ChatReply("x" * 400_000), True, "over max_tokens"),
        (None, False, "asks something else"),
        (None, "maybe", "malformed judgment"),
    ],
)
def test_what_cannot_be_used_is_rejected(run: Run, reply: Any, same: Any, reason: str) -> None:
    """Where nothing passes, the stage fails with the reason."""
    client = Client((lambda question: reply) if reply else None, same=same)
    with pytest.raises(StageError, match=rf"from 5 rows \(rejected: {reason} 5\)"):
        run(client, 3)


def test_the_prompt_itself_is_no_paraphrase(run: Run) -> None:
    """A teacher that repeats what it was asked."""
    client = Client(lambda question: {"question": f"Question: {question} Right?"})
    with pytest.raises(StageError, match=r"too similar|repeats the prompt"):
        run(client, 3)


def test_bad_rows(run: Run) -> None:
    """A row that cannot be read is named with its line; a file without rows by its name."""
    run.file.write_text('{"instruction": "a", "output": "b"}\n{"prompt": 3, "chosen": 4}\n')
    with pytest.raises(StageError, match=r"^rows\.jsonl:2: "):
        run(Client(), 1)
    run.file.write_text("")
    with pytest.raises(StageError, match=r"rows\.jsonl has no conversation to start from"):
        run(Client(), 1)
