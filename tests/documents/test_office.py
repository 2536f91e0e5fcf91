"""Presentations and workbooks: everything visible is read, and what is left out is reported."""

from __future__ import annotations

import datetime
import io
import zipfile

import openpyxl
import pytest
from document_files import check_parts, read_or_told
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl.cell.rich_text import CellRichText, TextBlock
from openpyxl.cell.text import InlineFont

from llmpipe.documents import pptx, xlsx, xlsx_numbers
from llmpipe.errors import StageError

NAMES = (
    'xmlns:p="http://schemas.openxmlformats.org/presentationml/2006/main" '
    'xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main" '
    'xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships" '
    'xmlns:c="http://schemas.openxmlformats.org/drawingml/2006/chart" '
    'xmlns:dgm="http://schemas.openxmlformats.org/drawingml/2006/diagram" '
    'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006" '
    'xmlns:a14="http://schemas.microsoft.com/office/drawing/2010/main" '
    'xmlns:m="http://schemas.openxmlformats.org/officeDocument/2006/math"'
)
RELATION = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"


def relations(targets: dict[str, tuple[str, str]]) -> str:
    """Return the references of a part: by id the kind and the target."""
    return "<Relationships>{}</Relationships>".format(
        "".join(
            f'<Relationship Id="{id_}" Type="{RELATION}/{kind}" Target="{target}"/>'
            for id_, (kind, target) in targets.items()
        )
    )


def presentation(*slides: str, **parts: str) -> bytes:
    """Return a presentation of slides, each given as the XML of its shapes."""
    listed = "".join(f'<p:sldId r:id="s{at}"/>' for at in range(len(slides)))
    files = {
        "ppt/presentation.xml": f"<p:presentation {NAMES}><p:sldIdLst>{listed}</p:sldIdLst></p:presentation>",
        "ppt/_rels/presentation.xml.rels": relations(
            {f"s{at}": ("slide", f"slides/slide{at}.xml") for at in range(len(slides))}
        ),
        **{
            f"ppt/slides/slide{at}.xml": slide if slide.startswith("<p:sld") else shown(slide)
            for at, slide in enumerate(slides)
        },
        **parts,
    }
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return out.getvalue()


def shown(shapes: str, attributes: str = "") -> str:
    """Return a slide."""
    return f"<p:sld {NAMES} {attributes}><p:cSld><p:spTree>{shapes}</p:spTree></p:cSld></p:sld>"


def shape(*paragraphs: str, kind: str | None = None) -> str:
    """Return a shape with paragraphs; the kind is that of a placeholder."""
    holder = "" if kind is None else f'<p:ph type="{kind}"/>'
    lines = "".join(
        p if p.startswith("<a:p") else f"<a:p><a:r><a:t>{p}</a:t></a:r></a:p>" for p in paragraphs
    )
    return (
        f"<p:sp><p:nvSpPr><p:nvPr>{holder}</p:nvPr></p:nvSpPr><p:txBody>{lines}</p:txBody></p:sp>"
    )


def test_slides_are_pages_and_sections():
    """Titles are headings, outlines are lists, groups and notes are read, slide numbers are not."""
    inner = '<a:p><a:pPr lvl="1"/><a:r><a:t>10</a:t></a:r><a:r><a:rPr baseline="30000"/><a:t>6</a:t></a:r></a:p>'
    data = presentation(
        shape("Fees", kind="title") + shape("first", inner, "second", kind="body") + shape("7", kind="sldNum"),
        f"<p:grpSp><p:grpSp>{shape('In a group.')}</p:grpSp></p:grpSp>",
        **{
            "ppt/slides/_rels/slide0.xml.rels": relations({"n": ("notesSlide", "../notesSlides/n.xml")}),
            "ppt/notesSlides/n.xml": f"<p:notes {NAMES}>{shape('Say slowly.', kind='body')}</p:notes>",
        },
    )  # fmt: skip
    found = pptx.convert(data, "a.pptx")
    check_parts(found.text, found.sections, found.pages)
    assert found.text == (
        "## Fees\n\n- first\n  - 10^6\n- second\n\nNotes:\n\nSay slowly.\n\n## Slide 2\n\nIn a group.\n\n"
    )
    assert [section.path for section in found.sections] == [("Fees",), ("Slide 2",)]
    assert [page.number for page in found.pages] == [1, 2]


def test_tables_charts_diagrams_and_equations_of_slides():
    """What shape libraries lose: merged cells, charts, SmartArt, equations inside sentences."""
    cells = (
        '<a:tr><a:tc rowSpan="2"><a:p><a:r><a:t>R</a:t></a:r></a:p></a:tc><a:tc gridSpan="2"><a:p><a:r><a:t>2023'
        '</a:t></a:r></a:p></a:tc><a:tc hMerge="1"/></a:tr><a:tr><a:tc vMerge="1"/><a:tc><a:p><a:r><a:t>1</a:t></a:r>'
        "</a:p></a:tc><a:tc><a:p><a:r><a:t>2</a:t></a:r></a:p></a:tc></a:tr>"
    )
    equation = (
        '<mc:AlternateContent><mc:Choice Requires="a14"><a14:m><m:oMath><m:f><m:num><m:r><m:t>1</m:t></m:r></m:num>'
        "<m:den><m:r><m:t>2</m:t></m:r></m:den></m:f></m:oMath></a14:m></mc:Choice><mc:Fallback/></mc:AlternateContent>"
    )
    sentence = (
        f"<a:p><a:r><a:t>If</a:t></a:r>{equation}<a:r><a:t>then it converges.</a:t></a:r></a:p>"
    )
    points = "".join(
        f'<c:pt idx="{at}"><c:v>{name}</c:v></c:pt>' for at, name in enumerate(("North", "South"))
    )
    chart = (
        f'<c:chartSpace {NAMES}><c:ser><c:tx><c:pt idx="0"><c:v>Sales</c:v></c:pt></c:tx><c:cat>{points}</c:cat>'
        '<c:val><c:pt idx="0"><c:v>1.5</c:v></c:pt><c:pt idx="1"><c:v>2</c:v></c:pt></c:val></c:ser></c:chartSpace>'
    )
    diagram = f"<dgm:dataModel {NAMES}><dgm:pt><a:p><a:r><a:t>Plan</a:t></a:r></a:p></dgm:pt></dgm:dataModel>"
    data = presentation(
        shape("T", kind="title") + shape(sentence) + f"<p:graphicFrame><a:tbl>{cells}</a:tbl></p:graphicFrame>"
        '<p:graphicFrame><c:chart r:id="c"/></p:graphicFrame><p:graphicFrame><dgm:relIds r:dm="d"/></p:graphicFrame>'
        "<p:graphicFrame/>",
        shown(shape("hidden"), 'show="0"'),
        **{
            "ppt/slides/_rels/slide0.xml.rels": relations(
                {"c": ("chart", "../charts/c.xml"), "d": ("diagramData", "../diagrams/d.xml")}
            ),
            "ppt/charts/c.xml": chart,
            "ppt/diagrams/d.xml": diagram,
        },
    )  # fmt: skip
    found = pptx.convert(data, "a.pptx")
    assert found.text == (
        "## T\n\nIf 1/2 then it converges.\n\n| R | 2023 | 2023 |\n| --- | --- | --- |\n| R | 1 | 2 |\n\n"
        "|  | Sales |\n| --- | --- |\n| North | 1.5 |\n| South | 2 |\n\n- Plan\n\n"
    )
    assert found.remarks == ("not read: embedded object (1), hidden slide (1)",)


@pytest.mark.slow
def test_formats_far_outside_of_a_sheet():
    """A border in the last row or column does not add a million rows."""
    book = openpyxl.Workbook()
    sheet = book.active
    for place, value in (("A1", "a"), ("C1", "c"), ("A3", "x"), ("C3", "z"), ("B4", "m")):
        sheet[place] = value
    sheet.merge_cells("B4:D4")
    sheet.row_dimensions[2].hidden = True
    for place in ("XFD1", "A1048576", "XFD1048576"):
        sheet[place].font = openpyxl.styles.Font(bold=True)
    out = io.BytesIO()
    book.save(out)
    found = xlsx.convert(out.getvalue(), "a.xlsx")
    assert found.text == (
        "## Sheet\n\n| a |  | c |  |\n| --- | --- | --- | --- |\n| x |  | z |  |\n|  | m | m | m |\n"
    )
    assert found.remarks == ("not read: hidden row (1)",)


def workbook() -> openpyxl.Workbook:
    """Return a workbook with everything that libraries lose."""
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "Prices"
    for row in (
        ["Region", "2023", None],
        ["North", 0.07, datetime.datetime(2024, 1, 5, 9, 30)],
        ["South", 40, "=SUM(B2:B3)"],
        [],
        ["a|b", True, "#DIV/0!"],
        ["hidden"],
        ["7", 7.0, datetime.date(2024, 1, 5)],
    ):
        sheet.append(row)
    sheet.merge_cells("B1:C1")
    sheet["B2"].number_format, sheet["B3"].number_format = "0%", '#,##0.00 "€"'
    sheet["D2"] = "hidden"
    sheet.column_dimensions["D"].hidden = True
    sheet.row_dimensions[6].hidden = True
    other = book.create_sheet("Old")
    other.sheet_state = "hidden"
    other["A1"] = "hidden"
    return book


def test_sheets_are_sections():
    """Merged cells repeat, values look like their formats, hidden content is reported."""
    out = io.BytesIO()
    workbook().save(out)
    found = xlsx.convert(out.getvalue(), "a.xlsx")
    check_parts(found.text, found.sections)
    assert found.text == (
        "## Prices\n\n| Region | 2023 | 2023 |\n| --- | --- | --- |\n| North | 7% | 2024-01-05 09:30 |\n"
        "| South | 40 € | =SUM(B2:B3) |\n\n| a\\|b | TRUE | #DIV/0! |\n| --- | --- | --- |\n| 7 | 7 | 2024-01-05 |\n"
    )
    assert [section.path for section in found.sections] == [("Prices",)]
    assert found.remarks == (
        "not read: hidden column (1), hidden row (1), hidden sheet (1)",
        "1 formulas were never calculated: their text is kept instead",
    )


def test_powers_in_a_cell():
    """A cell may have several formats; 10 with a raised 6 is not 106."""
    book = openpyxl.Workbook()
    up, down = (InlineFont(vertAlign=place) for place in ("superscript", "subscript"))
    book.active.append([CellRichText("10", TextBlock(up, "6"), " cells"), "bold"])
    book.active.append(
        [CellRichText("H", TextBlock(down, "2"), TextBlock(InlineFont(b=True), "O")), 7]
    )
    out = io.BytesIO()
    book.save(out)
    found = xlsx.convert(out.getvalue(), "a.xlsx")
    assert found.text == "## Sheet\n\n| 10^6 cells | bold |\n| --- | --- |\n| H2O | 7 |\n"


@pytest.mark.parametrize(
    ("value", "format_", "text"),
    [
        (1.0625, "[h]:mm", "25:30"),
        (datetime.timedelta(hours=100, minutes=5, seconds=7), "[hh]:mm:ss.00", "100:05:07"),
        (0.5, "[mm]:ss", "720:00"),
        (-0.5, "[Red][h]:mm", "-12:00"),
        (1.5, '[h]" h "mm', "36 h 00"),
        (0.395833, "h:mm", "09:30"),
        (0.39583333, "h:mm AM/PM", "09:30"),
        (0.3958449, "h:mm:ss", "09:30:01"),
        (45296.395833, "yyyy-mm-dd hh:mm", "2024-01-05 09:30"),
        (45296.395833, "dd.mm.yyyy", "2024-01-05"),
        (2958465.99999997, "yyyy-mm-dd hh:mm:ss", "9999-12-31 23:59:59"),
        (2958465.99999997, "yyyy-mm-dd", "9999-12-31"),
        (1.0625, "[$-409]h:mm;@", "01:30"),
        (1234, "00000", "01234"),
        (-7, "000", "-007"),
        (49301234567, "000-0000", "4930123-4567"),
        (1234567, "(00) 00\\ 00\\ 00", "(01) 23 45 67"),
        (2125551234, "[<=9999999]###-####;(###) ###-####", "(212) 555-1234"),
        (5551234, "[<=9999999]###-####;(###) ###-####", "555-1234"),
        (12125551234, "(###) ###-####", "(1212) 555-1234"),
        (612345678, '0#" "##" "##" "##" "##', "06 12 34 56 78"),
        (612345678, "00\\.00\\.00\\.00\\.00", "06.12.34.56.78"),
        (123, '00"0"00', "01023"),
        (5, "0#", "05"),
        (1234567, "# ##0", "1234 567"),
        (1234.5, "# ##0", "1 234.5"),
        (5, "# ##0", "5"),
        (5, "#-##0", "-5"),
        (130, '0" h "00', "1 h 30"),
        (1500, "00,", "01.5"),
        (1500, "0,", "1.5"),
        (0.00001, '0#" "##', "1e-05"),
        (42, '"INV-"00000', "INV-00042"),
        (-42, '"INV-"00000', "-INV-00042"),
        (5.5, "00.00", "05.5"),
        (123456, "00", "123456"),
        (1234, "#,##0", "1234"),
        (5, '0 "kg"', "5 kg"),
        (5, 'General" pcs"', "5 pcs"),
        (0.075, "0.0 %", "7.5 %"),
        (-0.07, "0%", "-7%"),
        (5, '0.0" %"', "5 %"),
        (40, "[$€-407] #,##0.00", "€ 40"),
        (40, '_("$"* #,##0.00_);_("$"* \\(#,##0.00\\);_("$"* "-"??_);_(@_)', "$ 40"),
        (-40, '_("$"* #,##0.00_);_("$"* \\(#,##0.00\\);_("$"* "-"??_);_(@_)', "$ (40)"),
        (0, '_("$"* #,##0.00_);_("$"* \\(#,##0.00\\);_("$"* "-"??_);_(@_)', "$ -"),
        (-40, "#,##0;[Red]#,##0", "-40"),
        (1500000, '0.0,,"M"', "1.5M"),
        (1500000, "#,##0,", "1500"),
        (1, '"yes";;"no"', "yes"),
        (0, '"yes";;"no"', "no"),
        (7, ";;;", "7"),
        (1500, '[>=1000]0.0,"k";0', "1.5k"),
        (15, '[>=1000]0.0,"k";0', "15"),
        (0.5, "# ?/?", "0.5"),
        (1234.5, "0.00E+00", "1234.5"),
        (7, "@", "7"),
    ],
)
def test_cells_look_as_their_formats_show_them(value, format_, text):
    """Leading zeros, units, durations of more than a day, scales, signs."""
    book = openpyxl.Workbook()
    book.active.append([value])
    book.active["A1"].number_format = format_
    out = io.BytesIO()
    book.save(out)
    assert xlsx.convert(out.getvalue(), "a.xlsx").text.split("\n")[2] == f"| {text} |"


@given(st.integers() | st.floats(), st.text('0#?.,%/@E+-;"\\_*[]$h€ General<>=1', max_size=12))
def test_any_format_shows_something(value, format_):
    """Whatever the format, the number is never lost."""
    assert xlsx_numbers.number(value, format_)
    duration = datetime.timedelta(seconds=value % 1e6 if abs(value) < 1e15 else 0)
    xlsx_numbers.duration(duration, format_)
    xlsx_numbers.moment(datetime.datetime(2024, 1, 1) + duration, format_)


@settings(max_examples=30)
@given(st.binary(max_size=60))
@pytest.mark.parametrize(("module", "what"), [(pptx, "presentation"), (xlsx, "workbook")])
def test_rubbish_is_told(module, what, data):
    """Damaged files are named."""
    assert read_or_told(module.convert, b"PK\x03\x04" + data, "a").startswith(f"a is not a {what}")


def test_encrypted_files_say_so():
    """The message says that the password is missing."""
    for module in (pptx, xlsx):
        with pytest.raises(StageError, match="is encrypted or in"):
            module.convert(bytes.fromhex("d0cf11e0a1b11ae1") + bytes(600), "a")
