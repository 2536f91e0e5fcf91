"""Write the folder of a ``bundle`` for vLLM: the model or the adapter with its base, and a script.

The folder is checked as far as this is possible without a GPU: transformers loads every weight, the
tokenizer has a chat template, and an adapter has nothing that vLLM ignores or refuses.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpipe.backends.huggingface.base_model import (
    load_base,
    put_adapter,
    read_adapter_config,
    stored_dtype,
)
from llmpipe.backends.huggingface.inference import load_tokenizer
from llmpipe.backends.huggingface.lora_features import beyond_lora, outside_layers
from llmpipe.backends.huggingface.quantization import quantization_of
from llmpipe.backends.huggingface.tensors import weight_files
from llmpipe.backends.suppress_logs import suppress_logs
from llmpipe.contracts import Artifact, StageContext
from llmpipe.errors import StageError
from llmpipe.parity.adapter_chat import chat_changes
from llmpipe.retrieval.link_or_copy import link_or_copy
from llmpipe.stages.merge import base_of

if TYPE_CHECKING:
    from llmpipe.stages.bundle import BundleConfig

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The ranks that vLLM's --max-lora-rank takes."""
MERGE_FIRST = "merge it: {kind: merge, adapter: …}, and name that stage as the model"
TEMPLATE = "chat_template.jinja"
_SKIPPED = (".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx")
"""Endings of files that vLLM is not to load: pickles, and other forms of the weights."""
_SCRIPT = """#!/bin/sh
# Needs vLLM (pip install vllm) and a GPU. More options can follow: ./serve.sh --port 8001
cd "$(dirname "$0")" || exit 1
exec {command} "$@"
"""


def write_folder(ctx: StageContext[BundleConfig], folder: Path, name: str) -> dict[str, Any]:
    """Write the folder; return what was checked of it.

    Raises:
        StageError: weights or the chat template are missing, or the adapter is of a kind that vLLM
            does not apply.
    """
    source = ctx.input("model")
    adapter = source if source.type == "adapter" else None
    model = base_of(source) if adapter else source
    if adapter:
        _require_plain(adapter, model)
    weight_files(model.path)  # all are there
    ctx.progress(0, 2, "copying")
    place = "base" if adapter else "model"
    _copy(model.path, folder / place)
    if adapter:
        _copy(adapter.path, folder / "adapter")
    ctx.progress(1, 2, "loading")
    with suppress_logs():
        template = _template(source, model)
        loaded = load_base(folder / place, "auto", model.label)
        if adapter:
            put_adapter(loaded, folder / place, folder / "adapter", adapter.label)
    (folder / TEMPLATE).write_text(template, "utf-8")
    context = _context(ctx, loaded, model)
    dtype = str(stored_dtype(folder / place)).removeprefix("torch.")
    words = ["vllm", "serve", f"./{place}"]
    words += ["--served-model-name", f"{name}-base" if adapter else name]
    words += ["--max-model-len", str(context), "--dtype", dtype, "--chat-template", f"./{TEMPLATE}"]
    if adapter:
        words += _tokenizer(ctx, adapter, model, f"{name}-base")
        words += ["--enable-lora", "--max-lora-rank", str(_max_rank(adapter))]
        words += ["--lora-modules", f"{name}=./adapter"]
    command = shlex.join(words)
    script = folder / "serve.sh"
    script.write_text(_SCRIPT.format(command=command), "utf-8")
    script.chmod(0o755)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {
        "command": command,
        "loaded_by": "transformers",  # vLLM itself did not run
        "dtype": dtype,
        "context": context,
        "bytes": size,
    }


def _copy(source: Path, target: Path) -> None:
    """Link or copy the files of a model folder, without pickles and other forms of the weights."""
    target.mkdir()
    for path in sorted(source.iterdir()):
        if path.is_file() and not path.name.endswith(_SKIPPED) and path.name[0] != ".":
            link_or_copy(path.resolve(), target, path.name)  # the hub's cache holds links


def _require_plain(adapter: Artifact, base: Artifact) -> None:
    """Refuse what vLLM would ignore or stop at."""
    reasons = list(beyond_lora(adapter.path, base.path, adapter.label, "vLLM"))
    edges = outside_layers(adapter.path)
    if edges:
        names = " and ".join(edges)
        reasons.append(f"it changes {names}, for which vLLM's support depends on its version")
    rank = _rank_of(adapter)
    if rank > RANKS[-1]:
        reasons.append(f"its rank is {rank}, and vLLM's largest is {RANKS[-1]}")
    if quantization_of(adapter.path):
        reasons.append(
            "it was trained on a base that bitsandbytes rounded, and the base here is not"
        )
    if reasons:
        raise StageError(
            f"{adapter.label} cannot be served as an adapter: {'; '.join(reasons)}",
            hint=MERGE_FIRST,
        )


def _rank_of(adapter: Artifact) -> int:
    return int(read_adapter_config(adapter.path, adapter.label).get("r") or 0)


def _max_rank(adapter: Artifact) -> int:
    """Return the smallest rank that vLLM takes and the adapter fits into."""
    return next(rank for rank in RANKS if rank >= _rank_of(adapter))


def _tokenizer(
    ctx: StageContext[BundleConfig], adapter: Artifact, base: Artifact, name: str
) -> list[str]:
    """Return the option that makes vLLM read and end chats as the adapter was trained, if needed.

    vLLM has one tokenizer for the base and all adapters.
    """
    changes = list(chat_changes(adapter.path, base.path))
    if not changes:
        return []
    ctx.warn(
        f"{adapter.label}: {'; '.join(changes)}. vLLM has one tokenizer and chat template for all "
        f"its models: {name} is asked with those of the adapter, too"
    )
    return ["--tokenizer", "./adapter"]


def _template(source: Artifact, model: Artifact) -> str:
    """Return the chat template that was trained with."""
    own = (source.path / "tokenizer_config.json").is_file()
    template = load_tokenizer(source.path if own else model.path).chat_template
    if not isinstance(template, str) or not template:
        raise StageError(
            f"{source.label} has no chat template, without which vLLM cannot chat",
            hint="train with chat_template in the axolotl block",
        )
    return template


def _context(ctx: StageContext[BundleConfig], loaded: Any, model: Artifact) -> int:
    """Return the tokens of one conversation, which the model must have."""
    longest = getattr(loaded.config.get_text_config(), "max_position_embeddings", None)
    wanted = ctx.config.context or longest
    if not wanted:
        raise StageError(
            f"{model.label} does not say how long a conversation may be",
            hint=f"write context: TOKENS in {ctx.stage}",
        )
    if longest and wanted > longest:
        raise StageError(
            f"{ctx.stage}.context is {wanted}, but {model.label} has {longest}",
            hint=f"write context: {longest}, or less",
        )
    return int(wanted)
