"""Files of rows: every way in, and every way that a file can be wrong."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmpipe.errors import StageError
from llmpipe.formats.records import read_rows, row_digest, write_rows

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
ROWS = st.lists(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), SCALARS))


def rows_of(path):
    """All rows of a file without their numbers."""
    return [row for _, row in read_rows(path, "data")]


@given(ROWS)
def test_jsonl_round_trip(tmp_path_factory, rows):
    """What is written as JSONL is read back equal, keys in order, and has an equal digest."""
    path = tmp_path_factory.mktemp("rows") / "a.jsonl"
    assert write_rows(path, rows) == len(rows)
    read = rows_of(path)
    assert read == rows
    assert [list(row) for row in read] == [list(row) for row in rows]
    assert [row_digest(row) for row in read] == [row_digest(row) for row in rows]


TABLE = st.lists(
    st.fixed_dictionaries({"q": st.text('ab,"\n é'), "a": st.text('ab,"\n é')}), min_size=1
)


@given(TABLE)
def test_csv_round_trip(tmp_path_factory, rows):
    """Quotes, commas, line breaks and accents survive CSV."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ["q", "a"], quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows(rows)
    path = tmp_path_factory.mktemp("rows") / "a.csv"
    path.write_bytes(text.getvalue().encode("utf-8"))
    assert rows_of(path) == rows


def test_kinds_of_file(tmp_path):
    """The same rows come out of JSONL, JSON, CSV and TSV, byte order mark and CRLF or not."""
    files = {
        "a.jsonl": b'{"q": "a"}\n\n{"q": "\xc3\xa9"}\n',
        "b.jsonl": b'\xef\xbb\xbf{"q": "a"}\r\n{"q": "\xc3\xa9"}',
        "c.json": '[{"q": "a"},\n {"q": "é"}]'.encode(),
        "d.json": '{"q": "a"}\n{"q": "é"}\n'.encode(),
        "e.csv": "\ufeffq\r\na\r\né\r\n".encode(),
        "f.tsv": "q\na\né\n".encode(),
        "rows": '[{"q": "a"}, {"q": "é"}]'.encode(),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        assert rows_of(tmp_path / name) == [{"q": "a"}, {"q": "é"}], name


@example([{"q": "", "a": ""}], "\t", [";;"])
@given(TABLE, st.sampled_from(",;\t"), st.lists(st.text('ab,;\t" \n'), max_size=3, unique=True))
def test_separators(tmp_path_factory, rows, separator, names):
    """A table is read by what separates its columns, whatever stands in quotes."""
    text = io.StringIO(newline="")
    columns = ["q", "a", *(f"x{name}" for name in names)]
    writer = csv.writer(text, delimiter=separator, quoting=csv.QUOTE_ALL)
    table = [{**dict.fromkeys(columns, ""), **row} for row in rows]
    writer.writerows([columns, *(row.values() for row in table)])
    path = tmp_path_factory.mktemp("rows") / "a.csv"
    path.write_bytes(text.getvalue().encode("utf-8"))
    assert rows_of(path) == table


@pytest.mark.parametrize(
    ("separator", "header", "columns"),
    [
        (";", "Frage;Antwort", ["Frage", "Antwort"]),
        ("\t", "Frage\tAntwort", ["Frage", "Antwort"]),
        (";", "Name, Vorname;Ort;Alter", ["Name, Vorname", "Ort", "Alter"]),
        (",", "a,b;c", ["a", "b;c"]),  # as many of either: a comma
        (",", 'id,"a;b;c"', ["id", "a;b;c"]),
        (";", '"a ""b"", c";"d\n,,";e', ['a "b", c', "d\n,,", "e"]),
        (";", 'size 5";price', ['size 5"', "price"]),
        (",", "text", ["text"]),
        (",", "id,comment; free text; optional", ["id", "comment; free text; optional"]),
    ],
)
def test_what_splits_the_header_most_separates(tmp_path, separator, header, columns):
    """Of comma, semicolon and tab: as spreadsheets of all countries save."""
    (tmp_path / "a.csv").write_text(f"{header}\n{separator.join('x' for _ in columns)}\n")
    assert rows_of(tmp_path / "a.csv") == [dict.fromkeys(columns, "x")]


def test_a_tsv_file_has_tabs(tmp_path):
    """Its name says so: a semicolon there is text."""
    (tmp_path / "a.tsv").write_text("a;b;c\td\n1\t2\n")
    assert rows_of(tmp_path / "a.tsv") == [{"a;b;c": "1", "d": "2"}]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize(
    ("name", "content"), [("a.csv", "q;a\r\né;1\r\n"), ("a.tsv", "q\ta\né\t1\n"),
                          ("a.jsonl", '{"q": "é", "a": "1"}\n'), ("a.json", '[{"q": "é", "a": "1"}]')]
)  # fmt: skip
def test_wide_files_by_their_mark(tmp_path, encoding, name, content):
    """What spreadsheets and shells of Windows save as Unicode says what it is."""
    mark = "" if encoding in ("utf-16", "utf-32") else "\ufeff"
    (tmp_path / name).write_bytes((mark + content).encode(encoding))
    assert rows_of(tmp_path / name) == [{"q": "é", "a": "1"}]


@pytest.mark.parametrize(
    ("name", "first", "separator"),
    [("a.csv", "sep=;", ";"), ("a.csv", '"SEP=;"', ";"), ("a.csv", "sep=|", "|"), ("a.csv", "sep=\t", "\t"),
     ("a.tsv", "sep=,", ","), ("a.csv", "\ufeffsep=:", ":")],
)  # fmt: skip
def test_a_first_line_for_spreadsheets(tmp_path, name, first, separator):
    """It says what separates the columns, and is not a row; lines are counted with it."""
    lines = [first, separator.join(("q", "a")), separator.join(("1", "2")), separator.join("123")]
    (tmp_path / name).write_text("\r\n".join(lines[:3]) + "\r\n", "utf-8", newline="")
    assert list(read_rows(tmp_path / name, "data")) == [(3, {"q": "1", "a": "2"})]
    (tmp_path / name).write_text("\n".join(lines), "utf-8")
    with pytest.raises(StageError, match="data:4: 3 values for 2 columns"):
        rows_of(tmp_path / name)
    (tmp_path / name).write_text(f"{first}\nq{separator}q\n", "utf-8")
    with pytest.raises(StageError, match="data:2: the first line"):
        rows_of(tmp_path / name)


def test_other_encodings_are_asked_for(tmp_path):
    """Who knows how to guess is given the bytes of a table that is not UTF-8, and only those."""
    (tmp_path / "a.csv").write_bytes(b"q;a\n\xe9;1\n")
    (tmp_path / "b.csv").write_bytes("q;a\né;1\n".encode())
    asked: list[bytes] = []

    def decode(data: bytes) -> str:
        asked.append(data)
        return data.decode("cp1252")

    for name in ("a.csv", "b.csv"):
        found = [row for _, row in read_rows(tmp_path / name, "data", decode=decode)]
        assert found == [{"q": "é", "a": "1"}]
    assert asked == [b"q;a\n\xe9;1\n"]


def test_line_numbers(tmp_path):
    """Blank lines count; a CSV row is known by the line that it begins on."""
    (tmp_path / "a.jsonl").write_text('{"q": 1}\n\n{"q": 2}\n')
    (tmp_path / "a.csv").write_text('q\n"one\ntwo"\nthree\n')
    assert [n for n, _ in read_rows(tmp_path / "a.jsonl", "a")] == [1, 3]
    assert [n for n, _ in read_rows(tmp_path / "a.csv", "a")] == [2, 4]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.jsonl", b'{"q": 1}\n{"q": }\n', "data:2: not JSON"),
        ("a.jsonl", b'{"q": NaN}\n', "data:1: not JSON"),
        ("a.jsonl", b'{"q": 1}\n[1]\n', "data:2: a row must be a JSON object"),
        ("a.jsonl", b'{"q": 1}\ntrue\n', "not true or false"),
        ("a.jsonl", b'{"q": 1}\n{"q": "\xe9"}\n', "data:2: not UTF-8"),
        ("a.json", b'[{"q": 1},\n {"q": "\xe9"}]', "data:2: not UTF-8"),
        ("a.json", b'[{"q": 1}', "data: not JSON"),
        ("a.json", b'[{"q": 1}, 2]', "data:2: a row must be a JSON object"),
        ("a.jsonl", b"[" * 100_000, "data:1: not JSON"),
        ("a.csv", b"q,a\n1,2\n3\n", "data:3: 1 values for 2 columns"),
        ("a.csv", b"q,q\n1,2\n", "data:1: the first line"),
        ("a.csv", b'q\n"open\n', "data:2: not CSV"),
        ("a.csv", b"q\n\xe9\n", "not UTF-8"),
        ("a.csv", b"\xff\xfeq\0\n\0x", "data: not UTF-16"),
        ("a.jsonl", b"\xff\xfe\0\0q\0\0", "data: not UTF-32"),
    ],
)
def test_bad_files_are_explained(tmp_path, name, content, told):
    """Each broken file gives one message with the label and the line."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(StageError) as caught:
        list(read_rows(tmp_path / name, "data"))
    assert told in caught.value.message


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("a.jsonl", b'{"q": [1, -Infinity], "s": "NaN, 1"}\n', "-Infinity"),
        ("a.json", b'[{"q": 1},\n {"q": {"a": NaN}}]', "NaN"),
        ("a.jsonl", b'{"q": NaN, "a": }\n', None),
        ("a.jsonl", b'{"q": "of :NaN, then" "a"}\n', None),
    ],
)
def test_numbers_that_only_python_writes_are_named(tmp_path, name, content, named):
    """Where nothing else is wrong with the text, the hint says what to write for them."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(StageError) as caught:
        list(read_rows(tmp_path / name, "data"))
    told = f"{named} is not JSON, though Python writes it: write null or a text"
    assert (caught.value.hint == told) is (named is not None)


def test_an_unquoted_separator_is_named(tmp_path):
    """The hint speaks of what separates the columns of this very file."""
    (tmp_path / "a.csv").write_text("q;a\n1;2;3\n")
    with pytest.raises(StageError, match="data:2: 3 values for 2 columns") as caught:
        list(read_rows(tmp_path / "a.csv", "data"))
    assert caught.value.hint.startswith("a value that has a semicolon or a line break in it")


def test_missing_file_and_folder(tmp_path):
    """A missing file and a folder are told apart."""
    with pytest.raises(StageError, match="no such file"):
        list(read_rows(tmp_path / "none.jsonl", "data"))
    with pytest.raises(StageError, match="is a folder"):
        list(read_rows(tmp_path, "data"))


def test_digest_ignores_the_order_of_keys():
    """A row is named by its content: key order does not matter, every value does."""
    assert row_digest({"a": 1, "b": "é"}) == row_digest({"b": "é", "a": 1})
    assert row_digest({"a": 1}) != row_digest({"a": "1"})
