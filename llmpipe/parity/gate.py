"""Check that llama.cpp reads a GGUF exactly as Hugging Face reads the model, token id by token id.

`verify` compares the tokenizer of a model folder with a GGUF that llama.cpp serves: vocabulary and
special ids, the golden texts and chats, special tokens, the begin token (once, not twice) and the
token that ends a turn. It fails at the first difference. `continuations` compares the replies of
both sides. They are recorded but not judged, because rounding makes even equal models diverge
sooner or later.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpipe.backends.huggingface.chat_tokens import render_chat, token_ids, turn_ends
from llmpipe.backends.huggingface.gguf_import import (
    ADD_BOS,
    CHAT_TEMPLATE,
    SPECIAL_IDS,
    TOKENS,
    read_gguf,
)
from llmpipe.backends.huggingface.inference import load_tokenizer
from llmpipe.backends.huggingface.tensors import tensor_shapes
from llmpipe.errors import StageError
from llmpipe.parity.golden import GoldenChat, golden_chats, golden_texts

if TYPE_CHECKING:
    from llmpipe.backends.llama_cpp.client import LlamaServer
    from llmpipe.backends.reasoning import Reply

EMBEDDINGS = "token_embd.weight"
HEAD, GGUF_HEAD = "lm_head.weight", "output.weight"
CONTEXT_TOKENS = 8
"""How many tokens before a difference are shown as text."""
TURN_ENDS = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id")
MAX_PROBED_SPECIAL = 64
"""How many special tokens are also tested inside text; all of them are tested on their own."""


@dataclass(frozen=True, slots=True)
class Reference:
    """The trained side: a model folder's tokenizer and the ids in its config."""

    tokenizer: Any
    vocab_rows: int
    """Rows of the embedding matrix; there may be more rows than named tokens."""
    eos_ids: frozenset[int]
    own_head: bool = False
    """Whether the output head has its own weights instead of those of the embedding."""

    @classmethod
    def load(cls, folder: Path) -> Reference:
        """Read a model folder.

        Raises:
            StageError: the folder does not contain a usable tokenizer or config.
        """
        tokenizer = load_tokenizer(folder)
        config = _read_json(folder / "config.json")
        rows = config.get("vocab_size") or config.get("text_config", {}).get("vocab_size")
        if not isinstance(rows, int):
            raise StageError(f"{folder.name}/config.json has no vocab_size")
        generation = folder / "generation_config.json"
        stops = _read_json(generation).get("eos_token_id") if generation.is_file() else None
        declared = {tokenizer.eos_token_id, *(stops if isinstance(stops, list) else [stops])}
        files = sorted(folder.glob("*.safetensors"))
        own_head = config.get("tie_word_embeddings") is False and HEAD in tensor_shapes(files)
        return cls(tokenizer, rows, frozenset(declared - {None}), own_head)


@dataclass(frozen=True, slots=True)
class Parity:
    """What was compared and is equal."""

    chats: int
    refused_chats: tuple[str, ...]
    """Golden chats that the model's own template refuses, for example because of a system turn."""
    texts: int
    tokens: int
    """Number of token ids compared over all chats and texts."""
    special_tokens: int
    vocabulary: int
    end_of_turn: int | None
    """The id that ends a turn; None without a chat template or if plain text ends a turn."""

    def as_json(self) -> dict[str, Any]:
        """Return the result as JSON data."""
        return {"parity": "exact", **asdict(self), "refused_chats": list(self.refused_chats)}


def verify(
    reference: Reference,
    gguf: Path,
    server: LlamaServer,
    *,
    label: str,
    require_end_of_turn: bool = True,
    warn: Callable[[str], None] = lambda message: None,
) -> Parity:
    """Compare a model folder with the GGUF that ``server`` serves.

    Args:
        reference: the model folder's side.
        gguf: the GGUF file.
        server: llama.cpp serving that file.
        label: what messages call the GGUF.
        require_end_of_turn: whether to fail if the token that ends a turn in the chat template does
            not end generation.
        warn: called with warnings.

    Raises:
        StageError: the two differ; the message shows the first difference.
    """
    fields, shapes = read_gguf(gguf)
    comparison = _Comparison(reference, fields, server, label)
    comparison.vocabulary(shapes[EMBEDDINGS][0] if EMBEDDINGS in shapes else None)
    comparison.head(GGUF_HEAD in shapes)
    special = comparison.special_tokens()
    probed = special[:MAX_PROBED_SPECIAL]
    texts = list(golden_texts(probed))
    for name, text in texts:
        comparison.text(name, text)
    chats, refused, end_of_turn = 0, [], None
    if comparison.has_template():
        for chat in golden_chats(probed):
            if comparison.chat(chat):
                chats += 1
            else:
                refused.append(chat.name)
        _require_some(chats, label)
        end_of_turn = comparison.end_of_turn(require_end_of_turn, warn)
    else:
        warn(f"{label} has no chat template: only plain text was compared, and it cannot chat")
        comparison.text("begin of text", "Hello, world", add_special=True)
    return Parity(
        chats, tuple(refused), len(texts), comparison.tokens, len(special),
        len(fields[TOKENS]), end_of_turn,
    )  # fmt: skip


def continuations(
    prompts: Sequence[str], expected: Sequence[Reply], actual: Sequence[Reply], tokenizer: Any
) -> list[dict[str, Any]]:
    """Return for each prompt how many tokens the greedy replies of both sides have in common.

    Reasoning counts as text before the answer, and is shown separately.
    """
    rows = []
    for prompt, ours, theirs in zip(prompts, expected, actual, strict=True):
        left, right = (token_ids(tokenizer, _written(reply)) for reply in (ours, theirs))
        agreeing = first_difference(left, right)
        row: dict[str, Any] = {
            "prompt": prompt,
            "huggingface": ours.answer,
            "llama.cpp": theirs.answer,
            "agreeing_tokens": len(left) if agreeing is None else agreeing,
            "tokens": len(left),
        }
        if ours.reasoning or theirs.reasoning:
            row["reasoning"] = {"huggingface": ours.reasoning, "llama.cpp": theirs.reasoning}
        rows.append(row)
    return rows


def _written(reply: Reply) -> str:
    return f"{reply.reasoning}\n{reply.answer}".strip()


def first_difference(expected: Sequence[Any], actual: Sequence[Any]) -> int | None:
    """Return the first position at which two sequences differ, or None if they are equal."""
    for position, (left, right) in enumerate(zip(expected, actual, strict=False)):
        if left != right:
            return position
    return None if len(expected) == len(actual) else min(len(expected), len(actual))


@dataclass(slots=True)
class _Comparison:
    """One run of the gate. Every method raises StageError at the first difference it finds."""

    reference: Reference
    fields: Mapping[str, Any]
    server: LlamaServer
    label: str
    tokens: int = 0

    def head(self, present: bool) -> None:
        """Check that the file contains an output head that differs from the embedding.

        For some architectures (Gemma), llama.cpp only supports heads equal to the embedding.
        """
        if self.reference.own_head and not present:
            raise self._failure(
                "the model's output head is missing, and llama.cpp would use the embedding instead",
                "train without lm_head and embed_tokens among the adapter's modules",
            )

    def vocabulary(self, embedding_rows: int | None) -> None:
        """Compare the sizes of vocabulary and embedding matrix, and the special ids."""
        rows, tokenizer = self.reference.vocab_rows, self.reference.tokenizer
        named = len(self.fields[TOKENS])
        if len(tokenizer) > rows:
            raise self._failure(
                f"{len(tokenizer)} tokens, but the model has only {rows} embedding rows",
                "the embeddings were not resized after tokens were added: train again",
            )
        if not named == rows == (embedding_rows or rows):
            raise self._failure(
                f"the model has {rows} embedding rows, the GGUF {embedding_rows} for {named} tokens"
            )
        for name, key in SPECIAL_IDS.items():
            ours, theirs = getattr(tokenizer, f"{name}_id"), self.fields.get(key)
            if name != "unk_token" and ours is not None and ours != theirs:
                raise self._failure(
                    f"{name} differs",
                    f"Hugging Face   {self._show(ours)}\nllama.cpp      {self._show(theirs)}",
                )

    def special_tokens(self) -> list[str]:
        """Check that every added token is the same single token on both sides; return the texts."""
        texts = []
        for token_id, token in sorted(self.reference.tokenizer.added_tokens_decoder.items()):
            text, theirs = token.content, self._piece(token_id)
            # The converter writes SentencePiece's space character as a plain space.
            if theirs not in (text, text.replace("▁", " ")):
                raise self._failure(f"token {token_id} is {text!r}, but {theirs!r} in the GGUF")
            self.text(f"special token {text!r}", text)
            texts.append(text)
        return texts

    def has_template(self) -> bool:
        """Return whether both sides have a chat template; fail if only one has."""
        ours, theirs = self.reference.tokenizer.chat_template, self.fields.get(CHAT_TEMPLATE)
        if ours and not theirs:
            raise self._failure("the GGUF has lost the model's chat template")
        if theirs and not ours:
            raise self._failure("the GGUF has a chat template and the model has none")
        return bool(ours)

    def text(self, name: str, text: str, *, add_special: bool = False) -> None:
        """Compare the ids of a text."""
        ours = (
            self.reference.tokenizer(text)["input_ids"]
            if add_special
            else token_ids(self.reference.tokenizer, text)
        )
        self._ids(name, ours, self.server.tokenize(text, add_special=add_special))

    def chat(self, chat: GoldenChat) -> bool:
        """Compare a chat as text and as ids; return False if its template refuses it."""
        try:
            ours = render_chat(self.reference.tokenizer, chat.messages, answer_next=True)
        except StageError:
            return False
        name, expected = f"chat {chat.name!r}", token_ids(self.reference.tokenizer, ours)
        theirs = self.server.apply_template(chat.messages)
        ids = self.server.tokenize(theirs, add_special=True)  # as during serving
        begin = self._begin_token()
        if begin and ours.startswith(begin) and not theirs.startswith(begin):
            theirs = begin + theirs  # llama.cpp's tokenizer adds it later
        self._rendered(name, ours, theirs)
        if begin and ids[1:] == expected:
            raise self._failure(
                f"{name}: llama.cpp puts {begin!r} before the output of the template",
                "training did not: set `add_bos_token: false` in tokenizer_config.json",
            )
        self._ids(name, expected, ids)
        return True

    def _begin_token(self) -> str | None:
        """Return the token that llama.cpp puts before every prompt, or None."""
        bos = self.fields.get(SPECIAL_IDS["bos_token"])
        return self._piece(bos) if bos is not None and self.fields.get(ADD_BOS) else None

    def end_of_turn(self, required: bool, warn: Callable[[str], None]) -> int | None:
        """Check that the token that ends a turn in the template also ends generation."""
        tokenizer = self.reference.tokenizer
        try:
            ends = turn_ends(tokenizer)
        except StageError as error:
            warn(f"{self.label}: the token that ends a turn was not checked: {error.message}")
            return None
        if not ends:
            warn(f"{self.label}: the chat template ends a turn with plain text, not with a token")
            return None
        last = ends[-1]
        stops = {self.fields.get(key) for key in TURN_ENDS}
        for side, ids in (("the model", self.reference.eos_ids), ("the GGUF", stops)):
            if last in ids:
                continue
            declared = ", ".join(self._show(i) for i in sorted(i for i in ids if i is not None))
            message = (
                f"the chat template ends a turn with {self._show(last)}, which does not end "
                f"generation in {side} (that is {declared or 'no token'})"
            )
            if required:
                raise self._failure(
                    message,
                    "the served model would not stop: train with `special_tokens: {eos_token: "
                    f"{self._piece(last)!r}}}` in the axolotl block, or set "
                    "`require_end_of_turn: false`",
                )
            warn(f"{self.label}: {message}")
        return int(last)

    def _rendered(self, name: str, ours: str, theirs: str) -> None:
        at = first_difference(ours, theirs)
        if at is not None:
            raise self._failure(
                f"{name}: the chat templates write different text from character {at}",
                f"after         …{ours[max(0, at - 40) : at]!r}\n"
                f"Hugging Face   {ours[at : at + 40]!r}\n"
                f"llama.cpp      {theirs[at : at + 40]!r}",
            )

    def _ids(self, name: str, ours: list[int], theirs: list[int]) -> None:
        at = first_difference(ours, theirs)
        if at is not None:
            before = self.reference.tokenizer.decode(ours[max(0, at - CONTEXT_TOKENS) : at])
            raise self._failure(
                f"{name}: token {at} of {len(ours)} differs",
                f"after         …{before!r}\n"
                f"Hugging Face   {self._show_at(ours, at)}\n"
                f"llama.cpp      {self._show_at(theirs, at)}",
            )
        self.tokens += len(ours)

    def _show_at(self, ids: list[int], at: int) -> str:
        following = ", ".join(self._show(i) for i in ids[at : at + 3])
        return following or "(the text ends here)"

    def _show(self, token_id: int | None) -> str:
        return "none" if token_id is None else f"{token_id} {self._piece(token_id)!r}"

    def _piece(self, token_id: int) -> str:
        tokens = self.fields[TOKENS]
        return str(tokens[token_id]) if 0 <= token_id < len(tokens) else "?"

    def _failure(self, what: str, hint: str | None = None) -> StageError:
        return StageError(f"{self.label} is not read as the model was trained: {what}", hint=hint)


def _require_some(chats: int, label: str) -> None:
    if not chats:
        raise StageError(
            f"{label}: the model's chat template refuses every golden chat",
            hint="the template is broken: render a simple chat with transformers to see why",
        )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise StageError(f"{path.parent.name}/{path.name} cannot be read: {error}") from error
    return value if isinstance(value, dict) else {}
