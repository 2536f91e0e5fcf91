"""Fit the attention implementation of a training on a GPU to what is installed.

transformers would take a kernel from the hub in place of a missing flash-attn, or fail. A training
here may be offline, so another implementation of the same function is named instead.
"""

from __future__ import annotations

from typing import Any

from llmpipe.needs import install_command, is_here

FLASH = ("flash_attention_2", "flash")
"""The values of ``attn_implementation`` that mean the package flash-attn."""


def fit_attention(settings: dict[str, Any], *, here: bool) -> list[str]:
    """Replace flash attention by sdpa, in place, where it is not installed; return notes.

    Both keep packed rows apart.

    Args:
        settings: The settings of the training.
        here: Whether this machine trains. Otherwise its packages are unknown, and nothing changes.
    """
    named = settings.get("attn_implementation")
    asked = f"attn_implementation: {named}" if named in FLASH else ""
    if not asked and settings.get("flash_attention"):
        asked = "flash_attention: true"
    if not asked or (here and is_here("flash-attn")):
        return []
    install = install_command(["flash-attn"])
    if not here:
        instead = "transformers takes the kernel kernels-community/flash-attn2 from the hub"
        return [f"{asked} needs flash-attn where it trains ({install}); without it, {instead}"]
    settings.pop("flash_attention", None)
    settings["attn_implementation"] = "sdpa"
    return [f"{asked} becomes sdpa: flash-attn is not installed ({install})"]
