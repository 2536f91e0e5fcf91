"""Follow the allocations of torch operators, on real and on fake tensors alike.

A tensor's storage counts from the operator that made it until the last tensor that uses it is gone.
So the sum is what an allocator without fragmentation would hold. What an operator allocates and
frees inside itself (workspaces of CUDA kernels) is not seen.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.weak import WeakIdKeyDictionary

BLOCK = 512
"""CUDA's allocator rounds every allocation up to this many bytes."""

OTHER, LOGITS = "activations", "logits"
"""What a tensor holds that an operator made."""


class Following(TorchDispatchMode):  # type: ignore[misc]  # torch is not followed by mypy
    """Sums the live storages after every operator, by what they hold.

    Attributes:
        now: the bytes that are live, by what they hold.
        peak: the same at the moment when they were the most.
        backward: whether a backward pass is running.
    """

    def __init__(self, block: int = 1) -> None:
        super().__init__()
        self._block = block
        self._live: Any = WeakIdKeyDictionary()
        """Live storage → its entry."""
        self._total = self._most = 0
        self._width = -1
        self.backward = False
        self.now: dict[str, int] = {}
        self.peak: dict[str, int] = {}

    def restart(self, *, width: int = -1) -> None:
        """Forget the peak so far; ``width`` is the last dimension of tensors of logits."""
        self._most, self.peak, self._width = self._total, dict(self.now), width

    def add(self, tensors: Iterable[Any], holds: str = OTHER) -> None:
        """Count tensors, or say what those that are counted hold."""
        for tensor in tensors:
            if isinstance(tensor, torch.Tensor):
                self._add(tensor, holds)

    def _add(self, tensor: torch.Tensor, holds: str) -> None:
        storage = tensor.untyped_storage()
        entry = self._live.get(storage)
        if entry is not None:
            if holds != OTHER:
                self._book(entry.holds, -entry.size)
                entry.holds = holds
                self._book(holds, entry.size)
            return
        if holds == OTHER and tensor.dim() > 1 and tensor.shape[-1] == self._width:
            holds = LOGITS
        entry = _Entry(self._rounded(storage.nbytes()), holds)

        def ended(_: object, entry: _Entry = entry) -> None:
            self._book(entry.holds, -entry.size)

        entry.end = weakref.ref(storage, ended)
        self._live[storage] = entry
        self._book(holds, entry.size)
        if self._total > self._most:
            self._most, self.peak = self._total, dict(self.now)

    def _book(self, holds: str, size: int) -> None:
        self.now[holds] = self.now.get(holds, 0) + size
        self._total += size

    def _rounded(self, size: int) -> int:
        return -(-size // self._block) * self._block

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.backward and func in _IN_PLACE and not kwargs and _is_autograds(*args):
            return _IN_PLACE[func](*args)
        made = func(*args, **(kwargs or {}))
        self.add(tree_iter(made))
        return made


_IN_PLACE = {
    torch.ops.aten.add.Tensor: torch.ops.aten.add_.Tensor,
    torch.ops.aten.scatter_add.default: torch.ops.aten.scatter_add_.default,
}
"""What autograd computes in place, but not while a dispatch mode is active: the sum of two
gradients (torch's ``input_buffer.cpp``) and that of ``gather``. Else a step would seem to hold one
tensor more."""


def _is_autograds(tensor: Any, *others: Any) -> bool:
    """Return whether nothing but autograd holds a tensor that it changes."""
    last = others[-1]  # what is added
    if not isinstance(last, torch.Tensor) or last.dtype != tensor.dtype or last.dim() == 0:
        return False
    alone = tensor._use_count() <= _ALONE and _uses(tensor) <= _ALONE_STORAGE
    fits = len(others) > 1 or last.shape == tensor.shape
    return alone and fits and tensor.is_contiguous() and not torch.is_grad_enabled()


def _uses(tensor: torch.Tensor) -> int:
    return int(torch._C._storage_Use_Count(tensor.untyped_storage()._cdata))


_ALONE, _ALONE_STORAGE = 4, 2
"""What torch counts where only autograd and this call hold a tensor, and only it the storage."""


@dataclass(slots=True)
class _Entry:
    """A live storage."""

    size: int
    holds: str
    end: Any = None
    """The reference that notices its end."""
