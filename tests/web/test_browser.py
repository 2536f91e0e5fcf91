"""The page in a real browser: Debian's Chromium, wide and narrow, light and dark."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import chromium
import pytest
from contrasts import CONTRASTS
from playwright.sync_api import Page, expect
from town_service import HOSTILE, PASSAGE, SAYS, WHEN, Serve, Served, waited

from llmpipe.retrieval.prompt import ABSTENTION
from llmpipe.web.chat import MOST_TURNS
from llmpipe.web.middleware import Admission

pytestmark = pytest.mark.heavy

TOLD = SAYS.replace("[1]", "1")
"""The answer as it stands on the page."""
WINDOWS = [(390, "light"), (390, "dark"), (1280, "light"), (1280, "dark")]


class Opened(chromium.Opened):
    """The page of a service, and how somebody asks there."""

    def ask(self, question: str = WHEN) -> None:
        """Ask, and wait for the end of the answer."""
        self.page.get_by_label("Your question").fill(question)
        self.page.keyboard.press("Enter")
        expect(self.page.locator("#stop")).to_be_hidden()
        expect(self.page.locator(".turn").last.locator(".notes")).to_be_visible()

    def focused(self) -> str:
        """Return the name of what has the focus."""
        found: str = self.page.evaluate(
            "() => document.activeElement.getAttribute('aria-label')"
            " ?? (document.activeElement.id || document.activeElement.textContent)"
        )
        return found


Opener = Callable[..., Opened]


@pytest.fixture
def opened(new_page: Callable[..., Page]) -> Opener:
    """Open the page of a service, in a window like `new_page`'s."""

    def open_page(served: Served, *window: Any) -> Opened:
        found = Opened(new_page(*window))
        found.page.goto(served.url)
        expect(found.page).to_have_title("town-docs")
        return found

    return open_page


def test_it_says_what_it_answers_from(serve: Serve, opened: Opener) -> None:
    """The spec's name, the number of documents, and a box that has the focus."""
    found = opened(serve())
    assert found.page.get_by_role("heading", level=1).inner_text() == "town-docs"
    expect(found.page.locator("#about")).to_contain_text("Answers from 4 documents")
    expect(found.page.locator("#about")).to_contain_text("Index made on")
    made = found.page.locator("#about time").get_attribute("datetime")
    assert made is not None
    assert made.startswith(datetime.now(UTC).date().isoformat())
    assert found.focused() == "question"


def test_an_answer_comes_with_buttons_to_its_sources(serve: Serve, opened: Opener) -> None:
    """The number is a button; what it opens shows the sentence, marked, in its document."""
    found = opened(serve(k=3))
    found.ask()
    page = found.page
    assert page.locator(".answer").inner_text() == TOLD
    button = page.get_by_role("button", name="Source 1: kiosk.md")
    button.click()
    passage = page.get_by_role("dialog", name="kiosk.md › About kiosk.md")
    assert passage.locator("mark").inner_text() == "The kiosk opens at nine in the morning."
    assert passage.locator("#passage-text").inner_text().endswith("at eight in the evening.")
    assert button.get_attribute("aria-expanded") == "true"
    hits = page.locator("#hits .hit")
    assert hits.count() == 3
    first = hits.first.inner_text()
    assert "kiosk.md › About kiosk.md" in first
    assert "cited · cosine 0." in first
    assert "BM25" in first
    assert found.errors == []


def test_words_and_hits_are_there_before_the_answer_is(serve: Serve, opened: Opener) -> None:
    """The passages are listed while the model still thinks, then the words come one by one."""
    served = serve()
    held = threading.Event()
    served.endpoint.before = lambda body, number: waited(held)
    page = opened(served).page
    page.get_by_label("Your question").fill(WHEN)
    page.keyboard.press("Enter")
    expect(page.locator("#hits .hit").first).to_be_visible()
    assert page.locator(".answer").inner_text() == ""
    served.endpoint.pause = 0.15
    served.endpoint.before = lambda body, number: None
    held.set()
    expect(page.locator(".answer")).to_contain_text("The kiosk")
    assert "morning" not in page.locator(".answer").inner_text()
    expect(page.locator(".answer")).to_have_text(TOLD)


def test_a_passage_is_marked_in_the_middle_of_a_long_document(serve: Serve, opened: Opener) -> None:
    """It is in view, with its page; what lies further off is left out."""
    served = serve()
    served.endpoint.reply = lambda body: ("The bridge is 41 metres long [1].", "stop")
    found = opened(served)
    found.ask("bridge metres long")
    page = found.page
    page.get_by_role("button", name="Source 1: The bridge").click()
    mark = page.locator("mark")
    assert mark.inner_text() == PASSAGE
    expect(mark).to_be_in_viewport()
    assert page.locator("#passage-place").inner_text() == "bridge.pdf, page 2"
    text = page.locator("#passage-text").inner_text()
    assert text.startswith("… ")
    assert text.endswith(" …")


@pytest.mark.parametrize("width", [390, 1280])
def test_it_can_be_used_by_keyboard_alone(serve: Serve, opened: Opener, width: int) -> None:
    """Ask, go to a citation, open it, read, close it by Esc, and be where one was."""
    found = opened(serve(), width)
    page = found.page
    page.keyboard.type(WHEN)
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("And close?")
    assert page.get_by_label("Your question").input_value() == f"{WHEN}\nAnd close?"
    page.keyboard.press("Enter")
    expect(page.locator(".notes")).to_be_visible()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    assert found.focused() == "Source 1: kiosk.md"
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    assert found.focused() == "passage-title"
    page.keyboard.press("Tab")
    assert found.focused() == "close"
    page.keyboard.press("Tab")
    assert found.focused() == "Text of the document"
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert found.focused() == "Source 1: kiosk.md"
    page.keyboard.press("/")
    assert found.focused() == "question"
    assert page.get_by_label("Your question").input_value() == ""
    page.keyboard.type("a/b")
    assert page.get_by_label("Your question").input_value() == "a/b"


def test_a_hit_opens_its_passage_and_takes_the_focus_back(serve: Serve, opened: Opener) -> None:
    """The whole passage, from the list of what was found."""
    found = opened(serve(k=2))
    found.ask()
    hit = found.page.locator("#hits .hit").nth(1)
    hit.click()
    expect(found.page.get_by_role("dialog")).to_be_visible()
    assert found.page.locator("mark").inner_text().startswith(hit.locator(".text").inner_text())
    found.page.get_by_role("button", name="Close", exact=True).click()
    assert hit.evaluate("(node) => node === document.activeElement")


def test_another_passage_opens_in_the_place_of_the_first(serve: Serve, opened: Opener) -> None:
    """The focus is in it, and closing it leads back to where it was opened from."""
    served = serve(k=2)
    says = (
        "The kiosk opens at nine in the morning [1]. A building permit is valid for two years [2]."
    )
    served.endpoint.reply = lambda body: (says, "stop")
    found = opened(served)
    found.ask("When does the kiosk open in the morning, and how long is a building permit valid?")
    page = found.page
    first, second = page.locator(".cite").nth(0), page.locator(".cite").nth(1)
    first.click()
    expect(page.get_by_role("dialog")).to_be_visible()
    before = page.locator("mark").inner_text()
    second.click()
    expect(page.locator("mark")).not_to_have_text(before)
    page.wait_for_timeout(100)
    assert found.focused() == "passage-title"
    assert second.get_attribute("aria-expanded") == "true"
    assert first.get_attribute("aria-expanded") == "false"
    page.keyboard.press("Escape")
    expect(second).to_be_focused()
    assert second.get_attribute("aria-expanded") == "false"


def test_markup_is_shown_as_text(serve: Serve, opened: Opener) -> None:
    """In a document, a question and an answer alike: nothing of it acts."""
    served = serve()
    served.endpoint.reply = lambda body: (f"Cats may roam {HOSTILE} [1].", "stop")
    found = opened(served)
    found.ask(f"Cats may roam? {HOSTILE}")
    page = found.page
    assert HOSTILE in page.locator(".asked").inner_text()
    assert HOSTILE in page.locator(".answer").inner_text()
    page.locator("#hits .hit", has_text="dogs").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert HOSTILE in page.locator("#passage-text").inner_text()
    assert page.locator("main script, aside script, dialog script, img").count() == 0
    assert page.evaluate("() => window.acted") is None
    assert found.errors == []
    assert found.dialogs == []


def test_what_the_answer_does_not_cite_is_marked_as_found_by_us(
    serve: Serve, opened: Opener
) -> None:
    """Behind the very sentence that it is for, also where the text has letters of two halves."""
    served = serve()
    says = "😀😀 Yes. The kiosk opens at nine in the morning. Is that so?"
    served.endpoint.reply = lambda body: (says, "stop")
    found = opened(served)
    found.ask()
    answer = found.page.locator(".answer")
    assert answer.inner_text() == says.replace("morning.", "morning.≈ 1")
    button = found.page.get_by_role("button", name="Source 1, found by us: kiosk.md")
    button.click()
    assert found.page.locator("mark").inner_text() == "The kiosk opens at nine in the morning."
    assert "the answer names no source there" in found.page.locator(".notes").inner_text()


def test_that_the_sources_do_not_say_is_an_answer(serve: Serve, opened: Opener) -> None:
    """Told apart by its looks and in words, without sources."""
    found = opened(serve(threshold=1.0))
    found.ask("Who built the moon?")
    assert found.page.locator(".answer.abstained").inner_text() == ABSTENTION
    assert "Nothing was near enough" in found.page.locator("#sources-of").inner_text()
    assert found.page.locator("#hits .hit").count() == 0


def test_several_questions_make_a_conversation(serve: Serve, opened: Opener) -> None:
    """Earlier turns are sent along, stay on the page, and show their own sources again."""
    served = serve(k=1)
    found = opened(served)
    found.ask()
    found.ask("Is a building permit valid for long?")
    page = found.page
    contents = [message["content"] for message in served.asked()[1]["messages"]]
    assert contents[1:3] == [WHEN, SAYS.replace("[1]", "(1)")]
    assert page.locator(".turn").count() == 2
    assert "building permit" in page.locator("#sources-of").inner_text()
    page.get_by_role("button", name="1 passage").first.click()
    assert WHEN in page.locator("#sources-of").inner_text()
    assert "kiosk" in page.locator("#hits .hit").inner_text()


def test_a_conversation_can_go_on_for_ever(serve: Serve, opened: Opener) -> None:
    """No more of it is sent than the service heeds, and turns that are left out say so."""
    found = opened(serve(k=1))
    for _ in range(MOST_TURNS + 1):
        found.ask("When?")
    forgotten = found.page.get_by_text("Too far back: no longer part of the conversation.")
    assert forgotten.count() == 0
    with found.page.expect_request("**/v1/chat/completions") as asked:
        found.ask()
    assert len(asked.value.post_data_json["messages"]) == 2 * MOST_TURNS + 1
    assert forgotten.count() == 1
    expect(found.page.locator(".turn").first).to_contain_text("Too far back")


def test_an_answer_can_be_stopped(serve: Serve, opened: Opener) -> None:
    """The model hears it at once; what was written stays, is said to be cut, and is not sent."""
    served = serve(slots=1)
    served.endpoint.pause = 0.1
    served.endpoint.reply = lambda body: ("The kiosk opens. " * 100, "stop")
    found = opened(served)
    page = found.page
    page.get_by_label("Your question").fill(WHEN)
    page.keyboard.press("Enter")
    expect(page.locator(".answer")).to_contain_text("The kiosk")
    page.get_by_role("button", name="Stop").click()
    assert served.endpoint.hung_up.wait(10)
    expect(page.locator(".notes")).to_contain_text("You stopped this answer.")
    expect(page.locator(".notes")).to_contain_text("Not part of the conversation from here on.")
    assert found.focused() == "question"
    served.endpoint.pause = 0
    served.endpoint.reply = lambda body: (SAYS, "stop")
    found.ask()
    assert len(served.asked()[-1]["messages"]) == 2


def test_the_key_is_asked_for_and_kept_in_the_tab(serve: Serve, opened: Opener) -> None:
    """A wrong one is said; with the right one the page goes on, also after a reload."""
    found = opened(serve(admission=Admission(api_key="right")))
    page = found.page
    key = page.get_by_label("This service asks for its API key")
    assert key.evaluate("(node) => node === document.activeElement")
    key.fill("schlüssel…")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_contain_text("characters that cannot be sent")
    key.fill("wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_contain_text("not the one of this service")
    key.fill("right")
    page.keyboard.press("Enter")
    expect(key).to_be_hidden()
    found.ask()
    page.reload()
    expect(page.locator("#about")).to_contain_text("4 documents")
    expect(key).to_be_hidden()
    found.ask()
    assert page.evaluate("() => localStorage.length + document.cookie.length") == 0


def test_a_question_waits_for_the_key(serve: Serve, opened: Opener) -> None:
    """Asked without one, it is asked again by itself as soon as there is one."""
    found = opened(serve(admission=Admission(api_key="right")))
    page = found.page
    page.get_by_label("Your question").fill(WHEN)
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_contain_text("API key is missing")
    page.get_by_label("This service asks for its API key").fill("right")
    page.keyboard.press("Enter")
    expect(page.locator(".answer")).to_contain_text("The kiosk opens")
    assert page.locator(".turn").count() == 1


def test_failures_are_told_in_words(serve: Serve, opened: Opener) -> None:
    """A model that fails, and a service that is gone; the page can be asked again."""
    served = serve()
    served.endpoint.before = lambda body, number: (400, {"error": {"message": "no such model"}}, {})
    found = opened(served)
    page = found.page
    page.get_by_label("Your question").fill(WHEN)
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("no such model")
    page.context.set_offline(True)
    page.get_by_label("Your question").fill(WHEN)
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert").last).to_contain_text("cannot be reached")
    page.context.set_offline(False)
    expect(page.get_by_text("Not part of the conversation from here on.")).to_have_count(2)
    served.endpoint.before = lambda body, number: None
    found.ask()
    assert page.locator(".turn").last.locator(".answer").inner_text().startswith("The kiosk")


def test_nothing_leaves_the_service(serve: Serve, opened: Opener) -> None:
    """Every request goes to the service, and the policy stops what slipped through."""
    served = serve()
    found = opened(served)
    found.ask()
    found.page.get_by_role("button", name="Source 1: kiosk.md").click()
    assert found.errors == []
    assert {url.split("/")[2] for url in found.requests if not url.startswith("data:")} == {
        served.url.removeprefix("http://")
    }
    found.page.evaluate(
        """() => document.body.insertAdjacentHTML('beforeend',
          `<img src="https://example.invalid/x.png" onerror="window.acted = 1">`
          + '<p id="styled" style="color: red">x</p>')"""
    )
    found.page.wait_for_timeout(200)
    assert found.page.evaluate("() => window.acted") is None
    assert any("Content Security Policy" in error for error in found.errors)


@pytest.mark.parametrize(("width", "scheme"), WINDOWS)
def test_it_fits_and_can_be_read(
    serve: Serve, opened: Opener, width: int, scheme: str, tmp_path: Path
) -> None:
    """Nothing scrolls sideways, and the contrast of every text is 4.5 or more, in every state."""
    served = serve()
    says = (
        "The kiosk opens at nine in the morning [1]. It closes at eight in the evening. "
        "A building permit is valid for two years [2]."
    )
    served.endpoint.reply = lambda body: (says, "stop")
    found = opened(served, width, scheme)
    page = found.page
    page.screenshot(path=tmp_path / "empty.png")
    found.ask("When does the kiosk open in the morning, and how long is a building permit valid?")
    served.endpoint.reply = lambda body: (ABSTENTION, "stop")
    found.ask("Who built the moon?")
    served.endpoint.before = lambda body, number: (400, {"error": {"message": "no such model"}}, {})
    page.get_by_label("Your question").fill(WHEN)
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_be_visible()
    page.get_by_role("button", name="4 passages").first.click()
    page.screenshot(path=tmp_path / "answered.png", full_page=True)
    for state in ("closed", "open"):
        if state == "open":
            page.locator(".turn").first.locator(".cite").first.click()
            expect(page.get_by_role("dialog")).to_be_visible()
            page.screenshot(path=tmp_path / "passage.png")
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width
        assert page.evaluate(CONTRASTS) == []
    box = page.get_by_role("dialog").bounding_box()
    assert box is not None
    assert (box["x"], box["width"]) == (0, 390) if width == 390 else box["x"] > 600


def test_a_window_that_is_made_narrow_keeps_working(serve: Serve, opened: Opener) -> None:
    """An open passage is closed when its place goes, and opens as a sheet the next time."""
    found = opened(serve())
    found.ask()
    page = found.page
    button = page.get_by_role("button", name="Source 1: kiosk.md")
    button.click()
    page.set_viewport_size({"width": 390, "height": 800})
    expect(page.get_by_role("dialog")).to_be_hidden()
    button.click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert page.locator("#passage").evaluate("(node) => node.matches(':modal')")
