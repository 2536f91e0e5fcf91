"""qa: quotes are found at their offsets, what is not grounded is rejected, and rows feed the others."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hashed_words import chunk_of, document, write_embeddings
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.backends.openai.chat import ChatReply, ChatRequest
from llmpipe.contracts import Artifact
from llmpipe.documents.model import Document, Section, write_documents
from llmpipe.errors import StageError
from llmpipe.formats import detect, read_conversation
from llmpipe.formats.records import write_rows
from llmpipe.retrieval.chunks import write_chunks
from llmpipe.retrieval.eval_questions import AnsweringDocuments, QuestionColumns, read_questions
from llmpipe.retrieval.index import IndexSettings, build_index
from llmpipe.retrieval.passages import Passages
from llmpipe.retrieval.prompt import ABSTENTION
from llmpipe.retrieval.threshold import from_labeled
from llmpipe.stages.generate.asking import Teacher
from llmpipe.stages.generate.loop import GenerationState, collect
from llmpipe.stages.generate.methods.qa import Qa, QaConfig
from llmpipe.stages.generate.methods.qa.filters import Item, ground, read_items, reject_question
from llmpipe.stages.generate.methods.qa.passages import Passage, read_passages
from llmpipe.stages.generate.methods.qa.quotes import Quotable, canonical
from llmpipe.stages.generate.pace import Pace
from llmpipe.stages.generate.protocol import GeneratedRow, MethodContext

CONFIG = {
    "kind": "generate",
    "method": "qa",
    "teacher": {"engine": "openai", "model": "m", "base_url": "http://h/v1", "concurrency": 2},
    "passages": "docs",
}
TOWN = {
    "kiosk": "The kiosk at the lake opens at nine in summer. It sells bread, milk and newspapers.",
    "dogs": "Dogs are kept on a lead in the park. A dog license costs 40 euros for one year.",
    "permit": "A parking permit lasts two years. Residents apply for it at the town hall.",
    "pool": "The swimming pool is closed on Mondays. Children under six swim without paying.",
}
OTHERS = {"moon": "The moon is 384,400 kilometers away. It has no air and no liquid water at all."}


class Client:
    """Plays a teacher: quotes each sentence that it is offered, and asks about its first words."""

    def __init__(self, reply: Callable[[list[str]], Any] | None = None) -> None:
        self.reply = reply or (lambda offered: {"items": [item(text) for text in offered]})
        self.asked: list[ChatRequest] = []

    def ask(self, requests: Sequence[ChatRequest]) -> list[ChatReply]:
        """Return one reply to each request, in their order."""
        self.asked += requests
        return [self._answer(request) for request in requests]

    def _answer(self, request: ChatRequest) -> ChatReply:
        shape = (request.schema or {})["properties"]["items"]["items"]["properties"]
        reply = self.reply(shape["quote"]["enum"])
        return reply if isinstance(reply, ChatReply) else ChatReply(json.dumps(reply))


def item(sentence: str) -> dict[str, str]:
    """Return a question about a sentence; its answer, where one is asked for, is its last words."""
    words = sentence.rstrip(".").split()
    return {
        "quote": sentence,
        "question": f"What is said of {' '.join(words[:3])}?",
        "answer": " ".join(words[-2:]),
    }


class Run:
    """The town's documents in a folder, and the method over them, run by calling it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told: list[str] = []
        self.inputs = {"passages": self.documents("town", TOWN)}

    def documents(self, name: str, texts: dict[str, str]) -> Artifact:
        """Write documents as an ingest stage does."""
        path = self.folder / f"{name}.jsonl"
        write_documents(path, [document(name, text) for name, text in texts.items()])
        return Artifact(path, "documents", "", name)

    def chunks(self, name: str, texts: dict[str, str]) -> Artifact:
        """Write chunks as a chunk stage does."""
        folder = self.folder / f"{name}-chunks"
        folder.mkdir()
        documents = [document(name, text) for name, text in texts.items()]
        write_documents(folder / "documents.jsonl", documents)
        write_chunks(folder / "chunks.jsonl", map(chunk_of, documents))
        return Artifact(folder, "chunks", "", name)

    def __call__(self, client: Any, rows: int, **fields: Any) -> GenerationState:
        """Return what the loop collects."""
        config = msgspec.convert({**CONFIG, "count": rows, **fields}, QaConfig)
        state = GenerationState(rows)
        self.method = Qa(MethodContext(config, self.inputs, state.missing, self.told.append))
        teacher = Teacher(client, Pace(lambda note: None), temperature=0.7, max_tokens=256)
        collect(self.method, teacher, state, self.told.append)
        return state


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """The town's documents, nothing asked yet."""
    return Run(tmp_path)


def fields_of(rows: Sequence[GeneratedRow]) -> list[dict[str, Any]]:
    """Return the rows as they are written."""
    return [dict(row.fields) for row in rows]


@pytest.mark.parametrize("answers", ["quote", "span"])
def test_quote_and_answer_stand_at_their_offsets(run: Run, answers: str) -> None:
    """In the passage, and the passage at its own in the document, whatever the passages come from."""
    for source in (run.documents("town", TOWN), run.chunks("cut", TOWN)):
        run.inputs["passages"] = source
        rows = fields_of(run(Client(), 8, answers=answers).rows)
        assert len(rows) == 8
        for row in rows:
            passage = row["passage"]
            assert TOWN[row["document"]][row["passage_start"] : row["passage_end"]] == passage
            assert passage[row["quote_start"] : row["quote_end"]] == row["quote"]
            assert passage[row["answer_start"] : row["answer_end"]] == row["answer"]
            assert (
                row["quote_start"] <= row["answer_start"] <= row["answer_end"] <= row["quote_end"]
            )
            assert (row["answer"] == row["quote"]) == (answers == "quote")
            assert row["documents"] == [row["document"]]


def test_the_parents_are_the_passage_and_its_document(run: Run) -> None:
    """So that `format` can drop what descends from a held-out row of that document."""
    (row,) = run(Client(), 1).rows
    assert row.made_from[0].lineage() == (row.fields["passage_id"], row.fields["document"])
    assert row.operators == ("answerable",)


def test_rows_are_conversations_with_and_without_the_passage(run: Run) -> None:
    """With it, they ask in the words of `rag`, and the answer cites the source."""
    alone = run(Client(), 1).rows[0].fields
    assert detect(alone) == "messages"
    assert [turn.text for turn in read_conversation(alone).turns] == [
        alone["question"],
        alone["answer"],
    ]
    shown = run(Client(), 1, prompt="passage").rows[0].fields
    system, asked, answer = shown["messages"]
    assert ABSTENTION in system["content"]
    assert asked["content"].startswith("<sources>\n[1] ")
    assert shown["passage"] in asked["content"]
    assert answer["content"] == f"{shown['answer']} [1]"


def test_unanswerable_questions_are_put_beside_a_passage_that_does_not_answer(run: Run) -> None:
    """It holds neither quote nor answer; the documents still answer, so retrieval may be measured."""
    state = run(Client(), 8, prompt="passage", unanswerable=0.5)
    rows = [row for row in state.rows if row.operators == ("unanswerable",)]
    assert 0 < len(rows) < len(state.rows)
    for row in rows:
        fields = row.fields
        assert fields["messages"][-1]["content"] == ABSTENTION
        assert not fields["answered_by_passage"]
        assert fields["answerable"]
        assert fields["documents"] != [fields["document"]]
        assert fields["answer"] not in fields["passage"]
        assert (fields["quote"], fields["quote_start"], fields["answer_end"]) == ("", None, None)
        assert [each.parents for each in row.made_from] == [
            (fields["documents"][0],),
            (fields["document"],),
        ]


def test_a_passage_that_answers_is_not_taken_as_one_that_does_not(run: Run) -> None:
    """Where every other passage has the answer, too, the question is rejected."""
    same = {name: f"{text} The kiosk opens at nine." for name, text in TOWN.items()}
    run.inputs["passages"] = run.documents("same", same)
    reply = {"items": [item("The kiosk opens at nine.")]}
    with pytest.raises(StageError, match="no passage without the answer"):
        run(Client(lambda offered: reply), 4, prompt="passage", unanswerable=0.999)


@pytest.mark.slow
def test_rows_feed_retrieval_and_calibration(run: Run) -> None:
    """Questions from outside are unanswerable by the documents: both labels a threshold needs."""
    run.inputs["outside"] = run.documents("others", OTHERS)
    state = run(Client(), 7, prompt="passage", unanswerable=0.4, outside="x")
    rows = fields_of(state.rows)
    source = Artifact(run.folder / "rows.jsonl", "records", "", "rows")
    write_rows(source.path, rows)
    questions = read_questions(source, QuestionColumns(answerable="answerable"))
    assert {q.answerable for q in questions} == {True, False}
    outside = [row for row in rows if not row["answerable"]]
    assert {row["document"] for row in outside} <= set(TOWN)
    assert {tuple(row["documents"]) for row in outside} == {()}
    labels = [question.answerable for question in questions]
    assert from_labeled([0.9 if label else 0.1 for label in labels], labels).cosine == 0.5
    whole = [document(name, text) for name, text in TOWN.items()]
    build_index(
        write_embeddings(run.folder / "vectors", whole), run.folder / "index", IndexSettings()
    )
    passages = Passages(run.folder / "index" / "passages.sqlite")
    judged = AnsweringDocuments(passages, "index", source).of_each(questions, required=True)
    passages.close()
    assert judged == [dict.fromkeys(row["documents"], 1) for row in rows]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (ChatReply(problem="too long", detail="9 tokens"), "too long"),
        (ChatReply("Internal Server Error"), "error text"),
        (ChatReply('{"error": {"message": "overloaded"}}'), "error text"),
        (ChatReply('{"items": [{"quote": "The', truncated=True), "truncated"),
        (ChatReply("The kiosk opens at nine."), "malformed"),
        (ChatReply("", truncated=True, reasoning="hm"), "truncated"),
        (ChatReply("word " * 100_000), "over max_tokens"),
        ({"items": [{"quote": "The kiosk opens at ten.", "question": "When does the kiosk open?"}]},
         "quote not in the passage"),
        ({"items": [{"quote": "at nine", "question": "When does the kiosk open?"}]},
         "quote too short"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_rejected_with_the_reason(run: Run, reply: Any, reason: str) -> None:
    """Where nothing passes, the stage fails, says why and how often; texts are cut."""
    kiosk = {"kiosk": TOWN["kiosk"].replace(" at the lake", "").replace(" in summer", "")}
    run.inputs["passages"] = run.documents("one", kiosk)
    with pytest.raises(StageError) as caught:
        run(Client(lambda offered: reply), 4)
    assert caught.value.message.endswith(f"from 1 passage (rejected: {reason} 1)")


def test_the_complete_items_of_a_cut_reply_are_used(run: Run) -> None:
    """And the reply is a reject all the same, since the rest is lost."""
    whole = json.dumps({"items": [item(TOWN["kiosk"].split(". ")[0] + ".")]})
    cut = ChatReply(whole.removesuffix("]}") + ', {"quote": "It s', truncated=True)
    run.inputs["passages"] = run.documents("one", {"kiosk": TOWN["kiosk"]})
    with pytest.raises(StageError, match=r"1 of 2 rows: .*duplicate 1, truncated 2"):
        run(Client(lambda offered: cut), 2)


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("What is said in this text about dogs?", "question needs the passage"),
        ("According to the passage, what do dogs need?", "question needs the passage"),
        ("Was kosten Hunde laut dem Text?", "question needs the passage"),
        ("¿Qué dice el autor según el texto?", "question needs the passage"),
        ("What is it?", "question needs the passage"),
        ("Why are they so?", "question needs the passage"),
        ("When does the harbor museum open?", "leaks the prompt"),
        ("Dogs are kept on a lead.", "not a question"),
        ("Dogs?", "fewer than 3 words"),
        ("How tall is Everest?", "question not about the passage"),
        ("dog " * 61 + "?", "more than 60 words"),
        ("Can a dog swim in the text editor?", None),
        ("How much is a dog license?", None),
    ],
)
def test_a_question_must_be_clear_without_its_passage(question: str, reason: str | None) -> None:
    """The rules know some languages; a text editor is not a text."""
    assert reject_question(question, passage_of(TOWN["dogs"])) == reason


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ("40 euros", "40 euros"),
        ("A license for a dog costs 40 euros.", "A license for a dog costs 40 euros."),
        ("A license for a dog costs 50 euros.", "answer not supported by the passage"),
        ("A dog license does not cost 40 euros.", "answer not supported by the passage"),
        ("Cats are very welcome everywhere in town.", "answer not supported by the passage"),
        ("...", "no answer"),
    ],
)
def test_a_free_answer_must_be_supported(answer: str, outcome: str) -> None:
    """Another number, a negation and other words are not."""
    found = ground(
        Item("A dog license costs 40 euros for one year.", "How much is a dog license?", answer),
        passage_of(TOWN["dogs"]),
        "free",
    )
    assert (found if isinstance(found, str) else found.answer) == outcome


def test_a_span_must_stand_in_the_quote() -> None:
    """Not only in the passage; and a question that holds the whole answer teaches nothing."""
    passage, quote = passage_of(TOWN["dogs"]), "Dogs are kept on a lead in the park."
    asked = "Where are dogs kept on a lead?"
    assert ground(Item(quote, asked, "40 euros"), passage, "span") == "answer not in the quote"
    assert (
        ground(Item(quote, asked, "kept on a lead"), passage, "span")
        == "question gives the answer away"
    )


def test_a_sentence_that_leads_on_to_a_list_is_no_answer() -> None:
    """Its point is in what follows; a teacher with constrained decoding cannot choose it."""
    passage = passage_of("To get a dog license, you need two things:\n- a form\n- 40 euros")
    assert passage.sentences == ()
    quote = "To get a dog license, you need two things:"
    found = ground(Item(quote, "What is needed for a dog license?", ""), passage, "quote")
    assert found == "quote ends with a colon"


def test_too_little_text_is_refused(run: Run) -> None:
    """Headings and remnants are counted; without any passage the stage fails."""
    run.inputs["passages"] = run.documents(
        "short",
        {
            "a": "Opening hours",
            "b": "You need all of these things for a permit:",
            "c": TOWN["dogs"],
            **TOWN,
        },
    )
    run(Client(), 1)
    assert run.told == [
        f"short: passages {what}, not used: 1"
        for what in (
            "with fewer than 8 words",
            "without a sentence to quote",
            "that repeat another",
        )
    ]
    run.inputs["passages"] = run.documents("empty", {"a": "Opening hours"})
    with pytest.raises(StageError, match="empty has no passage of 8 words or more"):
        run(Client(), 1)


def test_fields_that_do_not_go_together() -> None:
    """Without its passage every question has an answer; `outside` alone has no effect."""
    config = msgspec.convert({**CONFIG, "count": 1, "unanswerable": 0.1}, QaConfig)
    assert [path for path, _ in config.own_problems()] == [("unanswerable",)]
    config = msgspec.convert({**CONFIG, "count": 1, "outside": "others"}, QaConfig)
    assert [path for path, _ in config.own_problems()] == [("outside",)]


def test_more_rows_begin_with_the_same(run: Run) -> None:
    """A higher count, another concurrency and a shuffled file change neither order nor content."""
    first = fields_of(run(Client(), 3).rows)
    teacher = {**CONFIG["teacher"], "concurrency": 7}  # type: ignore[dict-item]
    run.inputs["passages"] = run.documents("shuffled", dict(reversed(TOWN.items())))
    assert fields_of(run(Client(), 8, teacher=teacher).rows)[:3] == first


def test_long_sections_are_cut_between_sentences(tmp_path: Path) -> None:
    """Each part is a slice of the document, within one section, of whole sentences."""
    text = "".join(f"Sentence number {i} of this long document ends here. " for i in range(40))
    sections = (Section(("One",), 0, 500), Section(("Two",), 500, len(text)))
    write_documents(tmp_path / "d", [Document("d", "D", "text/plain", "0", text, sections)])
    passages = read_passages(Artifact(tmp_path / "d", "documents", "", "d"), 200, print)
    assert len(passages) > 8
    for passage in passages:
        assert text[passage.chunk.start : passage.chunk.end] == passage.text
        assert len(passage.text) <= 200
        assert passage.chunk.start >= 500 or passage.chunk.end <= 500


def passage_of(text: str) -> Passage:
    """Return a whole document as a passage."""
    whole = document("town", text)
    return Passage(chunk_of(whole), whole)


@pytest.mark.parametrize(
    ("text", "quote", "found"),
    [
        ("a  b\n c", "a b c", "a  b\n c"),
        ("He said “no – never”.", 'said "no - never".', "said “no – never”."),
        ("the ﬁrst ﬁle", "first file", "ﬁrst ﬁle"),
        ("cafe\u0301 noir", "café", "cafe\u0301"),
        ("café noir", "cafe\u0301", "café"),
        ("soft\u00adware is", "software", "soft\u00adware"),
        ("concatenate", "cat", None),
        ("a cat sat", "Cat", None),
        ("今日は天気がいい", "天気", "天気"),
        ("the ﬂow", "l", None),
        ("anything", "  ", None),
        ("한국어 문장", unicodedata.normalize("NFD", "문장"), "문장"),
    ],
)
def test_the_rule_by_which_a_quote_is_found(text: str, quote: str, found: str | None) -> None:
    """White space, Unicode forms and typography do not matter; case and the edges of words do."""
    span = Quotable(text).find(quote)
    assert (span.of(text) if span else None) == found


@given(st.text(), st.data())
def test_every_part_of_a_text_is_found_at_offsets_that_hold_it(
    text: str, data: st.DataObject
) -> None:
    """What lies between the offsets compares equal; a whole text is found in itself."""
    start = data.draw(st.integers(0, len(text)))
    quote = text[start : data.draw(st.integers(start, len(text)))]
    span = Quotable(text).find(quote)
    if span:
        assert canonical(span.of(text)) == canonical(quote)
    assert Quotable(text).find(text) or not canonical(text)


@given(st.text())
def test_a_reply_in_any_form_raises_nothing(text: str) -> None:
    """What is not JSON, or another JSON, has no items."""
    assert read_items(text, "quote")[0] == []
    assert read_items('{"items": [' + text, "span") is not None
