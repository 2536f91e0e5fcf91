"""A served model to call: the embedded one, behind the guard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from gguf_files import rewrite
from town_service import running

from llmpipe.backends.llama_cpp.client import LlamaServer
from llmpipe.backends.llama_cpp.serve import serve_gguf
from llmpipe.web.middleware import Admission
from llmpipe.web.model.service import make_model_service

TOOLS_TEMPLATE = Path(__file__).with_name("tools.jinja")
CALLS = 13
"""The token by which that template begins a call, <jupyter_code>."""
SLOTS = 2
BATCH = 16
CONTEXT = 1024
KEY = "only-the-guard-knows"


class ServedModel:
    """A service that is up, and llama.cpp's server behind it."""

    def __init__(self, url: str, server: LlamaServer) -> None:
        self.server = server
        self.http = httpx.Client(base_url=url, timeout=300)
        self.openai = openai.OpenAI(
            base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=300
        )

    def chat(self, text: str = "Say hi.", **fields: Any) -> httpx.Response:
        """Ask a question, without randomness."""
        body = {"messages": [{"role": "user", "content": text}], "max_tokens": 6, "temperature": 0}
        return self.http.post("/v1/chat/completions", json=body | fields)

    def raw(self, path: str, body: dict[str, Any]) -> httpx.Response:
        """Ask llama.cpp itself."""
        headers = {"Authorization": f"Bearer {self.server.api_key}"}
        return httpx.post(f"{self.server.url}{path}", json=body, headers=headers, timeout=300)

    def metric(self, name: str) -> float:
        """Return a figure that the service counts."""
        lines = self.http.get("/metrics").text.splitlines()
        return float(next(line for line in lines if line.startswith(f"{name} ")).split()[1])


@pytest.fixture(scope="session")
def llama(smollm2_gguf: Path) -> Iterator[LlamaServer]:
    """llama.cpp's server of the embedded model, with two slots and a small batch."""
    with serve_gguf(
        smollm2_gguf, threads=1, context=CONTEXT, slots=SLOTS, alias="chat", api_key=KEY, cache_prompt=True,
        batch=BATCH + SLOTS - 1,
    ) as server:  # fmt: skip
        yield server


@pytest.fixture(scope="session")
def model(llama: LlamaServer, smollm2_gguf: Path) -> Iterator[ServedModel]:
    """The service before it."""
    service = make_model_service(llama, smollm2_gguf, Admission(), slots=SLOTS)
    with running(service) as url:
        served = ServedModel(url, llama)
        yield served
        served.http.close()


@pytest.fixture(scope="session")
def caller(smollm2_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedModel]:
    """The same model with a template that knows tools, reasoning and the names of users."""
    gguf = rewrite(
        smollm2_gguf,
        tmp_path_factory.mktemp("caller") / "caller.gguf",
        texts={"tokenizer.chat_template": TOOLS_TEMPLATE.read_text("utf-8")},
    )
    with serve_gguf(gguf, threads=1, context=CONTEXT, alias="chat", api_key=KEY) as server:
        service = make_model_service(server, gguf, Admission(), slots=1)
        with running(service) as url:
            served = ServedModel(url, server)
            yield served
            served.http.close()
