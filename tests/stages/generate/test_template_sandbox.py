"""Templates in their sandbox: what they read, what stops them, and where a mistake is."""

from __future__ import annotations

import resource
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.errors import StageError
from llmpipe.stages.generate.methods.template.sandbox import Template


def test_a_template_reads_its_columns_and_nothing_else() -> None:
    """Names are found with their first line; loops, macros, filters and tests work."""
    template = Template(
        "{% set n = boxes|int %}\n{% for i in range(n) %}{{ i }}{{ city|upper }};{% endfor %}\n"
        "{% macro twice(x) %}{{ x ~ x }}{% endmacro %} {{ twice(city) }} {{ note.a[0]|tojson }}"
    )
    assert template.reads == {"boxes": 1, "city": 2, "note": 3}
    row = {"boxes": "2", "city": "Rome", "note": {"a": ["ü<"]}}
    assert template.render(row).split() == ["0ROME;1ROME;", "RomeRome", '"ü<"']


LOOPS = {
    "a long loop": "{% for i in range(99999) %}{% endfor %}",
    "nested loops": "{% for i in range(999) %}{% for j in range(999) %}{% endfor %}{% endfor %}",
    "a loop over a huge range": "{% for i in range(10 ** 12) %}x{% endfor %}",
    "a macro that calls itself": "{% macro m(n) %}{{ m(n) }}{% endmacro %}{{ m(1) }}",
    "a macro that calls itself twice": (
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}"
    ),
    "a repeated text": "{{ 'x' * 10 ** 10 }}",
    "a repeated list": "{{ ([0] * 10 ** 10)|length }}",
    "a text repeated from the right": "{{ 10 ** 10 * 'x' }}",
    "a huge power": "{{ 9 ** (9 ** 9) }}",
    "a doubled text": (
        "{% macro m(s, n) %}{% if n %}{{ m(s ~ s, n - 1) }}{% endif %}{% endmacro %}{{ m('ab', 60) }}"
    ),
    "a text that adds up": (
        "{% macro m(s, n) %}{% if n %}{{ m(s + s, n - 1) }}{% endif %}{% endmacro %}{{ m('ab', 60) }}"
    ),
    "a wide text": "{{ '%99999999999d' % 1 }}",
    "a width from a value": "{{ '%*d' % (10 ** 11, 1) }}",
    "a wide text by a filter": "{{ '%99999999999d'|format(1) }}",
    "a wide indent": "{{ 'a'|indent(10 ** 11, true) }}",
    "wide JSON": "{{ [1]|tojson(10 ** 11) }}",
    "a text that is replaced": "{{ ('x' * 10 ** 6)|replace('x', 'y' * 10 ** 6) }}",
    "a text that is joined": "{{ range(10 ** 5)|join('y' * 10 ** 6) }}",
    "much output": "{% for i in range(5000) %}{{ 'x' * 999 }}{% endfor %}",
}


@pytest.mark.parametrize("text", LOOPS.values(), ids=LOOPS.keys())
def test_a_template_that_loops_is_stopped(text: str) -> None:
    """Soon, by a count that is the same on every machine, and without taking the memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.process_time()
    with pytest.raises(StageError) as caught:
        Template(text).render({})
    assert time.process_time() - begin < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB
    assert any(word in caught.value.message for word in ("stopped", "Range too big"))


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ x.append(1) }}",
        "{{ lipsum() }}",
        "{% set ns = namespace(a=1) %}",
        "{{ 'x'|center(10 ** 14) }}",
        "{{ 'x'.ljust(10 ** 14) }}",
        "{{ ('x'|attr('rjust'))(10 ** 14) }}",
        "{{ 'x'['zfill'](10 ** 14) }}",
        "{{ '{:99999999999}'.format(1) }}",
        "{{ (1).to_bytes(10 ** 14, 'big') }}",
        "{{ 'x'|batch(10 ** 14, 'y')|list }}",
    ],
)
def test_python_s_own_objects_are_out_of_reach(text: str) -> None:
    """Neither attributes of objects, nor a change of a row's values, nor chance."""
    with pytest.raises(StageError):
        Template(text).render({"x": []})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\n{{ b", "line 2: unexpected end of template"),
        ("a\n{% include 'b' %}", "line 2: a template cannot read another one"),
        ("{% for a in b recursive %}{% endfor %}", "line 1: a loop cannot be recursive"),
        ("{{ [1, 2]|random }}", "No filter named 'random'"),
    ],
)
def test_a_mistake_is_found_when_the_spec_is_read(text: str, message: str) -> None:
    """With its line, before anything runs."""
    with pytest.raises(StageError) as caught:
        Template(text)
    assert message in caught.value.message


def test_a_missing_value_names_its_line() -> None:
    """A field that a value lacks is an error, not an empty text."""
    with pytest.raises(StageError, match=r"line 3: .*no attribute 'b'"):
        Template("a\n\n{{ a.b }}").render({"a": {}})


@given(st.text())
def test_values_stay_as_they_are(text: str) -> None:
    """No escaping, and a value that looks like a template is text."""
    assert Template("<{{ a }}>").render({"a": text}) == f"<{text}>"
    assert Template("{{ a }}").render({"a": "{{ b }}"}) == "{{ b }}"


def test_texts_are_formatted_joined_and_replaced() -> None:
    """Within limits, as Jinja does."""
    text = (
        "{{ '%05.1f %s%%' % (2.5, 'x') }} {{ '%d'|format(3) }} {{ [1, 'b']|join('-') }} "
        "{{ 'a.b.c'|replace('.', '_', 1) }} {{ [{'n': 4}]|join(attribute='n') }} {{ 7 % 4 }}"
    )
    assert Template(text).render({}) == "002.5 x% 3 1-b a_b.c 4 3"
