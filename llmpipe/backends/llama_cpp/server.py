"""The subprocess that opens a GGUF and serves it with llama.cpp's own server inside xllamacpp.

It runs as a script and llmpipe never imports it, so that a GGUF that crashes or subverts the parser
affects only this process. It reads one JSON line of settings from standard input and answers with
one JSON line on standard output (``{"address": …}`` or ``{"error": …}``). It serves until its
standard input ends, which happens when its parent closes it or dies in any way.

It does not import llmpipe.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from typing import Any


def main() -> int:
    """Serve until standard input ends; return 1 if the server cannot start."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the parent handles signals to the group
        signal.signal(number, signal.SIG_IGN)
    report = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # llama.cpp's output goes to the log, not to the answer
    settings = json.loads(sys.stdin.readline())
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    try:
        server = _start(settings)
    except Exception as error:  # the library raises RuntimeError; the parent writes the message
        print(json.dumps({"error": str(error)}), file=report, flush=True)
        return 1
    print(json.dumps({"address": server.listening_address}), file=report, flush=True)
    while True:
        signal.pause()


def _start(settings: dict[str, Any]) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = settings["model"]
    params.hostnames = [settings["host"]]
    params.port = settings["port"]
    params.reuse_port = False  # with it, two servers could share one port
    # Loaded with scale 0: they have an effect only on the requests that name them.
    params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(a, 0.0) for a in settings["adapters"]]
    params.lora_init_without_apply = True
    params.n_parallel = settings["slots"]
    params.n_ctx = settings["context"] * settings["slots"]  # llama.cpp divides it among the slots
    params.n_batch = settings["batch"]
    params.n_ubatch = min(settings["batch"], params.n_ubatch)
    params.fit_params = False  # it would silently shrink the context to fit the memory
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings["threads"]
    params.model_alias = {settings["alias"]}
    params.model_tags = {settings["tag"]}
    params.api_keys = settings["api_keys"]
    params.cache_prompt = settings["cache_prompt"]
    params.slot_save_path = settings["slots_folder"]
    params.cache_ram_mib = 0  # the cache of idle prompts takes up to 8 GiB by default
    params.cors_origins = ""  # no page in a browser may talk to the model
    params.ui = False
    if not settings["thinking"]:
        params.enable_reasoning = 0
    params.verbosity = settings["verbosity"]
    params.endpoint_slots = False  # it shows other callers' prompts
    return xllamacpp.Server(params)


def _leave_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
