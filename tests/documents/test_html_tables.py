"""Tables of pages: merged cells, code with line numbers, layout tables, links."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmpipe.documents import html_tables, tables
from llmpipe.documents.html import of_text


def rows(html: str) -> list[list[str]]:
    """Return the cells of the only table of a page, without the line below the header."""
    lines = [line for line in of_text(html, "a.html").text.split("\n") if line.startswith("|")]
    return [line[2:-2].split(" | ") for line in lines if "---" not in line]


def test_merged_cells_are_repeated():
    """In every row and column that they span, including header cells."""
    table = """<table><thead><tr><th rowspan=2>Region<th colspan=2>2023<th>2024
        <tr><th>Q1<th>Q2<th>Q1<tbody><tr><td rowspan=2>North<td>1<td>2<td>3<tr><td>4<td>5<td>6
        <tr><td colspan=2>none<td>7<td>8</table>"""
    assert rows(table) == [
        ["Region", "2023 / Q1", "2023 / Q2", "2024 / Q1"],
        ["North", "1", "2", "3"],
        ["North", "4", "5", "6"],
        ["none", "none", "7", "8"],
    ]


def test_a_span_ends_with_its_group():
    """0 means until the end of the row group; a larger number does not exceed it."""
    table = """<table><tbody><tr><td rowspan=0>a<td>1<tr><td>2</tbody>
        <tbody><tr><td rowspan=9>b<td>3<tr><td>4</tbody></table>"""
    assert rows(table) == [["a", "1"], ["a", "2"], ["b", "3"], ["b", "4"]]


def test_a_span_of_no_columns_is_one():
    """Only rows may span 0; of other text, the leading digits count, as in browsers."""
    table = "<table><tr><td colspan=0>a<td>b<tr><td colspan='2px'>c<tr><td colspan=x>d<td>e</table>"
    assert rows(table) == [["a", "b"], ["c", "c"], ["d", "e"]]


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("<tr><th rowspan=2>Region<th colspan=2>2023<tr><th>Sales<th>Costs<tr><td>North<td>1<td>2",
         [["Region", "2023 / Sales", "2023 / Costs"], ["North", "1", "2"]]),
        ("<tr><td><th>2023<th>2023<tr><td><th>Sales<th>CO<b>2</b><tr><th>North<td>1<td>2",
         [["", "2023 / Sales", "2023 / CO**2**"], ["North", "1", "2"]]),
        ("<thead><tr><td>Year<td>Sales<tr><td colspan=2>in euros</thead><tr><td>2023<td>1",
         [["Year / in euros", "Sales / in euros"], ["2023", "1"]]),
        ("<thead><tr><th>a<th>b<tr><th>a<th></thead><tr><td>1<td>2", [["a", "b"], ["1", "2"]]),
        ("<tr><th>Name<th>Price<tr><th colspan=2>Fruit<tr><td>Fig<td>1<tr><th colspan=2>Nuts<tr><td>Pecan<td>2",
         [["Name", "Price"], ["Fruit", "Fruit"], ["Fig", "1"], ["Nuts", "Nuts"], ["Pecan", "2"]]),
        ("<tr><th>a<th>b<tr><th>North<td><tr><th scope=row>South<th scope=row>x",
         [["a", "b"], ["North", ""], ["South", "x"]]),
        ("<tr><th>a<th>b<tr><th>c<th>d", [["a", "b"], ["c", "d"]]),
        ("<tr><th rowspan=0>a<th>b<tr><th>c<tr><td>1<tr><td>2", [["a", "b / c"], ["a", "1"], ["a", "2"]]),
    ],
)  # fmt: skip
def test_rows_of_names_are_one(table, expected):
    """All header cells above a column name it; a label of a row group or a row does not."""
    assert rows(f"<table>{table}</table>") == expected


@pytest.mark.slow
@settings(max_examples=60)
@given(st.data())
def test_any_tiling_is_read_as_it_is_drawn(data):
    """Each position in a grid tiled with rectangles has the name of its rectangle."""
    height, width = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5))
    grid = [[""] * width for _ in range(height)]
    html = ""
    for y in range(height):
        html += "<tr>"
        for x in range(width):
            if grid[y][x]:
                continue
            free = next((i for i in range(x, width) if grid[y][i]), width) - x
            across, down = data.draw(st.integers(1, free)), data.draw(st.integers(1, height - y))
            name = f"c{y}{x}"
            for row in grid[y : y + down]:
                row[x : x + across] = [name] * across
            html += f"<td colspan={across} rowspan={down}>{name}</td>"
        html += "</tr>"
    assert rows(f"<table>{html}</table>") == grid


def test_spans_without_end(monkeypatch):
    """In a table that would fill the memory, cells are not repeated; nor are very long cells."""
    monkeypatch.setattr(tables, "MOST_CELLS", 100)
    assert of_text("<table>" + "<tr><td colspan=1000>x" * 5 + "</table>", "a").text.count("x") == 5
    monkeypatch.setattr(html_tables, "MOST_REPEATED", 100)
    assert len(of_text(f"<table><tr><td colspan=50>{'y' * 80}</table>", "a").text) < 1000


def test_bars_in_cells_are_escaped():
    """A cell with a bar is one cell."""
    found = of_text("<table><tr><th>a|b<th>c<tr><td><code>x | y</code><td>2</table>", "a.html")
    assert found.text == "| a\\|b | c |\n| --- | --- |\n| `x \\| y` | 2 |"


@pytest.mark.parametrize(
    "table",
    [
        ("<table class=highlighttable><tr><td class=linenos><div class=linenodiv><pre>1\n2\n3</pre></div>"
        "<td class=code><div><pre><span>def</span> f():\n    return 1\n\nf()</pre></div></table>"),
        "<table><tr><td><pre>1\n2\n3\n4\n</pre><td><pre>def f():\n    return 1\n\nf()\n</pre></table>",
        ("<table class=hljs-ln><tr><td class=hljs-ln-numbers data-line-number=1><td>def f():"
        "<tr><td>2<td>    return 1<tr><td>3<td>\n<tr><td>4<td>f()</table>"),
        ("<table><tr><td class=blob-num>1<td class=blob-code>def f():<tr><td>2<td class=blob-code>"
        "    return 1<tr><td>3<td class=blob-code><tr><td>4<td class=blob-code>f()</table>"),
        ("<pre><code><table class=rouge-table><tr><td class='gutter gl'><pre class=lineno>1\n2\n3\n4\n</pre>"
        "<td class=rouge-code><pre>def f():\n    return 1\n\nf()\n</pre></table></code></pre>"),
        ("<pre><span class=lineno>1 </span>def f():\n<span class=lineno>2 </span>    return 1\n"
        "<span class=lineno>3 </span>\n<span class=lineno>4 </span>f()</pre>"),
        "<pre>def f():<br>    return 1<br><br>f()</pre>",
        "<pre><ol><li>def f():</li><li>    return 1</li><li></li><li>f()</li></ol></pre>",
        "<pre><div>def f():</div><div>    return 1</div><div>\n</div><div>f()</div></pre>",
    ],
)  # fmt: skip
def test_code_keeps_its_lines(table):
    """Whatever markup highlighters use, line numbers are removed and lines are kept."""
    assert of_text(table, "a.html").text == "```\ndef f():\n    return 1\n\nf()\n```"


def test_a_numbered_table_is_no_code():
    """Numbers in the first column of other tables are kept."""
    assert rows("<table><tr><td>1<td>red<tr><td>2<td>blue</table>") == [["1", "red"], ["2", "blue"]]


def test_links_to_other_pages_go():
    """A table of only links is removed; a data table with links is kept."""
    steps = "<table><tr><td><a href=a>Prev</a><td><a href=b>Up</a><td><a href=c>Next</a></table>"
    framed = steps.replace("<tr>", "<tr><th colspan=3>Chapter 1</th></tr><tr>")
    data = "<table><tr><th>Version<tr><td><a href=a>1.2</a></table>"
    assert of_text(steps + "<h1>T</h1>" + framed, "a").text == "# T"
    assert rows(steps + data) == [["Version"], ["1.2"]]


@pytest.mark.parametrize(
    "outer", ["<table border=1>", "<table rules=all>", "<table><col><tr><td style='border: solid'>Q<td>A</tr>", "<table style='border: 1px solid'>", "<table role=table>",
              "<table class='table table-bordered'>", "<table><caption>Plans</caption>"]
)  # fmt: skip
def test_tables_in_tables_of_data(outer):
    """A table with borders or a role keeps its rows, whatever they contain."""
    inner = "<table><tr><td>1<td>2<tr><td>3<td>4</table>"
    page = f"{outer}<tr><td>Plan<td>Prices<tr><td>Basic<td>{inner}</table>"
    assert rows(page)[-2:] == [["Plan", "Prices"], ["Basic", "1, 2; 3, 4"]]


def test_a_box_is_a_frame():
    """Borders around a single cell or row, or headings in cells, do not make a data table."""
    inner = "<table><tr><th>a<th>b<tr><td>1<td>2</table>"
    assert rows(f"<table border=1><tr><td>menu<td>{inner}</table>") == [["a", "b"], ["1", "2"]]
    page = f"<table border=1><tr><td>x<td>y<tr><td><h2>T</h2><td>{inner}</table>"
    assert "## T\n" in of_text(page, "a").text


def test_frames_are_taken_apart():
    """A layout table keeps its headings; a table inside a data table stays in its cell."""
    frame = (
        "<table><tr><td>menu<td><h1>T</h1>body<table><tr><th>a<th>b<tr><td>1<td>2</table></table>"
    )
    assert of_text(frame, "a").text == "menu\n\n# T\n\nbody\n\n| a | b |\n| --- | --- |\n| 1 | 2 |"
    inner = "<table><tr><td>1<td>2<tr><td>3<td>4</table>"
    assert rows(f"<table><tr><th>k<th>v<tr><td>x<td>{inner}</table>")[1] == ["x", "1, 2; 3, 4"]


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("<tr>\n<td>River</td>\n<td colspan=2>Basin</td>\n<!-- c -->\n<td>x</td>\n</tr>",
         "| River | Basin | Basin | x |\n| --- | --- | --- | --- |"),
        ("<tr>\n<td rowspan=2>R</td>\n<td>1</td>\n</tr>\n<tr>\n<td>2</td>\n</tr>\n",
         "| R | 1 |\n| --- | --- |\n| R | 2 |"),
        ("<tr>\nwords\n<td>a</td>\n<td>b</td></tr>", "words\n\n| a | b |\n| --- | --- |"),
        ("<tr><td>a</td><p>one</p>two<td>b</td></tr>", "one\n\ntwo\n\n| a | b |\n| --- | --- |"),
        ("<form><tr><form><td>a</td></form><td>b</td></tr></form>", "| a | b |\n| --- | --- |"),
        ("<td>a</td>\n<td>b</td><tr><td>c</td></tr>", "| a | b |\n| --- | --- |\n| c |"),
        ("<tr><td>a<div>b<td>c</div><td>d<tr><td>e<div>f<tr><td>g",
         "| a b | c | d |\n| --- | --- | --- |\n| e f |\n| g |"),
        ("<tr></tr>\n<tr><td>a</td></tr><tr>\n</tr>", "| a |\n| --- |"),
        ("<tr><td>a</td></tr><caption>Lengths</caption>", "Lengths\n\n| a |\n| --- |"),
    ],
)  # fmt: skip
def test_nothing_stands_between_the_cells_of_a_row(table: str, expected: str) -> None:
    """Whitespace, comments, words, forms: a row is one line."""
    assert of_text(f"<table>{table}</table>", "a").text == expected


def test_spans_that_are_only_wide_enough():
    """No columns are added in a table of three columns, or in many rows of one cell."""
    rows = "<tr><td>a<td>b<td>c" * 3 + "<tr><td colspan=1000>all"
    assert of_text(f"<table>{rows}</table>", "a").text.endswith(
        "\n| a | b | c |\n| a | b | c |\n| all |"
    )
    assert len(of_text("<table><tr><td colspan=1000>x</table>" * 300, "a").text) < 300 * 20


def test_repeated_cells_full_of_elements(monkeypatch):
    """Elements count, even if they have no text."""
    monkeypatch.setattr(html_tables, "MOST_REPEATED", 500)
    table = f"<table><tr><td rowspan=9>x{'<b></b>' * 20}<td>1{'<tr><td>2' * 8}</table>"
    assert of_text(table, "a").text.count("x") == 4


def test_all_of_a_table_in_a_cell_is_kept():
    """Its caption, and words outside its cells, which browsers show before it."""
    inner = "<table>stray<caption>Fees</caption><tr><td>x<td>5<tr><td>y<td>6</table>"
    table = f"<table border=1><tr><th>a<th>b<tr><td>c<td>{inner}</table>"
    assert rows(table) == [["a", "b"], ["c", "stray Fees: x, 5; y, 6"]]


def test_tables_in_tables_in_a_table():
    """The innermost is converted first."""
    innermost = "<table>deep<tr><td>1<td>2</table>"
    table = f"<table border=1><tr><th>a<th>b<tr><td>c<td><table><tr><td>x<td>{innermost}</table></table>"
    assert rows(table) == [["a", "b"], ["c", "x, deep 1, 2"]]


def test_words_in_a_table_that_ends_in_another_one():
    """As in damaged pages: the table has no cells left, and its words stay."""
    assert of_text("<table><tr><td>a<td>b<tr><table>word", "a.html").text == "a\n\nb\n\nword"
    table = "<table border=1><tr><th>a<th>b<tr><td>c<td>d<tr><table>word</table></table>"
    assert "word" in of_text(table, "a.html").text
