"""From what one training step holds to what a GPU, or this machine, must have.

The step itself is run on fake tensors (`llmpipe.estimate.worker`). What cannot be run so is added
by the formulas here, each with its source.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmpipe.backends.axolotl.sharding import ZERO
from llmpipe.contracts import Hardware

CUDA_CONTEXT = 500 * 10**6
"""What a process holds outside of PyTorch's allocator: the CUDA context and the loaded kernels. A
round number: users of PyTorch report 300 to 720 MB, by card, driver and version. Not measured."""

CUBLAS_WORKSPACE = 2 * 32 * 2**20
"""The workspace that cuBLAS recommends for Hopper is 32 MiB; others get 8 MiB of PyTorch. Two,
because the forward and the backward pass use a handle each."""

NCCL_BUFFERS = 400 * 10**6
"""A round number: NCCL's buffers are 4 MiB (``NCCL_BUFFSIZE``) for each channel and peer, and their
number depends on how the GPUs are connected. Not measured here."""

FRAGMENTATION = 0.05
"""The share that PyTorch's allocator reserves and cannot use: a guess for ``expandable_segments``,
which Axolotl sets. Not measured here."""

SEQUENCE_LEN = 512
"""Axolotl's own default."""

MASTER = 12
"""Bytes that DeepSpeed keeps for each trained parameter in 16 bits: a float32 copy and Adam's two
states (Rajbhandari et al., "ZeRO", arXiv:1910.02054, section 3.1)."""

PROCESS = 10**9
"""Main memory of a training's process: 0.8 GB once Axolotl, TRL and bitsandbytes are imported, as
measured on a CPU; the rest for rows and tokenizer."""

RESIDENT = 1.25
"""What a process on a CPU keeps of each byte that tensors hold at their peak: measured 1.2 to 1.9,
the latter for tiny models, where it is a few hundred MB."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What a training needs on each GPU, or of main memory on a CPU, by part in bytes."""

    parts: dict[str, int]
    host: int = 0
    """Main memory beside it: what is offloaded, and the process itself."""
    trainable: int = 0
    """How many parameters are trained."""
    parameters: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Bytes in all."""
        return sum(self.parts.values())

    def product(self, kind: str) -> int:
        """Return the bytes of what the training makes: an ``adapter`` or a ``model``."""
        return 4 * self.trainable if kind == "adapter" else 2 * self.parameters


@dataclass(frozen=True, slots=True)
class Sharding:
    """How a training is spread over GPUs."""

    world: int = 1
    stage: int = 0
    """ZeRO's: 1 optimizer states, 2 gradients too, 3 weights too (also FSDP)."""
    deepspeed: bool = False
    offload_optimizer: bool = False
    offload_weights: bool = False

    @classmethod
    def of(cls, document: Mapping[str, Any], world: int) -> Sharding:
        """Read the settings of DeepSpeed or FSDP in Axolotl's document."""
        fsdp = document.get("fsdp_config") or document.get("fsdp")
        if fsdp:
            offloads = isinstance(fsdp, Mapping) and bool(
                fsdp.get("offload_params") or fsdp.get("fsdp_offload_params")
            )
            return cls(world, 3, offload_optimizer=offloads, offload_weights=offloads)
        settings = document.get("deepspeed")
        if not settings:
            return cls(world)
        zero = _zero(settings)
        return cls(
            world,
            stage if isinstance(stage := zero.get("stage"), int) else 0,
            deepspeed=True,
            offload_optimizer=_goes_to_cpu(zero.get("offload_optimizer")),
            offload_weights=_goes_to_cpu(zero.get("offload_param")),
        )


def memory_of(answer: Mapping[str, Any], document: Mapping[str, Any], on: Hardware) -> Memory:
    """Return what a training needs.

    Args:
        answer: that of `llmpipe.estimate.asking.ask`.
        document: what Axolotl is run with.
        on: what it trains on.
    """
    peak, sizes = dict(answer["peak"]), answer["sizes"]
    parts = {
        "weights": peak["weights"],
        "adapter": peak["adapter"],
        "gradients": peak["gradients"],
        "optimizer": peak["optimizer"],
        "activations": peak["activations"],
        "logits": peak["logits"],
    }
    rl = str(document.get("rl") or "")
    if rl in ("dpo", "ipo", "kto") and not document.get("adapter"):
        parts["reference model"] = peak["weights"]  # TRL makes a copy of the whole model
    if rl == "grpo":
        parts["generation cache"] = _cache(parts, document, sizes)
    trainable = int(answer["trainable"])
    notes = [*answer["notes"]]
    host = 0
    if on.kind == "cuda":
        sharding = Sharding.of(document, max(1, on.gpus))
        host = _shard(parts, sharding, trainable, sizes)
        parts["workspace"] = sizes["largest_quantized"] + CUBLAS_WORKSPACE
        if sharding.world > 1:
            parts["workspace"] += NCCL_BUFFERS
        parts["CUDA context"] = CUDA_CONTEXT
        parts["fragmentation"] = int(FRAGMENTATION * sum(parts.values()))
        host += PROCESS
    else:
        held = sum(parts.values())
        parts["process"] = PROCESS
        parts["allocator"] = int((RESIDENT - 1) * held)
    kept = {name: size for name, size in parts.items() if size}
    return Memory(kept, host, trainable, int(sizes["parameters"]), notes)


def _cache(parts: Mapping[str, int], document: Mapping[str, Any], sizes: Mapping[str, int]) -> int:
    """Return what GRPO's generation needs beyond what its training step frees before."""
    rows = int(document.get("micro_batch_size") or 1)
    cache = rows * int(document.get("sequence_len") or SEQUENCE_LEN) * sizes["cache_per_token"]
    return max(0, cache - parts["activations"] - parts["logits"])


def _shard(
    parts: dict[str, int], sharding: Sharding, trainable: int, sizes: Mapping[str, int]
) -> int:
    """Divide, in place, what is sharded; return the bytes that go to main memory instead.

    The formulas are those of the ZeRO paper (arXiv:1910.02054, section 5), per GPU: stage 1 shards
    optimizer states, 2 gradients, 3 weights, of which one layer is whole while it computes and
    the next is fetched.
    """
    world, stage, host = sharding.world, sharding.stage, 0
    if sharding.deepspeed:
        parts["optimizer"] = MASTER * trainable
        parts["gradients"] = max(parts["gradients"], 2 * trainable)
    elif stage:
        parts["gradients"] = max(parts["gradients"], 2 * trainable)
    if stage >= 1:
        parts["optimizer"] //= world
    if stage >= 2:
        parts["gradients"] //= world
    if stage >= 3:
        for name in ("weights", "reference model"):
            if name in parts:
                parts[name] //= world
        parts["gathered layers"] = 2 * sizes["largest_layer"]
    if sharding.offload_optimizer:
        host += parts["optimizer"] * world
        parts["optimizer"] = 0
    if sharding.offload_weights:
        host += parts["weights"] * world
        parts["weights"] = 0
    if world > 1 and not stage:
        parts["gradient buckets"] = 2 * trainable  # DDP copies gradients (PyTorch, DDP notes)
    return host


def _zero(settings: Any) -> Mapping[str, Any]:
    """Return the part of a DeepSpeed configuration that says what is sharded."""
    if isinstance(settings, str) and (short := ZERO.get(Path(settings).stem)):
        settings = short  # its file is not written before the run
    if isinstance(settings, str):
        try:
            settings = json.loads(Path(settings).read_text("utf-8"))
        except (OSError, ValueError):
            return {"stage": next((n for n in (3, 2, 1) if f"zero{n}" in settings), 0)}
    zero = settings.get("zero_optimization") if isinstance(settings, Mapping) else None
    return zero if isinstance(zero, Mapping) else {}


def _goes_to_cpu(settings: Any) -> bool:
    return isinstance(settings, Mapping) and settings.get("device") in ("cpu", "nvme")
