"""Follow the allocations of torch operators, on real and on fake tensors alike.

A tensor's storage counts from the operator that made it until the last tensor that uses it is gone.
So the sum is what an allocator without fragmentation would hold. What an operator allocates and
frees inside itself (workspaces of CUDA kernels) is not seen.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.weak import WeakIdKeyDictionary

BLOCK = 512
"""CUDA's allocator rounds every allocation up to this many bytes."""


class Following(TorchDispatchMode):
    """Sums the live storages after every operator.

    Attributes:
        now: the bytes that are live.
        peak: the most that were live at once since `restart`.
        peak_at: the operator after which that was, counted from `restart`.
    """

    def __init__(self, block: int = 1) -> None:
        super().__init__()
        self._block = block
        self._live: Any = WeakIdKeyDictionary()
        """Live storage → (the reference that notices its end, bytes, whether it holds logits)."""
        self._width = -1
        self._watch: tuple[int, Callable[[], None]] | None = None
        self.now = self.peak = self.peak_at = self.operators = 0

    def restart(
        self, *, width: int = -1, at: int = -1, then: Callable[[], None] | None = None
    ) -> None:
        """Forget the peak so far.

        Args:
            width: the last dimension by which tensors of logits are known.
            at: call ``then`` after so many operators.
        """
        self.peak, self.peak_at, self.operators = self.now, 0, 0
        self._width = width
        self._watch = (at, then) if then else None

    def add(self, tensors: Iterable[Any]) -> None:
        """Count what was made before the mode was entered."""
        for tensor in tensors:
            if isinstance(tensor, torch.Tensor):
                self._add(tensor)

    def logits(self) -> int:
        """Return the bytes of live logits, their gradients included."""
        return sum(size for _, size, is_logits in self._live.values() if is_logits)

    def size_of(self, tensors: Iterable[Any]) -> int:
        """Return the bytes of the storages of some tensors, each storage once."""
        seen = WeakIdKeyDictionary()
        for tensor in tensors:
            if isinstance(tensor, torch.Tensor):
                seen[tensor.untyped_storage()] = self._rounded(tensor.untyped_storage().nbytes())
        return sum(seen.values())

    def _add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self._live:
            return
        size = self._rounded(storage.nbytes())

        def ended(_: object, size: int = size) -> None:
            self.now -= size

        is_logits = tensor.dim() > 1 and self._width in tensor.shape[-1:]
        self._live[storage] = (weakref.ref(storage, ended), size, is_logits)
        self.now += size
        if self.now > self.peak:
            self.peak, self.peak_at = self.now, self.operators

    def _rounded(self, size: int) -> int:
        return -(-size // self._block) * self._block

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.operators += 1
        made = func(*args, **(kwargs or {}))
        self.add(tree_iter(made))
        if self._watch and self._watch[0] == self.operators:
            self._watch[1]()
        return made
