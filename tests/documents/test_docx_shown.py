"""Word: the text contains what the page displays, and not what it hides."""

from __future__ import annotations

from document_files import NAMESPACE, check_parts, docx_bytes

from llmpipe.documents.docx import convert
from llmpipe.documents.parts import Converted

M = 'xmlns:m="http://schemas.openxmlformats.org/officeDocument/2006/math"'
RELATION = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships"


def run(text: str, properties: str = "") -> str:
    """Return a run of text."""
    shown = f"<w:rPr>{properties}</w:rPr>" if properties else ""
    return f'<w:r>{shown}<w:t xml:space="preserve">{text}</w:t></w:r>'


def paragraph(*runs: str, properties: str = "") -> str:
    """Return a paragraph of runs."""
    shown = f"<w:pPr>{properties}</w:pPr>" if properties else ""
    return f"<w:p>{shown}{''.join(runs)}</w:p>"


def item(text: str, list_: int = 1, level: int = 0) -> str:
    """Return a list item."""
    number = f'<w:numPr><w:ilvl w:val="{level}"/><w:numId w:val="{list_}"/></w:numPr>'
    return paragraph(run(text), properties=number)


def level(at: int, text: str, format_: str = "decimal", start: int = 1, more: str = "") -> str:
    """Return the definition of a list level."""
    return (
        f'<w:lvl w:ilvl="{at}"><w:start w:val="{start}"/><w:numFmt w:val="{format_}"/>{more}'
        f'<w:lvlText w:val="{text}"/></w:lvl>'
    )


def numbering(*levels: str, more: str = "") -> bytes:
    """Return two lists with one definition, the second of which restarts, and a bullet list."""
    return (
        f'<w:numbering {NAMESPACE}><w:abstractNum w:abstractNumId="0">{"".join(levels)}</w:abstractNum>'
        f'<w:abstractNum w:abstractNumId="1">{level(0, "•", "bullet")}</w:abstractNum>'
        '<w:num w:numId="1"><w:abstractNumId w:val="0"/></w:num>'
        '<w:num w:numId="2"><w:abstractNumId w:val="0"/><w:lvlOverride w:ilvl="0">'
        '<w:startOverride w:val="1"/></w:lvlOverride></w:num>'
        f'<w:num w:numId="3"><w:abstractNumId w:val="1"/></w:num>{more}</w:numbering>'
    ).encode()


def read(*paragraphs: str, **parts: bytes) -> Converted:
    """Read a document of paragraphs."""
    found = convert(docx_bytes([], extra="".join(paragraphs), **parts), "a.docx")
    check_parts(found.text, found.sections)
    return found


def test_a_list_goes_on_after_a_paragraph():
    """As in Word, it continues, or restarts where the list or a higher level says so."""
    found = read(
        item("one"), item("two"), paragraph(run("Between.")), item("three"), item("inner", level=1),
        item("inner too", level=1), item("four"), item("inner", level=1), item("anew", 2), item("dot", 3),
        **{"word/numbering.xml": numbering(level(0, "%1."), level(1, "%1.%2)"))},
    )  # fmt: skip
    lines = [line.strip() for line in found.text.split("\n") if line.strip()]
    assert lines == [
        "1. one", "2. two", "Between.", "3. three", "3.1) inner", "3.2) inner too", "4. four",
        "4.1) inner", "1. anew", "- dot",
    ]  # fmt: skip


def test_numbers_in_letters_and_words():
    """As the file formats them, in the text of the level; legal numbering in digits."""
    levels = (
        level(0, "Article %1:", "upperRoman", 3),
        level(1, "(%2)", "lowerLetter"),
        level(2, "%1.%2.%3", more="<w:isLgl/>"),
    )
    found = read(
        item("Term"), item("Fee", level=1), item("Tax", level=1), item("Rate", level=2),
        **{"word/numbering.xml": numbering(*levels)},
    )  # fmt: skip
    lines = [line.strip() for line in found.text.split("\n") if line.strip()]
    assert lines == ["Article III: Term", "(a) Fee", "(b) Tax", "3.2.1 Rate"]


def test_numbered_headings():
    """The displayed number is part of the heading, and of the section's title."""
    levels = tuple(
        level(at, ".".join(f"%{i + 1}" for i in range(at + 1)), more=f'<w:pStyle w:val="Heading{at + 1}"/>')
        for at in range(2)
    )  # fmt: skip
    styles = "".join(
        f'<w:style w:type="paragraph" w:styleId="Heading{at}"><w:name w:val="heading {at}"/><w:pPr>'
        '<w:numPr><w:numId w:val="1"/></w:numPr></w:pPr></w:style>'
        for at in (1, 2)
    )
    data = docx_bytes(
        [(1, "Scope"), (0, "text"), (1, "Fees"), (2, "Tax"), (0, "more")],
        **{
            "word/numbering.xml": numbering(*levels),
            "word/styles.xml": f"<w:styles {NAMESPACE}>{styles}</w:styles>".encode(),
        },
    )
    found = convert(data, "a.docx")
    assert [section.path for section in found.sections] == [
        ("1 Scope",),
        ("2 Fees",),
        ("2 Fees", "2.1 Tax"),
    ]


def equation(inner: str) -> str:
    """Return an equation in a paragraph."""
    return f"<m:oMath {M}>{inner}</m:oMath>"


def mrun(text: str) -> str:
    """Return a run of an equation."""
    return f"<m:r><m:t>{text}</m:t></m:r>"


def test_equations_are_text():
    """Inside sentences and on their own, without losing anything."""
    half = f"<m:f><m:num>{mrun('1')}</m:num><m:den>{mrun('2')}</m:den></m:f>"
    square = f"<m:sSup><m:e>{mrun('h')}</m:e><m:sup>{mrun('2')}</m:sup></m:sSup>"
    root = f"<m:rad><m:deg/><m:e>{mrun('a+b')}</m:e></m:rad>"
    total = (
        '<m:nary><m:naryPr><m:chr m:val="∑"/></m:naryPr>'
        f"<m:sub>{mrun('i=1')}</m:sub><m:sup>{mrun('n')}</m:sup><m:e>{mrun('x')}</m:e></m:nary>"
    )
    bracket = f"<m:d><m:e>{mrun('a-b')}</m:e></m:d>"
    index = f"<m:sSub><m:e>{mrun('x')}</m:e><m:sub>{mrun('max')}</m:sub></m:sSub>"
    found = read(
        paragraph(run("Area is"), equation(half + mrun("bh")), run("where h is height.")),
        f"<w:p><m:oMathPara {M}>{equation(mrun('y=') + square + mrun('+') + root)}</m:oMathPara></w:p>",
        paragraph(equation(total), equation(bracket), equation(index)),
    )
    assert found.text.split("\n\n") == [
        "Area is 1/2 bh where h is height.",
        "y = h^2 + √(a + b)",
        "∑_(i = 1)^n x (a - b) x_max",
    ]


def test_powers_and_notes():
    """Raised directly or by a style; a note mark is separated from the amount before it."""
    styles = (
        f'<w:styles {NAMESPACE}><w:style w:type="character" w:styleId="Up"><w:name w:val="Up"/>'
        '<w:rPr><w:vertAlign w:val="superscript"/></w:rPr></w:style></w:styles>'
    )
    up, down = '<w:vertAlign w:val="superscript"/>', '<w:vertAlign w:val="subscript"/>'
    notes = (
        f'<w:footnotes {NAMESPACE}><w:footnote w:id="1">{paragraph(run("Plus tax."))}</w:footnote>'
        "</w:footnotes>"
    )
    types = '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>'
    relations = (
        f'<Relationships xmlns="{PACKAGE}"><Relationship Id="n" Type="{RELATION}/footnotes" '
        'Target="footnotes.xml"/></Relationships>'
    )
    found = read(
        paragraph(run("10"), run("6", up), run(" of H"), run("2", down), run("O at 2"),
                  run("31", '<w:rStyle w:val="Up"/>')),
        paragraph(run("40"), '<w:r><w:footnoteReference w:id="1"/></w:r>', run(" euros")),
        **{"word/styles.xml": styles.encode(), "word/footnotes.xml": notes.encode(),
           "[Content_Types].xml": types.encode(), "word/_rels/document.xml.rels": relations.encode()},
    )  # fmt: skip
    assert found.text.split("\n\n") == ["10^6 of H2O at 2^31", "40 [1] euros", "1. Plus tax."]


def test_letters_moved_off_their_line():
    """LibreOffice writes powers like that: smaller and moved up. Kerned lines are not scripts."""
    up, down = (
        '<w:position w:val="8"/><w:sz w:val="19"/>',
        '<w:position w:val="-2"/><w:sz w:val="19"/>',
    )
    styles = (
        f'<w:styles {NAMESPACE}><w:style w:type="character" w:styleId="Up"><w:name w:val="Up"/>'
        f"<w:rPr>{up}</w:rPr></w:style></w:styles>"
    )
    found = read(
        paragraph(run("10"), run("23", up), run(" mol"), run("−1", up), run(" of H"), run("2", down),
                  run("O at 2"), run("31", '<w:rStyle w:val="Up"/>')),
        paragraph(run("40"), run("3", '<w:position w:val="6"/>')),
        paragraph(run("40"), run("3", '<w:position w:val="1"/>'), run("5", '<w:position w:val="0"/>')),
        paragraph(run("1", '<w:sz w:val="22"/>'), run("5", '<w:position w:val="1"/><w:sz w:val="22"/>')),
        **{"word/styles.xml": styles.encode()},
    )  # fmt: skip
    assert found.text.split("\n\n") == ["10^23 mol^−1 of H2O at 2^31", "40^3", "4035", "15"]


def test_hidden_text_is_out():
    """By direct formatting or by a style; direct formatting can show what a style hides."""
    styles = (
        f'<w:styles {NAMESPACE}><w:style w:type="character" w:styleId="H"><w:name w:val="H"/><w:rPr>'
        '<w:vanish/></w:rPr></w:style><w:style w:type="paragraph" w:styleId="P"><w:name w:val="P"/>'
        "<w:rPr><w:vanish/></w:rPr></w:style></w:styles>"
    ).encode()
    found = read(
        paragraph(run("seen"), run(" gone", "<w:vanish/>"), run(" too", '<w:vanish w:val="0"/>'),
                  run(" gone", '<w:rStyle w:val="H"/>')),
        paragraph(run("gone"), run("shown", '<w:vanish w:val="false"/>'), properties='<w:pStyle w:val="P"/>'),
        **{"word/styles.xml": styles},
    )  # fmt: skip
    assert found.text == "seen too\n\nshown"


def test_merged_cells():
    """Down, across, and in rows that start later; bookmarks and controls in between are ignored."""

    def cell(text: str, properties: str = "") -> str:
        return f"<w:tc><w:tcPr>{properties}</w:tcPr>{paragraph(run(text))}</w:tc>"

    down, on, across = '<w:vMerge w:val="restart"/>', "<w:vMerge/>", '<w:gridSpan w:val="2"/>'
    rows = (
        f'<w:bookmarkStart w:id="0" w:name="x"/><w:tr>{cell("Region", down)}{cell("2023", across)}</w:tr>',
        f"<w:tr>{cell('', on)}{cell('Q1')}<w:sdt><w:sdtContent>{cell('Q2')}</w:sdtContent></w:sdt></w:tr>",
        f"<w:tr>{cell('North')}{cell('1')}{cell('2')}</w:tr>",
        f'<w:tr><w:trPr><w:gridBefore w:val="1"/></w:trPr>{cell("3")}{cell("4")}</w:tr>',
    )
    table = f"<w:tbl>{''.join(rows)}</w:tbl>"
    assert read(table).text == (
        "| Region | 2023 | 2023 |\n| --- | --- | --- |\n| Region | Q1 | Q2 |\n| North | 1 | 2 |\n|  | 3 | 4 |"
    )


def frame(kind: str, *paragraphs: str) -> bytes:
    """Return a header or footer."""
    return f"<w:{kind} {NAMESPACE}>{''.join(paragraphs)}</w:{kind}>".encode()


def test_headers_and_footers_once_per_section():
    """Around the text of their section, without repetition and page numbers."""
    refers = f'xmlns:r="{RELATION}"'
    page = (
        '<w:r><w:fldChar w:fldCharType="begin"/></w:r><w:r><w:instrText> PAGE </w:instrText></w:r>'
        f'<w:r><w:fldChar w:fldCharType="separate"/></w:r>{run("7")}<w:r><w:fldChar w:fldCharType="end"/></w:r>'
    )
    first = (
        f'<w:sectPr {refers}><w:headerReference w:type="default" r:id="h1"/>'
        '<w:footerReference w:type="default" r:id="f1"/></w:sectPr>'
    )
    last = f'<w:sectPr {refers}><w:headerReference w:type="default" r:id="h2"/><w:footerReference r:id="f1"/></w:sectPr>'
    relations = "".join(
        f'<Relationship Id="{id_}" Type="{RELATION}/header" Target="{name}.xml"/>'
        for id_, name in (("h1", "header1"), ("h2", "header2"), ("f1", "footer1"))
    )
    found = read(
        paragraph(run("First.")), paragraph(properties=first), paragraph(run("Second.")), last,
        **{
            "word/header1.xml": frame("hdr", paragraph(run("Draft of May"))),
            "word/header2.xml": frame("hdr", paragraph(run("Annex"))),
            "word/footer1.xml": frame("ftr", paragraph(run("Page "), page), paragraph(run("No. 4711 of ACME "), page)),
            "word/_rels/document.xml.rels": f'<Relationships xmlns="{PACKAGE}">{relations}</Relationships>'.encode(),
        },
    )  # fmt: skip
    assert found.text.split("\n\n") == [
        "Draft of May", "First.", "No. 4711 of ACME", "Annex", "Second.",
    ]  # fmt: skip


def test_fields_and_new_forms():
    """The text of fields is kept, and so is a text box without a fallback."""
    mc = 'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"'
    box = (
        f'<w:r><mc:AlternateContent {mc}><mc:Choice Requires="wps"><w:drawing><w:txbxContent>'
        f"{paragraph(run('In a box.'))}</w:txbxContent></w:drawing></mc:Choice></mc:AlternateContent></w:r>"
    )
    field = f'<w:fldSimple w:instr="DOCPROPERTY Fee">{run("40")}</w:fldSimple>'
    found = read(paragraph(run("Fee: "), field, run(" euros")), paragraph(run("x"), box))
    assert found.text == "Fee: 40 euros\n\nx\n\nIn a box."


def test_what_is_not_read_is_said():
    """Comments and charts, with their counts."""
    chart = '<c:chart xmlns:c="http://schemas.openxmlformats.org/drawingml/2006/chart"/>'
    found = read(
        paragraph(run("x"), f"<w:r><w:drawing>{chart}</w:drawing></w:r>", '<w:r><w:commentReference w:id="1"/></w:r>')
    )  # fmt: skip
    assert found.remarks == ("not read: chart (1), comment (1)",)
