"""Measure how well indexes find the documents that answer questions.

Every index is searched in every mode for the same questions, like in a `rag` stage but without
filters, reranking or diversity. A document has the rank of its best passage. The metrics are hit
rate, recall, MRR and nDCG at a depth. Each has a 95 % interval: Wilson's for shares of questions,
bootstrapped for the others, and paired for each two searches.

The answering documents come from judgments in the format of TREC or BEIR, from a column of the
questions, or, if documents were made from rows, from the rows that hold the questions. Questions
that no document answers are left out and counted. Not covered: the answers themselves, which the
check of a `rag` stage measures, and the speed of a search.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from itertools import chain, combinations, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from llmpipe.contracts import (
    Artifact,
    ArtifactType,
    FieldPath,
    Finding,
    Input,
    Output,
    Ports,
    RandomSeed,
    SecretField,
    StageConfig,
    StageContext,
    StageDefaults,
    StageResult,
    semantic_fields,
    write_json,
)
from llmpipe.errors import StageError
from llmpipe.evaluation.bootstrap import RowScores
from llmpipe.evaluation.ranking import METRICS, ranking_scores
from llmpipe.evaluation.sampling import drawn
from llmpipe.evaluation.summary import compact, summarize, table
from llmpipe.formats.first_rows import absent, named_columns
from llmpipe.formats.records import write_rows
from llmpipe.needs import Given, Need
from llmpipe.retrieval.eval_questions import (
    AnsweringDocuments,
    Judged,
    Question,
    QuestionColumns,
    read_judged_questions,
    read_questions,
)
from llmpipe.retrieval.factory import embed_questions
from llmpipe.retrieval.fusion import ALPHA, RELATIVE_SCORE, Fusion, fusion_problems
from llmpipe.retrieval.hits import REASONS
from llmpipe.retrieval.index import read_manifest
from llmpipe.retrieval.needs import search_needs
from llmpipe.retrieval.passages import Passages
from llmpipe.retrieval.search import FETCH, SEARCH_TOOLS, Mode, Retriever, readable

if TYPE_CHECKING:
    from llmpipe.retrieval.embedder import Embedder

Metric = Annotated[str, msgspec.Meta(pattern=r"^(hit|recall|mrr|ndcg)@[1-9][0-9]*$")]


class EvaluateRetrievalConfig(StageConfig, frozen=True, kw_only=True):
    """The indexes to compare, and the questions."""

    indexes: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    """The indexes to compare."""
    questions: str
    """Rows with questions; with `qrels`, a `queries.jsonl` in BEIR's format."""
    qrels: str | None = None
    """Judgments of which documents answer which question, in TREC's format or, with its header, in
    BEIR's."""
    map: QuestionColumns | None = None
    """The columns of `questions`. Not with `qrels`."""
    modes: Annotated[tuple[Mode, ...], msgspec.Meta(min_length=1)] = ("dense", "bm25", "hybrid")
    """The ways to search: by meaning (`dense`), by words (`bm25`), or by both (`hybrid`)."""
    metrics: Annotated[tuple[Metric, ...], msgspec.Meta(min_length=1)] = METRICS
    """The metrics, each with its depth: `hit@k`, `recall@k`, `mrr@k`, `ndcg@k`."""
    fetch: Annotated[int, msgspec.Meta(ge=1, le=1000)] = FETCH
    """Passages that each way of searching retrieves. Lower-ranked ones are not found."""
    fusion: Fusion = RELATIVE_SCORE
    """How a `hybrid` search fuses its two rankings: by scores, or by ranks (reciprocal rank fusion,
    `rrf`)."""
    alpha: Annotated[float, msgspec.Meta(ge=0, le=1)] = ALPHA
    """Weight of the meaning in `relative_score`; the words have the rest."""
    limit: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Use only this many questions, drawn by `random_seed`."""
    random_seed: RandomSeed = 0
    """Determines which questions `limit` draws, and the resamples for the intervals."""
    embedder: str | None = None
    """The embedder of the indexes, if one is a folder that does not name it."""
    embedder_api_key: SecretField = None
    """The key of the endpoint that embeds questions, as ``${secret:NAME}``."""


class EvaluateRetrieval(StageDefaults):
    """The stage kind ``evaluate_retrieval``."""

    Config = EvaluateRetrievalConfig
    VERSION = 5
    determinism = "same-machine"

    @staticmethod
    def ports(config: EvaluateRetrievalConfig) -> Ports:
        inputs = {
            f"indexes.{i}": Input(("indexes", i), index, ("index",))
            for i, index in enumerate(config.indexes)
        }
        inputs["questions"] = Input(("questions",), config.questions, ("records", "dataset"))
        if config.qrels:
            inputs["qrels"] = Input(("qrels",), config.qrels, ("records", "file"))
        if config.embedder:
            inputs["embedder"] = Input(("embedder",), config.embedder, ("model",))
        outputs = {"metrics": Output("metrics"), "rankings": Output("records")}
        return Ports(inputs, outputs, default="metrics")

    @staticmethod
    def problems(config: EvaluateRetrievalConfig) -> list[tuple[FieldPath, str]]:
        found: list[tuple[FieldPath, str]] = []
        for field in ("indexes", "modes", "metrics"):
            values = getattr(config, field)
            found += [
                ((field, i), f"{value!r} is listed twice")
                for i, value in enumerate(values)
                if value in values[:i]
            ]
        if config.qrels and config.map:
            found.append((("map",), "has no effect: `qrels` says which documents answer"))
        found += fusion_problems(config.fusion, config.alpha, hybrid="hybrid" in config.modes)
        for i, metric in enumerate(config.metrics):
            if _depth(metric) > config.fetch:
                message = f"{metric!r} looks deeper than the {config.fetch} passages of `fetch`"
                found.append((("metrics", i), message))
        return found

    @staticmethod
    def fingerprint(config: EvaluateRetrievalConfig) -> Mapping[str, Any]:
        labels = list(config.indexes)  # the metrics contain the names: a renamed stage renames them
        return {
            **semantic_fields(config, without=frozenset({"embedder_api_key"})),
            "labels": labels,
        }

    @staticmethod
    def metrics(config: EvaluateRetrievalConfig, types: Mapping[str, ArtifactType]) -> list[str]:
        searches = [f"{index}.{mode}" for index in config.indexes for mode in config.modes]
        measured = [f"{search}.{metric}" for search in searches for metric in config.metrics]
        return [*measured, "questions", "left_out"]

    @staticmethod
    def review(config: EvaluateRetrievalConfig, folder: Path) -> list[Finding]:
        """Check that the named columns exist."""
        return list(absent([config.questions], named_columns(("map",), config.map)))

    @staticmethod
    def tools(config: EvaluateRetrievalConfig) -> tuple[str, ...]:
        return SEARCH_TOOLS

    @staticmethod
    def needs(config: EvaluateRetrievalConfig, inputs: Mapping[str, Given]) -> tuple[Need, ...]:
        return search_needs(inputs)

    @staticmethod
    def run(ctx: StageContext[EvaluateRetrievalConfig]) -> StageResult:
        """Read the questions, search every index in every mode, compare.

        Raises:
            StageError: A question or a judgment cannot be used, a document does not exist, or
                an index cannot be searched this way.
        """
        config = ctx.config
        indexes = [ctx.input(f"indexes.{i}") for i in range(len(config.indexes))]
        _require_words(indexes, config.modes)
        questions, left_out = _answered(ctx)
        judged = {index.label: _judged(ctx, index, questions) for index in indexes}
        searching = _Searching(ctx, questions)
        rankings = {
            f"{index.label}.{mode}": ranking
            for index in indexes
            for mode, ranking in searching.rankings(index)
        }
        scores = {
            name: _scores(ranking, judged[name.rpartition(".")[0]], config.metrics)
            for name, ranking in rankings.items()
        }
        summary = summarize(scores, config.random_seed)
        metrics = {**summary, "questions": len(questions), "left_out": left_out}
        deepest = max(map(_depth, config.metrics))
        write_rows(ctx.out / "rankings.jsonl", _rows(questions, judged, rankings, deepest))
        outputs = {
            "metrics": write_json(ctx.out / "metrics.json", metrics),
            "rankings": ctx.out / "rankings.jsonl",
        }
        pairs = _alike([index.label for index in indexes], config.modes)
        compared = table(summary, config.metrics, "search", pairs)
        told = f"{compared}\n{_counted(len(questions), left_out)}"
        return StageResult(outputs, compact(summary), told)


Ranking = Sequence[Sequence[str]]
"""For each question, the ids of documents, best first."""


def _require_words(indexes: Sequence[Artifact], modes: Sequence[Mode]) -> None:
    """Check, before anything is embedded, that every index can be searched in every mode."""
    for index in indexes:
        if set(modes) - {"dense"} and not read_manifest(index.path).bm25:
            raise StageError(
                f"{index.label} has no words to search",
                hint="set `bm25: true` in the index stage, or measure modes: [dense] alone",
            )


def _answered(ctx: StageContext[EvaluateRetrievalConfig]) -> tuple[list[Question], int]:
    """Return the questions with answering documents, and the number of the others."""
    config, source = ctx.config, ctx.input("questions")
    if config.qrels:
        questions, elsewhere = read_judged_questions(source, ctx.input("qrels"))
        if elsewhere:
            ctx.warn(f"{source.label} does not hold {elsewhere} of the judged questions")
    else:
        questions = read_questions(source, config.map)
    answered = [
        question
        for question in questions
        if question.documents is None or any(gain > 0 for gain in question.documents.values())
    ]
    if not answered:
        raise StageError(f"{source.label}: no question is answered by any document")
    chosen = drawn(answered, config.limit, config.random_seed, lambda question: question.text)
    return chosen, len(questions) - len(answered)


def _judged(
    ctx: StageContext[EvaluateRetrievalConfig], index: Artifact, questions: Sequence[Question]
) -> list[Judged]:
    with closing(Passages(index.path / "passages.sqlite")) as passages:
        answering = AnsweringDocuments(
            passages, index.label, ctx.input("questions"), ctx.inputs.get("qrels")
        )
        return answering.of_each(questions, required=True)


class _Searching:
    """Searches indexes for the same questions and reports progress."""

    def __init__(
        self, ctx: StageContext[EvaluateRetrievalConfig], questions: Sequence[Question]
    ) -> None:
        self._ctx = ctx
        self._questions = [readable(question.text) for question in questions]
        modes = len(ctx.config.modes)
        self._steps = len(questions) * modes * len(ctx.config.indexes)
        self._done = 0

    def rankings(self, index: Artifact) -> Iterator[tuple[Mode, Ranking]]:
        """Yield, for each mode, the documents that an index finds for every question."""
        embedder = self._embedded(index)
        retriever = Retriever.open(index.path, embedder, threads=self._ctx.threads)
        with closing(retriever.passages):
            self._warn_of_unread(index, retriever)
            for mode in self._ctx.config.modes:
                yield mode, [self._found(retriever, text, mode) for text in self._questions]
                self._tell(len(self._questions), f"{index.label}: {mode}")

    def _warn_of_unread(self, index: Artifact, retriever: Retriever) -> None:
        if "hybrid" in self._ctx.config.modes:
            alone = Counter(map(retriever.words_alone, self._questions))
            for why, count in alone.items():
                if why:
                    self._ctx.warn(
                        f"{index.label}: for {count} of {len(self._questions)} questions `hybrid` "
                        f"ranks by words only: {REASONS[why]}"
                    )

    def _embedded(self, index: Artifact) -> Embedder:
        """Embed all questions at once; return an embedder that has their vectors."""
        ctx, key = self._ctx, self._ctx.config.embedder_api_key
        self._tell(0, f"{index.label}: embedding the questions")
        return embed_questions(
            index,
            ctx.inputs.get("embedder"),
            ctx.config.modes,
            self._questions,
            threads=ctx.threads,
            api_key=ctx.reveal(key) if key else None,
        )

    def _found(self, retriever: Retriever, text: str, mode: Mode) -> list[str]:
        config = self._ctx.config
        hits = retriever.search(
            text,
            k=config.fetch,
            mode=mode,
            fetch=config.fetch,
            fusion=config.fusion,
            alpha=config.alpha,
        )
        return list(dict.fromkeys(hit.chunk.document for hit in hits))

    def _tell(self, steps: int, note: str) -> None:
        self._done += steps
        self._ctx.progress(self._done, self._steps, note)


def _scores(
    ranking: Ranking, judged: Sequence[Judged], metrics: Sequence[str]
) -> dict[str, RowScores]:
    """Score the questions in their order; several may ask the same."""
    rankings = {str(row): found for row, found in enumerate(ranking)}
    return ranking_scores(rankings, {str(row): j for row, j in enumerate(judged)}, metrics)


def _rows(
    questions: Sequence[Question],
    judged: Mapping[str, Sequence[Judged]],
    rankings: Mapping[str, Ranking],
    depth: int,
) -> Iterator[dict[str, Any]]:
    """Yield the results of each question: the first ``depth`` documents of every search."""
    for row, question in enumerate(questions):
        searches = {}
        for name, ranking in rankings.items():
            expected = judged[name.rpartition(".")[0]][row]
            relevant = (n for n, doc in enumerate(ranking[row], 1) if expected.get(doc, 0) > 0)
            searches[name] = {"first": next(relevant, None), "ranking": ranking[row][:depth]}
        known = chain.from_iterable(judged[index][row].items() for index in judged)
        yield {
            "id": question.id,
            "question": question.text,
            "expected": dict(known),
            "searches": searches,
        }


def _alike(indexes: Sequence[str], modes: Sequence[Mode]) -> Iterator[tuple[str, str]]:
    """Pair the searches that differ in one way: in the mode, or in the index."""
    for index in indexes:
        for mode, other in combinations(modes, 2):
            yield f"{index}.{mode}", f"{index}.{other}"
    for mode in modes:
        for index, next_index in pairwise(indexes):
            yield f"{index}.{mode}", f"{next_index}.{mode}"


def _depth(metric: str) -> int:
    return int(metric.partition("@")[2])


def _counted(asked: int, left_out: int) -> str:
    told = f"{asked} question{'s' * (asked != 1)}, 95 % intervals"
    return f"{told}; left out: {left_out} that no document answers" if left_out else told
