"""The rag stage: it opens all as in use, finds the threshold, asks, and holds citations to account."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from openai_endpoint import Endpoint
from town import write_index

from llmpipe.contracts import Artifact, StageContext
from llmpipe.errors import MissingDependencyError, StageError
from llmpipe.evaluation import text_metrics
from llmpipe.retrieval.threshold import Threshold
from llmpipe.stages.rag import Rag, RagConfig
from llmpipe.stages.rag.factory import read_threshold

LLAMA = {"engine": "llama.cpp", "model": "gguf"}
OPENAI = {"engine": "openai", "model": "m", "base_url": "http://127.0.0.1:1/v1"}


def config(generator: Any = LLAMA, **fields: Any) -> RagConfig:
    """Make a config, checked as a spec's is."""
    plain = {"kind": "rag", "index": "index", "generator": generator, **fields}
    return msgspec.convert(plain, RagConfig)


class Check:
    """A check of an index that an endpoint embedded, answered by the same endpoint."""

    def __init__(self, folder: Path, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.folder = folder
        self.warnings: list[str] = []
        self.config = config()
        self.index = Artifact(write_index(folder / "made", endpoint), "index", "i", "index")

    def run(self, says: str = "The kiosk opens at nine [1].", **fields: Any) -> dict[str, Any]:
        """Run the check and return its artifact."""
        self.endpoint.reply = lambda body: (says, "stop")
        out, work = self.folder / "out", self.folder / "work"
        out.mkdir()
        work.mkdir(exist_ok=True)
        inputs = {"index": self.index, **fields.pop("inputs", {})}
        generator = {**OPENAI, "base_url": self.endpoint.url, **fields.pop("generator", {})}
        settings = config(generator, **fields)
        context = StageContext(
            settings, "answers", inputs, out, work, work, work, self.folder, 1, self._note
        )
        self.config = settings
        self.result = Rag.run(context)
        found: dict[str, Any] = json.loads(self.result.outputs["check"].read_text("utf-8"))
        return found

    def _note(self, event: Any) -> None:
        if event["event"] == "warning":
            self.warnings.append(event["message"])


@pytest.fixture
def check(tmp_path: Path) -> Iterator[Check]:
    """A check that has not run yet."""
    with Endpoint() as endpoint:
        yield Check(tmp_path, endpoint)


@pytest.mark.heavy
def test_answers_and_metrics_are_kept(check: Check) -> None:
    """The artifact holds the threshold and cited answers, and no time; the metrics have the times."""
    found = check.run(questions=["When does the kiosk open?"], threshold=0.5)
    assert found["threshold"]["cosine"] == 0.5
    assert (found["abstained"], found["supported"]) == (0, 1)
    (answer,) = found["answers"]
    assert answer["citations"][0]["quote"] == "The kiosk opens at nine in the morning."
    assert "timings" not in answer
    assert check.result.metrics["seconds"][0]["generate"] > 0
    assert "Q: When does the kiosk open?\nA: The kiosk opens at nine [1]." in check.result.summary
    assert read_threshold(check.result.outputs["check"]).cosine == 0.5


def test_a_threshold_of_an_older_check_is_read(tmp_path: Path) -> None:
    """Regression: version 7 of the stage spelled the method ``labelled``."""
    check = tmp_path / "check.json"
    check.write_text('{"threshold": {"method": "labelled", "cosine": 0.5, "questions": 4}}')
    assert read_threshold(check) == Threshold("labeled", 0.5, 4)


@pytest.mark.heavy
def test_the_threshold_is_found_by_unrelated_questions(check: Check) -> None:
    """Sixty are embedded; without questions of its own the check asks about headings."""
    found = check.run()
    assert found["threshold"]["method"] == "unrelated"
    assert found["threshold"]["questions"] == 60
    assert found["threshold"]["passed"] <= 0.05
    assert [answer["question"] for answer in found["answers"]] == [
        'What is said about "Rules"?',
        'What is said about "About kiosk"?',  # the heading of both was asked about already
    ]


def unread(check: Check, *rows: int) -> Check:
    """Let the index have rows that its embedder cannot read."""
    path = write_index(check.folder / "unread", check.endpoint, rows)
    check.index = Artifact(path, "index", "i", "index")
    return check


@pytest.mark.heavy
def test_what_cannot_be_read_is_left_out_of_the_threshold(check: Check) -> None:
    """Its vectors may be near to anything; how many they are is told."""
    questions = ["The kiosk opens at nine in the morning.", "lead"]
    found = unread(check, 0, 1).run(questions=questions)
    assert (found["threshold"]["method"], found["threshold"]["unread_passages"]) == ("unrelated", 2)
    assert "; 2 passages that the embedder cannot read are left out" in check.result.summary
    kiosk, lead = found["answers"]
    assert [hit["words_alone"] for hit in (*kiosk["hits"], *lead["hits"])] == ["distance"] * 2
    (warning,) = check.warnings
    assert warning.startswith("2 of 2 questions were searched by words only, such as 'The kiosk")
    assert warning.endswith(": no passage that the embedder can read is near enough")


@pytest.mark.heavy
def test_where_no_passage_can_be_read_words_decide(check: Check) -> None:
    """Enough of the question's words must be found; a search by meaning alone makes no sense."""
    questions = [
        "Are dogs kept on a lead?",
        "How do I keep my tomatoes from dying in a wet summer?",
    ]
    found = unread(check, 0, 1, 2).run(questions=questions)
    assert (found["threshold"]["method"], found["threshold"]["cosine"]) == ("words", None)
    assert "the embedder can read none of the passages" in check.result.summary
    dogs, tomatoes = found["answers"]
    assert [hit["words_alone"] for hit in dogs["hits"]] == ["passages"]
    assert tomatoes["hits"] == []
    threshold = read_threshold(check.result.outputs["check"])
    assert not threshold.passes(1.0)
    (check.folder / "out").rename(check.folder / "before")
    with pytest.raises(StageError, match="can read no passage") as caught:
        check.run(mode="dense")
    assert "mode: bm25" in str(caught.value.hint)


@pytest.mark.heavy
def test_questions_that_cannot_be_read_are_left_out_of_the_threshold() -> None:
    """They have no cosine; where too few are left, the reason is told."""
    from llmpipe.retrieval.eval_questions import Question
    from llmpipe.stages.rag.calibration import _calibrated

    def asked(*answerable: bool) -> list[Question]:
        return [Question(id="1", place="", text="Why?", answerable=known) for known in answerable]

    found = _calibrated([0.9, None, 0.1, None], asked(True, True, False, False))
    assert (found.cosine, found.questions, found.unread) == (0.5, 2, 2)
    found = _calibrated([None, *[0.1] * 59], [])
    assert (found.questions, found.unread) == (59, 1)
    with pytest.raises(
        StageError, match="and 0 without, not counting 1 that the embedder cannot read"
    ):
        _calibrated([0.9, None], asked(True, False))
    with pytest.raises(StageError, match="can read none of the 2 calibration questions"):
        _calibrated([None, None], [])


ANSWERABLE = "The kiosk opens at nine in the morning."


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.jsonl", f'{{"question": "{ANSWERABLE}", "answerable": true}}\n{{"question": "zzzz", "answerable": false}}\n'),
        ("labels.csv", f"question,answerable\n{ANSWERABLE},True\nzzzz,False\n"),
    ],
)  # fmt: skip
def test_the_threshold_is_found_by_labels(check: Check, name: str, text: str) -> None:
    """Questions that are given with what is known of them, read as labeled questions are."""
    labels = check.folder / name
    labels.write_text(text, "utf-8")
    inputs = {"calibration": Artifact(labels, "records", "", name)}
    found = check.run(calibration="labels", inputs=inputs, questions=["zzzz"])
    assert found["threshold"]["method"] == "labeled"
    assert (found["threshold"]["passed"], found["threshold"]["refused"]) == (0, 0)
    assert found["answers"][0]["abstained"]
    assert check.warnings == ["no answer was found to 'zzzz'"]


@pytest.mark.heavy
def test_a_row_without_a_label_is_named(check: Check) -> None:
    """With the line that it stands in, before anything is embedded."""
    labels = check.folder / "labels.jsonl"
    labels.write_text('{"question": "Why?", "answerable": true}\n{"question": "How?"}\n', "utf-8")
    inputs = {"calibration": Artifact(labels, "records", "", "labels.jsonl")}
    with pytest.raises(StageError, match=r"labels\.jsonl:2: no column 'answerable'"):
        check.run(calibration="labels", inputs=inputs)


LABELED = [
    {
        "question": "When does the kiosk open in the morning?",
        "answer": "the kiosk opens at nine",
        "documents": "kiosk.md",
    },
    {"question": "Is a building permit valid for two years?", "documents": ["dogs.md"]},
    {"question": "zzzz", "answer": "not compared", "answerable": False},
    {"question": "Must dogs be kept on a lead in all parks?", "answerable": "false"},
]
"""The endpoint always says that the kiosk opens at nine, and names its first source."""


def labeled(check: Check, *rows: Any) -> dict[str, Any]:
    """Write rows; return what a run that measures by them needs."""
    path = check.folder / "labeled.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return {"data": "d", "inputs": {"data": Artifact(path, "records", "", "labeled.jsonl")}}


@pytest.mark.heavy
def test_labeled_questions_measure_the_answers(check: Check) -> None:
    """Each metric is over the rows that it can be told of, with an interval; a summary, and rows."""
    found = check.run(threshold=0.8, **labeled(check, *LABELED))
    means = {name: (metric["mean"], metric["n"]) for name, metric in found["labeled"].items()}
    assert means == {
        "rouge_l": (1, 1),
        "token_f1": (1, 1),
        "exact_match": (0, 1),
        "citation_rate": (1, 3),
        "citation_precision": (0.5, 2),
        "abstention_accuracy": (0.75, 4),
        "answered": (1, 2),
        "abstained": (0.5, 2),
    }
    assert found["labeled"]["abstention_accuracy"]["low"] < 0.75
    assert found["answers"] == []
    assert found["abstained"] is None  # no sample question was asked
    assert check.result.metrics["labeled"]["citation_precision"] == 0.5
    assert "citation_precision   0.500 [0.095, 0.905]  of 2" in check.result.summary
    lines = check.result.outputs["predictions"].read_text("utf-8").splitlines()
    kiosk, permit, unknown, _ = map(json.loads, lines)
    assert (kiosk["cited"], kiosk["expected"]) == (["kiosk.md"], ["kiosk.md"])
    assert kiosk["answer"] == "The kiosk opens at nine [1]."
    assert (permit["cited"], permit["expected"]) == (["permits.md"], ["dogs.md"])
    assert (unknown["abstained"], unknown["cited"], unknown["reference"]) == (
        True,
        [],
        "not compared",
    )
    assert Rag.ports(check.config).outputs.keys() == check.result.outputs.keys()


@pytest.mark.heavy
@pytest.mark.parametrize(
    "says", ["The kiosk opens at nine in the morning.", "The kiosk opens [7]."]
)
def test_an_answer_that_names_no_source_cites_nothing(check: Check, says: str) -> None:
    """Whatever passage says it, too, and whatever number of no source the endpoint writes."""
    found = check.run(says, threshold=-1.0, **labeled(check, LABELED[0]))
    assert found["labeled"]["citation_rate"]["mean"] == 0
    assert "citation_precision" not in found["labeled"]
    (row,) = map(json.loads, check.result.outputs["predictions"].read_text("utf-8").splitlines())
    assert row["cited"] == []


@pytest.mark.heavy
def test_labeled_questions_are_drawn_and_samples_are_asked_beside_them(check: Check) -> None:
    """As many as the limit says; metrics of which no row can tell are left out."""
    rows = [{"question": f"Why {n}?"} for n in range(6)]
    samples = ["When does the kiosk open?"]
    found = check.run(threshold=-1.0, limit=2, questions=samples, **labeled(check, *rows))
    assert found["labeled"]["answered"]["n"] == 2
    assert "rouge_l" not in found["labeled"]
    assert "abstained" not in found["labeled"]
    assert [answer["question"] for answer in found["answers"]] == samples
    assert found["abstained"] == 0


@pytest.mark.heavy
def test_a_labeled_row_that_names_no_document_of_the_index_is_told(check: Check) -> None:
    """Before the model is asked anything."""
    row = {"question": "Why?", "documents": "gone.md"}
    with pytest.raises(StageError, match=r"labeled\.jsonl:1: index has no document 'gone\.md'"):
        check.run(**labeled(check, row))
    assert check.endpoint.received == []


@pytest.mark.heavy
def test_a_labeled_question_that_is_too_long_counts_as_unanswered(check: Check) -> None:
    """The others are answered; a warning names the row."""
    long = {"question": "When does the kiosk open? " * 40, "documents": "kiosk.md"}
    small = {"context": 400, "max_tokens": 32}
    rows = labeled(check, LABELED[0], long)
    found = check.run(threshold=-1.0, generator=small, **rows)
    assert (found["labeled"]["answered"]["mean"], found["labeled"]["answered"]["n"]) == (0.5, 2)
    (warning,) = check.warnings
    assert warning.startswith("labeled.jsonl:2: the question is too long: ")
    assert warning.endswith("; 1 of 2 questions counts as unanswered because of this")


@pytest.mark.heavy
def test_what_measures_is_missed_before_anything_is_asked(
    check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not after the last answer."""
    text_metrics._rouge_scorer.cache_clear()
    monkeypatch.setitem(sys.modules, "rouge_score", None)
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    with pytest.raises(MissingDependencyError, match=r"rouge_score\S* is not installed") as caught:
        check.run(threshold=-1.0, **labeled(check, *LABELED))
    assert caught.value.hint == "pip install 'llmpipe[evaluate]'"
    assert check.endpoint.received == []


@pytest.mark.heavy
def test_words_alone_have_no_threshold(check: Check) -> None:
    """And embed nothing."""
    found = check.run(mode="bm25", questions=["When does the kiosk open?"])
    assert found["threshold"]["method"] == "none"
    assert all("messages" in body for body in check.endpoint.received)


@pytest.mark.heavy
@pytest.mark.parametrize("fields", [{}, {"mode": "bm25"}])
def test_a_filter_on_what_no_document_has_is_told(check: Check, fields: dict[str, Any]) -> None:
    """With what may be meant, before anything is embedded or asked."""
    with pytest.raises(StageError, match=r"the filter 'langauge' matches nothing") as caught:
        check.run(filters={"langauge": "en"}, **fields)
    assert caught.value.hint == "did you mean 'language'?"
    assert check.endpoint.received == []


@pytest.mark.heavy
def test_a_damaged_passage_is_found(check: Check) -> None:
    """What a document no longer says is not a citation."""
    passages = check.index.path / "passages.sqlite"
    with sqlite3.connect(passages) as db:
        db.execute("UPDATE documents SET body = replace(body, 'nine', 'nigh')")
    db.close()
    with pytest.raises(StageError, match=r"altered|damaged"):
        check.run(questions=["When does the kiosk open?"], threshold=-1.0)


@pytest.mark.heavy
def test_an_index_of_another_model_is_refused(check: Check, tmp_path: Path) -> None:
    """Vectors of two models have nothing in common; without a model the field to set is named."""
    file = check.index.path / "embedder.json"
    identity = {**json.loads(file.read_text("utf-8")), "engine": "onnx", "digest": "one"}
    file.write_text(json.dumps(identity), "utf-8")
    with pytest.raises(StageError, match="does not say where its embedder is") as caught:
        check.run()
    assert "`embedder`" in str(caught.value.hint)
    (check.folder / "out").rmdir()
    other = {"embedder": Artifact(tmp_path, "model", "two", "./other")}
    with pytest.raises(StageError, match=r"\./other is another model"):
        check.run(embedder="./other", inputs=other)


@pytest.mark.heavy
def test_a_generator_that_is_not_there_is_named(check: Check) -> None:
    """The endpoint's address stands in the message."""
    check.endpoint.before = lambda body, number: (
        (404, {"error": {"message": "no such model"}}, {}) if "messages" in body else None
    )
    with pytest.raises(StageError, match="no such model"):
        check.run(threshold=-1.0)


@pytest.mark.heavy
def test_a_gguf_answers_from_the_index(smollm2_gguf: Path, check: Check) -> None:
    """The real model behind llama.cpp, held to the numbers of its sources."""
    gguf = Artifact(smollm2_gguf, "gguf", "g", smollm2_gguf.name)
    out, work = check.folder / "out", check.folder / "work"
    out.mkdir()
    work.mkdir()
    settings = config(
        {**LLAMA, "max_tokens": 32, "context": 512}, k=2, mode="bm25",
        questions=["When does the kiosk open?"],
    )  # fmt: skip
    inputs = {"index": check.index, "generator": gguf}
    result = Rag.run(StageContext(settings, "a", inputs, out, work, work, work, check.folder, 1))
    (answer,) = json.loads(result.outputs["check"].read_text("utf-8"))["answers"]
    assert answer["text"]
    assert answer["usage"]["completion_tokens"] > 1
    assert all(citation["number"] in (1, 2) for citation in answer["citations"])


def test_what_does_not_go_together_is_named() -> None:
    """Fields of another engine, without effect, or of no known form."""
    wrong = config(
        {**LLAMA, "base_url": "http://x"}, mode="bm25", threshold=0.3, calibration="rows", k=9,
        fetch=5, filters={"section": 3, "year": {"min": 2020}}, limit=3, random_seed=1, map={"question": "q"},
    )  # fmt: skip
    fields = [".".join(map(str, field)) for field, _ in Rag.problems(wrong)]
    assert fields == ["generator.base_url", "threshold", "calibration", "map", "limit", "random_seed",
                      "fetch", "filters"]  # fmt: skip
    assert Rag.problems(config(filters={"year": {"min": 2020, "max": 2022}, "tag": ["a"]})) == []


def test_what_shapes_the_answers_is_in_the_key() -> None:
    """What searches and what may embed the questions; llama.cpp and what measures where in use."""
    searching = {"bm25s", "faiss-cpu", "onnxruntime", "PyStemmer", "regex", "sentence-transformers", "tokenizers"}  # fmt: skip
    assert set(Rag.tools(config(OPENAI))) == searching
    assert set(Rag.tools(config())) == searching | {"xllamacpp"}
    assert set(Rag.tools(config(OPENAI, data="./d.jsonl"))) == searching | {"rouge-score"}


def test_filters_are_closed() -> None:
    """A bound that is none is refused with its place."""
    with pytest.raises(msgspec.ValidationError, match="unknown field `from`"):
        config(filters={"year": {"from": 2020}})


def test_inputs_follow_the_engine() -> None:
    """A GGUF for llama.cpp, none for an endpoint; models that must be exported first are refused."""
    ports = Rag.ports(config(reranker="./r", embedder="./e", calibration="./c.jsonl"))
    assert list(ports.inputs) == ["index", "generator", "embedder", "reranker", "calibration"]
    assert "export" in ports.inputs["generator"].refuse["model"]
    assert list(Rag.ports(config(OPENAI)).inputs) == ["index"]


def test_where_it_listens_is_not_in_the_key() -> None:
    """Nor are slots and keys; what is asked is."""
    moved = config({**LLAMA, "slots": 4}, port=9000, host="0.0.0.0", api_key="${secret:K}")
    assert Rag.fingerprint(moved) == Rag.fingerprint(config())
    assert Rag.fingerprint(config(questions=["Why?"])) != Rag.fingerprint(config())
