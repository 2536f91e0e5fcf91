"""Optional abilities of stage kinds. A kind declares one by inheriting from its class.

    class Chat(StageDefaults, Servable): ...

    Servable    `llmpipe serve` and `Pipeline.serve` serve its stages
    Answers     `llmpipe ask` and `Pipeline.ask` ask its stages questions
    Compilable  `llmpipe compile` writes what a stage runs, for use without llmpipe
    Showable    `llmpipe show` and `Pipeline.show` show a stage's first rows before a run
    Estimates   estimates a stage before a run: memory, disk, time, money
    Stochastic  asks for replies that differ between draws: `llmpipe run --resample`

The command line knows no kind by name: a kind of another package has the same abilities as one of
llmpipe's own. The registry checks that a class implements what it declares.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any, Generic

from llmpipe.contracts.artifacts import Artifact
from llmpipe.contracts.context import ConfigT, StageContext
from llmpipe.contracts.estimates import Estimates


@dataclass(frozen=True, slots=True)
class ServeContext(Generic[ConfigT]):
    """What a service of a stage may use.

    ``inputs`` are those of the stage, as in a run. ``created`` has the times at which stages made
    them, in seconds since 1970. ``output(name)`` returns the path of the stage's own output, and
    raises a `StoreError` if that is not up to date.
    """

    config: ConfigT
    stage: str
    pipeline: str
    """The name of the spec."""
    inputs: Mapping[str, Artifact]
    created: Mapping[str, float]
    output: Callable[[str], Path]
    threads: int
    host: str = "127.0.0.1"
    port: int = 0
    """0 lets the system choose a free one."""
    api_key: str | None = None
    """The bearer token that callers must send; always set if other machines can reach the host."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A service that answers."""

    url: str
    """Its address: ``http://127.0.0.1:8080``."""
    offers: str = ""
    """What can be called there, in a few words for the user."""
    notes: tuple[str, ...] = ()
    """Other lines that the user should read when the service starts."""
    ended: Event = field(default_factory=Event)
    """Set by the service when it ends by itself."""


class Servable:
    """A kind whose stages can be served. Its config inherits from `ServedConfig`."""

    SERVE_NEEDS: tuple[str, ...] = ()
    """Distributions that serving needs besides those of `Stage.needs`."""

    @staticmethod
    @abstractmethod
    def serve(ctx: ServeContext[Any]) -> AbstractContextManager[Endpoint]:
        """Serve until the returned context ends.

        The service answers as soon as the context is entered, and computes in its own threads or
        processes, which end with the context. May be called from any thread.

        Raises:
            StageError: The address is taken, or the model cannot be opened. On leaving: why the
                service ended by itself.
        """


class Answers:
    """A kind whose stages answer questions."""

    @staticmethod
    @abstractmethod
    def answerer(ctx: ServeContext[Any]) -> AbstractContextManager[Any]:
        """Open the answerer.

        Returns:
            An object with ``answer(question, history=(), *, k=None)``, which returns an answer with
            its ``text`` and ``citations``, and ``stream(…)``, which yields it while it is written
            (`llmpipe.retrieval.answer.Answerer`).
        """


class Compilable:
    """A kind whose stages can be written as a folder that runs without llmpipe."""

    @staticmethod
    @abstractmethod
    def compile_to(ctx: StageContext[Any], out: Path) -> list[str]:
        """Write what the stage would run, with a ``run.sh``, into the empty folder ``out``.

        Returns:
            Notes for the user, one per line.
        """


class Showable:
    """A kind that shows its first rows before a run: those that it trains on, or those it makes."""

    @staticmethod
    @abstractmethod
    def show_rows(ctx: StageContext[Any], rows: int) -> list[str]:
        """Return the first rows as texts; what a training stage trains on is between ⟦ and ⟧."""


class Stochastic:
    """A kind that asks for replies that differ between draws, and journals them."""


ABILITIES = (Servable, Answers, Compilable, Showable, Estimates, Stochastic)
