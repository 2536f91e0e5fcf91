"""The engines that serve a model, behind one interface: a script that speaks llama.cpp's protocol.

Every engine runs as a subprocess (``script``) that gets the same settings and answers the routes of
llama.cpp's server that `llmpipe.backends.llama_cpp.client` and the guard call. The engines differ
in what they can do. What one cannot do is listed here with its reason: fields of a stage are
refused when the spec is validated, fields of a request when it arrives.

- ``xllamacpp``: llama.cpp's own server, as a ready wheel for CPUs.
- ``llama-cpp-python``: the library that people have compiled for their GPU. It computes one
  conversation at a time.
- ``transformers``: a folder of Hugging Face weights as it is, one conversation at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Protocol

from llmpipe.errors import MissingDependencyError
from llmpipe.needs import packages

EngineName = Literal["xllamacpp", "llama-cpp-python", "transformers"]
ServedType = Literal["gguf", "model"]

WORDS: Mapping[ServedType, str] = {"gguf": "a GGUF", "model": "a model folder"}

_FOLDER = Path(__file__).parent
_SINGLE = "it computes one conversation at a time: leave `slots` at 1, or use xllamacpp"
_SAMPLING = (
    "frequency_penalty", "min_p", "presence_penalty", "repeat_penalty", "seed", "stop",
    "temperature", "top_k", "top_p", "typical_p",
)  # fmt: skip
_LENGTH = ("max_completion_tokens", "max_tokens", "n_predict")
_PLAIN = (*_SAMPLING, *_LENGTH, "model", "stream", "stream_options")
_GENERATION = (*_PLAIN, "cache_prompt", "grammar", "json_schema")


class Engine(Protocol):
    """What llmpipe must know of an engine."""

    @property
    def name(self) -> EngineName:
        """Its name in a spec, which is its distribution on PyPI."""

    @property
    def program(self) -> str:
        """What computes, for messages."""

    @property
    def serves(self) -> ServedType:
        """The type of the models that it reads."""

    @property
    def packages(self) -> tuple[str, ...]:
        """The distributions that it needs."""

    @property
    def script(self) -> Path:
        """The program that serves with it."""

    @property
    def install(self) -> str:
        """The command that installs it."""

    @property
    def pauses(self) -> bool:
        """Whether a long prompt pauses other answers, so that the batch should be measured."""

    @property
    def batches(self) -> bool:
        """Whether it computes prompts in steps of ``batch`` tokens."""

    @property
    def parts_reasoning(self) -> bool:
        """Whether it separates reasoning from answers."""

    @property
    def thinks_unasked(self) -> bool:
        """Whether it switches a template's thinking on where the template's default is off."""

    @property
    def routes(self) -> Mapping[str, frozenset[str]] | None:
        """The fields that it obeys, by route; None for all that the guard supports."""

    def refusal(self, field: str, value: object) -> str | None:
        """Return why a stage's field cannot have this value with the engine, or None if it can."""


class Xllamacpp:
    """llama.cpp's own server, in xllamacpp."""

    name: EngineName = "xllamacpp"
    program = "llama.cpp"
    serves: ServedType = "gguf"
    packages = ("xllamacpp",)
    script = _FOLDER / "server.py"
    install = "pip install 'llmpipe[serve]'"
    pauses = True
    batches = True
    parts_reasoning = True
    thinks_unasked = True
    routes = None

    def refusal(self, field: str, value: object) -> str | None:
        """See `Engine.refusal`."""
        return None


class LlamaCppPython:
    """llama-cpp-python's library, behind llmpipe's own small server."""

    name: EngineName = "llama-cpp-python"
    program = "llama.cpp"
    serves: ServedType = "gguf"
    packages = ("llama-cpp-python",)
    script = _FOLDER / "python_server.py"
    install = "pip install 'llmpipe[serve,llama-cpp-python]' (it compiles llama.cpp)"
    pauses = False
    batches = True
    parts_reasoning = False
    thinks_unasked = False
    routes: Mapping[str, frozenset[str]] = {
        "/v1/chat/completions": frozenset((*_GENERATION, "messages", "response_format")),
        "/v1/completions": frozenset((*_GENERATION, "prompt")),
        "/completion": frozenset((*_GENERATION, "prompt")),
        "/tokenize": frozenset(("add_special", "content", "parse_special")),
        "/detokenize": frozenset(("tokens",)),
        "/apply-template": frozenset(("messages", "model")),
    }

    def refusal(self, field: str, value: object) -> str | None:
        """See `Engine.refusal`."""
        if field == "slots" and value != 1:
            return _SINGLE
        if field == "adapters" and value:
            return "it cannot change adapters between requests: use xllamacpp"
        if field == "cached_tokens" and value:
            return "it does not report what of a prompt was cached: use xllamacpp"
        return None


class Transformers:
    """A folder of Hugging Face weights in transformers, behind llmpipe's own small server."""

    name: EngineName = "transformers"
    program = "transformers"
    serves: ServedType = "model"
    packages = ("transformers", "torch")
    script = _FOLDER.parent / "huggingface" / "transformers_server.py"
    install = "pip install 'llmpipe[serve,transformers]'"
    pauses = False
    batches = False
    parts_reasoning = False
    thinks_unasked = False
    routes: Mapping[str, frozenset[str]] = {
        "/v1/chat/completions": frozenset((*_PLAIN, "messages")),
        "/v1/completions": frozenset((*_PLAIN, "prompt")),
        "/completion": frozenset((*_PLAIN, "prompt")),
        "/tokenize": frozenset(("add_special", "content", "parse_special")),
        "/detokenize": frozenset(("tokens",)),
        "/apply-template": frozenset(("messages", "model")),
    }

    def refusal(self, field: str, value: object) -> str | None:
        """See `Engine.refusal`."""
        if field == "slots" and value != 1:
            return _SINGLE
        if field == "adapters" and value:
            return "it cannot change adapters between requests: merge one, or use xllamacpp"
        if field == "cached_tokens" and value:
            return "it keeps no prompts: use xllamacpp"
        if field == "batch" and value is not None:
            return "it computes a prompt in one step: leave `batch` out, or use xllamacpp"
        return None


ENGINES: Mapping[EngineName, Engine] = {
    "xllamacpp": Xllamacpp(),
    "llama-cpp-python": LlamaCppPython(),
    "transformers": Transformers(),
}


def require_installed(engine: Engine) -> None:
    """Require that an engine's packages are installed.

    Raises:
        MissingDependencyError: One is not.
    """
    missing = [need.name for need in packages(*engine.packages) if not need.here]
    if missing:
        told = f"serving {WORDS[engine.serves]} needs {', '.join(missing)}"
        raise MissingDependencyError(told, hint=engine.install)
