"""The points of a matrix: combinations, linked axes, include and exclude, names, and mistakes."""

from __future__ import annotations

import itertools
import textwrap
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.canonical import canonical_json
from llmpipe.spec.load import Node, load_text
from llmpipe.spec.matrix import MAX_POINTS, Variant, expand, point_text

STAGE = """\
kind: train
axolotl: {lora_r: 8, lora_alpha: 16, adapter: lora}
sources: [{data: ./a.jsonl}]
"""


def points_of(matrix: str) -> tuple[list[Variant], list[str]]:
    """Expand a stage with this matrix; return its variants and the problems as text."""
    text = f"{STAGE}matrix:\n{textwrap.indent(textwrap.dedent(matrix), '  ')}\n"
    variants, problems = expand("sft", load_text(text, "s.yaml"))
    return variants, [problem.render() for problem in problems]


def ids(matrix: str) -> list[str]:
    """Return the ids of a sound matrix, less the stage's own name."""
    variants, problems = points_of(matrix)
    assert not problems
    return [variant.id.removeprefix("sft@") for variant in variants]


def test_a_stage_without_a_matrix_is_itself() -> None:
    """Also where a profile has taken the matrix away."""
    for text in (STAGE, f"{STAGE}matrix: null\n"):
        (variant,), problems = expand("sft", load_text(text))
        assert (variant.id, variant.point, problems) == ("sft", {}, [])


def test_an_axis_reaches_into_the_stage() -> None:
    """Each point has the value at its path and keeps what stands beside it."""
    variants, _ = points_of("axolotl.learning_rate: [1e-4, 2e-4]\naxolotl.lora_r: [16]")
    assert [v.id for v in variants] == [
        "sft@axolotl.learning_rate=0.0001,axolotl.lora_r=16",
        "sft@axolotl.learning_rate=0.0002,axolotl.lora_r=16",
    ]
    assert variants[1].node.plain() == {
        "kind": "train",
        "axolotl": {"lora_r": 16, "lora_alpha": 16, "adapter": "lora", "learning_rate": 2e-4},
        "sources": [{"data": "./a.jsonl"}],
    }


def test_names_do_not_depend_on_how_things_are_written() -> None:
    """Axes are sorted and numbers canonical: the same point has the same name in any spelling."""
    expected = ["a=100,b=true", "a=100,b=no"]
    assert ids("a: [100]\nb: [true, no]") == expected
    assert ids("b: [True, 'no']\na: [1e2]") == expected


def test_values_that_look_alike_have_different_names() -> None:
    """A text that reads as another value, or holds a separator, stands in quotes."""
    assert ids("a: [1, '1', true, 'true', null, 'null', '']") == [
        "a=1", 'a="1"', "a=true", 'a="true"', "a=null", 'a="null"', 'a=""',
    ]  # fmt: skip
    assert ids("a: ['x,b=2', './x.jsonl', 'org/model@v1', [1, 2]]") == [
        'a="x,b=2"', "a=./x.jsonl", "a=org/model@v1", "a=[1,2]",
    ]  # fmt: skip


def test_linked_axes_move_together() -> None:
    """Two axes under one key are one choice: they do not multiply."""
    found = ids("axolotl.lora_r, axolotl.lora_alpha: [[8, 16], [16, 32]]\naxolotl.x: [1, 2]")
    assert found == [
        "axolotl.lora_alpha=16,axolotl.lora_r=8,axolotl.x=1",
        "axolotl.lora_alpha=16,axolotl.lora_r=8,axolotl.x=2",
        "axolotl.lora_alpha=32,axolotl.lora_r=16,axolotl.x=1",
        "axolotl.lora_alpha=32,axolotl.lora_r=16,axolotl.x=2",
    ]


def test_exclude_and_include() -> None:
    """An entry of exclude takes all points that agree with it; include adds whole points."""
    matrix = (
        "a: [1, 2]\nb: [1, 2]\nexclude: [{a: 1}]\ninclude: [{a: 1, b: 1}, {a: 3}, {a: 2, b: 1}]"
    )
    assert ids(matrix) == ["a=2,b=1", "a=2,b=2", "a=1,b=1", "a=3"]


def test_include_alone_makes_a_matrix() -> None:
    """A list of points needs no axes."""
    assert ids("include: [{a: 1, b: 2}, {a: 2}]") == ["a=1,b=2", "a=2"]


@pytest.mark.parametrize(
    ("matrix", "place", "message"),
    [
        ("axolotl.lr: 5", "5:15", "the axis 'axolotl.lr' needs a list of values"),
        ("axolotl.lr: []", "5:15", "the axis 'axolotl.lr' needs a list of values"),
        ("a..b: [1]", "5:3", "'a..b' is not an axis"),
        ("exclud: 3", "5:11", "the axis 'exclud' needs a list"),
        ("'a=b': [1]", "5:3", "'a=b' is not an axis"),
        ("kind: [train]", "5:3", "'kind' cannot be an axis"),
        ("a, kind: [[1, train]]", "5:3", "'kind' cannot be an axis"),
        ("include: [{matrix.a: 1}]", "5:14", "'matrix' cannot be an axis"),
        ("a: [1]\na, b: [[1, 2]]", "6:3", "the axis 'a' appears twice"),
        ("axolotl: [{}]\naxolotl.x: [1]", "6:3", "'axolotl.x' is inside the axis 'axolotl'"),
        ("sources.0.data: [./b]", "5:3", "'sources' is a list"),
        ("kindred: [1]\naxolotl.lora_r.x: [1]", "6:3", "'axolotl.lora_r' is a single value"),
        ("a, b: [[1, 2], [3]]", "5:18", "are linked: 2 values are needed here"),
        ("a: [1]\nexclude: {a: 1}", "6:12", "exclude: must be a list of points"),
        ("a: [1]\nexclude: [1]", "6:13", "a point is a mapping of axes to values"),
        (
            "axolotl.lr: [1]\nexclude: [{axolotl.rl: 1}]",
            "6:14",
            "there is not an axis 'axolotl.rl'",
        ),
        ("a: [1]\nexclude: [{a: 1}]", "5:3", "no point is left"),
        ("max_parallel: 2", "5:3", "no point is left"),
        ("a: [1]\nmax_parallel: 0", "6:17", "must be a whole number of at least 1"),
        ("a: [1]\nmax_parallel: true", "6:17", "must be a whole number of at least 1"),
    ],
)
def test_mistakes_are_named_at_their_place(matrix: str, place: str, message: str) -> None:
    """Whatever is wrong with a matrix is one message at its line."""
    variants, problems = points_of(matrix)
    assert not variants
    assert any(message in p and p.startswith(f"s.yaml:{place}:") for p in problems), problems


def test_a_matrix_must_be_a_mapping() -> None:
    """A list of points belongs under include."""
    _, (problem,) = expand("sft", load_text(f"{STAGE}matrix: [{{a: 1}}]", "s.yaml"))
    assert "must be a mapping of axes" in problem.render()


def test_a_misspelled_axis_in_exclude_is_recognized() -> None:
    """The message offers the axis that was meant."""
    _, problems = points_of("axolotl.lr: [1]\nexclude: [{axolotl.rl: 1}]")
    assert "did you mean 'axolotl.lr'?" in problems[0]


def test_there_is_a_limit_to_points() -> None:
    """A thousand points are a sweep, a thousand and one are refused, and so are billions at once."""
    numbers = list(range(MAX_POINTS))
    assert len(ids(f"a: {numbers}")) == MAX_POINTS
    _, problems = points_of(f"a: {[*numbers, MAX_POINTS]}")
    assert "more than 1000 points" in problems[0]
    _, problems = points_of("\n".join(f"a{i}: {list(range(10))}" for i in range(10)))
    assert "10,000,000,000 combinations are too many" in problems[0]


_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from(["1", "a", "b,c", "true", "null", "a=1", '"', "1,y=2", " ", ""]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.lists(st.integers(0, 2), max_size=2),
)
_axes = st.dictionaries(
    st.sampled_from(["x", "y", "z.w"]), st.lists(_values, min_size=1, max_size=4), min_size=1
)


def as_stage(matrix: dict[str, Any]) -> Node:
    """Return a stage with this matrix, as YAML would have been read."""
    return load_text(canonical_json({"kind": "x", "matrix": matrix}))


@given(_axes)
def test_every_point_once_and_every_id_one_point(axes: dict[str, list[Any]]) -> None:
    """As many stages as there are different points, and as many ids."""
    variants, problems = expand("s", as_stage(axes))
    assert not problems
    combinations = (dict(zip(axes, row, strict=True)) for row in itertools.product(*axes.values()))
    different = {canonical_json(point) for point in combinations}
    assert {canonical_json(variant.point) for variant in variants} == different
    assert len(variants) == len(different) == len({variant.id for variant in variants})
    for variant in variants:
        for axis, value in variant.point.items():
            found = variant.node.find(tuple(axis.split(".")))
            assert found is not None
            assert canonical_json(found.plain()) == canonical_json(value)


@given(
    st.dictionaries(st.sampled_from("xyz"), _values),
    st.dictionaries(st.sampled_from("xyz"), _values),
)
def test_different_points_have_different_names(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Names are equal just where the points are."""
    same = canonical_json(one) == canonical_json(other)
    assert (point_text(one) == point_text(other)) == same


@given(_axes, st.data())
def test_exclude_takes_what_agrees_and_include_adds(
    axes: dict[str, list[Any]], data: st.DataObject
) -> None:
    """What is left: every combination that agrees with no excluded entry, then what is included."""
    entry = st.fixed_dictionaries({}, optional={k: st.sampled_from(v) for k, v in axes.items()})
    excluded = data.draw(st.lists(entry.filter(bool), max_size=3))
    included = data.draw(st.lists(entry.filter(bool), max_size=3))
    all_points = [v.point for v in expand("s", as_stage(axes))[0]]

    def agrees(point: dict[str, Any], entry: dict[str, Any]) -> bool:
        return all(canonical_json(point[k]) == canonical_json(v) for k, v in entry.items())

    left = [p for p in all_points if not any(agrees(p, e) for e in excluded)]
    expected = list(dict.fromkeys(map(canonical_json, [*left, *included])))
    matrix = {**axes, "exclude": excluded, "include": included}
    variants, problems = expand("s", as_stage(matrix))
    assert [canonical_json(variant.point) for variant in variants] == expected
    assert bool(problems) == (not expected)
