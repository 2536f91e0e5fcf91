"""A GGUF in llama-cpp-python: its tokenizer, its chat template, and the answers that it writes.

``python_server.py`` serves it in a subprocess. Nothing else imports this module.
"""

from __future__ import annotations

import codecs
import json
import random
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from llmpipe.backends.llama_cpp.written import (
    Decoder,
    Piece,
    RefusedError,
    Written,
    pieces_of,
    plain,
    room_for,
)

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


class Model:
    """The model, its tokenizer and its chat template."""

    engine = "llama-cpp-python"
    fields = GENERATION
    neutral = NEUTRAL

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

    def about(self) -> dict[str, int]:
        """Return its size."""
        model = self.llama._model
        return {
            "n_vocab": self.llama.n_vocab(), "n_ctx_train": model.n_ctx_train(),
            "n_embd": self.llama.n_embd(), "n_params": model.n_params(), "size": model.size(),
        }  # fmt: skip

    def prompt(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """Return the prompt of a conversation, without the tokens that tokenizing adds."""
        if not self.template:
            raise RefusedError("the GGUF has no chat template")
        if messages and messages[-1].get("role") == "assistant":
            raise RefusedError("this engine cannot continue the assistant's message")
        try:
            text: str = self._render(messages=[plain(each) for each in messages]).prompt
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

    def write(self, body: Mapping[str, Any], written: Written) -> Generator[Piece, None, None]:
        """Yield the pieces of an answer.

        Raises:
            RefusedError: The prompt does not fit, or a setting cannot be used.
        """
        prompt = written.prompt
        most = room_for(body, prompt, self.context)
        if not body.get("cache_prompt", self._caches):
            self.llama.reset()
        seed = body.get("seed", -1)
        self.llama.set_seed(random.getrandbits(32) if seed in (None, -1) else seed)
        sampling = {
            argument: body.get(name, self._defaults[name])
            for name, (argument, _) in SAMPLING.items()
        }
        tokens = self.llama.generate(prompt, grammar=self._grammar(body), **sampling)
        decoder = _Decoder(self.text, self._kept)
        yield from pieces_of(tokens, decoder, self._ends, body, most, written)

    def _ends(self, token: int) -> bool:
        """Return whether a token ends an answer."""
        return bool(self._library.llama_vocab_is_eog(self.llama._model.vocab, token))

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


class _Decoder(Decoder):
    """Decodes tokens byte by byte, special ones only if they are to be kept."""

    def __init__(self, text: Callable[..., bytes], kept: frozenset[int]) -> None:
        self._text = text
        self._kept = kept
        self._bytes = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token: int) -> str:
        """See `Decoder.feed`."""
        return self._bytes.decode(self._text([token], special=token in self._kept))

    def close(self) -> str:
        """See `Decoder.close`."""
        return self._bytes.decode(b"", final=True)


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
