"""Round numbers for an axis."""

from __future__ import annotations

import math

CLOCK = (
    *(0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30),
    *(60 * minutes for minutes in (1, 2, 5, 10, 15, 30)),
    *(3600 * hours for hours in (1, 2, 3, 6, 12, 24, 48, 168)),
)
"""Steps in seconds between the moments of a time axis."""


def ticks(low: float, high: float, count: int) -> list[float]:
    """Return about ``count`` round numbers within a range, evenly spaced."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    return _steps(low, high, step)


def moments(end: float, count: int) -> list[float]:
    """Return at most ``count`` moments from 0 to ``end`` seconds, in steps of a clock."""
    step = next((s for s in CLOCK if end / s < count), end / (count - 1))
    return _steps(0.0, end, step)


def moment_text(seconds: float) -> str:
    """Return a moment as briefly as possible."""
    if seconds < 60:
        return f"{seconds:g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d} min" if rest else f"{minutes} min"
    return f"{minutes // 60}:{minutes % 60:02d} h"


def _steps(low: float, high: float, step: float) -> list[float]:
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 9) for i in range(first, last + 1)]
