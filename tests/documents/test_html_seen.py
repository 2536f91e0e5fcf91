"""The text of a page contains what a reader sees, and blocks separate words."""

from __future__ import annotations

import pytest

from llmpipe.documents.html import of_text


def shown(html: str) -> str:
    """Return the text of a page."""
    return of_text(html, "a.html").text


def test_forms_are_text():
    """Buttons, legends, labels and options are separate words; hidden fields are left out."""
    page = """<form><fieldset><legend>Plans</legend><label>Name</label><label>Mail</label>
        <button>Windows</button><button>winget</button><p>Press <button>OK</button>now.</p>
        <select><option>Basic 5 €<option>Pro 9 €</select><textarea>Your words</textarea>
        <input type=hidden value=secret><input type=submit value="Send it"></fieldset></form>"""
    assert [block.strip() for block in shown(page).split("\n\n")] == [
        "Plans", "Name", "Mail", "Windows", "winget", "Press OK now.", "Basic 5 €", "Pro 9 €",
        "Your words", "Send it",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "tag", ["section", "header", "main", "address", "center", "hgroup", "figure", "my-card", "dt"]
)
def test_blocks_part_words(tag):
    """Elements that browsers show on separate lines do not run together."""
    assert shown(f"<article><{tag}>one</{tag}><{tag}>two</{tag}></article>").split() == [
        "one",
        "two",
    ]


@pytest.mark.parametrize("tag", ["span", "a", "b", "em", "strong", "font", "small", "code", "time"])
@pytest.mark.parametrize(
    "style",
    ["display:block", "color:red; DISPLAY : Flex;", "display:grid!important", "display:table"],
)
def test_lines_made_by_a_style(tag, style):
    """Elements that a style puts on separate lines do not run together."""
    page = f"<p>none<{tag} style='{style}'>one</{tag}><{tag} style='{style}'>two</{tag}>three"
    assert shown(page).replace("*", "").replace("`", "").split("\n\n") == [
        "none",
        "one",
        "two",
        "three",
    ]
    assert (
        shown(f"<h2>A<{tag} style='{style}'>b</{tag}></h2>").replace("*", "").replace("`", "")
        == "## A b"
    )


def test_other_styles_part_no_words():
    """Flex items are separate words; boxed letters form one word; code keeps its lines."""
    assert shown("<div style='display:flex'><span>one</span><a href=x>two</a><b>3</b></div>") == (
        "one two **3**"
    )
    assert (
        shown("<p><span style='display:table-cell'>a</span><i style='display:table-cell'>b")
        == "a *b*"
    )
    assert (
        shown("<p><b style='display:inline-block'>H</b><span style='display:inline'>i") == "**H**i"
    )
    assert shown("<p>40<a style='display:block' href='https://x.org/'>more") == (
        "40\n\n[more](https://x.org/)"
    )
    card = "<a href='https://x.org/'><span>Title</span><span style='display:block'>Sub</span></a>"
    assert shown(card) == "[Title Sub](https://x.org/)"
    assert shown("<p><img style='display:block' src=x alt=pic>text") == "pic\n\ntext"
    lines = "".join(
        f"<span style='display:flex'><span class=lineno>{at}</span><span>f({at})\n</span></span>"
        for at in (1, 2)
    )
    assert shown(f"<pre><code>{lines}</code></pre>") == "```\nf(1)\nf(2)\n```"


def test_an_accordion_heads_its_answers():
    """Each question becomes the heading of its answer; the text after it belongs to the page."""
    page = """<h1>FAQ</h1><p>intro<details><summary>How <b>much</b>?</summary>40 euros</details>
        <details><summary>When?</summary>Now<details><summary>Where?</summary>Here</details>
        </details><p>After all."""
    found = of_text(page, "a.html")
    assert [(s.path, found.text[s.start : s.end]) for s in found.sections] == [
        (("FAQ",), "# FAQ\n\nintro\n\n"),
        (("FAQ", "How much?"), "## How **much**?\n\n40 euros\n\n"),
        (("FAQ", "When?"), "## When?\n\nNow\n\n"),
        (("FAQ", "When?", "Where?"), "### Where?\n\nHere\n\n"),
        (("FAQ",), "After all."),
    ]


@pytest.mark.parametrize(
    "page",
    [
        "<h3><button aria-expanded=false aria-controls=p>Fee?</button></h3><div id=p hidden>40</div>",
        "<button class=accordion>Fee?</button><div class=panel>40</div>",
        "<button data-bs-target=#p aria-controls=p>Fee?</button><div id=p style='display: none'>40</div>",
        "<h4><a aria-controls=p href=#p>Fee?</a></h4><div id=p aria-hidden=true>40</div>",
        "<div role=tablist><button role=tab id=t>Fee?</button></div><div role=tabpanel aria-labelledby=t hidden>40</div>",
        "<ul role=tablist><li role=tab>Fee?</ul><div role=tabpanel>40</div>",
        "<details><summary><h3>Fee?</h3></summary>40</details>",
        "<nav><div role=tablist><button role=tab aria-controls=p>Fee?</button></div></nav><div id=p role=tabpanel>40</div>",
        "<ul role=tablist><li><a role=tab href=#p>Fee?</a></ul><div id=p class=tab-pane>40</div>",
        ("<div class=tabbed-set><input type=radio id=a><div class=tabbed-labels><label for=a>Fee?</label></div>"
        "<div class=tabbed-content><div class=tabbed-block>40</div></div></div>"),
    ],
)  # fmt: skip
def test_what_a_click_opens(page):
    """Tabs and accordions of all kinds: their names become the headings of what they show."""
    found = of_text(f"<p>before</p>{page}<p>after", "a.html")
    section = next(s for s in found.sections if "40" in found.text[s.start : s.end])
    assert section.path == ("Fee?",)
    assert found.text.count("Fee?") == 1


@pytest.mark.parametrize(
    "page",
    [
        "<h1>A<details><summary>Why?</summary><p>So.</details></h1><p>End",
        "<h1>A<p><button aria-expanded=false aria-controls=p>Why?</button><div id=p>So.</div></h1>End",
        "<button aria-expanded=false aria-controls=p>Why?<div id=p>So.</div></button>End",
        "<a role=tab href=#p>Why?<div id=p>So.</div></a>End",
    ],
)
def test_what_was_left_open_is_put_into_no_part_that_it_holds(page):
    """Regression: an element was moved into itself, which lost it or caused an endless loop."""
    text = of_text(page, "a.html").text
    assert [text.count(word) for word in ("Why?", "So.", "End")] == [1, 1, 1]


def test_in_lists_questions_are_bold():
    """Markdown has no headings there."""
    assert shown("<ul><li><details><summary>Q</summary>A</details></ul>") == "- **Q**\n\n  A"


def test_what_only_says_that_something_opens_is_no_heading():
    """A command is not the topic of the text below it."""
    assert shown("<details><summary>Show more</summary>text</details>") == "Show more\n\ntext"


def test_navigation_goes():
    """By element, role or class; the header and footer of an article stay."""
    page = """<header><a href=/>Site</a></header><div role=navigation>n1</div><nav>n2</nav>
        <div class=breadcrumbs>n3</div><article><header><h2>In</h2></header>text
        <footer>by A.</footer></article><footer>n4</footer><div role=contentinfo>n5</div>"""
    assert shown(page) == "## In\n\ntext\n\nby A."
    assert shown("<header><h1>Title</h1>intro</header>text") == "# Title\n\nintro\n\ntext"


def test_a_page_of_links_has_them():
    """If a page contains only navigation, it is kept."""
    assert shown("<nav><a href=a>One</a> <a href=b>Two</a></nav>") == "One Two"


def test_words_for_the_eye_and_for_the_ear():
    """They are read once; text that only looks hidden to programs is kept."""
    page = "<p><span class=sr-only>five euros</span><span aria-hidden=true>5 €</span>"
    assert shown(page) == "five euros"
    assert shown("<p>x <b aria-hidden=true>seen</b> <i aria-hidden=true>expand_more</i>") == (
        "x **seen**"
    )
    assert shown("<div hidden>gone</div><div style='visibility: hidden'>gone</div><p>y") == "y"


def test_lists_are_numbered_as_browsers_do():
    """From their start, by the value of an item, in letters, and in reverse."""
    assert shown("<ol start=3><li>a<li>b<li value=9>c</ol>") == "3. a\n4. b\n9. c"
    assert shown("<ol type=a><li>x<li>y</ol>") == "a. x\nb. y"
    assert shown("<ol reversed><li>x<li>y</ol>") == "2. x\n1. y"


def test_ticks_of_a_list_of_tasks():
    """The state of a task is visible."""
    page = (
        "<ul><li><input type=checkbox checked disabled>done<li><input type=checkbox disabled>open"
    )
    assert shown(page) == "- [x] done\n- [ ] open"


def test_lines_of_links_to_the_pages_around_go():
    """By their text or attributes; a line with other words stays."""
    steps = "<p><a href=a>Prev</a> | <a href=b>Up</a> | <a href=c>Next</a></p>"
    named = (
        "<div><p>Next: <a rel=next href=x>Using</a>, Previous: <a rel=prev href=y>Intro</a>, "
        "Up: <a rel=up href=z>Top</a> [<a rel=contents href=c>Contents</a>]</p></div>"
    )
    assert shown(f"{steps}<h1>T</h1>{named}body") == "# T\n\nbody"
    assert shown("<p>Go <a href=a>back</a> or to the <a href=b>next</a> page.") == (
        "Go back or to the next page."
    )


def test_drawings_and_readings():
    """Words in a drawing are visible; the reading of characters is separated from them."""
    assert shown("<svg><title>icon</title><text>Peak 40 °C</text></svg>") == "Peak 40 °C"
    assert shown("<ruby>漢<rt>かん</rt></ruby>") == "漢(かん)"
    assert shown("<p>a<?php secret ?>b") == "ab"
