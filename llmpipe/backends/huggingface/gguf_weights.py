"""Write the weights of a GGUF as a Hugging Face model, without missing or unused tensors.

transformers reads and dequantizes the tensors. Its silent faults become errors here: a missing
tensor (which would be random), one with a different shape, and one that the model does not use.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from llmpipe.backends.llama_cpp.gguf_file import Gguf, reader, whole_file
from llmpipe.backends.suppress_logs import suppress_logs
from llmpipe.errors import StageError

ARCHITECTURE = "general.architecture"

NOT_TAKEN = {
    "rope_freqs.weight": "frequency factors for long contexts",
    "rope_factors_*.weight": "frequency factors for long contexts",
    "blk.*.attn_rot_embd": "a table of rotary embeddings, which is computed",
}
"""Tensors that transformers does not use, and their meaning. `llmpipe.parity` measures the effect
of leaving them out."""

NAMED = 3
"""The number of tensors that a message names."""

USE_THE_ORIGINAL = "name the original Hugging Face model (a hub id or a folder) as the base instead"


def write_weights(gguf: Gguf, out: Path, *, work: Path, warn: Callable[[str], None]) -> None:
    """Write config and weights, in float32, into the folder ``out``.

    Args:
        gguf: The opened file or parts.
        out: The folder of the model.
        work: A folder for the joined file of a split GGUF, as large as its parts together.
        warn: Called with a message about known tensors that are left out.

    Raises:
        StageError: transformers does not support the architecture, or a tensor is missing, has the
            wrong shape, or has no place in the model.
    """
    with whole_file(gguf, work) as path, _read_once(path, gguf):
        model, info = _load(path, gguf)
        names = _hugging_face_names(model, gguf)
    _require_all(gguf, info, names)
    _require_taken(gguf, names, warn)
    with suppress_logs():
        model.save_pretrained(out)


@contextmanager
def _read_once(path: Path, opened: Gguf) -> Iterator[None]:
    """Let transformers reuse the opened file.

    It would parse a GGUF again for the config and for the weights, which takes seconds for a large
    vocabulary, and build gguf's table of names again for every module of the model.
    """
    import gguf

    before = gguf.GGUFReader, gguf.get_tensor_name_map
    known = opened.readers[0] if path == opened.path else reader(path)
    gguf.GGUFReader = lambda place: known if Path(place) == path else reader(Path(place))
    gguf.get_tensor_name_map = functools.cache(gguf.get_tensor_name_map)
    try:
        yield
    finally:
        gguf.GGUFReader, gguf.get_tensor_name_map = before


def _load(path: Path, gguf: Gguf) -> tuple[Any, Mapping[str, Any]]:
    with suppress_logs():
        from transformers import AutoModelForCausalLM

        try:
            model, info = AutoModelForCausalLM.from_pretrained(
                path.parent,
                gguf_file=path.name,
                dtype="float32",
                local_files_only=True,
                ignore_mismatched_sizes=True,  # reported by name below
                output_loading_info=True,
            )
        except (ValueError, KeyError, NotImplementedError, OSError, RuntimeError) as error:
            architecture = gguf.fields.get(ARCHITECTURE)
            raise StageError(
                f"transformers cannot read the weights of {gguf.path.name} ({architecture}): "
                f"{error}",
                hint=USE_THE_ORIGINAL,
            ) from error
    return model, info


def _hugging_face_names(model: Any, gguf: Gguf) -> dict[str, str]:
    """Return the model's name of each tensor by its GGUF name."""
    from transformers.modeling_gguf_pytorch_utils import (
        TENSOR_PROCESSORS,
        TensorProcessor,
        get_gguf_hf_weights_map,
    )

    kind = TENSOR_PROCESSORS.get(str(gguf.fields.get(ARCHITECTURE)), TensorProcessor)
    names: dict[str, str] = get_gguf_hf_weights_map(model, kind(config=model.config.to_dict()))
    return names


def _require_all(gguf: Gguf, info: Mapping[str, Any], names: Mapping[str, str]) -> None:
    known = {ours: theirs for theirs, ours in names.items()}
    missing = sorted(known.get(name, name) for name in info["missing_keys"])
    if missing:
        raise StageError(
            f"{gguf.path.name} lacks {_listed(missing)}: the model would have random weights",
            hint="the file is incomplete: fetch or export it again",
        )
    for name, found, wanted in sorted(info["mismatched_keys"]):
        raise StageError(
            f"{gguf.path.name}: the tensor {known.get(name, name)} has the shape {tuple(found)}, "
            f"but {tuple(wanted)} follows from the file's metadata",
            hint="the file is damaged or was changed by hand: fetch or export it again",
        )


def _require_taken(gguf: Gguf, names: Mapping[str, str], warn: Callable[[str], None]) -> None:
    left = sorted(gguf.shapes.keys() - names.keys())
    known = [name for name in left if _meaning(name)]
    for meaning in sorted({_meaning(name) for name in known}):
        which = [name for name in known if _meaning(name) == meaning]
        warn(f"{gguf.path.name}: left out because transformers does not use it: "
             f"{_listed(which)} ({meaning})")  # fmt: skip
    unknown = [name for name in left if not _meaning(name)]
    if unknown:
        raise StageError(
            f"{gguf.path.name} contains tensors that transformers' model does not use: "
            f"{_listed(unknown)}",
            hint=USE_THE_ORIGINAL,
        )


def _meaning(name: str) -> str:
    return next((what for pattern, what in NOT_TAKEN.items() if fnmatchcase(name, pattern)), "")


def _listed(names: Iterable[str]) -> str:
    """Return the names of a few tensors and the number of the others."""
    all_names = list(names)
    more = f" and {len(all_names) - NAMED} more" if len(all_names) > NAMED else ""
    kind = "the tensor" if len(all_names) == 1 else f"{len(all_names)} tensors:"
    return f"{kind} {', '.join(all_names[:NAMED])}{more}"
