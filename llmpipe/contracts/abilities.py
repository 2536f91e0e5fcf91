"""What only some kinds of stages can do. A kind declares it by inheriting from the class.

    class Chat(StageDefaults, Servable): ...

    Servable    `llmpipe serve` and `Pipeline.serve` keep it up
    Answers     `llmpipe ask` and `Pipeline.ask` put questions to it
    Compilable  `llmpipe compile` writes what it runs, to be run without llmpipe
    Estimates   says before a run what it will take: memory, disk, time, money
    Stochastic  asks for replies that can differ from draw to draw: `llmpipe run --resample`

The command line knows no kind by name: a kind of another package has the same abilities as one of
llmpipe's own. The registry checks that a class offers what it declares.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, Generic

from llmpipe.contracts.artifacts import Artifact
from llmpipe.contracts.context import ConfigT, StageContext

if TYPE_CHECKING:
    from llmpipe.needs import Given


@dataclass(frozen=True, slots=True)
class ServeContext(Generic[ConfigT]):
    """All that a service of a stage may know.

    ``inputs`` are the stage's, as a run would give them. ``created`` says when each of those that a
    stage made was made, in seconds since 1970. ``output(name)`` returns the path of what the stage
    itself made, and raises a `StoreError` where that is not up to date.
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
    """What callers must send as a bearer token; given wherever other machines reach the host."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A service that answers."""

    url: str
    """Where it answers: ``http://127.0.0.1:8080``."""
    offers: str = ""
    """What can be called there, in a few words for the user."""
    notes: tuple[str, ...] = ()
    """Other lines that the user should read when the service starts."""
    ended: Event = field(default_factory=Event)
    """Set by the service when it ends by itself."""


class Servable:
    """A kind whose stages are served. Its config inherits from `ServedConfig`."""

    SERVE_NEEDS: tuple[str, ...] = ()
    """Distributions that serving takes besides those that `Stage.needs` names."""

    @staticmethod
    @abstractmethod
    def serve(ctx: ServeContext[Any]) -> AbstractContextManager[Endpoint]:
        """Serve until the returned context ends.

        The service answers from the moment the context is entered; it computes in threads or
        processes of its own. When the context ends, nothing of it is left. May be called from any
        thread.

        Raises:
            StageError: the address is taken, or what is served cannot be opened; on leaving, why
                the service ended by itself.
        """


class Answers:
    """A kind whose stages answer questions."""

    @staticmethod
    @abstractmethod
    def answerer(ctx: ServeContext[Any]) -> AbstractContextManager[Any]:
        """Open what answers.

        Returns:
            an object with ``answer(question, history=(), *, k=None)``, which returns an answer with
            its ``text`` and ``citations``, and ``stream(…)``, which yields it while it is written
            (`llmpipe.retrieval.answer.Answerer`).
        """


class Compilable:
    """A kind whose work can be written as a folder that runs without llmpipe."""

    @staticmethod
    @abstractmethod
    def compile_to(ctx: StageContext[Any], out: Path) -> list[str]:
        """Write into the empty folder ``out`` what the stage would run, with a ``run.sh``.

        Returns:
            What the user should know about it, a line each.
        """


@dataclass(frozen=True, slots=True)
class Needs:
    """What one execution of a stage will take, as far as it is known. None: not known."""

    memory: int | None = None
    """Bytes of main memory, at the most."""
    gpu_memory: int | None = None
    """Bytes of memory on each GPU, at the most."""
    disk: int | None = None
    """Bytes that its artifacts add to the store."""
    seconds: float | None = None
    money: float | None = None
    """US dollars that are paid to others."""


class Estimates:
    """A kind that says before a run what a stage will take."""

    @staticmethod
    @abstractmethod
    def estimate(config: Any, inputs: Mapping[str, Given]) -> Needs:
        """Return what the stage will take. Quick: ``plan`` and ``run`` call it.

        What earlier executions took is preferred where they did the same work.

        Args:
            config: the stage's, paths made absolute.
            inputs: what is known of the inputs, by port; ``size`` is in bytes.
        """


class Stochastic:
    """A kind that asks for replies that can differ from draw to draw, and journals them."""


ABILITIES = (Servable, Answers, Compilable, Estimates, Stochastic)
