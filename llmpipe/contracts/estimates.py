"""What work takes before it runs: how a kind is asked, and what it answers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from llmpipe.needs import Given


@dataclass(frozen=True, slots=True)
class Hardware:
    """The machine that the work is for: this one, or one that the user describes."""

    kind: Literal["cpu", "cuda"] = "cpu"
    gpu_memory: int | None = None
    """Bytes of each GPU."""
    gpus: int = 0
    memory: int | None = None
    """Bytes of main memory; None where it is not known."""
    dtype: Literal["float32", "float16", "bfloat16"] = "bfloat16"
    """The best number format of a GPU."""

    @property
    def limit(self) -> int | None:
        """Bytes that a training can use: of a GPU, or of main memory where there is none."""
        return self.gpu_memory if self.kind == "cuda" else self.memory


@dataclass(frozen=True, slots=True)
class EstimateContext:
    """How a kind is asked for an estimate.

    ``depth`` is ``known`` where the answer must come at once, from what is remembered; ``gate``
    where it may take seconds, but not for work that plainly fits; ``full`` where it may take
    longer, and say what to change for work that does not fit.
    """

    hardware: Hardware
    memo: Path
    """A folder for answers to remember, shared by all kinds."""
    depth: Literal["known", "gate", "full"] = "known"
    online: bool = False
    """Whether small files, such as a model's ``config.json``, may be downloaded."""


@dataclass(frozen=True, slots=True)
class Needs:
    """The needs of one execution of a stage, as far as known; None means unknown."""

    memory: int | None = None
    """Peak bytes of main memory."""
    gpu_memory: int | None = None
    """Peak bytes of memory on each GPU."""
    disk: int | None = None
    """Bytes that its artifacts add to the store."""
    temporary: int | None = None
    """Bytes of disk that it frees again when it ends."""
    seconds: float | None = None
    money: float | None = None
    """US dollars paid to others."""
    download: int | None = None
    """Bytes that are fetched from the network first."""
    parts: Mapping[str, int] = field(default_factory=dict)
    """Of what the GPU memory consists, or the main memory where no GPU is used."""
    outputs: Mapping[str, int] = field(default_factory=dict)
    """The bytes on disk of each output, where there are several."""
    micro_batch: int | None = None
    """The largest micro-batch that fits; 0 if none does."""
    changes: tuple[str, ...] = ()
    """What to change so that it fits, one way a line."""
    notes: tuple[str, ...] = ()
    """What is not counted, and why something is not known."""


class Estimates:
    """A kind that can estimate a stage before a run."""

    @staticmethod
    @abstractmethod
    def estimate(config: Any, inputs: Mapping[str, Given], asked: EstimateContext) -> Needs:
        """Return the estimate.

        Measurements of earlier executions with the same work take precedence.

        Args:
            config: The stage's config, with absolute paths.
            inputs: What is known of the inputs, by port; ``size`` is in bytes.
            asked: The hardware, and how long the answer may take; ``plan`` asks for what is known.
        """
