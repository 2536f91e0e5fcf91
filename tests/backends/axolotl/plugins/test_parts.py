"""What chat templates leave out of rows, and how many rows have it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jinja2
import pytest

from llmpipe.backends.axolotl.plugins.axolotl_labels.parts import count_parts, dropped_by
from llmpipe.backends.parquet import write_texts

LOOP = "{% for m in messages %}"
BARE = LOOP + "{{ m.role }}: {{ m.content }}\n{% endfor %}"
WHOLE = (
    "{% for t in tools or [] %}{{ t.function.name }}{% endfor %}"
    + LOOP
    + "{{ m.name }}{{ m.reasoning_content }}{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ c.function.name }}{% endfor %}\n{% endfor %}"
)
TEMPLATES: dict[str, tuple[str, list[str]]] = {
    "all": (WHOLE, []),
    "texts only": (BARE, ["tools", "tool calls", "reasoning", "names of speakers"]),
    "no system": (
        WHOLE.replace(LOOP, LOOP + "{% if m.role != 'system' %}").replace(
            "\n{% endfor %}", "{% endif %}\n{% endfor %}"
        ),
        ["system texts"],
    ),
    "a system text is refused": (
        LOOP + "{{ raise_exception('no') if m.role == 'system' }}{% endfor %}" + WHOLE,
        [],
    ),
    "results are hidden": (
        WHOLE.replace("{{ m.content }}", "{{ m.content if m.role != 'tool' }}"),
        ["results of tools"],
    ),
    "reasoning under another key": (WHOLE.replace("reasoning_content", "thoughts"), ["reasoning"]),
}


def written(template: str, thinking: str = "reasoning_content") -> list[str]:
    """What a template drops."""

    def refuse(message: str) -> None:
        raise ValueError(message)

    compiled = jinja2.Environment().from_string(template)
    return dropped_by(
        lambda turns, tools: compiled.render(messages=turns, tools=tools, raise_exception=refuse),
        thinking,
    )


@pytest.mark.parametrize("name", TEMPLATES)
def test_what_a_template_drops(name: str) -> None:
    """It is found by rendering; what the template refuses is not dropped."""
    template, dropped = TEMPLATES[name]
    assert written(template) == dropped


def test_reasoning_is_looked_for_under_the_key_that_the_template_gets() -> None:
    """Axolotl's template_thinking_key renames it."""
    assert written(WHOLE.replace("reasoning_content", "thoughts"), "thoughts") == []


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": {}}}
ASK = {"role": "user", "content": "q"}


def test_rows_that_have_a_part_are_counted(tmp_path: Path) -> None:
    """In conversations, with the first of them; a null or empty list is none."""
    chats: list[tuple[list[dict[str, Any]], Any]] = [
        ([ASK, {"role": "assistant", "content": "system"}], None),
        ([{"role": "system", "content": "s"}, ASK, {"role": "assistant", "content": "a"}], None),
        ([ASK, {"role": "assistant", "content": None, "tool_calls": [CALL]}], [{"name": "f"}]),
        ([ASK, {"role": "assistant", "content": "<think>h</think>a", "hidden": "h"}], None),
        ([{"role": "system", "content": "t"}, ASK, {"role": "tool", "content": "1"}], None),
    ]
    file = tmp_path / "rows.parquet"
    rows = [
        {"messages": json.dumps(turns), "tools": tools and json.dumps(tools)}
        for turns, tools in chats
    ]
    write_texts(file, ("messages", "tools"), iter(rows))
    wanted = ["system texts", "tools", "tool calls", "results of tools", "reasoning"]
    assert list(count_parts(file, wanted)) == [
        ("system texts", 2, 2),
        ("tools", 1, 3),
        ("tool calls", 1, 3),
        ("results of tools", 1, 5),
    ]
    assert list(count_parts(file, ["reasoning"], split=True)) == [("reasoning", 1, 4)]
    assert list(count_parts(file, ["reasoning"], thinking="hidden")) == [("reasoning", 1, 4)]
    assert list(count_parts(file, [])) == []


def test_pairs_and_texts_are_read_as_well(tmp_path: Path) -> None:
    """An answer is one turn; columns of other kinds of rows hold no turns."""
    file = tmp_path / "pairs.parquet"
    answer = {"role": "assistant", "content": "a", "tool_calls": [CALL]}
    row = {"prompt": json.dumps([ASK]), "chosen": json.dumps(answer), "rejected": "plain", "x": "["}
    write_texts(file, tuple(row), iter([row]))
    assert list(count_parts(file, ["tool calls", "tools"])) == [("tool calls", 1, 1)]
