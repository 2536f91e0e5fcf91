"""The YAML reader: core-schema scalars, positions, and everything that it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.errors import SpecError
from llmpipe.spec.load import load_file, load_text, parse_scalar


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-4", 0.0005),
        ("1e3", 1000.0),
        ("no", "no"),
        ("on", "on"),
        ("1:30", "1:30"),
        ("2026-11-24", "2026-11-24"),
        ("0x1f", 31),
        ("0o17", 15),
        ("017", 17),
        ("1_000", "1_000"),
        ("~", None),
        ("null", None),
        ("true", True),
        ("False", False),
        (".5", 0.5),
        ("-3", -3),
        ("+.", "+."),
        ("'5'", "5"),
        ('"true"', "true"),
        ("!!str 5", "5"),
    ],
)
def test_scalars_follow_the_core_schema(text: str, value: object) -> None:
    """Numbers, words and booleans mean what YAML 1.2 says, not what YAML 1.1 said."""
    found = load_text(f"a: {text}").plain()["a"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("", "1:1", "the file is empty"),
        ("# nothing\n", "1:1", "the file is empty"),
        ("- a\n- b\n", "1:1", "not a list"),
        ("word", "1:1", "not a single value"),
        ("a: 1\nb: 2\na: 3\n", "3:1", "the key 'a' appears twice"),
        ("a:\n\t- b\n", "2:1", "not valid YAML"),
        ("a: [1,", "2:1", "not valid YAML"),
        ("a: !!python/name:os.system x", "1:4", "is not allowed"),
        ("a: .inf", "1:4", "not a number"),
        ("a: 1e999", "1:4", "not a number"),
        ("a: *b", "1:4", "no anchor &b"),
        ("? [x]\n: 1", "1:3", "a key must be a word"),
        ("a: 1\n---\nb: 2\n", "2:1", "one document per file"),
        ("<<: 3\na: 1", "1:5", "takes a mapping"),
    ],
)
def test_refusals_name_the_place(text: str, place: str, message: str) -> None:
    """Each kind of malformed text is one message at its line and column."""
    with pytest.raises(SpecError) as caught:
        load_text(text, "spec.yaml")
    assert f"spec.yaml:{place}:" in caught.value.render()
    assert message in caught.value.render()


def test_a_tab_is_explained() -> None:
    """The YAML library's words about tabs get a hint that a person understands."""
    with pytest.raises(SpecError, match="not valid YAML") as caught:
        load_text("stages:\n\tone: 1\n")
    assert "spaces, not with tabs" in caught.value.render()


def test_an_alias_bomb_is_refused_by_name() -> None:
    """Nine levels of nine aliases would expand to hundreds of millions of values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    with pytest.raises(SpecError, match="alias bomb"):
        load_text("\n".join(lines))


def test_a_merge_bomb_is_refused_by_name() -> None:
    """Merge keys that double a mapping level by level are counted, not expanded."""
    lines = ["m0: &m0 {" + ", ".join(f"k{i}: 1" for i in range(50)) + "}"]
    for level in range(1, 14):
        pairs = ", ".join(f"{letter}{level}: *m{level - 1}" for letter in "pq")
        lines.append(f"m{level}: &m{level} {{<<: *m{level - 1}, {pairs}}}")
    with pytest.raises(SpecError, match="alias bomb"):
        load_text("\n".join(lines))


def test_deep_nesting_is_refused() -> None:
    """Nesting beyond any spec's need ends in a message, not in a stack overflow."""
    with pytest.raises(SpecError, match="nested deeper"):
        load_text("a: " + "[" * 5000)


def test_merge_keys_fill_what_is_absent() -> None:
    """A merged mapping gives way to the mapping's own keys."""
    found = load_text("base: &b {x: 1, y: 2}\nuse: {<<: *b, y: 3}").plain()
    assert found["use"] == {"x": 1, "y": 3}


def test_positions_of_keys_and_values() -> None:
    """Every value knows its line and column, and so does every key."""
    root = load_text("a:\n  b: [1, {c: two}]\n", "s.yaml")
    path = ("a", "b", 1, "c")
    assert str(root.locate(path)) == "s.yaml:2:14"
    assert str(root.locate(path, key=True)) == "s.yaml:2:11"
    assert str(root.locate(("a", "zzz"))) == "s.yaml:1:1"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file, a file that is not UTF-8 and one that is far too large are named as such."""
    with pytest.raises(SpecError, match="no such file"):
        load_file(tmp_path / "none.yaml")
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("a: 1\nname: Málaga\n".encode("latin-1"))
    with pytest.raises(SpecError, match="not UTF-8") as caught:
        load_file(latin)
    assert ":2:1:" in caught.value.render()
    huge = tmp_path / "huge.yaml"
    huge.write_bytes(b"#" * (3 * 2**20))
    with pytest.raises(SpecError, match="larger than"):
        load_file(huge)


_texts = st.recursive(
    st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=20,
)


@pytest.mark.slow
@given(st.dictionaries(st.text(max_size=8), _texts, min_size=1, max_size=5))
def test_what_yaml_writes_is_read_back(value: dict[str, object]) -> None:
    """Any nesting of texts, written out in quotes, is read back as it was."""
    assert load_text(yaml.safe_dump(value, default_style='"')).plain() == value


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Whatever the text, there is a tree or a SpecError; never another exception."""
    try:
        node = load_text(text)
    except SpecError as error:
        message = error.render()
    else:
        message = str(node.plain())
    assert message


@given(st.text(alphabet="0123456789+-.eExoabinfNaN_:", max_size=12))
def test_scalars_never_fail_in_another_way(text: str) -> None:
    """A scalar is resolved, or refused with ValueError because no key could hold it."""
    try:
        value = parse_scalar(text)
    except ValueError:
        return
    assert value is None or isinstance(value, (bool, int, float, str))
