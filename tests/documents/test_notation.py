"""Powers, indices, note marks and fractions keep their meaning in plain text."""

from __future__ import annotations

import pytest
from lxml import etree

from llmpipe.documents import markdown, notation, omml, rst
from llmpipe.documents.html import of_text


def shown(html: str) -> str:
    """Return the text of a paragraph."""
    return of_text(f"<p>{html}</p>", "a.html").text


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("2<sup>31</sup> bytes", "2^31 bytes"),
        ("10<sup>6</sup>m", "10^6 m"),
        ("<b>10</b><sup>−6</sup> m", "**10**^−6 m"),
        ("10<span style='vertical-align: super'>9</span>", "10^9"),
        ("x<sup>n+1</sup>", "x^(n+1)"),
        ("x<sup>2</sup>y", "x^2 y"),
        ("E = mc<sup>2</sup>.", "E = mc^2."),
        ("5 km<sup>2</sup>, 9 metres<sup>2</sup>", "5 km^2, 9 metres^2"),
        ("(a + b)<sup>2</sup>", "(a + b)^2"),
        ("2<sup>2<sup>3</sup></sup>", "2^(2^3)"),
        (
            "sin<sup>2</sup> x, n<sup>log n</sup>, x\u0304<sup>2</sup>",
            "sin^2 x, n^(log n), x\u0304^2",
        ),
        ("Ca<sup>2+</sup> and SO<sub>4</sub><sup>2−</sup>", "Ca^2+ and SO4^2−"),
        ("<sup>14</sup>C dating", "^14C dating"),
        ("<a href='https://x.org/'>m<sup>2</sup></a>", "[m^2](https://x.org/)"),
    ],
)
def test_powers_stay_powers(html, text):
    """A raised number after a number, a variable or a unit never runs into it."""
    assert shown(html) == text


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("40 euros<sup>3</sup>.", "40 euros [3]."),
        ("40 euros.<sup>3</sup> Then", "40 euros. [3] Then"),
        ("fee<sup>[3]</sup>", "fee [3]"),
        ("fee<sup>3)</sup>", "fee [3]"),
        ("fee<sup>1, 2</sup>", "fee [1, 2]"),
        ("fee<sup>*</sup>", "fee [*]"),
        ("40<sup><a href='#fn3'>3</a></sup>", "40 [3]"),
        ("40<a href='#fn3'><sup>3</sup></a>", "40 [3]"),
        ("40<sup class='reference'><a href='#cite_note-3'><span>[</span>3<span>]</span></a></sup>", "40 [3]"),
        ("word<a role='doc-noteref' href='#n2'>2</a>", "word [2]"),
        ("fee<sup>a</sup>", "fee [a]"),
        ("5 %<sup>1</sup>", "5 % [1]"),
        ("(see below)<sup>3</sup>", "(see below) [3]"),
        ("<sup>3</sup> See the terms", "[3] See the terms"),
    ],
)  # fmt: skip
def test_marks_of_notes_are_set_apart(html, text):
    """A number after a word belongs neither to the word nor to the amount before it."""
    assert shown(html).strip() == text


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("$40<sup>99</sup>", "$40.99"),
        ("From <b>$ 40</b><sup>99</sup>/month", "From **$ 40**.99/month"),
        ("<sup>$</sup>40<sup>99</sup> a year", "$40.99 a year"),
        ("<span>€</span><span>40</span><sup>,99</sup>", "€40,99"),
        ("$40.<sup>99</sup> or £1,299<sup>00</sup>", "$40.99 or £1,299.00"),
        ("40<sup>99</sup> €, 1.299<sup>00</sup> EUR", "40.99 €, 1.299,00 EUR"),
        ("40<sup>€</sup>, 40€<sup>99</sup>, 40<sup>€99</sup>, 40<sup>99 €</sup>", "40€, 40€99, 40€99, 40.99 €"),
        ("99<sup>¢</sup>, 40,<sup>–</sup> €", "99¢, 40,– €"),
        ("USD 5<sup>50</sup>, CHF 5<sup>50</sup>.", "USD 5.50, CHF 5.50."),
        ("$40<sup>3</sup>, $40.00<sup>12</sup> and €40,99<sup>3</sup>", "$40 [3], $40.00 [12] and €40,99 [3]"),
        ("40 euros<sup>12</sup>, 40 €<sup>12</sup>, 40 USD<sup>3</sup>", "40 euros [12], 40 € [12], 40 USD [3]"),
        ("$40<sup><a href='#n12'>12</a></sup> and $40<sup>[12]</sup>", "$40 [12] and $40 [12]"),
        ("$10<sup>9</sup>, 10<sup>12</sup> dollars, 10<sup>99</sup> kg, 2<sup>10</sup>", "$10^9, 10^12 dollars, 10^99 kg, 2^10"),
        ("$40<sup>*</sup> and $40<sup>1,2</sup>", "$40 [*] and $40 [1,2]"),
    ],
)  # fmt: skip
def test_cents_are_part_of_a_price(html, text):
    """They are not an exponent; a note mark after an amount is separated from it."""
    assert shown(html) == text


def test_prices_elsewhere():
    """Also in Markdown, reStructuredText and PDF."""
    assert markdown.of_text("$40<sup>99</sup>, 40<sup>99</sup> €, 1<sup>a</sup> vez\n").text == (
        "$40.99, 40.99 €, 1a vez\n"
    )
    assert (
        rst.convert("$40\\ :sup:`99` or 40\\ :sup:`99` €".encode(), "a").text
        == "$40.99 or 40.99 €\n"
    )


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("1<sup>st</sup>, 2<sup>nd</sup> and n<sup>th</sup>", "1st, 2nd and nth"),
        ("XIX<sup>e</sup> siècle, M<sup>me</sup> X, n<sup>o</sup> 5", "XIXe siècle, Mme X, no 5"),
        ("Acme<sup>TM</sup> and Co<sup>®</sup>", "Acme™ and Co®"),
        ("20<sup>o</sup>C", "20°C"),
        ("1<sup>a</sup> vez, 40<sup>a</sup>", "1a vez, 40^a"),
        ("Na<sup>+</sup>", "Na^+"),
        ("Prices<sup>New offer</sup>", "Prices New offer"),
        ("H<sub>2</sub>O, CO<sub>2</sub>, (CH<sub>3</sub>)<sub>2</sub>", "H2O, CO2, (CH3)2"),
        ("x<sub>i</sub>, V<sub>max</sub>, 101<sub>2</sub>", "x_i, V_max, 101_2"),
        ("B<sub>12</sub> and PM<sub>2.5</sub>", "B12 and PM2.5"),
        ("<sup>1</sup>/<sub>2</sub> and 3<sup>1</sup>⁄<sub>4</sub>cups", "1/2 and 3 1/4 cups"),
    ],
)
def test_other_raised_and_lowered_letters(html, text):
    """Ordinals and abbreviations stay words; formulas are written as people search for them."""
    assert shown(html) == text


@pytest.mark.parametrize(
    ("mathml", "text"),
    [
        ("<mfrac><mn>1</mn><mn>2</mn></mfrac>", "1/2"),
        ("<mi>E</mi><mo>=</mo><mi>m</mi><msup><mi>c</mi><mn>2</mn></msup>", "E = m c^2"),
        ("<msqrt><mi>a</mi><mo>+</mo><mi>b</mi></msqrt>", "√(a + b)"),
        ("<mroot><mn>8</mn><mn>3</mn></mroot>", "8^(1/3)"),
        ("<munderover><mo>∑</mo><mrow><mi>i</mi><mo>=</mo><mn>1</mn></mrow><mi>n</mi></munderover><msub><mi>x</mi><mi>i</mi></msub>", "∑_(i = 1)^n x_i"),
        ("<semantics><mrow><mi>f</mi><mo>(</mo><mi>x</mi><mo>)</mo></mrow><annotation>f(x)</annotation></semantics>", "f(x)"),
        ("<mover><mi>x</mi><mo>¯</mo></mover>", "mean(x)"),
        ("<mfrac><mrow><mo>-</mo><mi>b</mi></mrow><mrow><mn>2</mn><mi>a</mi></mrow></mfrac>", "-b/(2 a)"),
        ("<msup><mn>10</mn><mrow><mo>-</mo><mn>6</mn></mrow></msup>", "10^-6"),
        ("<mmultiscripts><mi>C</mi><mprescripts/><mn>6</mn><mn>14</mn></mmultiscripts>", "_6^14C"),
        ("<mmultiscripts><mi>C</mi><mprescripts></mprescripts><none></none><mn>14</mn></mmultiscripts>", "^14C"),
        ("<mmultiscripts><mi>F</mi><mi>r</mi><none/><mi>s</mi><mn>2</mn><mprescripts/><mi>p</mi><mi>q</mi></mmultiscripts>", "_p^qF_r_s^2"),
        ("<mmultiscripts><mi>R</mi><mi>i</mi><mrow/></mmultiscripts>", "R_i"),
        ("<mmultiscripts><mi>X</mi></mmultiscripts><mmultiscripts></mmultiscripts>", "X"),
        ("<msup><mrow/><mn>14</mn></msup><mi>C</mi>", "^14C"),
        ("<msubsup><mi></mi><mn>6</mn><mn>14</mn></msubsup><mi>C</mi>", "_6^14C"),
        ("<mo>(</mo><mfrac linethickness='0'><mi>n</mi><mi>k</mi></mfrac><mo>)</mo>", "(n choose k)"),
        ("<mo>(</mo><mfrac linethickness='0.0pt'><mrow><mi>n</mi><mo>+</mo><mn>1</mn></mrow><mi>k</mi></mfrac><mo>)</mo>", "((n + 1) choose k)"),
        ("<mfenced><mfrac linethickness='0px'><mi>n</mi><mi>k</mi></mfrac></mfenced>", "(n choose k)"),
        ("<mrow><mo>(</mo><mstyle><mfrac linethickness='0'><mi>n</mi><mi>k</mi></mfrac></mstyle><mo>)</mo></mrow>", "(n choose k)"),
        ("<munder><mo>∑</mo><mfrac linethickness='0'><mi>i</mi><mi>j</mi></mfrac></munder>", "∑_(i over j)"),
        ("<mfrac linethickness='2px'><mn>1</mn><mn>2</mn></mfrac>", "1/2"),
        ("<mo>(</mo><mfrac linethickness='medium'><mn>1</mn><mn>2</mn></mfrac><mo>)</mo>", "(1/2)"),
    ],
)  # fmt: skip
def test_formulas_in_mathml(mathml, text):
    """Fractions keep their bar and roots their extent; annotations for programs are left out."""
    assert shown(f"<math><mrow>{mathml}</mrow></math>") == text


def test_binomials_of_word():
    """They have no bar either; scripts before a letter are written before it."""
    name = 'xmlns:m="http://schemas.openxmlformats.org/officeDocument/2006/math"'
    run = "<m:r><m:t>{}</m:t></m:r>".format
    stacked = f"<m:f><m:fPr><m:type m:val='noBar'/></m:fPr><m:num>{run('n')}</m:num><m:den>{run('k')}</m:den></m:f>"
    before = (
        f"<m:sPre><m:sub>{run('6')}</m:sub><m:sup>{run('14')}</m:sup><m:e>{run('C')}</m:e></m:sPre>"
    )
    for inner, text in (
        (f"<m:d><m:e>{stacked}</m:e></m:d>", "(n choose k)"),
        (stacked, "(n over k)"),
        (before, "_6^14C"),
    ):
        assert omml.linear(etree.fromstring(f"<m:oMath {name}>{inner}</m:oMath>")) == text


def test_headings_and_cells():
    """There too, including a section's title."""
    found = of_text("<h2>CO<sub>2</sub> up to 10<sup>6</sup></h2><table><tr><th>m<sup>2</sup>", "a")
    assert found.sections[0].path == ("CO2 up to 10^6",)
    assert "| m^2 |" in found.text


def test_katex_says_a_formula_once():
    """The visible copy is removed if the formula itself is there."""
    html = (
        '<span class="katex"><span class="katex-mathml"><math><mi>x</mi></math></span>'
        '<span class="katex-html" aria-hidden="true"><span>x</span></span></span>'
    )
    assert shown(f"Let {html} be") == "Let x be"


def test_groups():
    """Parentheses are only added where needed."""
    assert notation.fraction("a + b", "2") == "(a + b)/2"
    assert notation.power("(a + b)", "2") == "(a + b)^2"
    assert notation.power("f", "′") == "f′"
