"""What Axolotl's validation is told about the machine that will train: this one, or another.

This runs in `llmpipe.backends.axolotl.check_subprocess`, the only process that imports Axolotl.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def capabilities_here(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that tell Axolotl's validation about the machine."""
    if document.get("use_ray"):
        return {}  # Axolotl detects them on the training node
    from axolotl.cli.config import gpu_capabilities

    capabilities, env_capabilities = gpu_capabilities()
    return {"capabilities": capabilities, "env_capabilities": env_capabilities}


def capabilities_elsewhere(device: Mapping[str, Any]) -> dict[str, Any]:
    """Return the capabilities of a machine that is not this one, with this one's libraries."""
    import torch

    gpu = device["kind"] == "cuda"
    return {
        "capabilities": {
            **dict.fromkeys(("bf16", "fp8", "tf32"), gpu),
            "compute_capability": "sm_90" if gpu else None,
            "n_gpu": device["count"],
        },
        "env_capabilities": {"torch_version": str(torch.__version__).partition("+")[0]},
    }
