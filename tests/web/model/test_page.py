"""The page of a served model in a real browser: Debian's Chromium, with one model and with two."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import chromium
import httpx
import openai
import pytest
from contrasts import CONTRASTS
from playwright.sync_api import Page, expect
from town_service import HOSTILE, running
from web.calling import error_of
from web.model.conftest import BATCH, KEY, ServedModel

from llmpipe.backends.llama_cpp.client import LlamaServer
from llmpipe.backends.llama_cpp.serve import serve_gguf
from llmpipe.web.middleware import Admission
from llmpipe.web.model.service import make_model_service

pytestmark = pytest.mark.heavy

WINDOWS = [(390, "light"), (390, "dark"), (1280, "light"), (1280, "dark")]
LEFT_OUT = "Not part of the conversation from here on."
LONGEST = 120_000
"""The milliseconds that an answer may take on a busy machine."""


class Opened(chromium.Opened):
    """The page of a served model."""

    def send(self, text: str, *, wait: bool = True) -> None:
        """Send a message, and wait for the end of the answers."""
        self.page.get_by_label("Your message").fill(text)
        self.page.keyboard.press("Enter")
        if wait:
            expect(self.page.locator("#stop")).to_be_hidden(timeout=LONGEST)

    def limit(self, tokens: int) -> None:
        """Set the maximum tokens of an answer."""
        self.page.get_by_text("Settings", exact=True).click()
        self.page.get_by_label("Maximum tokens of an answer").fill(str(tokens))
        self.page.get_by_text("Settings", exact=True).click()


Opener = Callable[..., Opened]


@pytest.fixture
def opened(new_page: Callable[..., Page]) -> Opener:
    """Open the page of a service, in a window like `new_page`'s."""

    def open_page(url: str, *window: Any) -> Opened:
        found = Opened(new_page(*window))
        found.page.goto(url)
        expect(found.page).to_have_title("chat")
        expect(found.page.locator("#about:not(:empty), #key:not([hidden])")).to_be_visible()
        return found

    return open_page


@pytest.fixture(scope="module")
def alone(llama: LlamaServer, smollm2_gguf: Path) -> Iterator[str]:
    """The address of a service of one model."""
    with running(make_model_service(llama, smollm2_gguf, Admission(), slots=2)) as url:
        yield url


@pytest.fixture(scope="module")
def pair(llama: LlamaServer, smollm2_gguf: Path) -> Iterator[str]:
    """The address of a service of two models. The second has a shorter context: 256."""
    with ExitStack() as held:
        second = held.enter_context(
            serve_gguf(
                smollm2_gguf, threads=1, context=128, alias="chat.compare", api_key=KEY, batch=BATCH
            )
        )
        service = make_model_service(
            llama, smollm2_gguf, Admission(), slots=2, compared=(second, smollm2_gguf)
        )
        yield held.enter_context(running(service))


def test_a_message_is_answered_and_the_conversation_goes_on(alone: str, opened: Opener) -> None:
    """The limits are told, the answer is streamed, and the next request holds both messages."""
    found = opened(alone)
    page = found.page
    expect(page.locator("#about")).to_have_text(
        "2 conversations at a time, 1,024 tokens each, on 1 thread."
    )
    found.limit(6)
    found.send("Say hi.")
    answer = page.locator(".answer").first.inner_text()
    assert answer
    expect(page.locator(".notes")).to_contain_text("6 tokens")
    expect(page.locator(".notes")).to_contain_text("There was no room for more of this answer.")
    page.get_by_text("Settings", exact=True).click()
    page.get_by_label("System message").fill("Be brief.")
    with page.expect_request("**/v1/chat/completions") as asked:
        found.send("And now?")
    body = asked.value.post_data_json
    assert [message["role"] for message in body["messages"]] == [
        "system", "user", "assistant", "user",
    ]  # fmt: skip
    assert body["messages"][2]["content"].strip() == answer.strip()
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("chat", 0, 6)
    assert page.get_by_role("heading", level=3).count() == 0
    page.get_by_role("button", name="New conversation").click()
    assert page.locator(".turn").count() == 0
    assert found.errors == []


def test_two_models_answer_side_by_side(pair: str, opened: Opener) -> None:
    """Each under its name, with its own requests; the same weights give the same answer."""
    found = opened(pair)
    page = found.page
    expect(page.locator("#about")).to_contain_text("chat and chat.compare side by side")
    found.limit(6)
    found.send("Say hi.")
    names = page.locator(".column h3").all_inner_texts()
    assert names == ["chat", "chat.compare"]
    first, second = page.locator(".answer").all_inner_texts()
    assert first == second != ""
    left, right = (each.bounding_box() for each in page.locator(".column").all())
    assert left is not None
    assert right is not None
    assert left["y"] == right["y"]
    assert left["x"] < right["x"]
    assert found.errors == []


def test_one_model_may_fail_alone(pair: str, opened: Opener) -> None:
    """The message is too long for the second; the first takes it. Both go on, without the turn."""
    found = opened(pair)
    page = found.page
    found.limit(4)
    found.send("word " * 400)
    first, second = page.locator(".column").all()
    expect(first.locator(".notes")).to_contain_text(" s")
    expect(second.get_by_role("alert")).to_contain_text("the context of the model holds 256")
    assert first.get_by_role("alert").count() == 0
    expect(second.locator(".notes")).to_have_text(LEFT_OUT)
    expect(first.locator(".notes")).to_contain_text(f"The answer is empty.{LEFT_OUT}")
    found.send("Say hi.")
    expect(page.locator(".turn").last.locator(".notes")).to_contain_text(["4 tokens", "4 tokens"])
    expect(page.locator(".turn").last).not_to_contain_text(LEFT_OUT)


def test_an_answer_can_be_stopped(alone: str, opened: Opener) -> None:
    """What was written stays and is said to be stopped and left out; the place is free again."""
    found = opened(alone)
    page = found.page
    found.send("Tell me a very long story about a bridge.", wait=False)
    page.wait_for_function("() => document.querySelector('.answer').textContent.length > 10")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".notes")).to_contain_text("You stopped this answer.")
    expect(page.locator(".notes")).to_contain_text(LEFT_OUT)
    assert page.locator(".answer").inner_text()
    found.limit(4)
    with page.expect_request("**/v1/chat/completions") as asked:
        found.send("Say hi.")
    assert [m["content"] for m in asked.value.post_data_json["messages"]] == ["Say hi."]
    assert page.locator(".turn").last.locator(".answer").inner_text()


def test_markup_is_shown_as_text_and_nothing_leaves(alone: str, opened: Opener) -> None:
    """Nothing of a message acts, and every request goes to the service."""
    found = opened(alone)
    found.limit(4)
    found.send(f"Repeat: {HOSTILE}")
    assert HOSTILE in found.page.locator(".asked").inner_text()
    assert found.page.evaluate("() => window.acted") is None
    assert found.page.locator("main script, img").count() == 0
    assert found.errors == []
    assert {url.split("/")[2] for url in found.requests if not url.startswith("data:")} == {
        alone.removeprefix("http://")
    }


def test_the_key_is_asked_for(llama: LlamaServer, smollm2_gguf: Path, opened: Opener) -> None:
    """Before the models are listed; a wrong one is said."""
    service = make_model_service(llama, smollm2_gguf, Admission(api_key="right"), slots=2)
    with running(service) as url:
        found = opened(url)
        page = found.page
        key = page.get_by_label("This service asks for its API key")
        key.fill("wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#status")).to_contain_text("not the one of this service")
        key.fill("right")
        page.keyboard.press("Enter")
        expect(key).to_be_hidden()
        found.limit(4)
        found.send("Say hi.")
        assert page.locator(".answer").inner_text()


@pytest.mark.parametrize(("width", "scheme"), WINDOWS)
def test_it_fits_and_can_be_read(pair: str, opened: Opener, width: int, scheme: str) -> None:
    """Nothing scrolls sideways, and the contrast of every text is 4.5 or more."""
    found = opened(pair, width, scheme)
    found.limit(4)
    found.send("word " * 400)
    expect(found.page.get_by_role("alert")).to_be_visible()
    found.page.get_by_text("Settings", exact=True).click()
    assert found.page.evaluate("() => document.documentElement.scrollWidth") <= width
    assert found.page.evaluate(CONTRASTS) == []


def test_openais_client_reaches_both_models(pair: str) -> None:
    """By their names, which are listed; any other name is refused with both."""
    client = openai.OpenAI(base_url=f"{pair}/v1", api_key="none", max_retries=0, timeout=300)
    assert [model.id for model in client.models.list()] == ["chat", "chat.compare"]
    assert client.models.retrieve("chat.compare").id == "chat.compare"
    asked: Any = {"messages": [{"role": "user", "content": "Say hi."}], "max_tokens": 4}
    for name in ("chat", "chat.compare"):
        assert client.chat.completions.create(model=name, **asked).model == name
    with pytest.raises(openai.NotFoundError, match=r"only 'chat' and 'chat\.compare'"):
        client.chat.completions.create(model="gpt", **asked)
    long = {"messages": [{"role": "user", "content": "word " * 400}], "max_tokens": 4}
    with httpx.Client(base_url=pair, timeout=300) as http:
        path = "/v1/chat/completions"
        assert http.post(path, json=long).status_code == 200
        refused = http.post(path, json={**long, "model": "chat.compare"})
        assert error_of(refused)[::2] == (400, "context_length_exceeded")


def test_the_files_of_the_page_need_no_key(llama: LlamaServer, smollm2_gguf: Path) -> None:
    """They hold nothing of the model."""
    service = make_model_service(llama, smollm2_gguf, Admission(api_key="right"), slots=2)
    with running(service) as url:
        for path in ("/", "/page.css", "/calls.js", "/model_page.js"):
            assert httpx.get(f"{url}{path}").status_code == 200


def test_a_model_says_what_it_is(model: ServedModel) -> None:
    """Its health tells the limits that it keeps to. llama.cpp rounds a context up."""
    health = model.http.get("/health").json()
    assert (health["context"], health["slots"], health["threads"]) == (1024, 2, 1)
    props = model.server.props()
    assert props["total_slots"] == health["slots"]
    assert props["default_generation_settings"]["n_ctx"] == health["context"]
