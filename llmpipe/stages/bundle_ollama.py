"""Write the folder of a ``bundle`` for Ollama: the GGUF, its Modelfile and its adapter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpipe.backends.huggingface.gguf_import import CHAT_TEMPLATE, TOKENS, read_gguf
from llmpipe.backends.llama_cpp.logits import gguf_logits
from llmpipe.backends.llama_cpp.serve import serve_gguf
from llmpipe.backends.ollama import Chat, ChatFormat, modelfile
from llmpipe.contracts import StageContext
from llmpipe.errors import ModelServerError, StageError
from llmpipe.gguf_parts import part_of
from llmpipe.parity.gate import MAX_PROBED_SPECIAL
from llmpipe.parity.ollama import WRITE_IT, Proven, Render, prove_format
from llmpipe.retrieval.link_or_copy import link_or_copy

if TYPE_CHECKING:
    from llmpipe.backends.llama_cpp.client import LlamaServer
    from llmpipe.stages.bundle import BundleConfig

MODEL, ADAPTER = "model.gguf", "adapter.gguf"
LONGEST = 8192
"""The context by default, in tokens: Ollama reserves the memory for all of it."""
_TOKEN_TYPES = "tokenizer.ggml.token_type"
_SPECIAL = {3, 4}
"""llama.cpp's numbers of control tokens and of tokens that users defined."""


def write_folder(ctx: StageContext[BundleConfig], folder: Path, name: str) -> dict[str, Any]:
    """Write the folder; return what was proven of it.

    Raises:
        StageError: the chat template is not proven equal to one of Ollama's, or a file cannot be
            used by Ollama.
    """
    model = ctx.input("model")
    if part_of(model.path.name):
        raise StageError(
            f"{model.label} is one part of several, which Ollama does not read",
            hint="join them with llama.cpp: llama-gguf-split --merge FIRST_PART WHOLE.gguf",
        )
    fields, _ = read_gguf(model.path)
    if not fields.get(CHAT_TEMPLATE):
        raise StageError(
            f"{model.label} has no chat template, without which Ollama cannot chat",
            hint="train with chat_template in the axolotl block, or write a Modelfile by hand",
        )
    context = _context(ctx, fields)
    special = _special_tokens(fields)
    ctx.progress(0, 2, "comparing the chat templates")
    with serve_gguf(model.path, threads=ctx.threads, log=ctx.work / "llama.cpp.log") as server:
        proven = prove_format(_renderer(server), model.label, special[:MAX_PROBED_SPECIAL])
        stop = _stop_texts(server, proven.format, special)
    _judge(ctx, proven, stop)
    link_or_copy(model.path, folder, MODEL)
    adapter = None
    if ctx.config.adapter is not None:
        ctx.progress(1, 2, "loading the adapter")
        adapter = ADAPTER
        _require_fit(ctx)
        link_or_copy(ctx.input("adapter").path, folder, ADAPTER)
    text = modelfile(
        MODEL, proven.format, stop=stop, context=context, system=ctx.config.system, adapter=adapter
    )
    (folder / "Modelfile").write_text(text, "utf-8")
    return {
        "command": f"ollama create {name} -f Modelfile && ollama run {name}",
        "chats": proven.chats,
        "refused_chats": list(proven.refused),
        "trimmed_chats": list(proven.trimmed),
        "stop": stop,
        "context": context,
    }


def _renderer(server: LlamaServer) -> Render:
    """Return a function that renders chats with llama.cpp."""

    def render(chat: Chat, answer_next: bool) -> str | None:
        try:
            return server.apply_template(chat, answer_next=answer_next)
        except ModelServerError:
            return None

    return render


def _context(ctx: StageContext[BundleConfig], fields: dict[str, Any]) -> int:
    """Return the tokens of context, which the model must have."""
    longest = int(fields.get(f"{fields.get('general.architecture')}.context_length", LONGEST))
    wanted = ctx.config.context or min(longest, LONGEST)
    if wanted > longest:
        raise StageError(
            f"{ctx.stage}.context is {wanted}, but {ctx.input('model').label} has {longest}",
            hint=f"write context: {longest}, or less",
        )
    return wanted


def _special_tokens(fields: dict[str, Any]) -> list[str]:
    kinds = fields.get(_TOKEN_TYPES) or []
    return [str(t) for t, kind in zip(fields[TOKENS], kinds, strict=False) if kind in _SPECIAL]


def _stop_texts(server: LlamaServer, chat: ChatFormat, special: Sequence[str]) -> list[str]:
    """Return the special token that ends an answer, as text."""
    after = chat.turns["assistant"][1].strip()
    if not after:
        return []
    first = server.tokenize(after)[:1]
    found = [token for token in special if after.startswith(token)]
    return [t for t in found if server.tokenize(t) == first and '"' not in t and "\n" not in t][:1]


def _judge(ctx: StageContext[BundleConfig], proven: Proven, stop: Sequence[str]) -> None:
    """Refuse, or tell, what Ollama will do differently from the model's own template."""
    label = ctx.input("model").label
    if proven.trimmed and not ctx.config.allow_trimmed:
        raise StageError(
            f"{label}: its chat template removes spaces and line breaks around messages, and "
            f"Ollama's templates cannot ({', '.join(proven.trimmed)})",
            hint=f"allow_trimmed: true accepts that; or {WRITE_IT}",
        )
    if proven.trimmed:
        ctx.warn(
            f"{label}: Ollama keeps spaces and line breaks around messages, which the model's own "
            f"template removes ({len(proven.trimmed)} golden chats differ in them)"
        )
    if "system" not in proven.format.turns:
        if ctx.config.system:
            raise StageError(f"{label}: its chat template refuses a system message: remove system")
        ctx.warn(f"{label}: its chat template refuses system messages; Ollama answers an error")
    if not stop:
        ctx.warn(f"{label}: no special token ends an answer; the Modelfile names none as a stop")


def _require_fit(ctx: StageContext[BundleConfig]) -> None:
    """Have llama.cpp load the adapter on the model, which must have the shapes for it."""
    model, adapter = ctx.input("model"), ctx.input("adapter")
    label = f"{adapter.label} on {model.label}"
    with gguf_logits(
        model.path, context=16, threads=ctx.threads, label=label, adapter=adapter.path
    ) as score:
        score([0, 0], 1)
