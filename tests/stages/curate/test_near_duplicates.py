"""Which rows a curate stage takes for duplicates: all above the threshold, in any order, no other."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from llmpipe.backends.minhash import MISSED, bands_for
from llmpipe.errors import StageError
from llmpipe.formats.records import write_rows
from llmpipe.stages.curate import Curate, near_duplicates
from llmpipe.stages.curate.words import Wording, differences
from llmpipe.testing import Done, run_stage

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def vocabulary(draw: random.Random, size: int = 5000) -> list[str]:
    """Return made-up words."""
    return ["".join(draw.choices(LETTERS, k=draw.randint(4, 9))) for _ in range(size)]


def chat(question: str, answer: str, system: str | None = None) -> dict[str, Any]:
    """Return a row of the format messages."""
    turns = [{"role": "system", "content": system}] if system else []
    return {
        "messages": [
            *turns,
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
    }


def curate(rows: Iterable[Mapping[str, Any]], folder: Path, **step: Any) -> Done:
    """Run the step over rows."""
    folder.mkdir(exist_ok=True, parents=True)
    write_rows(folder / "rows.jsonl", rows)
    steps = [{"step": "near_duplicates", **step}]
    return run_stage(Curate, {"data": "rows.jsonl", "steps": steps}, folder)


def read(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def words(row: Mapping[str, Any]) -> set[str]:
    """Return the different words of a row."""
    return {word for turn in row["messages"] for word in turn["content"].split()}


def jaccard(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """Return the exact score of two rows."""
    return len(words(one) & words(other)) / len(words(one) | words(other))


def content(rows: Iterable[Mapping[str, Any]]) -> set[str]:
    """Return rows in a form that can be compared, without what the stage adds."""
    return {json.dumps(row["messages"]) for row in rows}


def planted(pairs: int, others: int) -> tuple[list[dict[str, Any]], list[tuple[int, int]]]:
    """Return rows, and pairs of them whose score is from 0.6 to 1."""
    draw = random.Random(7)
    known = vocabulary(draw)
    rows, found = [], []
    for number in range(pairs + others):
        text = draw.sample(known, draw.randint(20, 90))
        rows.append(chat(" ".join(text[:10]), " ".join(text[10:])))
        if number < pairs:
            for place in draw.sample(range(len(text)), draw.randint(0, len(text) // 5)):
                text[place] = draw.choice(known)
            found.append((len(rows) - 1, len(rows)))
            rows.append(chat(" ".join(text[:10]), " ".join(text[10:])))
    return rows, found


@pytest.mark.slow
def test_planted_pairs_are_found_and_nothing_else(tmp_path: Path) -> None:
    """Of the pairs at or above the threshold 98 % are found, and all that is dropped is one."""
    rows, pairs = planted(500, 100)
    done = curate(rows, tmp_path)
    kept = content(read(done.outputs["rows"]))
    true = [pair for pair in pairs if jaccard(rows[pair[0]], rows[pair[1]]) >= 0.8]
    found = [pair for pair in true if len(content(rows[i] for i in pair) & kept) == 1]
    assert len(true) > 250
    assert len(found) >= 0.98 * len(true)
    rejects = read(done.outputs["rejects"])
    assert len(rejects) == len(rows) - len(kept)
    for reject in rejects:
        other = rows[reject["compared_with"]["line"] - 1]
        assert content([other]) <= kept
        assert jaccard(reject["row"], other) >= 0.8
        assert reject["score"] == pytest.approx(jaccard(reject["row"], other), abs=1e-4)
        assert reject["rule"] in ("duplicate", "near_duplicate")
    told = done.metrics["steps"][0]["threshold"]
    assert told["just_dropped"]["score"] >= 0.8 > told["just_kept"]["score"]


@pytest.mark.slow
def test_the_order_of_the_input_changes_nothing(tmp_path: Path) -> None:
    """Chains of similar rows, shared prompts and copies: ten shuffles keep the same rows."""
    draw = random.Random(3)
    known = vocabulary(draw, 800)
    rows = []
    for _ in range(25):
        text = draw.sample(known, 30)
        for _ in range(12):  # each a little further from the first
            text[draw.randrange(30)] = draw.choice(known)
            rows.append(chat(" ".join(text[:8]), " ".join(text[8:]), "You answer in rhymes only."))
            rows += [rows[-1]] * draw.randint(0, 1)
    kept = []
    for number in range(10):
        draw.shuffle(rows)
        done = curate(rows, tmp_path / str(number))
        kept.append(content(read(done.outputs["rows"])))
    assert len(kept[0]) < len(content(rows))
    assert all(each == kept[0] for each in kept)


@pytest.mark.slow
def test_datasketch_finds_no_pair_that_is_left(tmp_path: Path) -> None:
    """An independent search for pairs, verified, finds none among the rows that are kept."""
    from datasketch import MinHash, MinHashLSH

    rows, _ = planted(150, 50)
    left = read(curate(rows, tmp_path).outputs["rows"])
    index = MinHashLSH(threshold=0.7, num_perm=128)
    for number, row in enumerate(left):
        sketch = MinHash(128)
        sketch.update_batch([word.encode() for word in words(row)])
        near = [other for other in index.query(sketch) if jaccard(row, left[other]) >= 0.8]
        assert near == []
        index.insert(number, sketch)


TEXT = "The warehouse in Madrid may take up to {} boxes of oranges a day unless the road is closed"


@pytest.mark.parametrize(
    ("one", "other", "differ"),
    [
        (TEXT.format(13), TEXT.format(14), "numbers"),
        (TEXT.format("two"), TEXT.format("three"), "numbers"),
        (TEXT.format(13), TEXT.format(13).replace("may take", "may not take"), "negations"),
        (TEXT, TEXT.replace("is closed", "isn’t closed"), "negations"),
        ("Ana pays Ben what Ben owed Cleo", "Ben pays Ana what Ben owed Cleo", "order"),
        ("他今天去学校上课", "他今天不去学校上课", "negations"),
    ],
)
def test_small_differences_that_matter(one: str, other: str, differ: str) -> None:
    """A number, a negation, the order of words."""
    every = ("numbers", "negations", "order")
    first, second, ended = (Wording.of([text]) for text in (one, other, f"{one}."))
    assert differences(first, second, every) == (differ,)
    assert differences(first, ended, every) == ()
    assert differences(first, second, ()) == ()


@pytest.mark.parametrize("answers", [("open", "shut"), ("open", "open")])
def test_a_changed_number_is_kept_where_the_answers_differ(
    answers: tuple[str, str], tmp_path: Path
) -> None:
    """The same answer to almost the same question is a duplicate; another one is not."""
    rows = [chat(TEXT.format(n), a) for n, a in zip((13, 14), answers, strict=True)]
    done = curate(rows, tmp_path)
    differ = answers[0] != answers[1]
    assert done.metrics["kept"] == 1 + differ
    assert done.metrics["steps"][0]["protected"] == ({"numbers": 1} if differ else {})
    assert curate(rows, tmp_path / "all", protect=[]).metrics["kept"] == 1


def test_short_rows_are_compared_as_a_whole(tmp_path: Path) -> None:
    """Two of five words are no near-duplicate; case and white space make no difference."""
    rows = [
        chat("Capital of Spain?", "Madrid"),
        chat("capital  of SPAIN?", "madrid"),
        chat("Capital of France?", "Paris"),
        {"text": "Oranges"},
        {"text": "oranges"},
    ]
    done = curate(rows, tmp_path)
    assert done.metrics["kept"] == 3
    assert done.metrics["dropped"] == {"duplicate": 2}
    assert done.metrics["steps"][0]["short_rows"] == 5


@pytest.mark.slow
def test_what_rows_share_is_not_compared(tmp_path: Path) -> None:
    """A long system message, a header and a beginning: what follows decides."""
    draw = random.Random(5)
    known = vocabulary(draw)
    system = " ".join(draw.sample(known, 80))
    header = "### Task\n" + " ".join(draw.sample(known, 80))
    begin = " ".join(draw.sample(known, 80))
    rows = []
    for _ in range(60):
        own = [" ".join(draw.sample(known, 8)) for _ in range(3)]
        rows.append(chat(own[0], "as you wish", system))
        rows.append(chat(f"{header}\n{own[1]}", "as you wish"))
        rows.append(chat(f"{begin} {own[2]}", "as you wish"))
    done = curate(rows, tmp_path)
    assert done.metrics["kept"] == 180
    told = done.metrics["steps"][0]["left_out"]
    assert {each["where"] for each in told} >= {"turn", "beginning"}
    assert told[0]["share"] >= 60 / 180
    assert curate(rows, tmp_path / "all", leave_out_shared=False).metrics["kept"] < 60


def test_copies_are_not_taken_for_a_template(tmp_path: Path) -> None:
    """Eighty copies with another word each share nearly all of their words; one of them stays."""
    draw = random.Random(6)
    known = vocabulary(draw)
    text = draw.sample(known, 60)
    rows = []
    for _ in range(80):
        copy = [*text]
        copy[draw.randrange(60)] = draw.choice(known)
        rows.append(
            chat(" ".join(copy[:10]), "\n".join((" ".join(copy[10:30]), " ".join(copy[30:]))))
        )
    rows += [
        chat(" ".join(draw.sample(known, 10)), " ".join(draw.sample(known, 50))) for _ in range(80)
    ]
    assert curate(rows, tmp_path).metrics["kept"] == 81


def test_the_same_text_with_another_task_is_kept(tmp_path: Path) -> None:
    """Prompts that many rows share are left out of the comparison, but never taken as equal."""
    draw = random.Random(8)
    known = vocabulary(draw)
    tasks = ["Is the following message an advertisement?", "Does the following message insult?"]
    rows = []
    for _ in range(40):
        text = " ".join(draw.sample(known, 25))
        rows += [chat(f"{task}\n{text}", "no") for task in tasks]
    done = curate(rows, tmp_path)
    assert done.metrics["kept"] == 80
    assert done.metrics["steps"][0]["protected"] == {"templates": 40}


def test_the_order_of_the_input_changes_nothing_where_rows_are_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows from a template: each is compared with some of those it resembles, and this is said."""
    monkeypatch.setattr(near_duplicates, "MOST", 20)
    text = (
        "Order {} was shipped to the customer in the northern region by our trusted partner on the "
        "morning of day {}"
    )
    draw = random.Random(9)
    rows = [{"text": text.format(number, number % 30)} for number in range(300)]
    kept = []
    for number in range(2):
        draw.shuffle(rows)
        done = curate(rows, tmp_path / str(number), protect=["negations"], threshold=0.9)
        kept.append({row["text"] for row in read(done.outputs["rows"])})
        step = done.metrics["steps"][0]
        assert 0 < step["not_compared"] <= 300
        assert f"{step['not_compared']} resemble too many rows" in done.summary
    assert kept[0] == kept[1]


def test_the_same_turns_with_other_tools_are_no_duplicate(tmp_path: Path) -> None:
    """What a model may call decides what it should answer."""
    row = chat("What is the weather like in Soria today, and will it rain?", "I do not know")
    tools = [
        [{"type": "function", "function": {"name": name, "description": text}}]
        for name, text in (("rain", "Tells how much rain falls"), ("sell", "Sells all shares now"))
    ]
    done = curate([row, *({**row, "tools": each} for each in tools)], tmp_path)
    assert done.metrics["kept"] == 3
    assert done.metrics["steps"][0]["protected"] == {"tools": 3}
    again = [{**row, "tools": tools[0]}] * 2
    assert curate(again, tmp_path / "again").metrics["dropped"] == {"duplicate": 1}


def test_the_same_answer_judged_otherwise_is_kept(tmp_path: Path) -> None:
    """Rows of KTO that differ in their label, and in a word of their prompt."""
    rows = [
        {"prompt": TEXT.format(word), "completion": "They are oranges", "label": label}
        for word, label in (("some", True), ("some", False), ("few", False))
    ]
    done = curate(rows, tmp_path)
    assert done.metrics["kept"] == 2
    assert done.metrics["steps"][0]["protected"] == {"labels": 1}


def test_how_to_keep_a_row_names_a_value_that_keeps_it(tmp_path: Path) -> None:
    """A score is never rounded down, and no threshold is above 1."""
    words = [f"w{number}" for number in range(13)]
    rows = [{"text": " ".join(words)}, {"text": " ".join([*words[:12], "x"])}]
    done = curate(rows, tmp_path, protect=[])
    (reject,) = read(done.outputs["rejects"])
    assert reject["keep"] == "raise threshold above 0.8572"  # 12 of 14
    rows[1]["text"] = " ".join(reversed(words))
    (reject,) = read(curate(rows, tmp_path / "same", protect=[]).outputs["rejects"])
    assert (reject["score"], reject["keep"]) == (1, "leave this step out")


def test_a_generated_row_gives_way(tmp_path: Path) -> None:
    """Though it is longer. Columns that no format knows stay."""
    text = TEXT.format("many")
    made = {"id": "m", "parents": ["p"], "method": "rewrite"}
    rows = [
        {"text": f"{text} at noon", "llmpipe_provenance": made},
        {"text": text, "topic": "fruit"},
    ]
    (row,) = read(curate(rows, tmp_path).outputs["rows"])
    assert (row["text"], row["topic"]) == (text, "fruit")
    assert list(row["llmpipe_provenance"]) == ["id"]


@pytest.mark.slow
def test_extreme_rows(tmp_path: Path) -> None:
    """All rows alike, one word, none at all, rows of ten megabytes, and no rows."""
    long = " ".join(f"{number}{'x' * 90}" for number in range(110_000))
    rows = [{"text": ""}, {"text": " "}, {"text": "x"}, {"text": long}, {"text": f"{long} more"}]
    done = curate(rows, tmp_path)
    assert done.metrics["kept"] == 3
    assert curate([{"text": TEXT}] * 50, tmp_path / "alike").metrics["kept"] == 1
    with pytest.raises(StageError, match="no rows at all"):
        curate([], tmp_path / "none")


def test_rows_that_cannot_be_read(tmp_path: Path) -> None:
    """They are rejected as far as `max_rejects` allows, and otherwise named."""
    good = [{"body": f"{TEXT} {number}"} for number in range(30)]
    write_rows(tmp_path / "rows.jsonl", [*good, {"body": ["a list"]}])
    config = {
        "data": "rows.jsonl",
        "columns": ["body"],
        "steps": [{"step": "near_duplicates", "protect": []}],
    }
    done = run_stage(Curate, config, tmp_path)
    assert done.metrics["dropped"] == {"near_duplicate": 29, "unreadable": 1}
    (reject,) = [each for each in read(done.outputs["rejects"]) if each["rule"] == "unreadable"]
    assert "rows.jsonl:31: column 'body' must hold text, not a list" in reject["reason"]
    with pytest.raises(StageError, match="31 of 31 rows cannot be read"):
        run_stage(Curate, {**config, "columns": ["text"]}, tmp_path)
    with pytest.raises(StageError, match="the row is in no known format") as caught:
        run_stage(Curate, {**config, "columns": []}, tmp_path)
    assert "name the columns with text under `columns`" in str(caught.value.hint)
    assert [f.hint for f in review(tmp_path, ["bodi"])] == ["did you mean 'body'?"]


def review(folder: Path, columns: Sequence[str]) -> list[Any]:
    """Check the named columns, as validate does."""
    from llmpipe.testing import make_config

    steps = [{"step": "near_duplicates"}]
    data = str(folder / "rows.jsonl")
    config = make_config(Curate, {"data": data, "columns": columns, "steps": steps})
    return Curate.review(config, folder)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9, 0.99, 1.0])
def test_bands_miss_few_pairs(threshold: float) -> None:
    """A pair at the threshold is missed once in 500, in a sketch that is quick to make."""
    bands, values = bands_for(threshold)
    assert bands * values <= 64
    assert (1 - min(threshold, 1 - 1e-9) ** values) ** bands <= MISSED * 1.001
