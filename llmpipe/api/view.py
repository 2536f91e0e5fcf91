"""What a pipeline tells about its spec and its stages, without running any."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llmpipe.runner.project import Project

if TYPE_CHECKING:
    from llmpipe.api.remote import RemoteStore
    from llmpipe.api.services import OpenAnswering
    from llmpipe.api.stored import Advice, Stored
    from llmpipe.api.trace import Trace
    from llmpipe.graph.model import Graph
    from llmpipe.runner.needs import Needed
    from llmpipe.runner.statcache import Notice
    from llmpipe.runner.store import Store


class PipelineView:
    """A compiled spec and a store: the part of `Pipeline` that only looks."""

    def __init__(
        self,
        graph: Graph,
        store: Store,
        *,
        settings: Sequence[str] = (),
        run: Mapping[str, Any] | None = None,
        advice: Advice | None = None,
        notice: Notice | None = None,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        from llmpipe.api.stored import PythonAdvice

        self.graph, self.store = graph, store
        self._settings, self._run, self._notice = tuple(settings), run, notice
        self._advice = advice or PythonAdvice(graph.spec.path)
        self._warn = warn or _warn
        self._answering: OpenAnswering | None = None

    @property
    def name(self) -> str:
        """The name of the spec."""
        return self.graph.spec.name

    @property
    def stages(self) -> list[str]:
        """The names of the stages, in an order in which each comes after what it needs."""
        return list(self.graph.nodes)

    def validate(self) -> list[str]:
        """Check every stage with the tools that it uses, such as the installed Axolotl.

        Returns:
            The warnings. `load` has checked the spec itself.

        Raises:
            SpecError: a stage's settings are wrong.
        """
        from llmpipe.runner.preflight import preflight

        return preflight(self._project(), self.stages, strict=False)

    def requirements(self) -> list[Needed]:
        """Return what the stages need on this machine, missing requirements first.

        Each has the ``stages`` that need it, and its ``need``: ``what`` it is, such as a package,
        its ``name``, whether it is ``here``, and if not, how to ``mend`` that.
        """
        from llmpipe.runner.needs import needs_of

        return needs_of(self._project(), self.stages)

    def draw(self, style: str = "mermaid") -> str:
        """Draw the compiled graph: every stage, derived ones dashed, every point of a sweep.

        Args:
            style: the format of the text: ``mermaid``, ``dot`` or ``svg``.

        Raises:
            UsageError: the format is unknown.
        """
        from llmpipe.api.drawing import draw

        return draw(self.graph, style)

    def trace(self, artifact: str, row: int | str) -> Trace:
        """Follow a row: what it was made from, who kept or dropped it, which models train on it.

        Every artifact with rows is read once; what is not up to date is named and not searched.

        Args:
            artifact: a stage, its output, or a file that it reads: ``tasks``, ``tasks.rejects``,
                ``tasks.seeds``. A stage means its default output; for an id, all of these.
            row: the number of its line, from 1, or the beginning of its id.

        Raises:
            UsageError: there is no such artifact, it has no rows, or the row is not one of them.
            StoreError: the stage is not up to date.
        """
        from llmpipe.api.trace import trace_row

        with self.store.in_use():
            return trace_row(self.stored(), artifact, row)

    @property
    def remote(self) -> RemoteStore:
        """The remote store that the spec names, to push and pull artifacts.

        Raises:
            UsageError: the spec names none.
        """
        from llmpipe.api.remote import find_remote

        return find_remote(self._project)

    def __repr__(self) -> str:
        return f"<pipeline {self.name}: {', '.join(self.graph.families)}>"

    def stored(self) -> Stored:
        """Return what the stages have made, as things are now."""
        from llmpipe.api.stored import Stored

        return Stored(self._project(), self._run, self._advice, self._warn)

    def _project(self) -> Project:
        """Return the project with nothing remembered of its files and its lock."""
        return Project(self.graph, self.store, self._notice)


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=4)
