"""A model folder in transformers: its tokenizer, its chat template, and the answers that it writes.

``transformers_server.py`` serves it in a subprocess. Prompts are rendered and tokenized as in
training and in `llmpipe.backends.huggingface.inference`. Sampling follows llama.cpp: the same
defaults in the same order, so that an answer does not depend on which engine serves the model.
Not covered: schemas and grammars, tools, log-probabilities, prompts kept for the next request.
"""

from __future__ import annotations

import queue
import random
import threading
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmpipe.backends.huggingface.chat_tokens import (
    control_ids,
    decode_reply,
    render_chat,
    token_ids,
)
from llmpipe.backends.huggingface.inference import (
    LoadedModel,
    load_model,
    pad_id,
    stop_token_ids,
    without_defaults,
)
from llmpipe.backends.llama_cpp.written import (
    Piece,
    RefusedError,
    Written,
    pieces_of,
    plain,
    room_for,
)
from llmpipe.backends.reasoning import TAG_TEXTS
from llmpipe.errors import StageError

DEFAULTS: Mapping[str, float] = {
    "temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05, "typical_p": 1.0,
    "repeat_penalty": 1.0, "frequency_penalty": 0.0, "presence_penalty": 0.0,
}  # fmt: skip
"""The sampling fields of a request, with llama.cpp's defaults."""
OWN_NAMES = {"repeat_penalty": "repetition_penalty"}
"""Names of these fields in a folder's generation_config.json, where they differ."""
IGNORED = (
    "bad_words_ids", "begin_suppress_tokens", "encoder_no_repeat_ngram_size",
    "encoder_repetition_penalty", "epsilon_cutoff", "eta_cutoff",
    "exponential_decay_length_penalty", "forced_bos_token_id", "forced_eos_token_id",
    "guidance_scale", "min_length", "min_new_tokens", "no_repeat_ngram_size", "num_beams",
    "penalty_alpha", "sequence_bias", "stop_strings", "suppress_tokens", "top_h",
    "watermarking_config",
)  # fmt: skip
"""Settings of a generation_config.json that would change answers and are not supported here."""
NOTHING_AT_ONE = frozenset({"encoder_repetition_penalty", "guidance_scale", "num_beams"})
"""Those of them that ask for nothing with the value 1."""
NEUTRAL: Mapping[str, Any] = {
    "samplers": ["temperature"], "dynatemp_range": 0.0, "top_n_sigma": -1.0, "xtc_probability": 0.0,
    "mirostat": 0, "adaptive_target": -1.0, "dry_multiplier": 0.0, "logit_bias": [],
}  # fmt: skip
"""Fields that are not supported, with the value that asks for nothing."""
PENALIZED = 64
"""The number of last tokens that penalties apply to, as in llama.cpp."""


class Model:
    """The model, its tokenizer and its chat template."""

    engine = "transformers"
    fields = frozenset(
        (*DEFAULTS, *NEUTRAL, "cache_prompt", "max_completion_tokens", "max_tokens", "messages",
         "model", "n_predict", "preserved_tokens", "prompt", "seed", "stop", "stream",
         "stream_options")
    )  # fmt: skip
    neutral = NEUTRAL

    def __init__(self, settings: Mapping[str, Any]) -> None:
        folder = Path(settings["model"])
        self._loaded = load_model(folder, threads=settings["threads"], label=folder.name)
        tokenizer = self._loaded.tokenizer
        if not getattr(tokenizer, "is_fast", False):
            raise ValueError("its tokenizer has no tokenizer.json, which streams need")
        config = self._loaded.model.config
        self._trained = int(getattr(config, "max_position_embeddings", None) or 0)
        asked = int(settings["context"])
        self.context = min(asked, self._trained) if self._trained else asked
        template = getattr(tokenizer, "chat_template", None)
        self.template = template if isinstance(template, str) else ""
        self._stops = (
            frozenset(stop_token_ids(self._loaded)) if self.template else _ends_of(self._loaded)
        )
        self._defaults = {**DEFAULTS, **own_sampling(self._loaded.model.generation_config)}
        self._adds_special = self._adds_what_chats_have()

    def about(self) -> dict[str, int]:
        """Return its size."""
        weights = list(self._loaded.model.parameters())
        config = self._loaded.model.config
        return {
            "n_vocab": int(config.vocab_size),
            "n_ctx_train": self._trained,
            "n_embd": int(getattr(config, "hidden_size", None) or 0),
            "n_params": sum(weight.numel() for weight in weights),
            "size": sum(weight.numel() * weight.element_size() for weight in weights),
        }

    def prompt(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """Return the prompt of a conversation, without the tokens that tokenizing adds."""
        if messages and messages[-1].get("role") == "assistant":
            raise RefusedError("this engine cannot continue the assistant's message")
        text = self._rendered([plain(each) for each in messages])
        return text.removeprefix(self._bos()) if self._adds_special else text

    def tokens(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Return the tokens of a text."""
        ids: list[int] = self._loaded.tokenizer(
            text,
            add_special_tokens=add_special and self._adds_special,
            split_special_tokens=not parse_special,
        )["input_ids"]
        return ids

    def text(self, tokens: Sequence[int]) -> bytes:
        """Return the text of tokens."""
        found: str = self._loaded.tokenizer.decode(
            list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return found.encode("utf-8", "replace")

    def write(self, body: Mapping[str, Any], written: Written) -> Generator[Piece, None, None]:
        """Yield the pieces of an answer.

        Raises:
            RefusedError: The prompt does not fit, is empty, or has a token that does not exist.
        """
        if not written.prompt:
            raise RefusedError("the prompt has no tokens")
        rows = int(self._loaded.model.config.vocab_size)
        if other := [token for token in written.prompt if not 0 <= token < rows]:
            raise RefusedError(f"the model has no token {other[0]}; they go from 0 to {rows - 1}")
        most = room_for(body, written.prompt, self.context)
        sampling = {
            name: self._defaults[name] if body.get(name) is None else body[name]
            for name in DEFAULTS
        }
        seed = body.get("seed", -1)
        seed = random.getrandbits(32) if seed in (None, -1) else int(seed)
        tokens = _generated(self._loaded, written.prompt, most, self._stops, sampling, seed)
        decoder = _Decoder(self._loaded.tokenizer)
        yield from pieces_of(tokens, decoder, self._stops.__contains__, body, most, written)

    def _rendered(self, messages: Sequence[Mapping[str, Any]]) -> str:
        try:
            return render_chat(self._loaded.tokenizer, messages, answer_next=True)
        except StageError as error:
            raise RefusedError(str(error)) from error
        except Exception as error:  # whatever the template raises
            raise RefusedError(f"the chat template refuses the conversation: {error}") from error

    def _bos(self) -> str:
        return str(self._loaded.tokenizer.bos_token or "")

    def _adds_what_chats_have(self) -> bool:
        """Return whether tokenizing may add special tokens, as llama.cpp does.

        It may where this gives the tokens of a rendered chat, which training saw, or where there is
        no chat template.
        """
        if not self.template:
            return True
        try:
            text = self._rendered([{"role": "user", "content": "a"}])
        except RefusedError:
            return False
        bare = text.removeprefix(self._bos())
        added: list[int] = self._loaded.tokenizer(bare)["input_ids"]
        return added == token_ids(self._loaded.tokenizer, text)


class _Decoder:
    """Decodes an answer token by token: without control tokens, but with reasoning tags."""

    def __init__(self, tokenizer: Any) -> None:
        from tokenizers.decoders import DecodeStream

        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=False)
        added = tokenizer.added_tokens_decoder
        self._hidden = {
            i for i in control_ids(tokenizer) if i not in added or added[i].content not in TAG_TEXTS
        }
        self._ids: list[int] = []
        self._told = ""

    def feed(self, token: int) -> str:
        """See `llmpipe.backends.llama_cpp.written.Decoder.feed`."""
        if token in self._hidden:
            return ""
        self._ids.append(token)
        text = str(self._stream.step(self._tokenizer.backend_tokenizer, token) or "")
        self._told += text
        return text

    def close(self) -> str:
        """See `llmpipe.backends.llama_cpp.written.Decoder.close`."""
        whole = decode_reply(self._tokenizer, self._ids)
        return whole[len(self._told) :] if whole.startswith(self._told) else ""


class _CancelledError(Exception):
    """The answer is not wanted any more."""


class _Stream:
    """Takes the tokens that `generate` writes, prompt first."""

    def __init__(self) -> None:
        self.items: queue.SimpleQueue[int | Exception | None] = queue.SimpleQueue()
        self.cancelled = threading.Event()
        self._prompt = True

    def put(self, value: Any) -> None:
        if self.cancelled.is_set():
            raise _CancelledError
        if not self._prompt:
            for token in value.tolist():
                self.items.put(int(token))
        self._prompt = False

    def end(self) -> None:
        """Nothing is held back."""


def _generated(
    loaded: LoadedModel,
    prompt: Sequence[int],
    most: int,
    stops: frozenset[int],
    sampling: Mapping[str, float],
    seed: int,
) -> Generator[int, None, None]:
    """Yield the tokens of an answer. Closing the generator ends the computation."""
    stream = _Stream()

    def compute() -> None:
        try:
            _generate(loaded, prompt, most, stops, sampling, seed, stream)
        except _CancelledError:
            pass
        except Exception as error:
            stream.items.put(error)
        stream.items.put(None)

    thread = threading.Thread(target=compute, daemon=True)
    thread.start()
    try:
        while (item := stream.items.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        stream.cancelled.set()
        thread.join()


def _generate(
    loaded: LoadedModel,
    prompt: Sequence[int],
    most: int,
    stops: frozenset[int],
    sampling: Mapping[str, float],
    seed: int,
    stream: _Stream,
) -> None:
    import torch
    from transformers import GenerationConfig

    torch.manual_seed(seed)  # one answer is computed at a time, so no other one draws
    ids = torch.tensor([list(prompt)]).to(loaded.device)
    sampled = sampling["temperature"] > 0
    off = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "typical_p": 1.0} if sampled else {}
    plan = GenerationConfig(
        do_sample=sampled,
        max_new_tokens=most,
        eos_token_id=sorted(stops) or None,
        pad_token_id=pad_id(loaded.tokenizer, sorted(stops) or [0]),
        **off,
    )
    with torch.inference_mode(), without_defaults(loaded.model):
        loaded.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            generation_config=plan,
            logits_processor=_samplers(sampling),
            streamer=stream,
        )


def _samplers(sampling: Mapping[str, float]) -> Any:
    """Return the samplers in llama.cpp's order; those that would do nothing are left out."""
    from transformers import generation

    found: list[Any] = []
    penalties = [sampling[f"{name}_penalty"] for name in ("repeat", "frequency", "presence")]
    if penalties != [1.0, 0.0, 0.0]:
        found.append(_penalizer(*penalties))
    if sampling["temperature"] > 0:
        if sampling["top_k"] > 0:
            found.append(generation.TopKLogitsWarper(int(sampling["top_k"])))
        if sampling["typical_p"] < 1:
            found.append(generation.TypicalLogitsWarper(sampling["typical_p"]))
        if sampling["top_p"] < 1:
            found.append(generation.TopPLogitsWarper(sampling["top_p"]))
        if sampling["min_p"] > 0:
            found.append(generation.MinPLogitsWarper(sampling["min_p"]))
        if sampling["temperature"] != 1:
            found.append(generation.TemperatureLogitsWarper(float(sampling["temperature"])))
    return generation.LogitsProcessorList(found)


def _penalizer(repeat: float, frequency: float, presence: float) -> Any:
    """Return llama.cpp's penalties, which count the last tokens of prompt and answer."""
    import torch
    from transformers.generation import LogitsProcessor

    class Penalties(LogitsProcessor):  # type: ignore[misc]
        def __call__(self, input_ids: Any, scores: Any) -> Any:
            counts = torch.zeros_like(scores)
            last = input_ids[:, -PENALIZED:]
            counts.scatter_add_(1, last, torch.ones_like(last, dtype=scores.dtype))
            scaled = torch.where(scores > 0, scores / repeat, scores * repeat)
            return torch.where(counts > 0, scaled - counts * frequency - presence, scores)

    return Penalties()


def own_sampling(config: Any) -> dict[str, float]:
    """Return the sampling settings of a folder's generation_config.json.

    Raises:
        ValueError: It has a setting that would change answers and is not supported.
    """
    given = config.to_diff_dict()
    asked = (name for name in IGNORED if given.get(name))
    if unknown := [n for n in asked if n not in NOTHING_AT_ONE or given[n] != 1]:
        raise ValueError(f"its generation_config.json sets {', '.join(unknown)}, unsupported here")
    own = {name: given.get(OWN_NAMES.get(name, name)) for name in DEFAULTS}
    return {name: float(value) for name, value in own.items() if value is not None}


def _ends_of(loaded: LoadedModel) -> frozenset[int]:
    """Return the end tokens of a model without a chat template."""
    declared = getattr(loaded.model.generation_config, "eos_token_id", None)
    ids = declared if isinstance(declared, list) else [declared]
    return frozenset(int(i) for i in (*ids, loaded.tokenizer.eos_token_id) if i is not None)
