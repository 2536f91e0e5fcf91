"""Drop rows of the most frequent values of a column, until none has too many."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from llmpipe.errors import StageError
from llmpipe.formats.records import to_json
from llmpipe.stages.curate.pool import Drop, Pool
from llmpipe.stages.curate.steps import Balance

LISTED = 50
"""Values that are listed, the most frequent ones."""
LONGEST = 80
"""Letters of a value that are shown."""


def run(step: Balance, pool: Pool) -> Mapping[str, Any]:
    """Drop rows of values that have too many; return the metrics.

    The rows of a value are looked at in an order that follows from their content, so that the
    order of the input changes nothing.

    Raises:
        StageError: No row has the column.
    """
    values, codes, is_there = dict[str, int](), array("L"), not pool.kept
    for _, row in pool.each_row(f"counting {step.column}"):
        is_there = is_there or step.column in row
        codes.append(values.setdefault(_value(row.get(step.column)), len(values)))
    if not is_there:
        raise StageError(f"balance: no row has a column {step.column!r}")
    names, counts = [*values], Counter(codes)
    most = step.most or max(1, int(min(counts.values(), default=0) * (step.times or 1)))
    drops = {}
    for position, code in _beyond(pool, codes, counts, most):
        reason = f"{counts[code]} rows have {step.column} {names[code]}, and {most} are kept"
        field = f"raise most to {counts[code]}" if step.most else "raise times"
        drops[position] = Drop("balance", reason, field, counts[code])
    pool.drop(drops)
    listed = {names[code]: min(count, most) for code, count in counts.most_common(LISTED)}
    return {"values": len(names), "rows_of_a_value": most, "kept_by_value": listed}


def _beyond(
    pool: Pool, codes: array[int], counts: Mapping[int, int], most: int
) -> Iterator[tuple[int, int]]:
    """Yield the rows beyond so many of a value, each with the value's code."""
    key, kept = pool.rows.key, Counter[int]()
    frequent = [at for at, code in enumerate(codes) if counts[code] > most]
    for at in sorted(frequent, key=lambda at: (key[pool.kept[at]], at)):
        kept[codes[at]] += 1
        if kept[codes[at]] > most:
            yield pool.kept[at], codes[at]


def _value(value: Any) -> str:
    """Return a value as JSON, as in a reject; a row without the column has null."""
    text = to_json(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
