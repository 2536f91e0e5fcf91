"""Powers and indices that are raised or lowered only by a page's styles."""

from __future__ import annotations

import pytest

from llmpipe.documents.html import of_text


def shown(body: str, css: str = "") -> str:
    return of_text(f"<html><head><style>{css}</style></head><body><p>{body}</p>", "a").text


@pytest.mark.parametrize(
    ("style", "text"),
    [
        ("VERTICAL-ALIGN: super !important", "10^5 km"),
        ("vertical-align:30%", "10^5 km"),
        ("vertical-align: 0.4em", "10^5 km"),
        ("vertical-align:2px; font-size: 70%", "10^5 km"),
        ("vertical-align:-0.3em; font-size:.7em", "10_5 km"),
        ("vertical-align:text-top; font-size: small", "10^5 km"),
        ("position:relative; top:-0.33em; font-size:.58em", "10^5 km"),
        ("position: relative; bottom: 4px; font-size: smaller", "10^5 km"),
        ("position:relative; top:.33em; font-size:.58em", "10_5 km"),
        ("vertical-align: baseline; font-size:.7em", "105 km"),
        ("vertical-align: middle; font-size:.7em", "105 km"),
        ("vertical-align: -0.125em", "105 km"),
        ("position:relative; top:-.3em", "105 km"),
        ("position:absolute; top:-.3em; font-size:.58em", "105 km"),
    ],
)
def test_what_an_element_says_itself(style: str, text: str) -> None:
    """By keyword, length or percentage, or by position, if it is also smaller."""
    assert shown(f"10<span style='{style}'>5</span> km") == text


@pytest.mark.parametrize(
    "css",
    [
        ".up{vertical-align:super}",
        "span.up { vertical-align: 0.4em }",
        "#u{vertical-align:super}",
        "p > .up, .x{font-size:.6em;position:relative;top:-.4em}",
        ".up,.dn{position:relative;font-size:75%;vertical-align:baseline} .up{top:-.5em}",
        "/* c } /* d */ @media screen { .up { vertical-align: super; } }",
        "<!-- .up{vertical-align:super} -->",
        "@charset 'u'; .q::before{content:'}'} .up{vertical-align:super",
        "span{font-size:60%} .q{} } .up{vertical-align:15%}",
        "#u{vertical-align:super} .up{vertical-align:baseline}",
    ],
)
def test_what_the_sheet_of_a_page_says(css: str) -> None:
    """By class, id or name, over several rules, whatever else the sheet contains."""
    assert shown("10<span class=up id=u>5</span> km", css) == "10^5 km"


@pytest.mark.parametrize(
    "css",
    [
        ".other .up{vertical-align:super}",
        ".up{vertical-align:super} .up{vertical-align:baseline}",
        ".up::after, .up:hover, .up:not(, .up[x{vertical-align:super}",
        f"{'.a ' * 1000} .up{{vertical-align:super}}",
        f"{'/*' * 50_000} .up{{vertical-align:super}}",
    ],
)
def test_rules_that_do_not_hold(css: str) -> None:
    """A selector for something else, a rule that is overridden, and invalid ones."""
    assert shown("10<span class=up>5</span> km", css) == "105 km"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("10<i class=up>5</i> km<b class=up>2</b>", "10^5 km^2"),
        ("40<a class=up href='#fn3'>3</a> euros", "40 [3] euros"),
        ("10<sup><span class=up>5</span></sup>", "10^5"),
        ("10<span class=up><sup>5</sup></span>", "10^5"),
        ("of <span class=up>14</span>C", "of ^14C"),
        ("Name <span class=up>(beta)</span> and <i class=up>v2</i>", "Name (beta) and *v2*"),
        ("a<span class=up><img alt=Photo src=x></span>", "aPhoto"),
    ],
)
def test_what_is_a_script(body: str, text: str) -> None:
    """Text that follows its base; a badge after a space and a picture are not scripts."""
    assert shown(body, ".up{position:relative; top:-4px; font-size:.7em}") == text
