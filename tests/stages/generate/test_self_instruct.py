"""Self-Instruct without a model: what is shown, kept and rejected; and the published tests."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.backends.openai.chat import ChatReply, ChatRequest
from llmpipe.contracts import Artifact
from llmpipe.errors import StageError
from llmpipe.evaluation.text_metrics import rouge_l
from llmpipe.stages.generate.asking import Teacher
from llmpipe.stages.generate.loop import GenerationState, collect
from llmpipe.stages.generate.methods.self_instruct import SelfInstruct, SelfInstructConfig
from llmpipe.stages.generate.methods.self_instruct.filters import (
    Instance,
    read_instances,
    read_tasks,
    reject_instance,
    reject_task,
)
from llmpipe.stages.generate.methods.self_instruct.prompts import instances_schema
from llmpipe.stages.generate.methods.self_instruct.similarity import TaskPool
from llmpipe.stages.generate.pace import Pace
from llmpipe.stages.generate.protocol import MethodContext

CONFIG = {
    "kind": "generate",
    "method": "self-instruct",
    "teacher": {"engine": "openai", "model": "m", "base_url": "http://h/v1", "concurrency": 3},
    "seeds": "./seeds.jsonl",
}
SEEDS = 12
NOUNS = [
    "apple",
    "bridge",
    "candle",
    "desert",
    "engine",
    "forest",
    "garden",
    "harbor",
    "island",
    "jacket",
    "kettle",
    "lantern",
    "meadow",
    "needle",
    "orchard",
    "pencil",
    "quarry",
    "river",
    "saddle",
    "tunnel",
]


class Client:
    """Plays a teacher: eight tasks of new words, every third a classification, two instances."""

    def __init__(self, reply: Callable[[str, str], ChatReply | None] | None = None) -> None:
        self.reply = reply or (lambda purpose, text: None)
        self.asked: dict[str, list[ChatRequest]] = {"tasks": [], "verdict": [], "instances": []}

    def ask(self, requests: Sequence[ChatRequest]) -> list[ChatReply]:
        """Return one reply to each request, in their order."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: ChatRequest) -> ChatReply:
        text = request.messages[-1]["content"]
        fields = (request.schema or {})["properties"]
        if "tasks" in fields:
            purpose = "tasks"
            words = [f"{NOUNS[i]}{request.seed}" for i in range(8)]
            texts = [f"{word} x{word} y{word} of type {i}" for i, word in enumerate(words)]
            reply = json.dumps({"tasks": texts})
        elif "classification" in fields:
            purpose = "verdict"
            reply = json.dumps({"classification": text.endswith(("0", "3", "6"))})
        else:
            purpose = "instances"
            pairs = [{"input": f"in {i}", "output": f"out {i}"} for i in range(2)]
            reply = json.dumps({"instances": pairs})
        self.asked[purpose].append(request)
        return self.reply(purpose, text) or ChatReply(reply)


class Run:
    """Twelve seed tasks in a file, and the method over them, run by calling it."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "seeds.jsonl"
        self.write({"instruction": f"Weigh the {NOUNS[i]} number {i}."} for i in range(SEEDS))
        self.told: list[str] = []

    def write(self, rows: Any) -> None:
        """Replace the seeds."""
        self.file.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def method(self, state: GenerationState, **fields: Any) -> SelfInstruct:
        """Return the method with the seeds read."""
        config = msgspec.convert({**CONFIG, "count": state.wanted, **fields}, SelfInstructConfig)
        inputs = {"seeds": Artifact(self.file, "records", "", "seeds.jsonl")}
        return SelfInstruct(MethodContext(config, inputs, state.missing, self.told.append))

    def __call__(self, client: Any, rows: int, **fields: Any) -> GenerationState:
        """Return what the loop collects."""
        state = GenerationState(rows)
        method = self.method(state, **fields)
        state.exclude(method.known_questions())
        teacher = Teacher(client, Pace(lambda note: None), temperature=0.7, max_tokens=256)
        collect(method, teacher, state, self.told.append)
        return state


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """The seeds, nothing asked yet."""
    return Run(tmp_path)


def shown_tasks(request: ChatRequest) -> list[str]:
    """Return the tasks that a prompt shows."""
    tasks: list[str] = json.loads(request.messages[1]["content"])["tasks"]
    return tasks


def test_a_prompt_shows_six_human_and_two_generated_tasks(run: Run) -> None:
    """The first batch has only seeds to show; from then on two tasks are the teacher's own."""
    client = Client()
    run(client, 300)
    generated = [
        sum(not re.match(r"Weigh the", task) for task in shown_tasks(request))
        for request in client.asked["tasks"]
    ]
    assert all(len(shown_tasks(request)) == 8 for request in client.asked["tasks"])
    assert generated[:5] == [0] * 5
    assert set(generated[5:]) == {2}


def test_classification_is_written_output_first(run: Run) -> None:
    """The schema of a classification asks for the output before the input, others the reverse."""
    client = Client()
    state = run(client, 40)
    for request in client.asked["instances"]:
        fields = list(request.schema["properties"]["instances"]["items"]["properties"])  # type: ignore[index]
        of_classes = request.messages[-1]["content"].endswith(("0", "3", "6"))
        assert fields == (["output", "input"] if of_classes else ["input", "output"])
    assert {row.operators for row in state.rows} == {("input-first",), ("output-first",)}
    assert set(state.rows[0].fields) == {"instruction", "input", "output"}


def test_the_parents_of_a_row_are_the_seeds_that_were_shown(run: Run) -> None:
    """Eight in the first batch, six when two of the tasks shown are generated."""
    state = run(Client(), 300)
    assert [len(row.made_from) for row in state.rows] == [8] * 80 + [6] * 220
    assert not state.rejects


def test_more_rows_begin_with_the_same(run: Run) -> None:
    """A higher count, and another concurrency, change neither order nor content."""
    first = run(Client(), 10).rows
    again = run(Client(), 200, teacher={**CONFIG["teacher"], "concurrency": 9}).rows  # type: ignore[dict-item]
    assert again[:10] == first


def test_no_more_is_asked_than_is_needed(run: Run) -> None:
    """Of the 40 tasks of a batch only the first few are classified and given instances."""
    client = Client()
    run(client, 4)
    assert len(client.asked["instances"]) == 3  # one for each slot of the teacher


@pytest.mark.parametrize(
    ("purpose", "reply", "reason"),
    [
        ("tasks", ChatReply('{"tasks": ["Weigh', truncated=True), "truncated"),
        ("tasks", ChatReply('{"jobs": []}'), "malformed"),
        ("tasks", ChatReply('{"tasks": ["Weigh the apple, number 0!"]}'), "too similar"),
        ("tasks", ChatReply(problem="too long", detail="9 tokens"), "too long"),
        ("verdict", ChatReply("maybe"), "malformed"),
        ("instances", ChatReply("none"), "malformed"),
        ("instances", ChatReply('{"instances": [{"in', truncated=True), "truncated"),
        ("instances", ChatReply('{"instances": [{"input": "a", "output": ""}]}'), "no output"),
        (
            "instances",
            ChatReply(
                '{"instances": [{"input": "a", "output": "b"}, {"input": "a", "output": "c"}]}'
            ),
            "one input with several outputs",
        ),
    ],
)
def test_what_fails_a_test_is_rejected_with_the_reason(
    run: Run, purpose: str, reply: ChatReply, reason: str
) -> None:
    """Where nothing passes, the stage fails and says how often what was rejected."""
    with pytest.raises(StageError) as caught:
        run(Client(lambda asked, text: reply if asked == purpose else None), 4)
    assert re.fullmatch(
        rf"the teacher wrote no usable row from 12 seed tasks \(rejected: {reason} \d+\)",
        caught.value.message,
    )


def test_a_task_that_resembles_an_earlier_one_names_it(run: Run) -> None:
    """The reject's detail has the similarity and the other task."""
    numbers = count()

    def reply(purpose: str, text: str) -> ChatReply | None:
        task = "Explain the tides to a small child, please."
        fresh = f"Invent {next(numbers)} zebra jokes quickly"
        return ChatReply(json.dumps({"tasks": [task, fresh]})) if purpose == "tasks" else None

    state = run(Client(reply), 3)
    similar = [reject for reject in state.rejects if reject.reason == "too similar"]
    assert similar[0].detail == "ROUGE-L 1.00 with: Explain the tides to a small child, please."


def test_too_few_seeds_are_refused(run: Run) -> None:
    """The message says how many there are, how many are needed and what to change."""
    run.write({"instruction": f"Weigh item {i}."} for i in range(7))
    with pytest.raises(StageError) as caught:
        run.method(GenerationState(1))
    assert caught.value.message == "seeds.jsonl has 7 tasks; a prompt shows 8"
    assert caught.value.hint == "add tasks, or lower human_examples and generated_examples"
    assert run.method(GenerationState(1), human_examples=5).material == "7 seed tasks"


def test_seeds_in_the_published_form_and_in_alpacas(run: Run) -> None:
    """A column `instruction` is the task, whatever else a row has."""
    published = [
        {
            "id": f"seed_task_{i}",
            "instruction": f"Weigh {NOUNS[i]}.",
            "instances": [{"input": "x", "output": "y"}],
            "is_classification": False,
        }
        for i in range(4)
    ]
    alpaca = [{"instruction": f"Lift {NOUNS[i]}.", "input": "x", "output": "y"} for i in range(4)]
    run.write([*published, *alpaca])
    tasks = {seed.instruction for seed in run.method(GenerationState(1)).seeds}
    assert tasks == {f"{verb} {NOUNS[i]}." for verb in ("Weigh", "Lift") for i in range(4)}


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        ("Weigh this item.", "fewer than 4 words"),
        ("Weigh " * 151, "more than 150 words"),
        ("Describe what this Picture shows.", "blocked word"),
        ("Say where to go to tonight.", "blocked word"),
        ("Write a program that adds two numbers.", "asks for a program"),
        ("- weigh the heavy item", "starts with punctuation"),
        ("Überlege dir drei gute Namen.", "starts with a non-ASCII character"),
        ("Explain what a mapping is in mathematics.", None),
        ("Weigh " * 150, None),
    ],
)
def test_the_published_tests_of_a_task(task: str, reason: str | None) -> None:
    """Blocked words count as whole words, in any case."""
    assert reject_task(task.strip()) == reason


@pytest.mark.parametrize(
    ("instance", "reason"),
    [
        (Instance("a", "a"), "output repeats the input"),
        (Instance("Cities:", "Rome"), "ends with a colon"),
        (Instance("a", "Cities:"), "ends with a colon"),
        (Instance("", "Rome"), None),
        (Instance("Italy", "Rome"), None),
    ],
)
def test_the_published_tests_of_an_instance(instance: Instance, reason: str | None) -> None:
    """An empty input is fine: some tasks need none."""
    assert reject_instance(instance, [instance]) == reason


words = st.text("abc ", max_size=30)


@pytest.mark.slow
@given(st.lists(words, max_size=6), words, st.floats(0.01, 1.0))
def test_similarity_is_rouge_l(known: list[str], text: str, at_least: float) -> None:
    """The bit-parallel search finds what the package rouge-score computes pair by pair."""
    pool = TaskPool()
    for task in known:
        pool.add(task)
    scores = [rouge_l(task, text) if task.split() and text.split() else 0.0 for task in known]
    best = max(scores, default=0.0)
    found = pool.nearest(text, at_least)
    if abs(best - at_least) < 1e-9:
        return  # floating point may fall on either side
    assert (found[0] if found else 0.0) == pytest.approx(best if best >= at_least else 0.0)


@given(st.lists(st.builds(Instance, st.text().map(str.strip), st.text().map(str.strip))), st.data())
def test_complete_instances_survive_a_cut(instances: list[Instance], data: st.DataObject) -> None:
    """A reply that is cut off gives a beginning of its instances; a whole one gives all."""
    pairs = [{"input": i.input, "output": i.output} for i in instances]
    text = json.dumps({"instances": pairs})
    assert read_instances(f"Sure:\n{text}\n") == instances
    cut = read_instances(text[: data.draw(st.integers(0, len(text)))])
    assert cut == instances[: len(cut)]


def test_the_number_of_a_task_is_not_part_of_it() -> None:
    """A teacher that was shown a list may number its own; a number that belongs there stays."""
    reply = json.dumps({"tasks": ["1. Weigh it.", "12) Lift\n it.", "3.5 is how much?", 7]})
    assert read_tasks(reply) == ["Weigh it.", "Lift it.", "3.5 is how much?"]


@given(st.text())
def test_a_reply_in_any_form_raises_nothing(text: str) -> None:
    """What is not JSON, or another JSON, has no tasks and no instances."""
    assert read_tasks(text) is None
    assert read_instances('{"instances": [' + text) is not None


def test_a_schema_has_no_more_instances_than_are_wanted() -> None:
    """A teacher whose decoding is constrained cannot write more."""
    schema = instances_schema(classification=False, most=3)
    assert schema["properties"]["instances"]["maxItems"] == 3
