"""Compute the importance matrix of an ``export`` stage from calibration rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from llmpipe.backends.huggingface.importance import measure
from llmpipe.backends.huggingface.inference import opened_model
from llmpipe.backends.llama_cpp.gguf_file import reader as gguf_reader
from llmpipe.backends.llama_cpp.importance import write_importance
from llmpipe.contracts import Artifact
from llmpipe.stages.row_texts import sampled_texts, text_of


def calibrate(
    model: Artifact,
    rows: Artifact,
    count: int,
    source: Path,
    target: Path,
    *,
    threads: int,
    warn: Callable[[str], None],
) -> None:
    """Have a model read rows, and write its importance matrix to ``target``.

    Args:
        model: the model folder.
        rows: the calibration rows, in any known format.
        count: how many rows are read.
        source: the model as GGUF, whose tensors have the names that are written.
        target: the file to write.
        threads: CPU threads to compute on.
        warn: called with warnings.

    Raises:
        StageError: a row cannot be read, or there are none.
    """
    chosen = sampled_texts(rows, count, "to calibrate on")
    with opened_model(model.path, threads=threads, label=model.label) as loaded:
        texts = [text_of(loaded.tokenizer, example) for example in chosen]
        sums = measure(loaded, texts)
    if sums.cut:
        warn(
            f"{rows.label}: {sums.cut} rows are longer than {sums.longest} tokens; the rest is not "
            "read"
        )
    tensor_of = _names(source)
    named = {module: tensor_of(module) for module in sums.squares}
    unknown = [module for module, tensor in named.items() if tensor is None]
    if unknown:
        warn(
            f"{model.label}: {len(unknown)} layers have no tensor of their own in a GGUF and are "
            f"not calibrated, such as {unknown[0]}"
        )
    found = {
        tensor: (sums.squares[module], sums.counts[module])
        for module, tensor in named.items()
        if tensor
    }
    name = rows.label.rpartition("/")[2]  # an artifact contains no path
    write_importance(target, found, data=name, texts=sums.texts)


def _names(source: Path) -> Callable[[str], str | None]:
    """Return a function from the name of a module to that of its tensor in a GGUF."""
    import gguf

    fields = gguf_reader(source).fields
    name = str(fields["general.architecture"].contents())
    blocks = int(fields[f"{name}.block_count"].contents())
    architecture = next(arch for arch, text in gguf.MODEL_ARCH_NAMES.items() if text == name)
    table = gguf.get_tensor_name_map(architecture, blocks)

    def tensor_of(module: str) -> str | None:
        found = table.get_name(f"{module}.weight", try_suffixes=(".weight",))
        return str(found) if found else None

    return tensor_of
