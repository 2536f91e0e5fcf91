"""What reward functions are called with, and what they may return."""

from __future__ import annotations

import asyncio
import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.backends.axolotl.plugins.axolotl_rewards import (
    FIELDS,
    RewardError,
    checked,
    column_names,
    expanded,
    trial_arguments,
    verified,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@pytest.mark.slow
@given(st.lists(st.dictionaries(st.text(), JSON, max_size=3), min_size=1, max_size=4))
def test_columns_arrive_as_they_were_written(rows: list[dict[str, Any]]) -> None:
    """Whatever types a column holds; a row that lacks it has None."""
    texts = [json.dumps(row) for row in rows]
    found = expanded({FIELDS: texts, "row": ["a:1"], "step": 3}, column_names(texts))
    assert found.pop("step") == 3
    names = {name for row in rows for name in row} - {"step"}
    assert found.keys() == names
    assert all(found[name] == [row.get(name) for row in rows] for name in names)


def test_a_batch_may_lack_a_column() -> None:
    """A function that names it as an argument is called all the same."""
    assert expanded({FIELDS: ["{}", "{}"]}, ["since"]) == {"since": [None, None]}


@pytest.mark.parametrize(
    ("rewards", "told"),
    [
        ([1.0], "a list of 2 numbers, one for each completion, not 1"),
        (1.0, "not float 1.0"),
        ("ab", "not str"),
        ({"a": 1, "b": 2}, "not dict"),
        (None, "not NoneType None"),
        ([1.0, "2"], "one is str '2'"),
        ([1.0, [2.0]], r"one is list \[2.0\]"),
        ([1.0, math.inf], "one is inf"),
    ],
)
def test_another_shape_is_named(rewards: Any, told: str) -> None:
    """TRL would fail in the middle of a step, or learn from nonsense."""
    with pytest.raises(RewardError, match=told):
        verified(rewards, 2, "mine")


def test_numbers_of_any_kind_are_rewards() -> None:
    """Booleans, integers, arrays and None, which TRL takes for no reward."""
    import numpy as np

    assert verified([True, 2], 2, "mine") == [1.0, 2.0]
    assert verified(np.array([0.5, 1.5], np.float32), 2, "mine") == [0.5, 1.5]
    assert verified((None, 0), 2, "mine") == [None, 0.0]


def test_an_async_function_stays_one() -> None:
    """TRL awaits those together."""

    async def slow(completions: list[Any], **given: Any) -> list[float]:
        return [1.0] * len(completions)

    rows = [{"prompt": "[]", FIELDS: "{}"}]
    assert asyncio.run(checked(slow, [])(**trial_arguments(rows, ["a", ""]))) == [1.0, 1.0]


def tried(folder: Path, text: str, *names: str) -> list[dict[str, Any] | None]:
    """The result of the trial of a file's functions, in a process of its own."""
    import subprocess

    import pyarrow as pa
    import pyarrow.parquet as pq

    from llmpipe.backends.axolotl.training import write_plugins

    write_plugins(folder)
    (folder / "plugins" / "reward_file_1.py").write_text(text)
    columns = {"prompt": ['[{"role": "user", "content": "q"}]'], FIELDS: ['{"answer": 1}']}
    pq.write_table(pa.table(columns), folder / "rows.parquet")
    subprocess.run(
        [
            *(sys.executable, "-m", "axolotl_rewards", "rows.parquet", "result.json", "60"),
            *(f"reward_file_1.{name}" for name in names),
        ],
        cwd=folder,
        env={"PYTHONPATH": str(folder / "plugins")},
        check=True,
    )
    found: list[dict[str, Any] | None] = json.loads((folder / "result.json").read_text())
    return found


def test_every_function_is_tried(tmp_path: Path) -> None:
    """Each by itself, with the line of its own file; an empty answer is among the completions."""
    text = (
        "def fine(completions, answer, **kwargs):\n    return answer\n"
        "def raises(completions, **kwargs):\n    return [c[0]['content'][0] for c in completions]\n"
        "def short(completions, **kwargs):\n    return [1]\n"
        "def takes_too_few(completions):\n    return [0.0] * len(completions)\n"
        "def ends(completions, **kwargs):\n    raise SystemExit(3)\n"
    )
    names = ("fine", "raises", "short", "takes_too_few", "ends", "absent")
    fine, raises, short, too_few, ends, absent = tried(tmp_path, text, *names)
    assert fine is None
    assert raises == {"error": "IndexError: string index out of range", "line": 4}
    assert short == {
        "error": "short must return a list of 2 numbers, one for each completion, not 1",
        "line": None,
    }
    assert too_few
    assert "unexpected keyword argument" in too_few["error"]
    assert ends == {"error": "SystemExit: 3", "line": 10}
    assert absent
    assert "has no attribute 'absent'" in absent["error"]


def test_a_file_that_cannot_be_imported_is_told(tmp_path: Path) -> None:
    """By its line."""
    (found,) = tried(tmp_path, "x = 1\nimport a_module_that_is_not_there\n", "f")
    assert found == {
        "error": "ModuleNotFoundError: No module named 'a_module_that_is_not_there'",
        "line": 2,
    }
