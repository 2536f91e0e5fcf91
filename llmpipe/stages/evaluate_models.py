"""Evaluate the models of an `evaluate` stage: losses, and greedy answers.

Every engine gets a chat as the model's template writes it, continues it with the likeliest tokens
without any penalty, and the same code splits the reply into reasoning and answer. `METHOD`
describes this in ``metrics.json``. For the first rows, the tokens of a GGUF are compared with those
of the other models.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import eq
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpipe.backends.reasoning import Reply
from llmpipe.contracts import Artifact, StageContext
from llmpipe.errors import StageError
from llmpipe.stages.evaluate_config import EvaluateConfig
from llmpipe.stages.evaluate_logits import (
    COMPARED,
    LIKELIHOODS,
    Reference,
    reference_of,
    score_gguf,
)
from llmpipe.stages.evaluate_rows import Chat
from llmpipe.stages.evaluate_schema import HeldSchema

if TYPE_CHECKING:
    from llmpipe.backends.huggingface.inference import LoadedModel
    from llmpipe.backends.llama_cpp.quantize import Written
    from llmpipe.parity.divergence import Divergence

PROMPTS = 8
"""Number of rows whose prompts are compared between the engines, as token ids."""

METHOD = {
    "rendering": "the model's chat template with its own defaults (no template arguments), "
    "tokenized as it is; a warning reports a GGUF whose tokens for the first rows differ from "
    "those of the other models",
    "decoding": "greedy: the likeliest token; no penalty, sampler or forbidden token, whatever "
    "generation_config.json or general.sampling.* contains",
    "answer": "the text after the model's reasoning, without control tokens and surrounding white "
    "space; empty if the reply ends inside its reasoning",
    "loss": "nats per token of the reference as the chat template writes it, including "
    "reasoning if the template writes it, and the token that ends the turn; a GGUF's by "
    "llama.cpp, for the tokens of the model or adapter listed last before the GGUFs",
    "kl": "mean over the same tokens of the Kullback-Leibler divergence from that model, in nats, "
    "over the whole vocabulary",
    "same_top": "share of the same tokens at which both find the same token likeliest",
}
"""How every model was evaluated, for readers of the metrics."""


@dataclass(slots=True)
class Result:
    """The results of one model: sums of nats, counts of tokens, and replies."""

    losses: list[tuple[float, int]] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    prompts: list[list[int]] = field(default_factory=list)
    """The first rows' prompts as token ids."""
    ends: list[str] = field(default_factory=list)
    """The tokens that end an answer."""
    divergences: list[Divergence] = field(default_factory=list)
    """How far each row's predictions are from the reference's."""
    file: dict[str, Any] = field(default_factory=dict)
    """What a GGUF file contains."""
    speed: float | None = None
    """How many tokens a second a GGUF writes."""

    def counts(self) -> dict[str, Any]:
        """Count how the replies ended, and how many contain reasoning."""
        unfinished = [reply for reply in self.replies if reply.unfinished]
        return {
            "cut": sum(reply.truncated for reply in self.replies),
            "with_reasoning": sum(bool(reply.reasoning) for reply in self.replies),
            "ended_in_reasoning": len(unfinished),
            "cut_in_reasoning": sum(reply.truncated for reply in unfinished),
            "ends": self.ends,
        }


@dataclass(slots=True)
class Progress:
    """Counts rows over all models and both kinds of work."""

    ctx: StageContext[EvaluateConfig]
    total: int
    done: int = 0

    def counter(self, note: str) -> Callable[[int], None]:
        """Return a function that adds rows to the count, under this note."""

        def add(rows: int) -> None:
            self.done += rows
            self.ctx.progress(self.done, self.total, note)

        add(0)
        return add


def work(ctx: StageContext[EvaluateConfig], model: Artifact, scored: bool) -> list[str]:
    """Return what will be done with a model: score the references, write answers, or both.

    ``scored`` says whether there is a model whose tokenizer turns the rows into tokens.
    """
    score = bool(set(ctx.config.metrics) & set(LIKELIHOODS)) and scored
    answer = bool(set(ctx.config.metrics) - set(LIKELIHOODS))
    if not score and not answer:
        raise StageError(
            f"{model.label}: the loss of a GGUF is measured on the tokens of a model or adapter, "
            "and `models` lists none",
            hint="list the model that it was made from, or add rouge_l or exact_match to `metrics`",
        )
    return ["loss"] * score + ["answers"] * answer


def examine_all(
    ctx: StageContext[EvaluateConfig], models: Sequence[Artifact], chats: list[Chat]
) -> dict[str, Result]:
    """Have every model score and answer the chats, the reference first; return the results by
    label in the order of ``models``."""
    first = reference_of(models)
    todo = (work(ctx, model, first is not None) for model in models)
    progress = Progress(ctx, len(chats) * sum(map(len, todo)))
    ctx.work.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ctx.work, prefix="logits-") as folder:
        kept = Path(folder) if set(ctx.config.metrics) & set(COMPARED) else None
        reference = Reference(first.label, kept) if first else None
        found = {
            model.label: examine(ctx, model, chats, progress, reference)
            for model in sorted(models, key=lambda model: model is not first)
        }
    return {model.label: found[model.label] for model in models}


def examine(
    ctx: StageContext[EvaluateConfig],
    model: Artifact,
    chats: list[Chat],
    progress: Progress,
    reference: Reference | None,
) -> Result:
    """Have one model score and answer the chats.

    The reference itself must be examined first: that fills ``reference``.
    """
    if model.type == "gguf":
        return _served(ctx, model, chats, progress, reference)
    from llmpipe.backends.huggingface.chat_tokens import render_chat, token_ids
    from llmpipe.backends.huggingface.inference import (
        greedy_answers,
        opened_model,
        stop_token_ids,
    )

    config, todo, result = ctx.config, work(ctx, model, True), Result()
    folder, adapter = (model.base.path, model.path) if model.base else (model.path, None)
    with opened_model(folder, adapter, threads=ctx.threads, label=model.label) as loaded:
        asked = [chat[:-1] for chat in chats]
        texts = [render_chat(loaded.tokenizer, c, answer_next=True) for c in asked[:PROMPTS]]
        result.prompts = [token_ids(loaded.tokenizer, text) for text in texts]
        if "loss" in todo:
            _score(ctx, loaded, chats, progress, reference, result)
        if "answers" in todo:
            count = progress.counter(f"{model.label}: answers")
            result.replies = greedy_answers(
                loaded, asked, config.max_new_tokens, config.batch_size, on_done=count
            )
            result.ends = loaded.tokenizer.convert_ids_to_tokens(stop_token_ids(loaded))
    return result


def _score(
    ctx: StageContext[EvaluateConfig],
    loaded: LoadedModel,
    chats: list[Chat],
    progress: Progress,
    reference: Reference | None,
    result: Result,
) -> None:
    """Measure the losses of a model, and compare its logits with the reference's."""
    from llmpipe.backends.huggingface.chat_tokens import encode_answer
    from llmpipe.backends.huggingface.inference import answer_losses

    assert reference is not None
    on_logits = None
    found: dict[int, Divergence | None] = {}
    if loaded.label == reference.label:
        reference.prompts = result.prompts
        reference.encode(loaded, chats)
        on_logits = reference.keep if reference.folder else None
    elif reference.folder and reference.rows == [encode_answer(loaded.tokenizer, c) for c in chats]:
        on_logits = partial(_compared, reference, found)
    count = progress.counter(f"{loaded.label}: loss")
    losses = answer_losses(loaded, chats, on_done=count, on_logits=on_logits)
    result.losses = [(loss.nll, loss.tokens) for loss in losses]
    if reference.folder and loaded.label != reference.label:
        _take(ctx, loaded.label, reference, found, result)


def _compared(
    reference: Reference, found: dict[int, Divergence | None], row: int, logits: Any
) -> None:
    found[row] = reference.compare(row, logits)


def _take(
    ctx: StageContext[EvaluateConfig],
    label: str,
    reference: Reference,
    found: Mapping[int, Divergence | None],
    result: Result,
) -> None:
    """Take over the comparisons of all rows, or say that the models cannot be compared."""
    rows = [found.get(row) for row in range(len(reference.rows))]
    if None in rows:
        ctx.warn(
            f"{label} cannot be compared with {reference.label} (kl, same_top): they do not read "
            "the rows in the same tokens"
        )
    else:
        result.divergences = [row for row in rows if row]


def warn(
    ctx: StageContext[EvaluateConfig], results: Mapping[str, Result], ggufs: Container[str] = ()
) -> None:
    """Warn of differences that affect the models' answers, and of replies without an answer."""
    for warning in _unlike_prompts(results, ggufs):
        ctx.warn(warning)
    for label, result in results.items():
        counts, total = result.counts(), len(result.replies)
        if counts["ended_in_reasoning"]:
            ctx.warn(
                f"{label}: {counts['ended_in_reasoning']} of {total} replies end inside the "
                f"model's reasoning and count as empty answers; {counts['cut_in_reasoning']} of "
                f"them were cut (raise max_new_tokens)"
            )
    ends = {label: set(result.ends) for label, result in results.items() if result.ends}
    common = set.intersection(*ends.values()) if ends else set()
    if any(found != common for found in ends.values()):
        own = "; ".join(
            f"{label} {' '.join(sorted(found - common)) or 'none'}" for label, found in ends.items()
        )
        ctx.warn(f"the models do not end their answers at the same tokens; not shared: {own}")


def _unlike_prompts(results: Mapping[str, Result], ggufs: Container[str]) -> Iterator[str]:
    """Yield a sentence for every GGUF whose tokens differ from those of all other models."""
    others = {label: result for label, result in results.items() if label not in ggufs}
    read = {label: result.prompts for label, result in others.items() if result.prompts}
    for label, result in results.items():
        if label not in ggufs or not read or result.prompts in read.values():
            continue
        nearest = max(read, key=lambda other: sum(map(eq, read[other], result.prompts)))
        rows = [n for n, ids in enumerate(result.prompts) if ids != read[nearest][n]]
        yield (
            f"{label} tokenizes the questions differently from {nearest}: {len(rows)} of the first "
            f"{len(result.prompts)} rows differ, first row {rows[0]}; its answers are to other "
            "prompts"
        )


def _served(
    ctx: StageContext[EvaluateConfig],
    model: Artifact,
    chats: list[Chat],
    progress: Progress,
    reference: Reference | None,
) -> Result:
    """Ask the GGUF as it will be served, one question at a time.

    Concurrent questions gain nothing on few cores, and batching would change the answers.
    """
    from llmpipe.backends.llama_cpp.quantize import measured
    from llmpipe.backends.llama_cpp.serve import serve_gguf
    from llmpipe.gguf_parts import all_parts

    config = ctx.config
    todo = work(ctx, model, reference is not None)
    held = HeldSchema(ctx.input("json_schema")) if config.json_schema else None
    schema = held.schema if held else None
    size = sum(part.stat().st_size for part in all_parts(model.path))
    result = Result(file=_file(size, measured(model.path)))
    with serve_gguf(model.path, threads=ctx.threads, context=_context(chats, config)) as server:
        result.ends = list(server.end_tokens().values())
        if held:
            held.require_held(server)
        asked = [
            [{"role": turn["role"], "content": turn["content"]} for turn in chat[:-1]]
            for chat in chats
        ]
        result.prompts = [
            server.tokenize(server.apply_template(chat), add_special=True)
            for chat in asked[:PROMPTS]
        ]
        result.speed = server.speed()
        if "answers" in todo:
            count = progress.counter(f"{model.label}: answers")
            for number, chat in enumerate(asked):
                reply = server.chat(chat, max_tokens=config.max_new_tokens, json_schema=schema)
                if held:
                    held.require_followed(reply, f"{model.label}, row {number}")
                result.replies.append(reply)
                count(1)
    if "loss" in todo and reference:
        _score_served(ctx, model, progress, reference, result)
    return result


def _file(size: int, written: Written) -> dict[str, Any]:
    """Return what a GGUF contains as JSON data."""
    fell_back = {f"{a} → {b}": len(names) for (a, b), names in written.fallbacks.items()}
    return {
        "bytes": size,
        "bits_per_weight": round(written.bits, 4),
        "tensors": written.tensors,
        "fallbacks": sum(fell_back.values()),
        "fell_back": fell_back,
    }


def _score_served(
    ctx: StageContext[EvaluateConfig],
    model: Artifact,
    progress: Progress,
    reference: Reference,
    result: Result,
) -> None:
    """Measure the loss of a GGUF, and compare its logits with the reference's."""
    count = progress.counter(f"{model.label}: loss")
    if result.prompts != reference.prompts:
        ctx.warn(
            f"{model.label}: no loss is measured, because it reads the questions in other tokens "
            f"than {reference.label}"
        )
        count(len(reference.rows))
        return
    found: dict[int, Divergence | None] = {}

    def on_row(row: int, logits: Any) -> None:
        result.losses.append(reference.loss(row, logits))
        if reference.folder:
            found[row] = reference.compare(row, logits)
        count(1)

    score_gguf(model, reference, ctx.threads, on_row)
    if reference.folder:
        _take(ctx, model.label, reference, found, result)


def _context(chats: Sequence[Chat], config: EvaluateConfig) -> int:
    """Return a context size that fits the longest chat: a token is at least one byte."""
    longest = max(sum(len(turn["content"].encode()) + 32 for turn in chat[:-1]) for chat in chats)
    return -(-(longest + 256 + config.max_new_tokens) // 256) * 256
