"""Read the settings of a sentence-transformers folder without loading the model.

The folder's JSON files contain the modules, the maximum length of a text, the pooling of tokens
into one vector, and the prompts for passages and questions. A folder of a plain encoder, without
``modules.json``, uses mean pooling, as in sentence-transformers.

Tokens are counted with the ``tokenizers`` library, which loads in a few milliseconds.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from llmpipe.errors import MissingDependencyError, StageError

Pooling = Literal["mean", "cls", "max", "lasttoken", "unknown"]

PASSAGE_PROMPTS = ("document", "passage", "corpus")
"""The names that models use for the prompt of passages; the first one found is used."""

_LEGACY_POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_mean_sqrt_len_tokens": "unknown",
    "pooling_mode_weightedmean_tokens": "unknown",
}
_KNOWN_POOLING = ("mean", "cls", "max", "lasttoken")


@dataclass(frozen=True, slots=True)
class EmbeddingFolder:
    """The settings of a model folder.

    ``max_tokens`` includes special tokens. ``plain`` means that the modules are only an encoder,
    one pooling and perhaps a normalization, so that the encoder's output determines the vectors.
    """

    path: Path
    max_tokens: int
    dimension: int
    pooling: Pooling
    normalizes: bool
    plain: bool
    passage_prompt: str
    query_prompt: str


def read_folder(path: Path, label: str = "") -> EmbeddingFolder:
    """Read the settings of a folder. ``label`` is its name in messages.

    Raises:
        StageError: It is not an embedder, or does not state the maximum length of a text.
    """
    name = label or path.name
    config = _read(path / "config.json", name)
    if not config:
        raise StageError(f"{name}: not a model folder: it has no config.json")
    modules = _modules(path, name)
    pooling = _read(_module_folder(path, modules, "Pooling") / "config.json", name)
    sentence = _read(path / "sentence_bert_config.json", name)
    passage, query = _prompts(path, name)
    return EmbeddingFolder(
        path=path,
        max_tokens=_max_tokens(path, config, sentence, name),
        dimension=_dimension(path, config, modules, pooling, name),
        pooling=_pooling(pooling),
        normalizes="Normalize" in modules,
        plain=set(modules) <= {"Transformer", "Pooling", "Normalize"}
        and pooling.get("include_prompt", True) is not False,
        passage_prompt=passage,
        query_prompt=query,
    )


def load_tokenizer(path: Path, label: str = "") -> Any:
    """Load the folder's tokenizer without truncation and padding.

    Raises:
        StageError: The folder has no tokenizer.json, or it cannot be read.
        MissingDependencyError: The package ``tokenizers`` is not installed.
    """
    try:
        from tokenizers import Tokenizer, normalizers
    except ImportError:
        raise MissingDependencyError(
            "counting tokens needs the package tokenizers", hint="pip install 'llmpipe[rag]'"
        ) from None
    name, file = label or path.name, path / "tokenizer.json"
    if not file.is_file():
        raise StageError(
            f"{name}: no tokenizer.json",
            hint="save the tokenizer again: AutoTokenizer.from_pretrained(…).save_pretrained(…)",
        )
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing more precise
        raise StageError(f"{name}: tokenizer.json cannot be read: {error}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if _read(path / "sentence_bert_config.json", name).get("do_lower_case"):
        steps = [normalizers.Lowercase(), tokenizer.normalizer]
        tokenizer.normalizer = normalizers.Sequence([step for step in steps if step])
    return tokenizer


def count_tokens(tokenizer: Any, texts: Sequence[str]) -> list[int]:
    """Count the tokens of every text, special tokens included."""
    return [len(encoding) for encoding in tokenizer.encode_batch_fast(list(texts))]


def _read(file: Path, name: str) -> dict[str, Any]:
    """Read a JSON object; return an empty one if the file does not exist."""
    try:
        value = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise StageError(f"{name}: {file.name} cannot be read: {error}") from None
    return value if isinstance(value, dict) else {}


def _modules(path: Path, name: str) -> dict[str, str]:
    """Return the folder of each module by the last word of its type, in order."""
    file = path / "modules.json"
    if not file.exists():
        return {"Transformer": "", "Pooling": ""}
    try:
        listed = json.loads(file.read_text("utf-8"))
        return {str(item["type"]).rpartition(".")[2]: str(item["path"]) for item in listed}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StageError(f"{name}: modules.json cannot be read: {error}") from None


def _module_folder(path: Path, modules: dict[str, str], module: str) -> Path:
    return path / (modules.get(module) or f"no {module}")


def _max_tokens(path: Path, config: dict[str, Any], sentence: dict[str, Any], name: str) -> int:
    stated = sentence.get("max_seq_length")
    if isinstance(stated, int):
        return stated
    tokenizer = _read(path / "tokenizer_config.json", name)
    bounds = (tokenizer.get("model_max_length"), config.get("max_position_embeddings"))
    # A tokenizer without a limit says 1e30, and its limit may exceed the absolute positions.
    known = [int(bound) for bound in bounds if isinstance(bound, int | float) and bound < 1e9]
    if not known:
        raise StageError(
            f"{name}: does not state the maximum length of a text",
            hint='write it into sentence_bert_config.json: {"max_seq_length": 512}',
        )
    return min(known)


def _dimension(
    path: Path, config: dict[str, Any], modules: dict[str, str], pooling: dict[str, Any], name: str
) -> int:
    dense = _read(_module_folder(path, modules, "Dense") / "config.json", name)
    width = pooling.get("embedding_dimension") or pooling.get("word_embedding_dimension")
    width = width or config.get("hidden_size") or config.get("dim") or config.get("d_model")
    found = dense.get("out_features") or (width and width * len(_pooling_modes(pooling)))
    if not isinstance(found, int):
        raise StageError(
            f"{name}: not an embedder: neither its config nor its pooling names a dimension"
        )
    return found


def _pooling(config: dict[str, Any]) -> Pooling:
    modes = _pooling_modes(config)
    return modes[0] if len(modes) == 1 and modes[0] in _KNOWN_POOLING else "unknown"  # type: ignore[return-value]


def _pooling_modes(config: dict[str, Any]) -> list[str]:
    """Return the pooling modes; the vectors of several modes are concatenated."""
    stated = config.get("pooling_mode")
    if isinstance(stated, str):
        return [stated]
    if isinstance(stated, list):
        return [str(mode) for mode in stated]
    return [mode for key, mode in _LEGACY_POOLING.items() if config.get(key)] or ["mean"]


def _prompts(path: Path, name: str) -> tuple[str, str]:
    """Return the model's prompts for passages and for questions."""
    config = _read(path / "config_sentence_transformers.json", name)
    prompts = config.get("prompts") or {}
    default = config.get("default_prompt_name")
    if default is not None and default not in prompts:
        raise StageError(
            f"{name}: config_sentence_transformers.json names the prompt {default!r} as its "
            f"default and has no such prompt",
            hint="set passage_prefix and query_prefix, or fix the file",
        )
    fallback = str(prompts.get(default) or "")
    passage = next((prompts[key] for key in PASSAGE_PROMPTS if key in prompts), fallback)
    return str(passage), str(prompts.get("query", fallback))
