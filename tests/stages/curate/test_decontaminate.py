"""Which rows give held-out rows away: by runs of words, by whole questions, inside longer rows."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.errors import StageError
from llmpipe.formats.records import write_rows
from llmpipe.stages.curate import Curate
from llmpipe.stages.curate.held_out import Compared, HeldOut
from llmpipe.testing import Done, run_stage

LONG = (
    "A farmer sells eggs at the market every Monday and gives away a dozen of them to neighbors "
    "before noon; how many eggs are left when she started with fifty?"
)
NINE = "Which river crosses the old town of Zaragoza today?"
TINY = "Capital of Spain?"


def chat(question: str, answer: str, system: str = "") -> dict[str, Any]:
    """Return a row of the format messages."""
    turns = [{"role": "system", "content": system}] if system else []
    turns += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": turns}


HELD = [chat(LONG, "38"), chat(NINE, "The Ebro"), chat(TINY, "Madrid")]


def decontaminate(
    rows: Iterable[Mapping[str, Any]],
    held: Iterable[Mapping[str, Any]],
    folder: Path,
    **step: Any,
) -> Done:
    """Run the step over rows."""
    folder.mkdir(exist_ok=True)
    write_rows(folder / "rows.jsonl", rows)
    write_rows(folder / "test.jsonl", held)
    steps = [{"step": "decontaminate", "against": ["test.jsonl"], **step}]
    return run_stage(Curate, {"data": "rows.jsonl", "steps": steps}, folder)


def rejects(done: Done) -> list[dict[str, Any]]:
    """Return the rejects."""
    return [json.loads(line) for line in done.outputs["rejects"].read_text("utf-8").splitlines()]


@pytest.mark.parametrize(
    ("row", "rule", "line"),
    [
        (chat(LONG, "It is 38."), "held_out_words", 1),
        (chat(f"Solve this: {LONG.upper()} Thanks", "38"), "held_out_words", 1),
        (chat(f"Once more. {LONG[:100]}, who knows?", "Nobody"), "held_out_words", 1),
        (chat("Write a riddle", f"Here is one.\n\n{LONG}"), "held_out_words", 1),
        ({"text": f"Exam of May\n1. {LONG}\n2. And this?"}, "held_out_words", 1),
        (chat(NINE, "Ebro"), "held_out_question", 2),
        (chat("Hi", f"You asked: “{NINE}” It is the Ebro"), "held_out_question", 2),
        (chat("capital of Spain", "It is Madrid"), "held_out_question", 3),
        (chat("Name the capital of Spain and its river", "Madrid, Manzanares"), None, 0),
        (chat("Which river crosses Zaragoza?", "The Ebro"), None, 0),
        (chat("A farmer sells eggs at the market every Monday. Why?", "To live"), None, 0),
    ],
)
def test_what_gives_a_held_out_row_away(
    row: dict[str, Any], rule: str | None, line: int, tmp_path: Path
) -> None:
    """Each dropped row names the held-out one, and what they share."""
    other = chat("How do I boil an egg?", "For six minutes")
    done = decontaminate([other, row], HELD, tmp_path)
    found = rejects(done)
    assert done.metrics["kept"] == 2 - len(found)
    assert [each["rule"] for each in found] == ([rule] if rule else [])
    for each in found:
        assert each["compared_with"] == {"source": "steps.0.against.0", "line": line}
        assert 0 < each["score"] <= 1
        assert '"' in each["reason"]


def compared(words: Iterable[str], *, asks: bool) -> Compared:
    """Return a turn that shares nothing with many others."""
    encoded = [word.encode() for word in words]
    return Compared(asks, encoded, [encoded])


@given(
    held=st.lists(st.lists(st.sampled_from("abcdef"), max_size=9), max_size=4),
    rows=st.lists(st.lists(st.sampled_from("abcdef"), max_size=12), min_size=1, max_size=4),
    length=st.integers(3, 5),
)
def test_the_index_finds_every_shared_run(
    held: list[list[str]], rows: list[list[str]], length: int
) -> None:
    """The same as comparing every run with every other one, whatever bytes the words have."""
    index = HeldOut(length, 2)
    for words in held:
        index.add([compared(words, asks=False)])
    index.finish()
    found = index.overlaps([[compared(words, asks=True)] for words in rows])

    def runs(words: list[str]) -> set[tuple[str, ...]]:
        return {tuple(words[i : i + length]) for i in range(len(words) - length + 1)}

    known = set().union(*map(runs, held))
    assert {*found} == {i for i, words in enumerate(rows) if runs(words) & known}


def test_a_run_is_found_wherever_it_stands(tmp_path: Path) -> None:
    """Runs of ordinary words at any place of many rows, and no row is dropped without one."""
    draw = random.Random(1)
    known = ["".join(draw.choices("abcdefghij", k=draw.randint(3, 9))) for _ in range(3000)]
    held = [draw.choices(known, k=60) for _ in range(50)]
    rows, leaking = [], set()
    for number in range(2000):
        words = draw.choices(known, k=draw.randint(20, 90))
        if number % 20 == 0:
            start = draw.randrange(60 - 13)
            at = draw.randrange(len(words))
            words[at:at] = draw.choice(held)[start : start + 13]
            leaking.add(number + 1)
        rows.append(chat("Go on", " ".join(words)))
    done = decontaminate(rows, [chat("Tell", " ".join(words)) for words in held], tmp_path)
    assert {each["line"] for each in rejects(done)} == leaking


def test_shared_prompts_give_nothing_away(tmp_path: Path) -> None:
    """The task that all rows begin with, and the system message, are not compared."""
    system = "You are a helpful assistant that answers in one short sentence and never makes jokes."
    task = "Read the review below and say whether the person who wrote it would buy it again."
    draw = random.Random(2)
    known = ["".join(draw.choices("abcdefghij", k=6)) for _ in range(3000)]

    def made(count: int) -> list[dict[str, Any]]:
        return [
            chat(f"{task}\n{' '.join(draw.sample(known, 20))}", draw.choice(("yes", "no")), system)
            for _ in range(count)
        ]

    rows, held = made(50), made(30)
    done = decontaminate(
        [*rows, chat(f"{task} {held[7]['messages'][1]['content'][90:]}", "?")], held, tmp_path
    )
    assert done.metrics["kept"] == 50
    step = done.metrics["steps"][0]
    assert (step["held_out"], step["held_out_found"], step["held_out_not_compared"]) == (30, 1, 0)
    assert step["left_out"]


CITIES = [f"x{number} y{number} z{number}" for number in range(60)]


def texts(count: int, seed: int) -> list[str]:
    """Return texts of eight words."""
    draw = random.Random(seed)
    return [" ".join(f"w{draw.randrange(900)}" for _ in range(8)) for _ in range(count)]


TEMPLATES = [
    ([chat(f"What is the capital city of {city}?", "I do not know") for city in CITIES], 60),
    (
        [
            chat(
                f"Question: {one}\nAnswer with one word from the passage below\nPassage: {two}", "a"
            )
            for one, two in zip(texts(40, 1), texts(40, 2), strict=True)
        ],
        40,
    ),
    (
        [
            chat("Go on", f"{one}\nThis is what most answers have in them\n{two}")
            for one, two in zip(texts(40, 3), texts(40, 4), strict=True)
        ],
        40,
    ),
    ([{"text": f"Now translate the name {city}."} for city in CITIES], 60),
]


@pytest.mark.parametrize(("held", "count"), TEMPLATES)
def test_copies_of_rows_from_a_template_are_found(
    held: list[dict[str, Any]], count: int, tmp_path: Path
) -> None:
    """All of them, though what is left of each without the template is short, or in two parts."""
    other = chat("How do I boil an egg?", "For six minutes")
    done = decontaminate([other, *held], held, tmp_path)
    step = done.metrics["steps"][0]
    assert step["left_out"]
    assert (done.metrics["kept"], step["held_out_found"]) == (1, count)
    assert step["held_out_not_compared"] == 0


def test_another_question_of_the_same_template_is_kept(tmp_path: Path) -> None:
    """Two templates of the held-out rows, filled with what they do not have together."""
    half = len(CITIES) // 2
    ask = ("What is the capital city of {}?", "Which river flows through the city of {}?")
    held = [chat(ask[0].format(c), "?") for c in CITIES[:half]]
    held += [chat(ask[1].format(c), "?") for c in CITIES[half:]]
    rows = [chat(ask[1].format(c), "?") for c in CITIES[:half]]
    rows += [chat(ask[0].format(c), "?") for c in CITIES[half:]]
    done = decontaminate(rows, held, tmp_path)
    assert done.metrics["steps"][0]["left_out"]
    assert done.metrics["kept"] == len(rows)


def test_no_run_reaches_over_what_is_left_out(tmp_path: Path) -> None:
    """The last words before a shared line and the first ones behind it, together in another row."""
    held = TEMPLATES[2][0]
    first, _, second = str(held[0]["messages"][1]["content"]).split("\n")
    joined = " ".join([*first.split()[1:], *second.split()[:-1]])
    assert decontaminate([chat("Say it", joined)], held, tmp_path).metrics["kept"] == 1


def test_tools_are_not_compared(tmp_path: Path) -> None:
    """Rows with the tools of a held-out row ask for something else."""
    tools = [{"type": "function", "function": {"name": "find", "description": LONG}}]
    rows = [{**chat(f"Find {word}", "Yes"), "tools": tools} for word in ("eggs", "milk")]
    done = decontaminate(rows[:1], rows[1:], tmp_path)
    assert done.metrics["kept"] == 1


def test_held_out_rows_must_be_readable(tmp_path: Path) -> None:
    """A row of no known format is named; so is a file without rows."""
    with pytest.raises(StageError, match=r"test.jsonl:2: the row is in no known format"):
        decontaminate(HELD, [HELD[0], {"q": "?"}], tmp_path)
    with pytest.raises(StageError, match=r"test.jsonl: no held-out rows"):
        decontaminate(HELD, [], tmp_path)
    with pytest.raises(StageError, match=r"no row is left, of 3 from rows.jsonl") as caught:
        decontaminate(HELD, HELD, tmp_path)
    assert caught.value.hint == "dropped: 2 held_out_question, 1 held_out_words"
