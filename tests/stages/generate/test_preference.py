"""preference: a judge that sees both orders, what it decides, and what is dropped and counted."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmpipe.backends.openai.chat import ChatReply, ChatRequest
from llmpipe.contracts import Artifact
from llmpipe.errors import StageError
from llmpipe.formats import Preference, read_example
from llmpipe.stages.generate.asking import Teacher
from llmpipe.stages.generate.loop import GenerationState, collect
from llmpipe.stages.generate.methods.preference import PreferenceConfig, PreferenceMethod
from llmpipe.stages.generate.pace import Pace
from llmpipe.stages.generate.protocol import MethodContext

CONFIG = {
    "kind": "generate",
    "method": "preference",
    "teacher": {"engine": "openai", "model": "m", "base_url": "http://h/v1", "concurrency": 2},
    "seeds": "./seeds.jsonl",
    "answers": 3,
}
SEEDS = 4


class Client:
    """Plays a teacher whose answers have a length each, and a judge that prefers the longer one."""

    def __init__(self, verdict: Callable[[str, str], str] | None = None) -> None:
        self.verdict = verdict or (lambda a, b: "first" if len(a) > len(b) else "second")
        self.answer: Callable[[int], ChatReply] = lambda number: ChatReply("word " * (number + 1))
        self.answers: list[ChatRequest] = []
        self.judgments: list[ChatRequest] = []

    def ask(self, requests: Sequence[ChatRequest]) -> list[ChatReply]:
        """Return one reply to each request, in their order."""
        return [self._reply(request) for request in requests]

    def _reply(self, request: ChatRequest) -> ChatReply:
        if request.schema is None:
            self.answers.append(request)
            return self.answer(len(self.answers) - 1)
        self.judgments.append(request)
        text = request.messages[-1]["content"]
        first, _, second = text.partition("First answer:\n")[2].partition("\n\nSecond answer:\n")
        verdict = self.verdict(first, second.removesuffix("\n\nWhich answer is better?"))
        return ChatReply(json.dumps({"better": verdict}))


class Run:
    """Four questions in a file, and the method over them, run by calling it."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "seeds.jsonl"
        self.write({"instruction": f"Weigh item {i}."} for i in range(SEEDS))
        self.told: list[str] = []

    def write(self, rows: Any) -> None:
        """Replace the questions."""
        self.file.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def __call__(self, client: Any, rows: int, **fields: Any) -> GenerationState:
        """Return what the loop collects."""
        config = msgspec.convert({**CONFIG, "count": rows, **fields}, PreferenceConfig)
        inputs = {"seeds": Artifact(self.file, "records", "", "seeds.jsonl")}
        state = GenerationState(rows)
        self.method = PreferenceMethod(
            MethodContext(config, inputs, state.missing, self.told.append)
        )
        teacher = Teacher(client, Pace(lambda note: None), temperature=0.7, max_tokens=256)
        collect(self.method, teacher, state, self.told.append)
        return state


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """The questions, nothing asked yet."""
    return Run(tmp_path)


def test_best_and_worst_become_a_pair_with_its_margin(run: Run) -> None:
    """The longest answer wins both of its comparisons, the shortest none."""
    client = Client()
    state = run(client, 2)
    assert len(client.answers) == 6
    assert len({request.seed for request in client.answers}) == 6
    assert len(client.judgments) == 12
    for number, row in enumerate(state.rows):
        example = read_example(row.fields).example
        assert isinstance(example, Preference)
        words = (len(example.chosen.text.split()), len(example.rejected.text.split()))
        assert words == (3 * number + 3, 3 * number + 1)
        assert row.details["judged"] == {
            "margin": 1.0,
            "scores": [-1.0, 0.0, 1.0],
            "chosen": 2,
            "rejected": 0,
            "decided": 3,
        }
    pairs = run.method.metrics()["pairs"]
    assert (pairs["decided"], pairs["ties"], pairs["contradictions"]) == (6, 0, 0)


@pytest.mark.parametrize(
    ("verdict", "counted", "warned"),
    [
        ("first", {"contradictions": 3, "same_place": 3}, True),
        ("second", {"contradictions": 3, "same_place": 3}, True),
        ("tie", {"ties": 3}, False),
        ("both", {"unread": 3}, False),
    ],
)
def test_a_judge_that_does_not_compare_gives_no_row(
    run: Run, verdict: str, counted: dict[str, int], warned: bool
) -> None:
    """Contradictions, ties and other replies decide nothing, and are counted; a bias is said."""
    with pytest.raises(StageError, match=rf"no preference {SEEDS}"):
        run(Client(lambda a, b: verdict), 2)
    pairs = run.method.metrics()["pairs"]
    assert {name: pairs[name] for name in counted} == {
        name: count * SEEDS for name, count in counted.items()
    }
    assert pairs["decided"] == 0
    assert [("the same place" in told) for told in run.told] == [True] * warned


def test_only_decided_pairs_count(run: Run) -> None:
    """The judge contradicts itself about the best answer: the pair that it decided is taken."""

    def verdict(a: str, b: str) -> str:
        return "first" if 3 in (len(a.split()), len(b.split())) or len(a) > len(b) else "second"

    run.write([{"instruction": "Weigh it."}])
    (row,) = run(Client(verdict), 1).rows
    judged = row.details["judged"]
    assert (judged["chosen"], judged["rejected"], judged["margin"]) == (1, 0, 0.5)
    assert (judged["decided"], judged["contradictions"]) == (1, 2)
    with pytest.raises(StageError, match="margin too small 1"):
        run(Client(verdict), 1, min_margin=0.6)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (ChatReply("word", truncated=True), "truncated"),
        (ChatReply("502 Bad Gateway"), "error text"),
        (ChatReply("<html><body>502 Bad Gateway</body></html>"), "error text"),
        (ChatReply(problem="refused", detail="no"), "refused"),
        (ChatReply("token " * 100_000), "over max_tokens"),
        (ChatReply("Please weigh item number 7 now, carefully."), "repeats the prompt"),
    ],
)
def test_an_answer_that_cannot_be_used_is_rejected(run: Run, reply: ChatReply, reason: str) -> None:
    """With its reason; the questions then have too few answers to compare."""
    run.write([{"instruction": "Please weigh item number 7 now, carefully."}])
    client = Client()
    client.answer = lambda number: reply
    with pytest.raises(StageError) as caught:
        run(client, 1)
    assert f"{reason} 3" in caught.value.message
    assert "too few answers 1" in caught.value.message


def test_equal_answers_are_compared_once(run: Run) -> None:
    """They are counted; a question with one answer left gives no row, and is asked again later."""
    client = Client()
    client.answer = lambda number: ChatReply("Nine." if number < 3 else "word " * number)
    run.write([{"instruction": "Weigh it."}, {"instruction": "Lift it."}])
    state = run(client, 2)
    assert [reject.reason for reject in state.rejects] == ["too few answers"]
    assert len(state.rows) == 2  # the second pass answers the first question, too
    assert run.method.metrics()["pairs"]["same_answers"] == 2


def test_each_answer_has_its_temperature(run: Run) -> None:
    """In their order; without them, the teacher's own holds for all."""
    client = Client()
    run(client, 2, temperatures=[0.2, 0.7, 1.2])
    assert [request.temperature for request in client.answers[:3]] == [0.2, 0.7, 1.2]
    assert {request.temperature for request in client.judgments} == {0.0}
    problems = msgspec.convert(
        {**CONFIG, "count": 1, "temperatures": [0.1]}, PreferenceConfig
    ).own_problems()
    assert [path for path, _ in problems] == [("temperatures",)]
    teacher = {**CONFIG["teacher"], "temperature": 0}  # type: ignore[dict-item]
    problems = msgspec.convert(
        {**CONFIG, "count": 1, "teacher": teacher}, PreferenceConfig
    ).own_problems()
    assert [path for path, _ in problems] == [("teacher", "temperature")]


def test_the_system_message_is_part_of_the_prompt(run: Run) -> None:
    """And goes with the question to the teacher."""
    run.write(
        [
            {
                "messages": [
                    {"role": "system", "content": "Be brief."},
                    {"role": "user", "content": "Weigh it."},
                    {"role": "assistant", "content": "9 kg."},
                ]
            }
        ]
    )
    client = Client()
    (row,) = run(client, 1).rows
    assert [turn["role"] for turn in client.answers[0].messages] == ["system", "user"]
    example = read_example(row.fields).example
    assert isinstance(example, Preference)
    assert [turn.text for turn in example.turns] == ["Be brief.", "Weigh it."]


def test_no_questions_is_an_error(run: Run) -> None:
    """An empty file names itself."""
    run.write([])
    with pytest.raises(StageError, match=r"seeds\.jsonl has no prompt to start from"):
        run(Client(), 1)
