"""Score answers and write them greedily with a Hugging Face model, adapters included.

The model is read from a local folder (safetensors only, nothing from the network, no code that a
model brings along) and computes in float32 on a CPU, in the device's own format on a GPU. How a
chat becomes tokens is up to the model's own chat template. Not covered: sampling and training.
"""

from __future__ import annotations

import contextlib
import gc
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmpipe.backends import device
from llmpipe.backends.huggingface.base_model import load_base, put_adapter
from llmpipe.backends.huggingface.chat_tokens import (
    Chat,
    EncodedAnswer,
    decode_reply,
    encode_answer,
    render_chat,
    token_ids,
    turn_ends,
)
from llmpipe.backends.huggingface.economy import chosen_positions, grouped_attention
from llmpipe.backends.huggingface.quantization import quantization_of
from llmpipe.backends.reasoning import Reply, opened_by, part
from llmpipe.backends.suppress_logs import suppress_logs
from llmpipe.errors import StageError

Progress = Callable[[int], None]

ENDS_BY_TEXT = (
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>",
    "<end_of_turn>", "<turn|>", "<|end_of_text|>", "<|endoftext|>", "<eos>", "[EOS]", "<|eom_id|>",
    "<EOT>", "_<EOT>", "[EOT]", "<｜end▁of▁sentence｜>", "<end_of_utterance>", "<|tool_response>",
    "<|ifm|im_end|>", "[e~[",
    "<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]",
    "<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>", "<|file_sep|>",
)  # fmt: skip
"""Tokens that llama.cpp ends an answer at wherever a vocabulary has them, whatever it declares."""

TOKENS_PER_BATCH = 2048
"""How many tokens, padding included, are scored at once: bounds the memory that logits take."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready to compute, its tokenizer, and the device that it is on."""

    model: Any
    tokenizer: Any
    device: str
    label: str


@dataclass(frozen=True, slots=True)
class AnswerLoss:
    """What one answer costs: the sum of its tokens' negative log-likelihoods, in nats."""

    nll: float
    tokens: int


def load_tokenizer(path: Path) -> Any:
    """Load the tokenizer of a model or adapter folder.

    Raises:
        StageError: the folder does not contain a readable tokenizer.
    """
    with suppress_logs():
        from transformers import AutoTokenizer

        try:
            return AutoTokenizer.from_pretrained(str(path), local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            raise StageError(
                f"{path.name}: no usable tokenizer: {_first_line(error)}",
                hint="a model folder needs tokenizer.json and tokenizer_config.json",
            ) from None


def load_model(
    model: Path, adapter: Path | None = None, *, threads: int | None = None, label: str = ""
) -> LoadedModel:
    """Load a model folder, with an adapter on top if there is one.

    The adapter's own tokenizer wins over the model's, since it is what the adapter was trained
    with. The base of a QLoRA adapter is rounded as it was in training. ``threads`` is how many CPU
    threads to compute on; ``label`` is what messages call it.

    Raises:
        StageError: a folder is missing, or is not a model that this version of transformers can
            read, or the adapter does not fit.
        MissingDependencyError: the adapter was trained on a base that bitsandbytes rounded, and it
            is not installed.
    """
    place, dtype = _device()
    name = label or model.name
    with suppress_logs():
        import torch

        if threads:
            torch.set_num_threads(threads)
        rounded = quantization_of(adapter) if adapter else None
        loaded = load_base(model, dtype, name, quantization=rounded)
        tokenizer = load_tokenizer(_tokenizer_folder(model, adapter))
        if adapter is not None:
            loaded = put_adapter(loaded, model, adapter, name)
    return LoadedModel(loaded.to(place).eval(), tokenizer, place, name)


@contextlib.contextmanager
def opened_model(
    model: Path, adapter: Path | None = None, *, threads: int | None = None, label: str = ""
) -> Iterator[LoadedModel]:
    """Load a model as `load_model` does, and free its memory at the end of the block."""
    loaded = load_model(model, adapter, threads=threads, label=label)
    try:
        yield loaded
    finally:
        loaded.model.to("meta")  # remaining references to the object keep no weights alive
        del loaded
        gc.collect()


def answer_losses(
    loaded: LoadedModel,
    chats: Sequence[Chat],
    *,
    on_done: Progress | None = None,
    on_logits: Callable[[int, Any], None] | None = None,
) -> list[AnswerLoss]:
    """Score the last assistant turn of every chat, in order, chats of like length together.

    ``on_done`` is called with the number of chats scored since it was last called; ``on_logits``
    with the number of each chat and the logits of its answer, shape (tokens, vocabulary).

    Raises:
        StageError: as `encode_answer`, or a chat is longer than the model's context.
    """
    encoded = [encode_answer(loaded.tokenizer, chat) for chat in chats]
    _check_context(loaded, max((len(item.ids) for item in encoded), default=0))
    losses: list[AnswerLoss] = [AnswerLoss(0.0, 0)] * len(encoded)
    for batch in _length_batches([len(item.ids) for item in encoded]):
        scores = _score_batch(loaded, [encoded[i] for i in batch])
        for i, (score, logits) in zip(batch, scores, strict=True):
            losses[i] = score
            if on_logits:
                on_logits(i, logits.cpu().numpy())
        if on_done:
            on_done(len(batch))
    return losses


def greedy_answers(
    loaded: LoadedModel,
    chats: Sequence[Chat],
    max_new_tokens: int,
    batch_size: int,
    *,
    on_done: Progress | None = None,
) -> list[Reply]:
    """Have the model answer every chat greedily, until it ends its turn.

    The chats end with the user's turn. Special tokens are left out of the answers, and reasoning
    stands apart.

    Raises:
        StageError: the template refuses a chat, or a chat leaves no room in the model's context.
    """
    tokenizer = loaded.tokenizer
    texts = [render_chat(tokenizer, chat, answer_next=True) for chat in chats]
    prompts = [token_ids(tokenizer, text) for text in texts]
    _check_context(loaded, max(map(len, prompts), default=0) + max_new_tokens)
    stops = stop_token_ids(loaded)
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    replies = [Reply("")] * len(prompts)
    for begin in range(0, len(order), batch_size):
        batch = order[begin : begin + batch_size]
        written = _continue(loaded, [prompts[i] for i in batch], max_new_tokens, stops)
        for i, row in zip(batch, written, strict=True):
            ids = _before_stop(row, stops)
            opened = opened_by(texts[i], str(chats[i][-1]["content"]))
            text = decode_reply(tokenizer, ids)
            replies[i] = part(text, opened, truncated=len(ids) == max_new_tokens)
        if on_done:
            on_done(len(batch))
    return replies


def stop_token_ids(loaded: LoadedModel) -> list[int]:
    """Return the tokens that end an answer, the same as in llama.cpp.

    These are every EOS that is declared, what the template writes behind an answer, and tokens
    that llama.cpp takes for an end by their text.
    """
    tokenizer = loaded.tokenizer
    declared = getattr(loaded.model.generation_config, "eos_token_id", None)
    stops = set(declared if isinstance(declared, list) else [declared])
    stops |= {tokenizer.eos_token_id, *turn_ends(tokenizer)}
    vocabulary = tokenizer.get_vocab()
    named = {text for text in ENDS_BY_TEXT if text in vocabulary}
    if named & {"<|return|>", "<|calls|>"} and named & {"<|call|>", "<|flush|>"}:
        named.discard("<|end|>")  # there it ends a message, not the turn
    stops |= {vocabulary[text] for text in named}
    return sorted(stop for stop in stops if stop is not None)


def _score_batch(
    loaded: LoadedModel, batch: Sequence[EncodedAnswer]
) -> list[tuple[AnswerLoss, Any]]:
    """Score answers padded on the left, with logits at the answers' tokens only."""
    import torch

    ids, mask = _pad_left(loaded, [item.ids for item in batch])
    counts = [len(item.ids) - item.start for item in batch]
    width = ids.shape[1]
    ends = [width * (row + 1) for row in range(len(batch))]
    places = [range(end - n, end) for end, n in zip(ends, counts, strict=True)]
    targets = torch.tensor([place for row in places for place in row]).to(loaded.device)
    arguments: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "use_cache": False}
    model = _bare(loaded.model)
    accepted = inspect.signature(model.forward).parameters
    if "position_ids" in accepted:
        arguments["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
    narrowed = "logits_to_keep" in accepted and model.get_output_embeddings() is not None
    with torch.inference_mode():
        with chosen_positions(model, targets - 1) if narrowed else contextlib.nullcontext():
            logits = loaded.model(**arguments).logits.flatten(0, 1)
        chosen = (logits if narrowed else logits[targets - 1]).float()
        nll = torch.nn.functional.cross_entropy(chosen, ids.flatten()[targets], reduction="none")
    rows = zip(nll.double().split(counts), counts, chosen.split(counts), strict=True)
    return [(AnswerLoss(float(row.sum()), n), logits) for row, n, logits in rows]


def _continue(
    loaded: LoadedModel, prompts: Sequence[list[int]], max_new_tokens: int, stops: list[int]
) -> list[list[int]]:
    """Return the likeliest token after another; rows that end sooner are filled up."""
    import torch
    from transformers import GenerationConfig

    ids, mask = _pad_left(loaded, prompts)
    plan = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=stops,
        pad_token_id=pad_id(loaded.tokenizer, stops),
    )
    with (
        torch.inference_mode(),
        suppress_logs(),
        grouped_attention(),
        without_defaults(loaded.model),
    ):
        output = loaded.model.generate(input_ids=ids, attention_mask=mask, generation_config=plan)
    rows: list[list[int]] = output[:, ids.shape[1] :].tolist()
    return rows


@contextlib.contextmanager
def without_defaults(model: Any) -> Iterator[None]:
    """Take away the settings that the model's folder carries.

    `generate` fills every field that its config leaves open from them: penalties, forbidden
    tokens, a least length.
    """
    from transformers import GenerationConfig

    holders = [model, _bare(model)]
    kept = [holder.generation_config for holder in holders]
    for holder in holders:
        holder.generation_config = GenerationConfig()
    try:
        yield
    finally:
        for holder, config in zip(holders, kept, strict=True):
            holder.generation_config = config


def _pad_left(loaded: LoadedModel, rows: Sequence[list[int]]) -> tuple[Any, Any]:
    import torch

    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad_id(loaded.tokenizer, [0]), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, width - len(row) :] = torch.tensor(row)
        mask[i, width - len(row) :] = 1
    return ids.to(loaded.device), mask.to(loaded.device)


def _length_batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Group positions by length, longest first, within `TOKENS_PER_BATCH` padded tokens each."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batch and lengths[batch[0]] * (len(batch) + 1) > TOKENS_PER_BATCH:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _before_stop(ids: list[int], stops: list[int]) -> list[int]:
    end = next((i for i, token in enumerate(ids) if token in stops), len(ids))
    return ids[:end]


def pad_id(tokenizer: Any, fallback: Sequence[int]) -> int:
    # Padding is masked out: which token stands there does not matter, only that it exists.
    pad = tokenizer.pad_token_id
    return int(fallback[0] if pad is None else pad)


def _check_context(loaded: LoadedModel, needed: int) -> None:
    limit = getattr(loaded.model.config, "max_position_embeddings", None)
    if limit and needed > limit:
        raise StageError(
            f"{loaded.label}: a row needs {needed} tokens, the model's context holds {limit}",
            hint="shorten the rows (`max_tokens` of a format stage) or lower `max_new_tokens`",
        )


def _tokenizer_folder(model: Path, adapter: Path | None) -> Path:
    if adapter is not None and (adapter / "tokenizer_config.json").is_file():
        return adapter
    return model


def _bare(model: Any) -> Any:
    """Return the model under a PEFT wrapper, whose own forward accepts any argument."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _device() -> tuple[str, Any]:
    import torch

    found = device.detect()
    if found.kind == "cuda" and torch.cuda.is_available():
        return "cuda", getattr(torch, found.dtype)
    return "cpu", torch.float32


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
