"""A GGUF in llama-cpp-python: its tokenizer, its chat template, and the answers that it writes.

``python_server.py`` serves it in a subprocess. Nothing else imports this module.
"""

from __future__ import annotations

import codecs
import json
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SAMPLING: Mapping[str, tuple[str, Any]] = {
    "temperature": ("temp", 0.8),
    "top_k": ("top_k", 40),
    "top_p": ("top_p", 0.95),
    "min_p": ("min_p", 0.05),
    "typical_p": ("typical_p", 1.0),
    "repeat_penalty": ("repeat_penalty", 1.0),
    "frequency_penalty": ("frequency_penalty", 0.0),
    "presence_penalty": ("presence_penalty", 0.0),
}
"""Fields of a request, with the library's argument and llama.cpp's default."""
OWN_SAMPLING = {
    "general.sampling.temp": "temperature",
    "general.sampling.top_k": "top_k",
    "general.sampling.top_p": "top_p",
    "general.sampling.min_p": "min_p",
    "general.sampling.penalty_repeat": "repeat_penalty",
}
"""Sampling settings that a GGUF may contain, and the fields whose defaults they are."""
NEUTRAL: Mapping[str, Any] = {
    "samplers": ["temperature"], "dynatemp_range": 0.0, "top_n_sigma": -1.0, "xtc_probability": 0.0,
    "mirostat": 0, "adaptive_target": -1.0, "dry_multiplier": 0.0, "logit_bias": [],
}  # fmt: skip
"""Fields that the library does not have, with the value that asks for nothing."""
GENERATION = frozenset(
    (*SAMPLING, *NEUTRAL, "cache_prompt", "grammar", "json_schema", "max_completion_tokens",
     "max_tokens", "messages", "model", "n_predict", "preserved_tokens", "prompt", "seed", "stop",
     "stream", "stream_options")
)  # fmt: skip


class RefusedError(Exception):
    """A request that is not answered, with llama.cpp's kind of error."""

    def __init__(
        self, message: str, kind: str = "invalid_request_error", status: int = 400, **more: Any
    ) -> None:
        super().__init__(message)
        self.status = status
        self.data = {"error": {"code": status, "message": message, "type": kind, **more}}


@dataclass(slots=True)
class Piece:
    """The next part of an answer. The last one has a ``stop_type``: eos, word or limit."""

    text: str
    tokens: list[int]
    stop_type: str | None = None


@dataclass(slots=True)
class Written:
    """An answer while it is written: its prompt, what came of it, and the times."""

    prompt: list[int]
    begun: float = field(default_factory=time.perf_counter)
    first: float | None = None
    tokens: int = 0

    def usage(self) -> dict[str, int]:
        """Return the counts in OpenAI's format."""
        prompt = len(self.prompt)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": self.tokens,
            "total_tokens": prompt + self.tokens,
        }

    def timings(self) -> dict[str, float]:
        """Return the times in llama.cpp's format."""
        now = time.perf_counter()
        first = now if self.first is None else self.first
        writing = max(now - first, 1e-9)
        return {
            "prompt_n": len(self.prompt),
            "prompt_ms": (first - self.begun) * 1000,
            "predicted_n": self.tokens,
            "predicted_ms": writing * 1000,
            "predicted_per_second": max(self.tokens - 1, 0) / writing,
        }


class Model:
    """The model, its tokenizer and its chat template."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        import llama_cpp
        from llama_cpp.llama_chat_format import Jinja2ChatFormatter

        self._library = llama_cpp
        self.llama = llama_cpp.Llama(
            settings["model"],
            n_gpu_layers=-1,  # all that this build can put on a GPU
            n_ctx=settings["context"],
            n_batch=settings["batch"],
            n_ubatch=min(settings["batch"], 512),
            n_threads=settings["threads"],
            n_threads_batch=settings["threads"],
            verbose=settings["verbosity"] > 2,
        )
        self.context = min(self.llama.n_ctx(), self.llama._model.n_ctx_train())
        self.template = self.llama.metadata.get("tokenizer.chat_template", "")
        self._bos, self._eos = map(self._text_of, (self.llama.token_bos(), self.llama.token_eos()))
        self._render = Jinja2ChatFormatter(self.template, self._eos, self._bos)
        self._defaults = {name: default for name, (_, default) in SAMPLING.items()}
        self._defaults |= _own_sampling(self.llama.metadata)
        self._caches = settings["cache_prompt"]
        self._kept = self._single_tokens(settings["preserved"])

    def prompt(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """Return the prompt of a conversation, without the tokens that tokenizing adds."""
        if not self.template:
            raise RefusedError("the GGUF has no chat template")
        if messages and messages[-1].get("role") == "assistant":
            raise RefusedError("this engine cannot continue the assistant's message")
        try:
            text: str = self._render(messages=[_plain(each) for each in messages]).prompt
        except Exception as error:  # whatever the template raises
            raise RefusedError(f"the chat template refuses the conversation: {error}") from error
        model = self.llama._model
        if self._bos and model.add_bos_token():
            text = text.removeprefix(self._bos)
        if self._eos and model.add_eos_token():
            text = text.removesuffix(self._eos)
        return text

    def tokens(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Return the tokens of a text."""
        found: list[int] = self.llama.tokenize(text.encode(), add_special, parse_special)
        return found

    def text(self, tokens: Sequence[int], *, special: bool = True) -> bytes:
        """Return the text of tokens. A token before them keeps a leading space."""
        before = [self.llama.token_eos()]
        found: bytes = self.llama.detokenize(list(tokens), prev_tokens=before, special=special)
        return found

    def write(self, body: Mapping[str, Any], written: Written) -> Iterator[Piece]:
        """Yield the pieces of an answer.

        Raises:
            RefusedError: The prompt does not fit, or a setting cannot be used.
        """
        prompt = written.prompt
        if len(prompt) >= self.context:
            raise RefusedError(
                f"the request exceeds the available context size ({self.context} tokens)",
                "exceed_context_size_error", n_prompt_tokens=len(prompt), n_ctx=self.context,
            )  # fmt: skip
        most = next((body[n] for n in ("n_predict", "max_tokens", "max_completion_tokens")
                     if body.get(n) is not None), -1)  # fmt: skip
        room = self.context - len(prompt)
        most = room if most < 0 else min(most, room)
        if not body.get("cache_prompt", self._caches):
            self.llama.reset()
        seed = body.get("seed", -1)
        self.llama.set_seed(random.getrandbits(32) if seed in (None, -1) else seed)
        sampling = {
            argument: body.get(name, self._defaults[name])
            for name, (argument, _) in SAMPLING.items()
        }
        tokens = self.llama.generate(prompt, grammar=self._grammar(body), **sampling)
        yield from self._pieces(tokens, most, _stops(body.get("stop")), written)

    def _pieces(
        self, tokens: Iterator[int], most: int, stops: Sequence[str], written: Written
    ) -> Iterator[Piece]:
        """Decode tokens, holding back what may be the beginning of a stop text."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        held, new = "", list[int]()
        for token in tokens:
            written.first = written.first or time.perf_counter()
            written.tokens += 1
            new.append(token)
            if self._library.llama_vocab_is_eog(self.llama._model.vocab, token):
                yield Piece(held + decoder.decode(b"", final=True), new, "eos")
                return
            held += decoder.decode(self.text([token], special=token in self._kept))
            found = [at for stop in stops if (at := held.find(stop)) >= 0]
            if found:
                yield Piece(held[: min(found)], new, "word")
                return
            if written.tokens >= most:
                yield Piece(held + decoder.decode(b"", final=True), new, "limit")
                return
            ready = len(held) - _overlap(held, stops)
            if ready:
                yield Piece(held[:ready], new)
                held, new = held[ready:], []

    def _grammar(self, body: Mapping[str, Any]) -> Any:
        """Return the grammar of an answer, which the library would not check."""
        grammars = self._library.llama_grammar
        if body.get("json_schema") is not None:
            try:
                text = grammars.json_schema_to_gbnf(json.dumps(body["json_schema"]))
            except Exception as error:  # the converter raises whatever its Python raises
                raise RefusedError(f"the schema cannot be converted: {error!r}") from error
        elif body.get("grammar"):
            text = body["grammar"]
        else:
            return None
        vocab = self.llama._model.vocab
        sampler = self._library.llama_sampler_init_grammar(vocab, text.encode(), b"root")
        if not sampler:
            raise RefusedError("failed to parse the grammar")
        self._library.llama_sampler_free(sampler)
        return grammars.LlamaGrammar.from_string(text)

    def _text_of(self, token: int) -> str:
        return "" if token < 0 else str(self.llama._model.token_get_text(token))

    def _single_tokens(self, texts: Sequence[str]) -> frozenset[int]:
        """Return the special tokens that are one of these texts."""
        found = (self.tokens(text, add_special=False, parse_special=True) for text in texts)
        return frozenset(tokens[0] for tokens in found if len(tokens) == 1)


def _plain(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message as templates read it: one text, and no role that only OpenAI has."""
    content = message.get("content")
    if isinstance(content, list):
        content = "\n".join(part["text"] for part in content)
    role = "system" if message["role"] == "developer" else message["role"]
    return {**message, "role": role, "content": content}


def _own_sampling(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return the sampling settings of a GGUF, which llama.cpp's server obeys.

    Raises:
        ValueError: The library does not have one of them.
    """
    names = [name for name in metadata if name.startswith("general.sampling.")]
    if unknown := [name for name in names if name not in OWN_SAMPLING]:
        raise ValueError(f"the GGUF sets {', '.join(unknown)}, which llama-cpp-python ignores")
    found = {OWN_SAMPLING[name]: float(metadata[name]) for name in names}
    return {name: int(v) if name == "top_k" else v for name, v in found.items()}


def _stops(given: str | Sequence[str] | None) -> list[str]:
    return [given] if isinstance(given, str) else list(given or ())


def _overlap(text: str, stops: Sequence[str]) -> int:
    """Return how many characters at the end of a text may begin a stop text."""
    longest = max((len(stop) for stop in stops), default=0)
    return next(
        (n for n in range(min(longest - 1, len(text)), 0, -1)
         if any(stop.startswith(text[-n:]) for stop in stops)), 0,
    )  # fmt: skip
