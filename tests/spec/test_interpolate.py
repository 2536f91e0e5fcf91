"""``${…}`` in specs: parameters, the environment, secrets, escapes and mistakes."""

from __future__ import annotations

from typing import Any

import pytest

from llmpipe.spec.interpolate import interpolate
from llmpipe.spec.load import load_text


def fill(text: str, **environment: str) -> tuple[Any, list[str]]:
    """Interpolate YAML text; return the plain result and the problems as text."""
    node, problems = interpolate(load_text(text, "s.yaml"), environment)
    return node.plain(), [problem.render() for problem in problems]


def test_a_whole_value_keeps_its_type() -> None:
    """A value that is one expression becomes the parameter itself: a number, a list."""
    found, problems = fill(
        "params: {n: 3, l: [a, b]}\nstages: {x: {a: '${params.n}', b: '${params.l}'}}"
    )
    assert not problems
    assert found["stages"]["x"] == {"a": 3, "b": ["a", "b"]}


def test_expressions_inside_text() -> None:
    """Inside a text a parameter is written out; booleans in YAML's spelling."""
    found, problems = fill("params: {n: 3, t: true}\nstages: {a: 'n=${params.n} t=${params.t}'}")
    assert not problems
    assert found["stages"]["a"] == "n=3 t=true"


def test_parameters_may_use_each_other_and_the_environment() -> None:
    """A parameter may be made of others; nested values are reached by dots."""
    found, problems = fill(
        "params: {root: '${env:ROOT}', p: {q: '${params.root}/x'}}\nstages: {a: '${params.p.q}'}",
        ROOT="/data",
    )
    assert not problems
    assert found["stages"]["a"] == "/data/x"


def test_escape_and_secret_stay() -> None:
    """``$${`` is a literal ``${``; a secret is never filled in."""
    found, problems = fill("stages: {a: '$${HOME} ${secret:TOKEN}'}", TOKEN="hunter2")
    assert not problems
    assert found["stages"]["a"] == "${HOME} ${secret:TOKEN}"


def test_a_command_keeps_its_own_names() -> None:
    """``${inputs.x}`` is left to command stages, and to their ``run`` alone."""
    found, problems = fill("stages: {c: {run: 'cat ${inputs.a}', env: {X: '${inputs.a}'}}}")
    assert found["stages"]["c"]["run"] == "cat ${inputs.a}"
    assert len(problems) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("params: {base: 1}\nstages: {a: '${params.bose}'}", "did you mean 'base'?"),
        ("stages: {a: '${env:NOPE}'}", "the environment has no variable NOPE"),
        ("params: {a: '${params.b}', b: '${params.a}'}\nstages: {}", "in a circle"),
        ("stages: {a: '${stages.sft.loss}'}", "known only at run time"),
        ("stages: {a: '${what}'}", "unknown expression"),
        ("stages: {a: '${params.x'}", "the closing brace is missing"),
        ("params: {l: [1]}\nstages: {a: 'x ${params.l}'}", "cannot be part of a text"),
    ],
)
def test_mistakes_are_explained_at_their_place(text: str, message: str) -> None:
    """Every unknown or circular expression is a problem with its line."""
    _, problems = fill(text)
    assert any(message in problem for problem in problems)
    assert all(problem.startswith("s.yaml:") for problem in problems)


@pytest.mark.slow
def test_parameters_do_not_multiply_without_bound() -> None:
    """Each level named twice the one before it: 16 levels took over a minute, 40 for ever."""
    levels = "\n".join(
        f"  p{i}: ['${{params.p{i - 1}}}', '${{params.p{i - 1}}}']" for i in range(1, 40)
    )
    _, problems = fill(f"params:\n  p0: x\n{levels}\nstages: {{a: 'x'}}")
    assert [problem for problem in problems if "fill more than 2,000,000 characters" in problem]
    assert len(problems) == 1


@pytest.mark.slow
@pytest.mark.parametrize("nested", ["{}", "x {}", "[" * 50 + "{}" + "]" * 50])
def test_parameters_do_not_name_each_other_without_end(nested: str) -> None:
    """A chain of 400 ended in a RecursionError."""
    lines = [f"  p{i}: {nested.format(f'${{params.p{i + 1}}}')}" for i in range(400)]
    text = "params:\n" + "\n".join(line.replace("$", '"$').replace("}", '}"') for line in lines)
    text = text.replace('x "', '"x ')
    _, problems = fill(f"{text}\n  p400: x\nstages: {{a: x}}")
    assert problems[0].startswith("s.yaml:")
    assert "parameters name one another more than 50 times in a row, or too deep" in problems[0]
    assert "from p1 on" in problems[0]


def test_fifty_parameters_in_a_row_are_filled() -> None:
    """As many as anybody needs."""
    lines = [f"  p{i}: '${{params.p{i + 1}}}'" for i in range(49)]
    found, problems = fill("params:\n" + "\n".join(lines) + "\n  p49: x\nstages: {a: x}")
    assert not problems
    assert found["params"]["p0"] == "x"


@pytest.mark.parametrize("step", [1, -1])
@pytest.mark.parametrize(("levels", "count"), [(60, 10), (1, 400)])
def test_nested_parameters_have_a_depth_that_is_told(levels: int, count: int, step: int) -> None:
    """Lists in lists of parameters that name the next one ended in a RecursionError too."""
    lines = [
        f"  p{i}: {'[' * levels}'${{params.p{i + 1}}}'{']' * levels}" for i in range(count)
    ] + [f"  p{count}: x"]
    _, problems = fill("params:\n" + "\n".join(lines[::step]) + "\nstages: {a: '${params.p0}'}")
    assert problems
    assert all("or too deep" in problem for problem in problems)
