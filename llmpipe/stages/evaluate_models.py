"""Evaluate the models of an `evaluate` stage: losses, and greedy answers.

Every engine gets a chat as the model's template writes it, continues it with the likeliest tokens
without any penalty, and the same code splits the reply into reasoning and answer. `METHOD`
describes this in ``metrics.json``. For the first rows, the tokens of a GGUF are compared with those
of the other models.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import eq
from typing import TYPE_CHECKING, Any

from llmpipe.backends.reasoning import Reply
from llmpipe.contracts import Artifact, StageContext
from llmpipe.errors import StageError
from llmpipe.stages.evaluate_schema import HeldSchema

if TYPE_CHECKING:
    from llmpipe.stages.evaluate import EvaluateConfig

Chat = list[dict[str, Any]]
"""The turns of a conversation as chat templates take them."""

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
    "reasoning if the template writes it, and the token that ends the turn",
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


def work(ctx: StageContext[EvaluateConfig], model: Artifact) -> list[str]:
    """Return what will be done with a model: score the references, write answers, or both."""
    score = "loss" in ctx.config.metrics and model.type != "gguf"
    answer = bool(set(ctx.config.metrics) - {"loss"})
    if not score and not answer:
        raise StageError(
            f"{model.label}: the loss of a GGUF is not measured",
            hint="add rouge_l or exact_match to `metrics`, or leave the GGUF out",
        )
    return ["loss"] * score + ["answers"] * answer


def examine(
    ctx: StageContext[EvaluateConfig],
    model: Artifact,
    chats: list[Chat],
    progress: Progress,
) -> Result:
    """Have one model score and answer the chats."""
    if model.type == "gguf":
        return _served(ctx, model, chats, progress)
    from llmpipe.backends.huggingface.chat_tokens import render_chat, token_ids
    from llmpipe.backends.huggingface.inference import (
        answer_losses,
        greedy_answers,
        opened_model,
        stop_token_ids,
    )

    config, todo, result = ctx.config, work(ctx, model), Result()
    folder, adapter = (model.base.path, model.path) if model.base else (model.path, None)
    with opened_model(folder, adapter, threads=ctx.threads, label=model.label) as loaded:
        if "loss" in todo:
            count = progress.counter(f"{model.label}: loss")
            losses = answer_losses(loaded, chats, on_done=count)
            result.losses = [(loss.nll, loss.tokens) for loss in losses]
        if "answers" in todo:
            count = progress.counter(f"{model.label}: answers")
            asked = [chat[:-1] for chat in chats]
            result.replies = greedy_answers(
                loaded, asked, config.max_new_tokens, config.batch_size, on_done=count
            )
            texts = [render_chat(loaded.tokenizer, c, answer_next=True) for c in asked[:PROMPTS]]
            result.prompts = [token_ids(loaded.tokenizer, text) for text in texts]
            result.ends = loaded.tokenizer.convert_ids_to_tokens(stop_token_ids(loaded))
    return result


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
) -> Result:
    """Ask the GGUF as it will be served, one question at a time.

    Concurrent questions gain nothing on few cores, and batching would change the answers.
    """
    from llmpipe.backends.llama_cpp.serve import serve_gguf

    config = ctx.config
    held = HeldSchema(ctx.input("json_schema")) if config.json_schema else None
    schema = held.schema if held else None
    count = progress.counter(f"{model.label}: answers")
    result = Result()
    with serve_gguf(model.path, threads=ctx.threads, context=_context(chats, config)) as server:
        result.ends = list(server.end_tokens().values())
        if held:
            held.require_held(server)
        for number, chat in enumerate(chats):
            asked = [{"role": turn["role"], "content": turn["content"]} for turn in chat[:-1]]
            if number < PROMPTS:
                prompt = server.tokenize(server.apply_template(asked), add_special=True)
                result.prompts.append(prompt)
            reply = server.chat(asked, max_tokens=config.max_new_tokens, json_schema=schema)
            if held:
                held.require_followed(reply, f"{model.label}, row {number}")
            result.replies.append(reply)
            count(1)
    return result


def _context(chats: Sequence[Chat], config: EvaluateConfig) -> int:
    """Return a context size that fits the longest chat: a token is at least one byte."""
    longest = max(sum(len(turn["content"].encode()) + 32 for turn in chat[:-1]) for chat in chats)
    return -(-(longest + 256 + config.max_new_tokens) // 256) * 256
