"""LoRA adapters that callers choose with each request, on one real model."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import openai
import pytest
from gguf_files import write_lora
from town_service import running
from web.calling import error_of
from web.model.conftest import KEY, ServedModel

from llmpipe.backends.llama_cpp.serve import serve_gguf
from llmpipe.errors import StageError
from llmpipe.web.middleware import Admission
from llmpipe.web.model.service import make_model_service

pytestmark = pytest.mark.heavy

CHAT: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Say hi."}], "max_tokens": 6, "temperature": 0,
}  # fmt: skip
NAMES = ("chat", "first", "second")


@pytest.fixture(scope="module")
def adapted(smollm2_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedModel]:
    """The embedded model with two adapters, and two slots."""
    folder = tmp_path_factory.mktemp("adapters")
    adapters = [write_lora(folder / f"{name}.gguf", at) for at, name in enumerate(NAMES[1:], 1)]
    with ExitStack() as held:
        server = held.enter_context(
            serve_gguf(
                smollm2_gguf, threads=1, context=512, slots=2, alias="chat", api_key=KEY,
                cache_prompt=True, adapters=adapters,
            )
        )  # fmt: skip
        service = make_model_service(server, smollm2_gguf, Admission(), slots=2, adapters=NAMES[1:])
        served = ServedModel(held.enter_context(running(service)), server)
        held.callback(served.http.close)
        yield served


def said(model: ServedModel, name: str) -> str:
    """Return what a model says."""
    answer = model.openai.chat.completions.create(model=name, **CHAT)
    assert answer.model == name
    return answer.choices[0].message.content or ""


def test_each_adapter_answers_by_its_name(adapted: ServedModel, model: ServedModel) -> None:
    """In any order; without one it is the base, as if there were no adapters."""
    answers = {name: said(adapted, name) for name in NAMES}
    assert len(set(answers.values())) == 3
    for name in (*reversed(NAMES), "first", "chat"):
        assert said(adapted, name) == answers[name]
    assert answers["chat"] == said(model, "chat")
    nameless = adapted.http.post("/v1/chat/completions", json=CHAT).json()
    assert nameless["choices"][0]["message"]["content"] == answers["chat"]


def test_they_answer_at_the_same_time(adapted: ServedModel) -> None:
    """Two slots with different adapters do not mix."""
    alone = {name: said(adapted, name) for name in NAMES}
    with ThreadPoolExecutor(6) as callers:
        names = NAMES * 4
        assert list(callers.map(lambda name: said(adapted, name), names)) == [
            alone[name] for name in names
        ]


def test_streams_and_other_routes_use_them_too(adapted: ServedModel) -> None:
    """With the adapter's name in every event."""
    expected = said(adapted, "first")
    chunks: Any = list(adapted.openai.chat.completions.create(model="first", stream=True, **CHAT))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == expected
    assert {chunk.model for chunk in chunks} == {"first"}
    response = adapted.openai.responses.create(
        model="first", input="Say hi.", temperature=0, max_output_tokens=6
    )
    assert (response.output_text, response.model) == (expected, "first")
    texts = [
        adapted.openai.completions.create(model=name, prompt="Once upon a", max_tokens=6, temperature=0)
        for name in NAMES
    ]  # fmt: skip
    assert len({text.choices[0].text for text in texts}) == 3
    assert [text.model for text in texts] == list(NAMES)


def test_they_are_listed(adapted: ServedModel) -> None:
    """The base first; each adapter names it as its parent."""
    listed = [card.model_dump() for card in adapted.openai.models.list()]
    assert [card["id"] for card in listed] == list(NAMES)
    assert [card.get("parent") for card in listed] == [None, "chat", "chat"]
    assert adapted.openai.models.retrieve("second").id == "second"
    with pytest.raises(openai.NotFoundError, match="only 'chat' and 'first' and 'second'"):
        adapted.openai.models.retrieve("third")


def test_llama_cpps_own_field_chooses_as_well(adapted: ServedModel) -> None:
    """By number and scale; a scale of 0 is the base."""
    expected = {name: said(adapted, name) for name in NAMES}
    for lora, name in (
        ([{"id": 1, "scale": 1.0}], "second"), ([{"id": 0, "scale": 0.0}], "chat"), ([], "chat"),
    ):  # fmt: skip
        reply = adapted.http.post("/v1/chat/completions", json=CHAT | {"lora": lora}).json()
        assert reply["choices"][0]["message"]["content"] == expected[name]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lora": [{"id": 7, "scale": 1.0}]}, "no adapter 7; the service has 0 (first), 1 (second)"),
        ({"lora": [{"id": 0, "scale": 1.0}], "model": "second"}, "beside a `model` that is an adapter"),
        ({"lora": [{"id": 0}]}, "scale"),
        ({"lora": [{"id": -1, "scale": 1.0}]}, "id"),
    ],
)  # fmt: skip
def test_an_unknown_adapter_is_refused(
    adapted: ServedModel, fields: dict[str, Any], message: str
) -> None:
    """llama.cpp itself would answer without any."""
    refused = adapted.http.post("/v1/chat/completions", json=CHAT | fields)
    assert error_of(refused)[0] == 400
    assert message in refused.json()["error"]["message"]


def test_llama_cpp_itself_ignores_an_unknown_number(adapted: ServedModel) -> None:
    """Where this fails after an upgrade, the guard need not check it."""
    body = CHAT | {"lora": [{"id": 7, "scale": 1.0}]}
    reply = adapted.raw("/v1/chat/completions", body)
    assert reply.status_code == 200
    assert reply.json()["choices"][0]["message"]["content"] == said(adapted, "chat")


def test_llama_cpp_itself_goes_on_from_the_cache_of_an_adapter(
    smollm2_gguf: Path, tmp_path: Path
) -> None:
    """Where this fails after an upgrade, requests without an adapter need no `lora` field."""
    adapter = write_lora(tmp_path / "a.gguf", 1)
    with serve_gguf(
        smollm2_gguf, threads=1, context=512, alias="chat", api_key=KEY, cache_prompt=True,
        adapters=[adapter],
    ) as server:  # fmt: skip
        raw = ServedModel(server.url, server)

        def first(**fields: Any) -> float:
            body = CHAT | {"logprobs": True, "top_logprobs": 1, "max_tokens": 1} | fields
            choice = raw.raw("/v1/chat/completions", body).json()["choices"][0]
            found: float = choice["logprobs"]["content"][0]["logprob"]
            return found

        plain, strong = first(), [{"id": 0, "scale": 1.0}]
        first(lora=strong)
        mixed = first()
        first(lora=strong)
        zero = first(lora=[{"id": 0, "scale": 0.0}])
        raw.http.close()
    assert mixed != pytest.approx(plain, abs=0.1)
    assert zero == pytest.approx(plain, abs=0.01)


def test_an_adapter_of_another_base_is_refused_at_the_start(
    smollm2_gguf: Path, tmp_path: Path
) -> None:
    """By the engine's words, before anything is served."""
    narrow = write_lora(tmp_path / "narrow.gguf", 1, width=64, layers=2)
    serving = serve_gguf(smollm2_gguf, threads=1, adapters=[narrow])
    with pytest.raises(StageError, match="cannot load") as refused, serving:
        pass
    assert "lora" in (refused.value.hint or "").lower()
