"""The subprocess that writes a LoRA adapter as GGUF, with the code of llama.cpp's own converter.

It runs as a script beside the converter's packages and llmpipe never imports it. It reads JSON
settings from standard input, and writes the file or the reason why it cannot.

The converter changes some matrices, for example the order of the rows of ``q_proj``. It is asked to
change the factor B alone, and the whole product B·A. Only if both are the same, B changed times A
is the adapter of the changed matrix.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

CLOSE = 1e-4
"""The largest difference between the two products, relative to the largest value."""


def main() -> None:
    """Write the adapter and a JSON object: the tensors' names, or an ``error``."""
    settings = json.loads(sys.stdin.readline())
    try:
        result: dict[str, Any] = {"tensors": write(settings)}
    except UnfitError as error:
        result = {"error": str(error)}
    Path(settings["result"]).write_text(json.dumps(result), "utf-8")


class UnfitError(Exception):
    """The adapter cannot be a GGUF; the text says why."""


def write(settings: dict[str, Any]) -> list[str]:
    """Write the adapter; return the names of the model's tensors that it changes."""
    import gguf
    from safetensors.torch import load_file

    model = _model(Path(settings["base"]))
    factors = load_file(settings["factors"])
    writer = gguf.GGUFWriter(settings["target"], gguf.MODEL_ARCH_NAMES[model.model_arch])
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", settings["alpha"])
    writer.add_string("general.name", "adapter")
    names = []
    for module in sorted({name.rpartition(".")[0] for name in factors}):
        a, b = factors[f"{module}.a"], factors[f"{module}.b"]
        tensor, changed = _changed(model, module, a, b)
        names.append(tensor)
        writer.add_tensor(f"{tensor}.lora_a", a.numpy())
        writer.add_tensor(f"{tensor}.lora_b", changed.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return names


def _model(base: Path) -> Any:
    """Return the converter's object for the architecture of a model folder."""
    import gguf

    try:
        import conversion  # type: ignore[import-not-found]  # the converter's own package
    except ImportError as error:
        raise UnfitError(f"this converter cannot convert parts of a model: {error}") from None
    settings = conversion.ModelBase.load_hparams(base, False)
    name = conversion.get_model_architecture(settings, conversion.ModelType.TEXT)
    try:
        kind = conversion.get_model_class(name)
    except NotImplementedError:
        raise UnfitError(f"it does not know the architecture {name}") from None
    return kind(base, gguf.LlamaFileType.ALL_F32, base / "unused.gguf", dry_run=True)


def _changed(model: Any, module: str, a: Any, b: Any) -> tuple[str, Any]:
    """Return the tensor that a module becomes, and the factor B for it."""
    (tensor, changed), (_, product) = (_converted(model, module, given) for given in (b, b @ a))
    if changed.shape != b.shape or product.shape != (len(b), a.shape[1]):
        raise UnfitError(f"{module} gets another shape")
    apart, largest = (changed @ a - product).abs().max(), product.abs().max()
    if not bool(apart <= CLOSE * largest):
        raise UnfitError(f"more than the order of the rows of {module} changes")
    return tensor, changed.contiguous()


def _converted(model: Any, module: str, weight: Any) -> tuple[str, Any]:
    """Return the one tensor that the converter makes of a weight."""
    block = next((int(part) for part in module.split(".") if part.isdecimal()), None)
    taken = model.filter_tensors((f"{module}.weight", lambda: weight))
    try:
        found = list(model.modify_tensors(weight, taken[0], block)) if taken else []
    except (ValueError, KeyError, RuntimeError, IndexError, AssertionError) as error:
        raise UnfitError(f"{module} has no tensor of its own: {error}") from None
    if len(found) != 1:
        raise UnfitError(f"{module} becomes {len(found) or 'no'} tensors")
    name, tensor = found[0]
    return str(name), tensor


if __name__ == "__main__":
    main()
