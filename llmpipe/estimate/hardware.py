"""The machine for which memory is estimated: this one, or one that the user describes."""

from __future__ import annotations

import re

from llmpipe.contracts import Hardware
from llmpipe.errors import UsageError

_GPU = re.compile(
    r"(\d{1,9}(?:\.\d{1,9})?)\s*(GB|GiB|MB|MiB)(?:\s*[x×*]\s*(\d{1,9}))?", re.IGNORECASE
)
_BYTES = {"gb": 10**9, "gib": 2**30, "mb": 10**6, "mib": 2**20}

CARDS: dict[str, int] = {
    "t4": 15, "l4": 22, "a10": 22, "a10g": 22, "3090": 24, "4090": 24, "5090": 32, "v100": 16,
    "a40": 45, "l40": 45, "l40s": 45, "a6000": 48, "a100": 40, "a100-80gb": 80, "h100": 80,
    "h200": 141, "b200": 180,
}  # fmt: skip
"""Memory of some cards in GB, rounded down from what ``nvidia-smi`` shows for them."""

MOST_GPUS = 4096


def parse_gpu(text: str) -> Hardware:
    """Return the hardware that ``24GB``, ``80GBx8`` or ``4090x2`` describes.

    Raises:
        UsageError: it describes none.
    """
    match = _GPU.fullmatch(text.strip())
    if match:
        size, count = float(match[1]) * _BYTES[match[2].lower()], match[3]
    else:
        name, count = (part.strip() for part in text.lower().partition("x")[::2])
        if name not in CARDS or not re.fullmatch(r"\d{0,9}", count):
            raise UsageError(
                f"--gpu {text!r}: this is not the size of a GPU",
                hint="write its memory and, for several, their number: 24GB, 80GBx8; or the name "
                f"of a card: {', '.join(CARDS)}",
            )
        size = CARDS[name] * 1e9
    number = int(count or 1)
    if size < 1e9 or not 1 <= number <= MOST_GPUS:
        raise UsageError(
            f"--gpu {text!r}: a GPU has 1 GB or more, and there are 1 to {MOST_GPUS:,} of them"
        )
    return Hardware(kind="cuda", gpu_memory=int(size), gpus=number)
