"""Answer questions from an index, with citations. The check opens everything as in use and asks.

Inside ``llmpipe run``, this is an ordinary cached check: it finds the threshold below which nothing
counts as found, asks the sample questions, and compares every citation with its document. If `data`
holds questions with known answers, it asks these too and measures the answers, with 95 % intervals;
`llmpipe.retrieval.answer_metrics` defines the metrics. Answers of an endpoint are journaled: a
killed check asks only the remaining questions again. ``llmpipe ask`` and ``llmpipe serve`` use the
same parts, with the threshold from the check.

Not covered: judging answers by another model. ``evaluate_retrieval`` measures the search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from llmpipe.backends.binding import port_need
from llmpipe.contracts import (
    Answers,
    Endpoint,
    EstimateContext,
    Estimates,
    FieldPath,
    Finding,
    Input,
    Needs,
    Output,
    Ports,
    Servable,
    ServeContext,
    StageContext,
    StageDefaults,
    StageResult,
    Stochastic,
    reveal,
    semantic_fields,
    write_json,
)
from llmpipe.errors import StageError, remake
from llmpipe.formats.first_rows import absent, named_columns
from llmpipe.formats.records import write_rows
from llmpipe.needs import SERVING, Given, Need, packages
from llmpipe.retrieval.filters import read_filters
from llmpipe.retrieval.fusion import fusion_problems
from llmpipe.retrieval.needs import RERANKING, search_needs
from llmpipe.retrieval.search import SEARCH_TOOLS
from llmpipe.stages.rag.config import RagConfig

if TYPE_CHECKING:
    from llmpipe.backends.openai.journal import Journal
    from llmpipe.retrieval.answer import Answer, Answerer
    from llmpipe.retrieval.answer_metrics import Answered
    from llmpipe.retrieval.eval_questions import Question
    from llmpipe.retrieval.search import Retriever
    from llmpipe.retrieval.threshold import Threshold

NOT_A_GGUF = "llama.cpp writes with a GGUF: add an `export` stage for the model and name its output"

NOT_IN_THE_KEY = frozenset({"embedder_api_key"})


class Rag(StageDefaults, Servable, Answers, Stochastic, Estimates):
    """The stage kind ``rag``."""

    Config = RagConfig
    VERSION = 8
    determinism = "same-machine"
    SERVE_NEEDS = SERVING

    @staticmethod
    def ports(config: RagConfig) -> Ports:
        inputs = {"index": Input(("index",), config.index, ("index",))}
        if config.generator.engine == "llama.cpp":
            inputs["generator"] = Input(
                ("generator", "model"),
                config.generator.model,
                ("gguf",),
                refuse={"model": NOT_A_GGUF, "adapter": NOT_A_GGUF},
            )
        if config.embedder:
            inputs["embedder"] = Input(("embedder",), config.embedder, ("model",))
        if config.reranker:
            inputs["reranker"] = Input(("reranker",), config.reranker, ("model",))
        if config.calibration:
            rows = Input(("calibration",), config.calibration, ("records", "dataset"))
            inputs["calibration"] = rows
        outputs = {"check": Output("metrics")}
        if config.data:
            inputs["data"] = Input(("data",), config.data, ("records", "dataset"))
            outputs["predictions"] = Output("records")
        return Ports(inputs, outputs, default="check")

    @staticmethod
    def problems(config: RagConfig) -> list[tuple[FieldPath, str]]:
        found: list[tuple[FieldPath, str]] = [
            (("generator", name), message) for name, message in config.generator.problems()
        ]
        if config.mode == "bm25" and config.threshold != "auto":
            found.append((("threshold",), "has no effect: a search by words has no cosine"))
        if config.calibration and (config.mode == "bm25" or config.threshold != "auto"):
            found.append((("calibration",), "has no effect: no threshold is calibrated"))
        if not config.data:
            found += [
                ((name,), "has no effect without `data`")
                for name in ("map", "limit", "random_seed")
                if getattr(config, name)
            ]
        found += fusion_problems(config.fusion, config.alpha, hybrid=config.mode == "hybrid")
        if config.fetch < config.k:
            found.append((("fetch",), f"is less than k, {config.k}"))
        try:
            read_filters(config.plain_filters())
        except StageError as error:
            found.append((("filters",), error.message))
        return found

    @staticmethod
    def review(config: RagConfig, folder: Path) -> list[Finding]:
        """Check that the named columns exist."""
        return list(absent([config.data], named_columns(("map",), config.map)))

    @staticmethod
    def fingerprint(config: RagConfig) -> Mapping[str, Any]:
        data = semantic_fields(config, without=NOT_IN_THE_KEY)
        dropped = ("api_key", "slots")
        generator = {k: v for k, v in data["generator"].items() if k not in dropped}
        return {**data, "generator": generator}

    @staticmethod
    def tools(config: RagConfig) -> tuple[str, ...]:
        writing = ("xllamacpp",) if config.generator.engine == "llama.cpp" else ()
        measuring = ("rouge-score",) if config.data else ()
        return (*SEARCH_TOOLS, *writing, *measuring)

    @staticmethod
    def needs(config: RagConfig, inputs: Mapping[str, Given]) -> tuple[Need, ...]:
        names = ["xllamacpp" if config.generator.engine == "llama.cpp" else "openai"]
        if config.reranker:
            names += RERANKING
        if config.data:
            names += ["numpy", "regex", "rouge-score"]
        port = port_need(config.host, config.port)
        return (*search_needs(inputs), *packages(*names), port)

    @staticmethod
    def answerer(ctx: ServeContext[RagConfig]) -> AbstractContextManager[Answerer]:
        from llmpipe.stages.rag.factory import open_answerer, read_threshold

        threshold = read_threshold(ctx.output("check"))
        return open_answerer(ctx.config, ctx.inputs, threshold, threads=ctx.threads, reveal=reveal)

    @staticmethod
    def serve(ctx: ServeContext[RagConfig]) -> AbstractContextManager[Endpoint]:
        from llmpipe.web.server import serve_answers

        return serve_answers(
            Rag.answerer(ctx),
            ctx.pipeline,
            ctx.stage,
            host=ctx.host,
            port=ctx.port,
            slots=ctx.config.generator.slots,
            api_key=ctx.api_key,
            index_made=ctx.created.get("index"),
        )

    @staticmethod
    def estimate(config: RagConfig, inputs: Mapping[str, Given], asked: EstimateContext) -> Needs:
        from llmpipe.stages.document_estimates import rag_estimate

        return rag_estimate(config, inputs, asked)

    @staticmethod
    def run(ctx: StageContext[RagConfig]) -> StageResult:
        """Open everything, find the threshold, ask the sample questions.

        Raises:
            StageError: a part cannot be opened or does not fit the others, the model returns no
            text, or a citation differs from its document.
        """
        from llmpipe.stages.rag.calibration import find_threshold
        from llmpipe.stages.rag.factory import answering, open_retriever
        from llmpipe.stages.rag.metrics import Labeled
        from llmpipe.stages.rag.sample_questions import sample_questions

        config = ctx.config
        with open_retriever(config, ctx.inputs, ctx.threads, ctx.reveal) as retriever:
            labeled = Labeled.read(config, ctx.inputs, retriever.passages)
            threshold = find_threshold(ctx, retriever)
            with _journal(ctx) as journal, answering(
                config, ctx.inputs, retriever, threshold, threads=ctx.threads, reveal=ctx.reveal,
                log=ctx.work / "llama.cpp.log", journal=journal,
            ) as answerer:  # fmt: skip
                questions = config.questions or (() if config.data else sample_questions(retriever))
                samples = _ask(ctx, answerer, questions)
                answers = _ask_labeled(ctx, answerer, labeled.questions)
        _require_speech(ctx, [*samples, *answers])
        _warn_of_unread(ctx, [*samples, *answers])
        _warn_of_silence(ctx, samples)
        _warn_of_reasoning(ctx, [*samples, *answers])
        known = journal.reused if journal else 0
        return _result(ctx, threshold, samples, labeled.answered(answers), known)


def _journal(ctx: StageContext[RagConfig]) -> AbstractContextManager[Journal | None]:
    """Open the journal for the answers of an endpoint; those of llama.cpp cost nothing."""
    from llmpipe.backends.openai.journal import Journal

    if ctx.config.generator.engine == "llama.cpp":
        return nullcontext()
    return Journal(ctx.journal, resample=ctx.resample)


def _result(
    ctx: StageContext[RagConfig],
    threshold: Threshold,
    samples: Sequence[Answer],
    answered: Sequence[Answered],
    known: int,
) -> StageResult:
    """Write the check and, if there are labeled questions, the result of each.

    ``known`` answers came from the journal. If there are any, the seconds are left out, because
    they would include the time of looking up.
    """
    from llmpipe.backends.openai.journal import counted_replies
    from llmpipe.retrieval.citations import supported_share
    from llmpipe.stages.rag.metrics import lines, measure

    answers = [*samples, *(one.answer for one in answered)]
    found: dict[str, Any] = {
        "threshold": msgspec.to_builtins(threshold),
        "abstained": sum(a.abstained for a in samples) / len(samples) if samples else None,
        "supported": supported_share(answer.citations for answer in answers),
        "ended_in_reasoning": sum(answer.usage.unfinished for answer in answers),
    }
    measured = measure(answered, ctx.config.random_seed)
    outputs, metrics = {}, {**found, "replies_from_journal": known}
    if not known:
        metrics["seconds"] = [msgspec.to_builtins(answer.timings) for answer in samples]
    if answered:
        found["labeled"] = measured
        metrics["labeled"] = {name: metric["mean"] for name, metric in measured.items()}
        outputs["predictions"] = ctx.out / "predictions.jsonl"
        write_rows(outputs["predictions"], (one.as_row() for one in answered))
    check = {**found, "answers": [_timeless(answer) for answer in samples]}
    outputs["check"] = write_json(ctx.out / "check.json", check)
    summary = [*_summary(threshold, samples), *lines(measured)]
    if known:
        summary.append(f"{counted_replies(known)} from the journal")
    return StageResult(outputs, metrics, "\n".join(summary))


def _ask(
    ctx: StageContext[RagConfig], answerer: Answerer, questions: Sequence[str]
) -> list[Answer]:
    """Ask the sample questions."""
    answers = []
    for done, question in enumerate(questions):
        ctx.progress(done, len(questions), "sample questions")
        answers.append(_faithful_answer(answerer, question))
    return answers


def _ask_labeled(
    ctx: StageContext[RagConfig], answerer: Answerer, questions: Sequence[Question]
) -> list[Answer]:
    """Ask the labeled questions; one that is too long does not end the check."""
    from llmpipe.retrieval.answer import Timings, abstention
    from llmpipe.retrieval.prompt import QuestionError

    answers: list[Answer] = []
    refused: list[str] = []
    for done, question in enumerate(questions):
        ctx.progress(done, len(questions), "labeled questions")
        try:
            answers.append(_faithful_answer(answerer, question.text))
        except QuestionError as error:
            answers.append(abstention(question.text, Timings()))
            refused.append(f"{question.place}: {error.message}")
    if refused:
        counts = "counts" if len(refused) == 1 else "count"
        told = (
            f"{len(refused)} of {len(questions)} questions {counts} as unanswered because of this"
        )
        ctx.warn(f"{refused[0]}; {told}")
    return answers


def _faithful_answer(answerer: Answerer, question: str) -> Answer:
    """Ask a question and check the answer against the documents."""
    answer = answerer.answer(question)
    _require_faithful(answer, answerer.retriever)
    return answer


def _require_faithful(answer: Answer, retriever: Retriever) -> None:
    """Check that cited text is in its document, word for word."""
    stretches = [(c.document, c.start, c.end, c.quote) for c in answer.citations]
    chunks = [hit.chunk for hit in answer.hits]
    stretches += [(chunk.document, chunk.start, chunk.end, chunk.text) for chunk in chunks]
    for name, start, end, text in stretches:
        document = retriever.passages.document(name)
        if document is None or document.text[start:end] != text:
            raise StageError(
                f"the index is damaged: {name} does not say {text[:60]!r} from {start} to {end}",
                hint=remake("index"),
            )


def _require_speech(ctx: StageContext[RagConfig], answers: Sequence[Answer]) -> None:
    """Check that the model said something where it was asked."""
    written = [answer.usage.completion_tokens for answer in answers if answer.hits]
    if written and all(tokens is not None and tokens <= 1 for tokens in written):
        raise StageError(
            f"{ctx.config.generator.model} gives empty answers to all questions",
            hint="a wrong tokenizer or chat template can cause this: check the stage that made it",
        )


def _warn_of_unread(ctx: StageContext[RagConfig], answers: Sequence[Answer]) -> None:
    """Warn of questions that a hybrid search searched by words only, and why."""
    from llmpipe.retrieval.hits import REASONS

    for why, reason in REASONS.items():
        alone = [answer for answer in answers if answer.words_alone() == why]
        if alone:
            ctx.warn(
                f"{len(alone)} of {len(answers)} questions were searched by words only, such as "
                f"{alone[0].question!r}: {reason}"
            )


def _warn_of_silence(ctx: StageContext[RagConfig], samples: Sequence[Answer]) -> None:
    """Warn of the spec's own questions that found no answer."""
    for answer in samples:
        if answer.abstained and ctx.config.questions:
            ctx.warn(f"no answer was found to {answer.question!r}")


def _warn_of_reasoning(ctx: StageContext[RagConfig], answers: Sequence[Answer]) -> None:
    """Warn of replies without an answer."""
    unfinished = [answer.usage for answer in answers if answer.usage.unfinished]
    if unfinished:
        cut = sum(usage.truncated for usage in unfinished)
        ctx.warn(
            f"{len(unfinished)} of {len(answers)} replies end inside the model's reasoning and "
            f"hold no answer; {cut} of them were cut (raise generator.max_tokens)"
        )


def _timeless(answer: Answer) -> dict[str, Any]:
    """Return an answer as data without its timings: an artifact does not depend on the clock."""
    data: dict[str, Any] = msgspec.to_builtins(answer)
    del data["timings"]
    return data


def _summary(threshold: Threshold, samples: Sequence[Answer]) -> list[str]:
    lines = threshold.summary()
    for answer in samples:
        lines += [f"Q: {answer.question}", f"A: {answer.text}"]
        lines += [f"   [{c.number}] {c.document}" for c in answer.citations]
    return list(dict.fromkeys(lines))
