"""The format stage on small files: what comes out, what is turned away, and what is said."""

from __future__ import annotations

import json
import subprocess
import sys

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmpipe.contracts import Artifact, StageContext
from llmpipe.errors import StageError
from llmpipe.formats.provenance import PROVENANCE, row_id
from llmpipe.formats.records import write_rows
from llmpipe.stages.format import Format, FormatConfig


class Run:
    """A stage's result, and the warnings that it gave."""

    def __init__(self, result, warnings):
        self.outputs, self.metrics, self.summary = result.outputs, result.metrics, result.summary
        self.warnings = warnings


@pytest.fixture
def run_format(tmp_path):
    """Run the stage on a config as a spec would have it; returns its result and rows by output."""

    def run(base=None, /, **fields):
        config = msgspec.convert({"kind": "format", **fields}, FormatConfig)
        assert Format.problems(config) == []
        out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        out.mkdir()
        inputs = {
            name: Artifact(base or tmp_path / port.value, port.accepts[0], "", port.value)
            if name == "tokenizer"
            else Artifact(tmp_path / port.value, "records", "", port.value)
            for name, port in Format.ports(config).inputs.items()
        }
        ctx = StageContext(
            config, "data", inputs, out, tmp_path, tmp_path, tmp_path, tmp_path, threads=1
        )
        warnings = []
        ctx.emit = lambda event: warnings.append(event["message"]) if "message" in event else None
        result = Run(Format.run(ctx), warnings)
        assert set(result.outputs) == set(Format.ports(config).outputs)
        rows = {
            name: [json.loads(line) for line in path.read_text("utf-8").splitlines()]
            for name, path in result.outputs.items()
        }
        return result, rows

    return run


@pytest.fixture
def faq(tmp_path):
    """Forty questions and answers under columns of their own; row i is in topic i // 2."""
    rows = [
        {"q": f"What is the meaning of the number {i}?", "a": f"It means {i}.", "topic": i // 2}
        for i in range(40)
    ]
    write_rows(tmp_path / "faq.jsonl", rows)
    return rows


COLUMNS = {"user": "q", "assistant": "a"}


def questions(rows):
    """What the user says in every row."""
    return [row["messages"][0]["content"] for row in rows]


@pytest.mark.parametrize("to", ["messages", "sharegpt", "alpaca", "completion"])
def test_every_format_comes_out(run_format, faq, to):
    """Mapped rows are written in the format asked for, all of them, in order."""
    _, rows = run_format(data="faq.jsonl", map=COLUMNS, to=to)
    assert len(rows["train"]) == 40
    key = {"sharegpt": "conversations", "alpaca": "instruction", "completion": "text"}.get(to, to)
    assert all(key in row for row in rows["train"])
    assert faq[0]["q"] in json.dumps(rows["train"][0])


def test_split_is_disjoint_complete_and_stable(run_format, faq, tmp_path):
    """Every row is in one part; order and an added row change nothing; a seed does."""
    fields = {"map": COLUMNS, "split": {"eval": 0.1, "test": 6}}
    result, rows = run_format(data="faq.jsonl", **fields)
    assert result.metrics["kept"] == {"train": 30, "eval": 4, "test": 6}
    parts = [set(questions(rows[part])) for part in ("train", "eval", "test")]
    assert set.union(*parts) == {row["q"] for row in faq}
    assert sum(map(len, parts)) == 40
    write_rows(tmp_path / "turned.jsonl", reversed(faq))
    _, turned = run_format(data="turned.jsonl", **fields)
    assert set(questions(turned["test"])) == parts[2]
    _, seeded = run_format(data="faq.jsonl", map=COLUMNS, split={"test": 6, "random_seed": 1})
    assert set(questions(seeded["test"])) != parts[2]
    assert "eval" not in seeded


def test_groups_stay_together(run_format, faq):
    """No topic has rows both in train and in a held-out part."""
    _, rows = run_format(data="faq.jsonl", map=COLUMNS, split={"test": 10, "group": "topic"})
    topic = {row["q"]: row["topic"] for row in faq}
    held, trained = ({topic[q] for q in questions(rows[part])} for part in ("test", "train"))
    assert len(rows["test"]) == 10
    assert not held & trained


def test_same_question_is_never_on_both_sides(run_format, tmp_path):
    """Rows that ask the same with other answers go together."""
    rows = [{"q": f"question {i % 10}", "a": f"answer {i}"} for i in range(30)]
    write_rows(tmp_path / "a.jsonl", rows)
    _, out = run_format(data="a.jsonl", map=COLUMNS, split={"eval": 6})
    assert not set(questions(out["train"])) & set(questions(out["eval"]))
    assert len(out["train"]) + len(out["eval"]) == 30


def test_duplicates_go_and_can_stay(run_format, tmp_path):
    """The first of equal rows is kept; `dedup: false` keeps all."""
    rows = [{"q": "One?", "a": "1"}, {"q": "one?  ", "a": "1"}, {"q": "Two?", "a": "2"}]
    write_rows(tmp_path / "a.jsonl", rows)
    result, out = run_format(data="a.jsonl", map=COLUMNS)
    assert questions(out["train"]) == ["One?", "Two?"]
    assert result.metrics["dropped"] == {"duplicate": 1}
    expected = {"source": "data", "line": 2, "reason": "duplicate", "row": rows[1]}
    assert out["rejects"] == [expected]
    result, out = run_format(data="a.jsonl", map=COLUMNS, dedup=False)
    assert len(out["train"]) == 3


def test_useless_rows_are_counted_by_reason(run_format, tmp_path):
    """Blank texts and unanswered questions are rejected, in order of their lines."""
    user = {"role": "user", "content": "Hi"}
    rows = [
        {"messages": [user]},
        {"messages": [user, {"role": "assistant", "content": " "}]},
        {"messages": [user, {"role": "assistant", "content": "Hello"}]},
    ]
    write_rows(tmp_path / "a.jsonl", rows)
    result, out = run_format(data="a.jsonl")
    assert result.metrics["in"] == 3
    assert result.metrics["dropped"] == {"empty": 1, "no answer": 1}
    assert [row["line"] for row in out["rejects"]] == [1, 2]


def test_train_gives_no_held_out_row_away(run_format, faq, tmp_path):
    """Generated rows are never held out, and go when they betray a row that is."""
    _, plain = run_format(data="faq.jsonl", map=COLUMNS, split={"test": 8})
    held = questions(plain["test"])
    source = next(row for row in faq if row["q"] == held[0])
    kept = next(row for row in faq if row["q"] not in held)
    made = [
        ("A new one about the held-out row", row_id(source)),
        (held[1].lower().rstrip("?"), "0" * 64),
        (f"Explain in detail: {held[2]} Give examples.", "0" * 64),
        ("A new one about a row in train", row_id(kept)),
    ]
    write_rows(
        tmp_path / "made.jsonl",
        [
            {
                "messages": [
                    {"role": "user", "content": question},
                    {"role": "assistant", "content": "Made."},
                ],
                PROVENANCE: {"id": question, "parents": [seed], "method": "evol-instruct"},
            }
            for question, seed in made
        ],
    )
    result, rows = run_format(
        sources=[{"data": "made.jsonl"}, {"data": "faq.jsonl", "map": COLUMNS}], split={"test": 8}
    )
    assert sorted(questions(rows["test"])) == sorted(held)
    assert "A new one about a row in train" in questions(rows["train"])
    assert result.metrics["generated"] == 1
    assert result.metrics["dropped"] == {
        "generated from a held-out row": 1,
        "quotes a held-out question": 1,
        "repeats a held-out question": 1,
    }


def test_generated_duplicate_gives_way_to_the_original(run_format, faq, tmp_path):
    """A generated copy that comes first does not keep the original from being held out."""
    chat = [
        {"role": "user", "content": faq[0]["q"]},
        {"role": "assistant", "content": faq[0]["a"]},
    ]
    write_rows(
        tmp_path / "made.jsonl",
        [{"messages": chat, PROVENANCE: {"id": "x", "parents": ["0" * 32]}}],
    )
    result, rows = run_format(
        sources=[{"data": "made.jsonl"}, {"data": "faq.jsonl", "map": COLUMNS}]
    )
    assert result.metrics["generated"] == 0
    assert rows["rejects"][0]["source"] == "sources.0.data"


def test_sources_repeat_and_sample(run_format, faq, tmp_path):
    """`repeat` multiplies rows in train only; `sample` draws the same rows every time."""
    write_rows(tmp_path / "extra.jsonl", [{"text": "x"}])
    source = {"data": "faq.jsonl", "map": COLUMNS, "repeat": 3, "sample": 10}
    result, rows = run_format(sources=[source], split={"eval": 4})
    assert (len(rows["train"]), len(rows["eval"])) == (18, 4)
    assert questions(rows["train"])[:6] == questions(rows["train"])[6:12]
    assert result.metrics["train_with_repeats"] == 18
    _, again = run_format(sources=[source], split={"eval": 4})
    assert again == rows
    _, other = run_format(sources=[{**source, "random_seed": 1}], split={"eval": 4})
    assert set(questions(other["train"])) != set(questions(rows["train"]))


def test_csv_and_json_are_sources_too(run_format, tmp_path):
    """One set from a CSV table and a JSON array."""
    (tmp_path / "a.csv").write_text("q,a\nOne?,1\n")
    (tmp_path / "b.json").write_text('[{"instruction": "Two?", "input": "", "output": "2"}]')
    _, rows = run_format(sources=[{"data": "a.csv", "map": COLUMNS}, {"data": "b.json"}])
    assert questions(rows["train"]) == ["One?", "Two?"]


def test_a_fraction_is_an_answer_as_it_is_written(run_format, tmp_path):
    """1.10 is not 1.1, in what is kept as in what is rejected; groups and digests go by its value."""
    lines = [
        '{"instruction": "Price?", "output": 1.10, "version": 1.10, "box": [2.50]}',
        '{"instruction": "Price?", "output": 1.10, "version": 1.1, "box": [2.5]}',
        '{"instruction": "Size?", "output": 1e3, "version": 1.10, "box": [2.5]}',
        '{"instruction": "Weight?", "output": 2.5, "version": 2.0, "box": [3.5]}',
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    result, rows = run_format(data="rows.jsonl", to="alpaca")
    assert [row["output"] for row in rows["train"]] == ["1.10", "1e3", "2.5"]
    kept = result.outputs["rejects"].read_text("utf-8")
    assert '"row":' + lines[1].replace(": ", ":").replace(", ", ",") in kept
    for group in ("version", "box"):
        _, rows = run_format(data="rows.jsonl", to="alpaca", split={"test": 1, "group": group})
        parts = [sorted(row["instruction"] for row in rows[part]) for part in ("train", "test")]
        assert sorted(parts) == [["Price?", "Size?"], ["Weight?"]]


def test_a_row_with_a_fraction_is_found_by_its_digest(run_format, tmp_path):
    """`generate` names a source row by a digest that knows nothing of how fractions are written."""
    rows = [{"instruction": f"Price of {n}?", "output": n / 4} for n in range(1, 20)]
    made = [
        {
            "instruction": f"New {n}?",
            "output": "x",
            PROVENANCE: {"id": f"m{n}", "parents": [row_id(row)]},
        }
        for n, row in enumerate(rows)
    ]
    text = "\n".join(json.dumps(row) for row in rows).replace(".5}", ".50}")
    (tmp_path / "rows.jsonl").write_text(text)
    write_rows(tmp_path / "made.jsonl", made)
    sources = [{"data": "rows.jsonl"}, {"data": "made.jsonl"}]
    result, found = run_format(sources=sources, split={"test": 5})
    assert len(found["test"]) == 5
    assert result.metrics["dropped"] == {"generated from a held-out row": 5}


def test_a_row_that_cannot_be_read_is_rejected(run_format, faq, tmp_path):
    """With its reason, as far as `max_rejects` allows; above it the first of each kind is shown."""
    rows = [*faq, {"q": "Two?", "aa": "2"}, {"q": ["x"], "a": "3"}]
    lines = [*(json.dumps(row) for row in rows), '{"q": "broken']
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    with pytest.raises(StageError) as caught:
        run_format(data="a.jsonl", map=COLUMNS)
    assert caught.value.message.splitlines() == [
        "3 of 43 rows cannot be read, and max_rejects allows 0.05 of the rows:",
        "a.jsonl:41: no column 'a'; the row has 'q', 'aa' (1 row: missing column)",
        "a.jsonl:42: column 'q' must hold text, not a list (1 row: wrong shape)",
        "a.jsonl:43: not JSON: Input data was truncated (1 row: not JSON)",
    ]
    assert caught.value.hint.startswith("did you mean 'aa'?\n")
    result, out = run_format(data="a.jsonl", map=COLUMNS, max_rejects=0.1)
    assert len(out["train"]) == 40
    assert result.metrics["dropped"] == {"missing column": 1, "not JSON": 1, "wrong shape": 1}
    assert [row["row"] for row in out["rejects"]] == [*rows[40:], '{"q": "broken']


def test_what_is_left_behind_is_counted_by_name(run_format, faq):
    """Columns that no example holds stand in metrics and summary, and can be refused."""
    result, _ = run_format(data="faq.jsonl", map=COLUMNS)
    assert result.metrics["left_behind"] == {"topic": 40}
    assert result.summary == "40 rows: 40 train; left behind: topic (40 rows)"
    result, _ = run_format(data="faq.jsonl", map=COLUMNS, split={"test": 4, "group": "topic"})
    assert "left_behind" not in result.metrics
    with pytest.raises(StageError, match=r"topic \(40 rows\) \(first: faq.jsonl:1\)"):
        run_format(data="faq.jsonl", map=COLUMNS, unknown_columns="error")


def test_the_leak_check_follows_parents_over_several_stages(run_format, faq, tmp_path):
    """A row made from a row that was made from a held-out one goes, whichever stages lie between."""
    _, first = run_format(data="faq.jsonl", map=COLUMNS)
    by_id = {row[PROVENANCE]["id"]: row for row in first["train"]}
    assert set(by_id) == {row_id(row) for row in faq}

    def generated(number, parents):
        turns = [("user", f"Generated {number}?"), ("assistant", "x")]
        messages = [{"role": role, "content": text} for role, text in turns]
        return {"messages": messages, PROVENANCE: {"id": f"g{number}", "parents": parents}}

    made = [generated(number, [own]) for number, own in enumerate(by_id)]
    made += [generated(100 + number, ["other", f"g{number}"]) for number in range(40)]
    write_rows(tmp_path / "made.jsonl", made)
    _, again = run_format(data="made.jsonl", to="sharegpt")
    write_rows(tmp_path / "again.jsonl", again["train"])
    sources = [{"data": "again.jsonl"}, {"data": "faq.jsonl", "map": COLUMNS}]
    result, rows = run_format(sources=sources, split={"test": 5})
    held = {row[PROVENANCE]["id"] for row in rows["test"]}
    assert len(held) == 5
    assert result.metrics["dropped"] == {"generated from a held-out row": 10}
    assert result.metrics["generated"] == 70


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (["wiki"], "must hold an object, not a list"),
        ({"parents": []}, "needs the text 'id'"),
        ({"id": "x", "parents": "y"}, "must hold a list of ids under 'parents'"),
    ],
)
def test_a_provenance_column_that_is_not_ours(run_format, tmp_path, value, told):
    """The column of that name is llmpipe's: what it did not write is refused."""
    write_rows(tmp_path / "a.jsonl", [{"text": "x", PROVENANCE: value}])
    with pytest.raises(StageError, match=f"a.jsonl:1: column 'llmpipe_provenance' {told}"):
        run_format(data="a.jsonl", to="completion")


def test_a_system_column_that_no_row_has(run_format, tmp_path):
    """A row may leave it out; where all do, it is misspelled and no system message is lost silently."""
    rows = [{"q": "One?", "a": "1", "system": "Be brief."}, {"q": "Two?", "a": "2"}]
    write_rows(tmp_path / "a.jsonl", rows)
    _, written = run_format(data="a.jsonl", map={**COLUMNS, "system": "system"})
    assert [len(row["messages"]) for row in written["train"]] == [3, 2]
    with pytest.raises(StageError) as caught:
        run_format(data="a.jsonl", map={**COLUMNS, "system": "sytem"})
    message = "a.jsonl: no row has a column 'sytem'; they have 'q', 'a', 'system'"
    assert (caught.value.message, caught.value.hint) == (message, "did you mean 'system'?")


def test_missing_group_column(run_format, faq):
    """A group column that every row lacks is misspelled: an error at the first of them."""
    with pytest.raises(StageError) as caught:
        run_format(data="faq.jsonl", map=COLUMNS, split={"eval": 2, "group": "topics"})
    assert caught.value.message == "faq.jsonl:1: no column 'topics'; the row has 'q', 'a', 'topic'"
    assert caught.value.hint == "did you mean 'topic'?"


@pytest.mark.parametrize(
    "absent",
    [
        *({"topic": None}, {"topic": " "}, {}, {"topic": []}),
        *({"topic": [None, ""]}, {"topic": {"id": None}}),
    ],
)
def test_a_row_without_a_group_stands_by_its_question(run_format, faq, tmp_path, absent):
    """Rows whose group is null, blank or missing are not one group; they are counted and said."""
    rows = [{"q": f"Question number {i}?", "a": f"{i}", **absent} for i in range(60)]
    write_rows(tmp_path / "mixed.jsonl", [*rows, *faq])
    result, out = run_format(data="mixed.jsonl", map=COLUMNS, split={"test": 0.2, "group": "topic"})
    assert len(out["test"]) == 20
    held = {q for q in questions(out["test"]) if q.startswith("Question number")}
    assert 0 < len(held) < 20
    said = "mixed.jsonl: 60 rows have no 'topic' and are in no group: each stays with the rows "
    assert result.warnings == [said + "that ask the same"]


@pytest.mark.slow
def test_nan_of_a_data_frame_is_no_group(run_format, tmp_path):
    """Rows whose group is NaN, as in a column that a data frame wrote, are not one group."""
    asked = [f"Question number {i}?" for i in range(50)]
    groups = [float("nan")] * 40 + [1.0] * 5 + [2.0] * 5
    table = pa.table({"q": asked, "a": asked, "topic": groups})
    pq.write_table(table, tmp_path / "a.parquet")
    result, out = run_format(data="a.parquet", map=COLUMNS, split={"test": 0.2, "group": "topic"})
    assert result.warnings[0].startswith("a.parquet: 40 rows have no 'topic' and are in no group")
    assert not set(questions(out["test"])) <= set(asked[40:])


def test_one_group_in_a_table_and_in_json(run_format, tmp_path):
    """A group is one, be it written as 3, as 3.0 or as the text of a table."""
    write_rows(tmp_path / "a.jsonl", ({"q": f"a{i}?", "a": "x", "doc": i % 5} for i in range(20)))
    write_rows(tmp_path / "b.jsonl", ({"q": f"b{i}?", "a": "x", "doc": i / 1} for i in range(5)))
    (tmp_path / "c.csv").write_text("q,a,doc\n" + "".join(f"c{i}?,x,{i} \n" for i in range(5)))
    sources = [{"data": name, "map": COLUMNS} for name in ("a.jsonl", "b.jsonl", "c.csv")]
    _, rows = run_format(sources=sources, split={"test": 6, "group": "doc"})
    assert sorted(question[0] for question in questions(rows["test"])) == ["a"] * 4 + ["b", "c"]


@pytest.mark.parametrize("value", ["wiki", 3, ["forum"], {"source": "wiki"}, True])
def test_a_provenance_column_of_the_users_own(run_format, faq, tmp_path, value):
    """Only what `generate` writes makes a row a generated one; other columns are the user's."""
    write_rows(tmp_path / "own.jsonl", ({**row, "provenance": value} for row in faq))
    result, rows = run_format(data="own.jsonl", map=COLUMNS, split={"test": 0.2})
    assert len(rows["test"]) == 8
    assert result.metrics["generated"] == 0
    assert result.warnings == []


def many_answers(path, counts):
    """Write rows of which question ``i`` has ``counts[i]`` answers."""
    write_rows(
        path,
        (
            {"q": f"question {i}", "a": f"answer {i} {j}"}
            for i, count in enumerate(counts)
            for j in range(count)
        ),
    )


def test_a_question_with_more_answers_than_the_share(run_format, tmp_path):
    """The error names the question and its rows, and offers only what these rows allow."""
    many_answers(tmp_path / "a.jsonl", [20, 30, 20])
    with pytest.raises(StageError) as caught:
        run_format(data="a.jsonl", map=COLUMNS, split={"test": 10})
    assert caught.value.message.startswith(
        "split.test stays empty: what stays together does not fit into its 10 rows; the smallest "
        'is the question "question '
    )
    assert caught.value.message.endswith(" with 20 rows")
    assert caught.value.hint == "raise split.test to 20"
    _, rows = run_format(data="a.jsonl", map=COLUMNS, split={"test": 20})
    assert len(rows["test"]) == 20
    with pytest.raises(StageError) as caught:
        run_format(data="a.jsonl", map=COLUMNS, split={"test": 0.2})
    assert "split.one_per_question: true" in caught.value.hint
    fields = {"test": 0.2, "one_per_question": True}
    result, rows = run_format(data="a.jsonl", map=COLUMNS, split=fields)
    assert len(rows["test"]) == 1
    assert not set(questions(rows["train"])) & set(questions(rows["test"]))
    dropped = result.metrics["dropped"]["repeats a held-out question"]
    assert dropped + len(rows["train"]) == 69


def test_one_question_alone_cannot_be_split(run_format, tmp_path):
    """Of twenty answers to a single question none can be held out, and no way is made up."""
    many_answers(tmp_path / "a.jsonl", [20])
    with pytest.raises(StageError, match=r'"question 0" \(a\.jsonl:1\) with 20') as caught:
        run_format(data="a.jsonl", map=COLUMNS, split={"test": 0.2})
    assert caught.value.hint.startswith("all 20 rows that are left ask one question")
    assert "group" not in caught.value.hint


def test_the_same_question_about_a_passage_in_the_system_message(run_format, tmp_path):
    """Rows that differ in their system message alone are one question, unless it is part of it."""
    rows = [{"q": "What is it?", "a": f"{i}", "doc": f"Text {i} of many"} for i in range(50)]
    write_rows(tmp_path / "a.jsonl", rows)
    fields = {"data": "a.jsonl", "map": {**COLUMNS, "system": "doc"}}
    with pytest.raises(StageError) as caught:
        run_format(**fields, split={"test": 0.2})
    way_out = "tell questions apart by their system messages: split.with_system: true"
    assert caught.value.hint == way_out
    _, out = run_format(**fields, split={"test": 0.2, "with_system": True})
    assert [len(out[part]) for part in ("train", "test")] == [40, 10]
    write_rows(
        tmp_path / "a.jsonl", [{**row, "doc": rows[i % 40]["doc"]} for i, row in enumerate(rows)]
    )
    _, out = run_format(**fields, split={"test": 0.2, "with_system": True}, dedup=False)
    told = [{row["messages"][0]["content"] for row in out[part]} for part in ("train", "test")]
    assert not told[0] & told[1]
    plain = [{"messages": [{"role": "system", "content": row["doc"]}, *said(row)]} for row in rows]
    write_rows(tmp_path / "b.jsonl", plain)
    _, out = run_format(data="b.jsonl", split={"test": 0.2, "with_system": True})
    assert len(out["test"]) == 10


def said(row):
    """The turns of a question and its answer."""
    return [{"role": "user", "content": row["q"]}, {"role": "assistant", "content": row["a"]}]


def test_a_part_that_gets_too_few_says_so(run_format, tmp_path):
    """What does not fit is named in a warning, the summary and the metrics."""
    many_answers(tmp_path / "a.jsonl", [7] * 10)
    result, rows = run_format(data="a.jsonl", map=COLUMNS, split={"test": 10})
    assert len(rows["test"]) == 7
    assert result.metrics["too_few"] == {"test": 3}
    assert result.summary == "70 rows: 63 train, 7 test (3 too few)"
    assert result.warnings[0].startswith("split.test gets 7 of the 10 rows that it asks for: the")


def test_rows_that_are_never_held_out_are_said(run_format, tmp_path):
    """Where "NULL" or 0 stands for no group, its rows are one, too large to be held out."""
    rows = [
        {"q": f"question {i}", "a": "x", "doc": i // 2 if i < 20 else "NULL"} for i in range(50)
    ]
    write_rows(tmp_path / "a.jsonl", rows)
    split = {"eval": 4, "test": 8, "group": "doc"}
    result, out = run_format(data="a.jsonl", map=COLUMNS, split=split)
    assert [len(out[part]) for part in ("eval", "test")] == [4, 8]
    told = (
        "30 of 50 rows are never held out: those that stay together are more than the 8 that a "
        "part takes; most are the group \"NULL\" of 'doc' with 30 rows"
    )
    assert result.warnings == [told]
    many_answers(tmp_path / "b.jsonl", [20, 30, *[1] * 50])
    result, out = run_format(data="b.jsonl", map=COLUMNS, split={"test": 10})
    assert len(out["test"]) == 10
    told = (
        "50 of 100 rows are never held out: those that stay together are more than the 10 that a "
        'part takes; most are the question "question 1" (b.jsonl:21) with 30 rows'
    )
    assert result.warnings == [told]


def test_held_out_parts_share_no_question(run_format, tmp_path):
    """Two groups that ask the same are not held out in different parts."""
    rows = [{"q": f"question {i % 10}", "a": f"answer {i}", "doc": i // 10} for i in range(20)] + [
        {"q": f"other {i}", "a": "x", "doc": 2 + i // 10} for i in range(20)
    ]
    write_rows(tmp_path / "a.jsonl", rows)
    for seed in range(6):
        split = {"eval": 10, "test": 10, "group": "doc", "random_seed": seed}
        _, out = run_format(data="a.jsonl", map=COLUMNS, split=split)
        parts = [set(questions(out[part])) for part in ("train", "eval", "test")]
        assert sum(map(len, parts)) == len(set.union(*parts))


def test_nothing_left_lists_the_reasons(run_format, tmp_path):
    """An empty training set is an error that says where the rows went."""
    write_rows(tmp_path / "a.jsonl", [{"q": "", "a": "1"}, {"q": "Two?", "a": ""}])
    with pytest.raises(StageError) as caught:
        run_format(data="a.jsonl", map=COLUMNS)
    assert caught.value.message == "no row is left to train on, of 2 from a.jsonl"
    assert caught.value.hint == "rejected: empty: 2"
    (tmp_path / "b.jsonl").write_text("\n")
    with pytest.raises(StageError, match="no rows at all"):
        run_format(data="b.jsonl", map=COLUMNS)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, "either `data` or `sources`"),
        ({"data": "a", "sources": [{"data": "b"}]}, "either `data` or `sources`"),
        ({"sources": [{"data": "b"}], "map": COLUMNS}, "its own `map`"),
        ({"data": "a", "map": {"user": "q"}}, "name both"),
        ({"data": "a", "max_tokens": 5}, "needs `tokenizer`"),
        ({"data": "a", "tokenizer": "b"}, "no effect"),
        ({"data": "a", "split": {"random_seed": 3}}, "holds nothing out"),
    ],
)
def test_configs_that_make_no_sense(fields, told):
    """Cross-field mistakes are found before anything runs."""
    config = msgspec.convert({"kind": "format", **fields}, FormatConfig)
    assert any(told in message for _, message in Format.problems(config))


@pytest.mark.heavy
def test_token_limit_counts_the_template(run_format, tmp_path, tiny_llama):
    """Rows over the limit of the model's own tokens, template included, are rejected whole."""
    rows = [{"q": "Hi", "a": "word " * n} for n in (1, 50, 2)]
    write_rows(tmp_path / "a.jsonl", rows)
    fields = {"data": "a.jsonl", "map": COLUMNS, "tokenizer": "base"}
    result, out = run_format(tiny_llama, max_tokens=60, **fields)
    assert result.metrics["dropped"] == {"over 60 tokens": 1}
    assert out["rejects"][0]["row"] == rows[1]
    with pytest.raises(StageError, match="no row is left"):
        run_format(tiny_llama, max_tokens=8, **fields)


def test_nothing_heavy_is_imported():
    """The stage's module loads neither transformers nor torch nor numpy."""
    code = "import sys, llmpipe.stages.format; print([m for m in sys.modules if m in {heavy}])"
    heavy = {"torch", "transformers", "numpy", "datasets"}
    done = subprocess.run(
        [sys.executable, "-c", code.format(heavy=heavy)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_rows_may_stay_as_they_are(run_format, tmp_path):
    """Columns that no format knows are kept, and so are two columns that a format would join."""
    rows = [
        {"segments": [{"label": True, "text": f"t{i}"}], "n": i, "input": ""} for i in range(20)
    ]
    write_rows(tmp_path / "a.jsonl", rows)
    alpaca = [{"instruction": f"Do {i}", "input": "this", "output": "1.10"} for i in range(10)]
    write_rows(tmp_path / "b.jsonl", alpaca)
    sources = [{"data": "./a.jsonl"}, {"data": "./b.jsonl", "sample": 4}]
    _, made = run_format(sources=sources, to="unchanged", split={"eval": 6})
    found = [
        {name: value for name, value in row.items() if name != PROVENANCE}
        for part in ("train", "eval")
        for row in made[part]
    ]
    assert (len(made["train"]), len(made["eval"])) == (18, 6)
    assert all(row in rows + alpaca for row in found)
    assert sum("instruction" in row for row in found) == 4


def test_unchanged_rows_are_duplicates_if_all_columns_are_equal(run_format, tmp_path):
    """A column that no format reads tells rows apart; `dedup: false` keeps them all."""
    row = {"instruction": "a", "output": "b"}
    write_rows(tmp_path / "a.jsonl", [{**row, "n": 1}, {**row, "n": 2}, {"n": 1, **row}, {"x": 1}])
    assert len(run_format(data="./a.jsonl", to="unchanged")[1]["train"]) == 3
    assert len(run_format(data="./a.jsonl", to="unchanged", dedup=False)[1]["train"]) == 4


def test_unchanged_rows_leak_no_held_out_question(run_format, tmp_path):
    """If their columns show a question, the rows that ask it stay on one side."""
    chat = [{"role": "user", "content": "Where is the library of the town?"}]
    answers = [[*chat, {"role": "assistant", "content": f"There, {i}."}] for i in range(3)]
    others = [[{**chat[0], "content": f"{i}?"}, answers[0][1]] for i in range(9)]
    write_rows(tmp_path / "a.jsonl", [{"messages": turns} for turns in answers + others])
    _, made = run_format(data="./a.jsonl", to="unchanged", split={"eval": 4})
    asked = [{row["messages"][0]["content"] for row in made[p]} for p in ("train", "eval")]
    assert asked[0].isdisjoint(asked[1])


def test_unchanged_rows_are_not_read():
    """So `map` and `max_tokens` would have no effect, and are refused."""
    config = msgspec.convert(
        {"kind": "format", "data": "./a", "map": {"text": "t"}, "to": "unchanged"}, FormatConfig
    )
    assert Format.problems(config) == [(("map",), "has no effect with to: unchanged")]
    strict = {"kind": "format", "data": "./a", "unknown_columns": "error", "to": "unchanged"}
    (told,) = Format.problems(msgspec.convert(strict, FormatConfig))
    assert told[0] == ("unknown_columns",)


def test_unchanged_rows_of_no_format_that_cannot_be_split(run_format, tmp_path):
    """The error is about the split, not about columns that `unchanged` does not read."""
    write_rows(tmp_path / "a.jsonl", [{"x": i, "who": "one"} for i in range(20)])
    with pytest.raises(StageError, match=r"the smallest is the group .one. of .who. with 20"):
        run_format(data="./a.jsonl", to="unchanged", split={"eval": 2, "group": "who"})


def test_the_keys_of_turns_are_named(run_format, tmp_path):
    """In lists of turns and in their JSON text; `problem` says where they have no effect."""
    turns = [{"speaker": "human", "words": "q"}, {"speaker": "gpt", "words": "a"}]
    write_rows(tmp_path / "a.jsonl", [{"dialog": turns}, {"dialog": json.dumps(turns)}])
    columns = {"messages": "dialog", "role": "speaker", "content": "words"}
    _, made = run_format(data="./a.jsonl", map=columns, dedup=False)
    for row in made["train"]:
        assert row["messages"] == [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "a"},
        ]
    wrong = msgspec.convert(
        {"kind": "format", "data": "./a", "map": {"text": "t", "role": "r"}}, FormatConfig
    )
    assert "keys of the turns in `messages`" in Format.problems(wrong)[0][1]
