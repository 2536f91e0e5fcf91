"""evaluate_retrieval: which documents answer, what each way of searching finds of them, and errors."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hashed_words import chunk_of, document, write_embeddings
from openai_endpoint import Endpoint
from town import write_index

from llmpipe.contracts import Artifact, StageContext
from llmpipe.documents.convert import Options, convert
from llmpipe.documents.model import Document
from llmpipe.documents.rows import Columns
from llmpipe.errors import StageError
from llmpipe.retrieval.index import IndexSettings, build_index
from llmpipe.stages.evaluate_retrieval import EvaluateRetrieval, EvaluateRetrievalConfig

ANSWERS = {
    "1": "The kiosk opens at nine.",
    "2": "Dogs are kept on a lead.",
    "3": "A permit lasts two years.",
}
QUESTIONS = {"1": "When does the kiosk open?", "2": "Must dogs be on a lead?", "3": "Is it valid?"}
"""The third shares no word with its answer."""


class Evaluation:
    """Files in a folder, and the stage run on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.warnings: list[str] = []
        self.indexes: dict[str, Artifact] = {}

    def rows(self, name: str, *rows: dict[str, Any]) -> Path:
        """Write rows."""
        path = self.folder / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        return path

    def digest(self, name: str) -> str:
        """Return the digest of a file."""
        return hashlib.sha256((self.folder / name).read_bytes()).hexdigest()

    def index(self, name: str, documents: list[Document], bm25: bool = True, **more: Any) -> None:
        """Make an index of documents."""
        embeddings = write_embeddings(self.folder / f"{name}-embeddings", documents, **more)
        settings = IndexSettings() if bm25 else IndexSettings(bm25=None)
        build_index(embeddings, self.folder / name, settings)
        self.indexes[name] = Artifact(self.folder / name, "index", name, name)

    def run(self, questions: str, modes: Any = ("bm25",), **fields: Any) -> dict[str, Any]:
        """Run the stage and return its metrics."""
        plain = {"kind": "evaluate_retrieval", "questions": questions, "modes": modes, **fields}
        plain.setdefault("indexes", list(self.indexes))
        config = msgspec.convert(plain, EvaluateRetrievalConfig)
        assert EvaluateRetrieval.problems(config) == []
        inputs = {
            name: self.indexes.get(port.value)
            or Artifact(self.folder / port.value, port.accepts[0], "", port.value)
            for name, port in EvaluateRetrieval.ports(config).inputs.items()
        }
        out = self.folder / f"out{len(list(self.folder.iterdir()))}"
        out.mkdir()
        events: list[Any] = []
        here = self.folder
        context = StageContext(
            config, "found", inputs, out, here, here, here, here, 1, events.append
        )
        self.result = EvaluateRetrieval.run(context)
        told = [event for event in events if event["event"] == "progress"]
        assert told[-1]["done"] == told[-1]["total"]
        self.warnings = [event["message"] for event in events if event["event"] == "warning"]
        metrics: dict[str, Any] = json.loads(self.result.outputs["metrics"].read_text("utf-8"))
        return metrics

    def rankings(self) -> list[dict[str, Any]]:
        """Return what became of each question in the last run."""
        lines = self.result.outputs["rankings"].read_text("utf-8").splitlines()
        return [json.loads(line) for line in lines]


@pytest.fixture
def evaluation(tmp_path: Path) -> Evaluation:
    """Three answers, each a document of a row, and a file of their rows."""
    made = Evaluation(tmp_path)
    rows = [{"question": QUESTIONS[n], "answer": ANSWERS[n]} for n in ANSWERS]
    made.rows("faq.jsonl", *rows)
    made.index("index", documents("faq.jsonl", made.digest("faq.jsonl")))
    return made


def documents(file: str, digest: str = "") -> list[Document]:
    """The answers as the documents that ingest makes of the rows of a file."""
    made = [(int(n), document(f"{file}#{n}", text)) for n, text in ANSWERS.items()]
    return [msgspec.structs.replace(one, source_digest=digest, row=n) for n, one in made]


@pytest.mark.heavy
def test_a_row_is_answered_by_the_document_made_of_it(evaluation: Evaluation) -> None:
    """Also where another file's rows have the same numbers; metrics, intervals and rankings."""
    both = documents("a.jsonl") + documents("faq.jsonl", evaluation.digest("faq.jsonl"))
    different = [msgspec.structs.replace(d, text=f"{d.id} says: {d.text}") for d in both[:3]]
    evaluation.index("both", [*different, *both[3:]])
    found = evaluation.run("faq.jsonl", metrics=["hit@1", "ndcg@10"], indexes=["index"])
    assert found["models"]["index.bm25"]["hit@1"]["mean"] == pytest.approx(2 / 3, abs=1e-6)
    assert found["models"]["index.bm25"]["hit@1"]["low"] <= 2 / 3
    assert (found["questions"], found["left_out"]) == (3, 0)
    kiosk, _, lost = evaluation.rankings()
    assert kiosk["question"] == QUESTIONS["1"]
    assert kiosk["expected"] == {"faq.jsonl#1": 1}
    assert kiosk["searches"]["index.bm25"] == {"first": 1, "ranking": ["faq.jsonl#1"]}
    assert lost["searches"]["index.bm25"] == {"first": None, "ranking": []}
    evaluation.run("faq.jsonl", indexes=["both"])
    assert evaluation.rankings()[0]["expected"] == {"faq.jsonl#1": 1}


@pytest.mark.heavy
def test_a_row_with_an_id_of_its_own_is_answered_by_its_own_document(
    evaluation: Evaluation,
) -> None:
    """Rows may be called after a column: a number in it is not that of a row."""
    ids = {"1": "3", "2": "1", "3": "2"}
    rows = [{"id": ids[n], "question": QUESTIONS[n], "answer": ANSWERS[n]} for n in ANSWERS]
    path = evaluation.rows("ids.jsonl", *rows)
    columns = Columns(text=("answer",), id="id", metadata=())
    evaluation.index("ids", convert(path, "ids.jsonl", Options(columns)))
    found = evaluation.run("ids.jsonl", indexes=["ids"], metrics=["hit@1"])
    assert [list(row["expected"]) for row in evaluation.rankings()] == [
        ["ids.jsonl#3"],
        ["ids.jsonl#1"],
        ["ids.jsonl#2"],
    ]
    assert found["models"]["ids.bm25"]["hit@1"]["mean"] == pytest.approx(2 / 3, abs=1e-6)


@pytest.mark.heavy
def test_rows_name_documents_by_columns(evaluation: Evaluation) -> None:
    """By a whole id or what stands after #, one or several; questions without an answer are left out."""
    evaluation.rows(
        "named.jsonl",
        {"q": "When does the kiosk open?", "docs": "1"},
        {"q": "Which rules are there for dogs and permits?", "docs": [2, "faq.jsonl#3"]},
        {"q": "How do I bake bread?", "docs": []},
        {"q": "How far is the moon?", "docs": ["1"], "answerable": False},
    )
    columns = {"question": "q", "documents": "docs"}
    found = evaluation.run("named.jsonl", map=columns, metrics=["recall@1", "recall@5"])
    assert found["models"]["index.bm25"]["recall@1"]["mean"] == 0.75
    assert found["models"]["index.bm25"]["recall@5"]["mean"] == 1
    assert (found["questions"], found["left_out"]) == (2, 2)
    assert "left out: 2 that no document answers" in evaluation.result.summary


@pytest.mark.heavy
@pytest.mark.parametrize(
    "qrels", ["1 0 faq.jsonl#1 2\n2 0 2 1\n2 0 gone 0\n", "query-id\tcorpus-id\tscore\n1\t1\t2\n2\t2\t1\n"]
)  # fmt: skip
def test_judgments_in_both_forms(evaluation: Evaluation, qrels: str) -> None:
    """Told apart by the header; an irrelevant document need not be there; the third is left out."""
    beir(evaluation, qrels)
    found = evaluation.run("queries.jsonl", qrels="qrels")
    assert found["models"]["index.bm25"]["ndcg@10"]["mean"] == 1
    assert (found["questions"], found["left_out"]) == (2, 1)
    assert evaluation.rankings()[0]["expected"] == {"faq.jsonl#1": 2}


def beir(evaluation: Evaluation, qrels: str) -> None:
    """Write the questions in BEIR's form, and judgments."""
    evaluation.rows("queries.jsonl", *({"_id": n, "text": text} for n, text in QUESTIONS.items()))
    (evaluation.folder / "qrels").write_text(qrels, "utf-8")


@pytest.mark.heavy
def test_judged_questions_that_are_not_there_are_told_of(evaluation: Evaluation) -> None:
    """A warning where some are missing, an error where all are."""
    beir(evaluation, "1 0 1 1\n77 0 1 1\n")
    evaluation.run("queries.jsonl", qrels="qrels")
    assert evaluation.warnings == ["queries.jsonl does not hold 1 of the judged questions"]
    beir(evaluation, "77 0 1 1\n")
    with pytest.raises(StageError, match=r"qrels judges none of the questions of queries\.jsonl"):
        evaluation.run("queries.jsonl", qrels="qrels")


@pytest.mark.heavy
def test_a_document_stands_where_its_best_passage_does(evaluation: Evaluation) -> None:
    """Each counts once, however many of its passages are found."""
    long = document("long", "kiosk open. kiosk open at nine. nothing of it")
    short = document("short", "The kiosk is green and does not open today or ever, they say.")
    spans = ((0, 11), (12, 31), (32, 45))
    parts = [chunk_of(long, id=f"c{a}", start=a, end=b, text=long.text[a:b]) for a, b in spans]
    evaluation.index("parts", [long, short], chunks=[*parts, chunk_of(short)])
    evaluation.rows("q.jsonl", {"question": "Does the kiosk open at nine?", "documents": "short"})
    evaluation.run("q.jsonl", indexes=["parts"])
    (row,) = evaluation.rankings()
    assert row["searches"]["parts.bm25"] == {"first": 2, "ranking": ["long", "short"]}


@pytest.mark.heavy
def test_questions_are_embedded_together(tmp_path: Path) -> None:
    """In one request for all, for both modes that need it; the table sets the modes side by side."""
    with Endpoint() as endpoint:
        evaluation = Evaluation(tmp_path)
        evaluation.indexes["town"] = Artifact(write_index(tmp_path, endpoint), "index", "i", "town")
        rows = [
            ("The kiosk opens at nine", "kiosk.md"),
            ("A building permit is valid", "permits.md"),
        ]
        evaluation.rows("q.jsonl", *({"question": q, "documents": d} for q, d in rows))
        found = evaluation.run("q.jsonl", ["dense", "bm25", "hybrid"])
        assert [len(body["input"]) for body in endpoint.received] == [2]
    assert list(found["models"]) == ["town.bm25", "town.dense", "town.hybrid"]
    assert [(p["a"], p["b"]) for p in found["paired"][::5]] == [
        ("town.dense", "town.bm25"),
        ("town.dense", "town.hybrid"),
        ("town.bm25", "town.hybrid"),
    ]
    assert "town.bm25 − town.dense" in evaluation.result.summary
    before = evaluation.result.outputs["rankings"].read_bytes()
    with Endpoint() as endpoint:
        evaluation.indexes["town"] = Artifact(
            write_index(tmp_path / "again", endpoint), "index", "i", "town"
        )
        assert evaluation.run("q.jsonl", ["dense", "bm25", "hybrid"]) == found
    assert evaluation.result.outputs["rankings"].read_bytes() == before


@pytest.mark.heavy
def test_every_search_is_set_beside_its_like(tmp_path: Path) -> None:
    """Modes of an index, and indexes in a mode: what differs in both says nothing."""
    with Endpoint() as endpoint:
        evaluation = Evaluation(tmp_path)
        for name in ("one", "two"):
            index = write_index(tmp_path / name, endpoint)
            evaluation.indexes[name] = Artifact(index, "index", "i", name)
        evaluation.rows("q.jsonl", {"question": "When does it open?", "documents": "kiosk.md"})
        evaluation.run("q.jsonl", ["dense", "bm25"], metrics=["hit@1"])
    compared = [line for line in evaluation.result.summary.splitlines() if " − " in line]
    assert [line.partition("  ")[0] for line in compared] == [
        "one.bm25 − one.dense",
        "two.bm25 − two.dense",
        "two.dense − one.dense",
        "two.bm25 − one.bm25",
    ]


@pytest.mark.heavy
def test_a_limit_draws_by_the_seed(evaluation: Evaluation) -> None:
    """The same questions each time, in their order."""
    asked = []
    for seed in (0, 0, 1, 2, 3):
        assert evaluation.run("faq.jsonl", limit=2, random_seed=seed)["questions"] == 2
        asked.append(tuple(row["id"] for row in evaluation.rankings()))
    assert asked[0] == asked[1] == tuple(sorted(asked[0]))
    assert len(set(asked)) > 1


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("rows", "fields", "message", "hint"),
    [
        ([{"question": "Why?", "documents": ["4", "5", "6", "7"]}], {}, "q.jsonl:1: index has no document '4', '5', '6' and 1 more", "'faq.jsonl#1'"),
        ([{"question": "Why?"}, {"question": "How?"}], {}, r"q.jsonl:1: no document of index was made from this row (2 such rows)", "skips rows without text"),
        ([{"question": "Why?", "documents": [""]}], {}, "q.jsonl:1: index has no document ''", "'faq.jsonl#1'"),
        ([{"question": "Why?", "documents": True}], {}, "q.jsonl:1: column 'documents' must name documents", None),
        ([{"question": "Why?", "answerable": "perhaps"}], {}, "must say true or false, not 'perhaps'", None),
        ([{"question": " "}], {}, "q.jsonl:1: column 'question' is empty", None),
        ([{"text": "raw"}], {}, "q.jsonl:1: raw text has no question", "map: {question: COLUMN}"),
        ([{"question": "Why?"}], {"map": {"documents": "doc"}}, "q.jsonl:1: no column 'doc'", None),
        ([{"question": "Why?"}], {"map": {"answerable": "is"}}, "q.jsonl:1: no column 'is'", None),
        ([{"question": "Why?"}], {"map": {"answer": "a"}}, "q.jsonl:1: no column 'a'", None),
        ([{"question": "Why?", "answerable": False}], {}, "q.jsonl: no question is answered by any document", None),
        ([], {}, "q.jsonl: there are no questions", None),
    ],
)  # fmt: skip
def test_what_is_wrong_with_questions_is_told(
    evaluation: Evaluation, rows: Any, fields: Any, message: str, hint: str | None
) -> None:
    """With the line, and what the documents are called like."""
    evaluation.rows("q.jsonl", *rows)
    with pytest.raises(StageError) as caught:
        evaluation.run("q.jsonl", **fields)
    assert message in caught.value.message
    assert (hint or "") in str(caught.value.hint)


@pytest.mark.heavy
def test_what_is_wrong_with_judgments_is_told(evaluation: Evaluation) -> None:
    """An unknown document by the line that names it; an empty question; a name of several."""
    beir(evaluation, "77 0 1 1\n1 0 77 0\n2 0 77 1\n")
    with pytest.raises(StageError, match=r"qrels:3: index has no document '77'"):
        evaluation.run("queries.jsonl", qrels="qrels")
    evaluation.rows("queries.jsonl", {"_id": "1", "text": " "})
    with pytest.raises(StageError, match=r"queries\.jsonl: the question '1' is empty"):
        evaluation.run("queries.jsonl", qrels="qrels")
    evaluation.index("twice", [*documents("a.jsonl"), document("b.jsonl#1", "Other.")])
    beir(evaluation, "1 0 1 1\n")
    with pytest.raises(StageError, match=r"qrels:1: several .* called '1': a\.jsonl#1, b\.jsonl#1"):
        evaluation.run("queries.jsonl", qrels="qrels", indexes=["twice"])


@pytest.mark.heavy
def test_an_index_without_words_is_named(evaluation: Evaluation) -> None:
    """Before anything is embedded."""
    evaluation.index("wordless", documents("faq.jsonl"), bm25=False)
    with pytest.raises(StageError, match="wordless has no words to search"):
        evaluation.run("faq.jsonl", ["dense", "hybrid"])


@pytest.mark.parametrize(
    ("fields", "field", "told"),
    [
        ({"indexes": ["a", "a"]}, "indexes.1", "listed twice"),
        ({"modes": ["dense", "dense"]}, "modes.1", "listed twice"),
        ({"qrels": "./q", "map": {"question": "q"}}, "map", "no effect"),
        ({"metrics": ["ndcg@10", "recall@100"]}, "metrics.1", "deeper than the 50 passages of `fetch`"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_named(fields: Any, field: str, told: str) -> None:
    """At its field."""
    plain = {"kind": "evaluate_retrieval", "indexes": ["a"], "questions": "./q", **fields}
    ((where, message),) = EvaluateRetrieval.problems(
        msgspec.convert(plain, EvaluateRetrievalConfig)
    )
    assert ".".join(map(str, where)) == field
    assert told in message


def test_an_unknown_metric_is_refused() -> None:
    """By the schema, with its place."""
    plain = {
        "kind": "evaluate_retrieval",
        "indexes": ["a"],
        "questions": "./q",
        "metrics": ["map@3"],
    }
    with pytest.raises(msgspec.ValidationError, match=r"metrics"):
        msgspec.convert(plain, EvaluateRetrievalConfig)


def test_keys_are_not_in_the_key_and_names_are() -> None:
    """A renamed index is another name in the metrics; what searches and embeds shapes them."""
    plain = {"kind": "evaluate_retrieval", "indexes": ["a"], "questions": "./q"}

    def key(**fields: Any) -> Any:
        config = msgspec.convert({**plain, **fields}, EvaluateRetrievalConfig)
        return EvaluateRetrieval.fingerprint(config)

    tools = EvaluateRetrieval.tools(msgspec.convert(plain, EvaluateRetrievalConfig))
    assert {"bm25s", "faiss-cpu", "PyStemmer", "onnxruntime", "sentence-transformers"} < set(tools)
    assert key(embedder_api_key="${secret:K}") == key()
    assert key(indexes=["b"])["labels"] == ["b"]
