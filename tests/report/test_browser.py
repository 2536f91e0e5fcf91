"""The page in a real browser: Debian's Chromium, wide and narrow, light and dark."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from chromium import Opened, launched
from contrasts import CONTRASTS
from playwright.sync_api import Browser

pytestmark = pytest.mark.slow

RUNS = ["failed_run", "trained_run", "hostile_run"]
WINDOWS = [(360, "light"), (360, "dark"), (1280, "light"), (1280, "dark")]


Opener = Callable[[Path, int, str], Opened]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, without a window."""
    with launched() as browser:
        yield browser


@pytest.fixture
def opened(browser: Browser) -> Iterator[Opener]:
    """Open the page of a run in a window of some width, in the light or the dark scheme."""
    contexts = []

    def open_page(folder: Path, width: int = 1280, scheme: str = "light") -> Opened:
        (path,) = (folder / ".llmpipe" / "runs").glob("*/report.html")
        context = browser.new_context(
            viewport={"width": width, "height": 800},
            color_scheme="dark" if scheme == "dark" else "light",
        )
        contexts.append(context)
        found = Opened(context.new_page())
        found.page.goto(path.as_uri(), wait_until="networkidle")
        return found

    yield open_page
    for context in contexts:
        context.close()


@pytest.mark.parametrize("run", RUNS)
def test_it_asks_for_nothing_and_complains_of_nothing(
    run: str, opened: Opener, request: pytest.FixtureRequest
) -> None:
    """One request, for the page itself; not a word on the console; no dialog; no script ran."""
    found = opened(request.getfixturevalue(run), 1280, "light")
    assert len(found.requests) == 1
    assert found.requests[0].endswith("/report.html")
    assert found.errors == []
    assert found.dialogs == []
    assert found.page.locator("script, img, [onload], [onerror]").count() == 0


def test_the_policy_would_stop_what_slipped_through(opened: Opener, failed_run: Path) -> None:
    """Markup put into the page by force neither runs, nor loads, nor styles."""
    found = opened(failed_run, 1280, "light")
    with socket.create_server(("127.0.0.1", 0)) as server:
        found.page.evaluate(
            """(port) => document.body.insertAdjacentHTML('beforeend',
              `<img src="http://127.0.0.1:${port}/x.png" onerror="window.acted = 1">`
              + '<style>body { display: none }</style><p id="styled" style="color: red">x</p>')""",
            server.getsockname()[1],
        )
        found.page.wait_for_timeout(200)
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()  # nobody has knocked
    assert found.page.evaluate("() => window.acted") is None
    assert found.page.locator("body").is_visible()
    assert found.page.evaluate(
        "() => getComputedStyle(document.getElementById('styled')).color !== 'rgb(255, 0, 0)'"
    )
    assert any("Content Security Policy" in error for error in found.errors)


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize(("width", "scheme"), WINDOWS)
def test_it_fits_the_window(
    run: str, width: int, scheme: str, opened: Opener, request: pytest.FixtureRequest
) -> None:
    """Nothing scrolls sideways but wide tables and drawings, each inside its own box."""
    page = opened(request.getfixturevalue(run), width, scheme).page
    page.evaluate("() => document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    for box in page.locator(".scroll").all():
        assert box.evaluate("(b) => b.getBoundingClientRect().right <= innerWidth")


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(
    run: str, scheme: str, opened: Opener, request: pytest.FixtureRequest
) -> None:
    """The contrast of every text with its ground is 4.5 or more, in both schemes."""
    page = opened(request.getfixturevalue(run), 1280, scheme).page
    page.evaluate("() => document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert page.evaluate(CONTRASTS) == []
    page.evaluate("() => { document.querySelector('footer').style.color = '#777'; }")
    assert len(page.evaluate(CONTRASTS)) == 1  # it does tell what is too faint


def test_the_schemes_differ(opened: Opener, failed_run: Path) -> None:
    """The system's dark scheme gives a dark page, with no script to switch it."""
    grounds = {
        opened(failed_run, 1280, scheme).page.evaluate(
            "() => getComputedStyle(document.body).backgroundColor"
        )
        for scheme in ("light", "dark")
    }
    assert grounds == {"rgb(255, 255, 255)", "rgb(13, 17, 23)"}


def test_it_can_be_used_by_keyboard(opened: Opener, trained_run: Path) -> None:
    """The first Tab leads to the content; folded parts open by Enter; wide boxes take the focus."""
    page = opened(trained_run, 360, "light").page
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.textContent") == "To the content"
    first = page.locator("#lock details").first
    first.locator("summary").focus()
    page.keyboard.press("Enter")
    assert first.evaluate("(d) => d.open")
    assert first.locator("table").first.is_visible()
    box = page.locator("#graph .scroll")
    box.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.querySelector('#graph .scroll').scrollLeft > 0")


def test_links_lead_to_sections(opened: Opener, trained_run: Path) -> None:
    """Every entry of the navigation leads to a section that is there, by its heading's name."""
    page = opened(trained_run, 1280, "light").page
    links = page.locator("nav a").all()
    assert len(links) == 10
    for link in links:
        section = page.locator(str(link.get_attribute("href")))
        assert section.get_by_role("heading", level=2).inner_text() == link.inner_text()


def test_a_reader_hears_what_the_drawings_show(opened: Opener, trained_run: Path) -> None:
    """Drawings have names, tables have headers, regions are named by their headings."""
    page = opened(trained_run, 1280, "light").page
    assert page.get_by_role("img", name="The 13 stages of quickstart").count() == 1
    curves = page.get_by_role("img", name="sft: loss, learning_rate=0.0005 · loss:")
    assert curves.count() == 1
    assert page.get_by_role("region", name="Models compared", exact=True).count() == 1
    table = page.get_by_role("table", name="Metrics of quality")
    assert table.get_by_role("rowheader").all_inner_texts() == ["base", "best", "gguf"]
