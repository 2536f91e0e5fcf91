"""A pipeline as Python code uses it: plan, run, read, serve, ask."""

from __future__ import annotations

import json
import os
import shlex
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpipe.api.selection import choose, find_output, find_stage, find_stages
from llmpipe.errors import UsageError
from llmpipe.runner.project import Project
from llmpipe.runner.store import Store, home_for

if TYPE_CHECKING:
    from types import TracebackType

    from llmpipe.api.plan import Plan
    from llmpipe.api.rows import Rows
    from llmpipe.api.running import PlannedRun, Run
    from llmpipe.api.selection import Spelling
    from llmpipe.api.services import Answering, Service
    from llmpipe.api.stored import Advice, Stored
    from llmpipe.graph.model import Graph
    from llmpipe.retrieval.answer import Answer
    from llmpipe.retrieval.prompt import Turn
    from llmpipe.runner.events import Listener
    from llmpipe.runner.options import RunOptions
    from llmpipe.runner.statcache import Notice

Names = str | Iterable[str]
"""The name of a stage or profile, or several."""


def load(
    path: str | Path,
    *,
    set: Mapping[str, Any] | None = None,  # noqa: A002 (as the option --set)
    profiles: Names = (),
    run: str | None = None,
) -> Pipeline:
    """Read and check a spec.

    The pipeline is the spec as it is now: load it again after an edit. Its artifacts and input
    files are looked at whenever a method is called.

    Args:
        path: the YAML file.
        set: values to change, by path: ``{"params.steps": 5}``.
        profiles: profiles of the spec to lay over it, in order.
        run: an earlier run, by the beginning of its name, or ``last``: artifacts are then taken as
            that run made them, under its own profiles and settings.

    Raises:
        SpecError: something is wrong with the spec; carries every problem found.
        UsageError: there is no such file, profile, setting or run.
        StoreError: the store is of a newer format.
    """
    settings = [_setting(path, value) for path, value in (set or {}).items()]
    return Pipeline.open(path, settings=settings, profiles=_names(profiles), run=run)


class Pipeline:
    """A spec, its stages and what they have made. Made by `load`.

    It may be used from any thread and in a running event loop. What `ask` has loaded stays loaded
    until `close`, or the end of a ``with`` block.
    """

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
        self.graph = graph
        self.store = store
        self._settings, self._run = tuple(settings), run
        self._notice = notice
        self._advice = advice or _PythonAdvice(graph, settings)
        self._warn = warn or _warn
        self._answering: dict[str, tuple[str, Answering]] = {}

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        settings: Sequence[str] = (),
        profiles: Sequence[str] = (),
        run: str | None = None,
        advice: Advice | None = None,
        remember: bool = False,
        absent: bool = False,
        notice: Notice | None = None,
        warn: Callable[[str], None] | None = None,
    ) -> Pipeline:
        """Read a spec as the command line does.

        Args:
            path: the YAML file.
            settings: ``path=value`` texts, as ``--set`` takes them.
            profiles: profiles to lay over it.
            run: see `load`.
            advice: says what to do about artifacts that are not there.
            remember: remember that the spec is sound, even where that means to begin a store.
            absent: accept data of packages that are not installed; `run` asks for them.
            notice: is told how far the hashing of an input file is.
            warn: is told what is worth knowing.
        """
        record = None
        if run is not None:
            from llmpipe.api.stored import named_run

            if profiles or settings:
                hint = "a run is taken with its own: leave out --profile and --set"
                raise UsageError("a run goes with neither profiles nor settings", hint=hint)
            record = named_run(Store(home_for(Path(path))), Path(path), run)
            profiles, settings = record["profiles"], record["set"]
        project = Project.open(
            path, profiles=profiles, settings=settings, remember=remember, absent=absent
        )
        return cls(
            project.graph,
            project.store,
            settings=settings,
            run=record,
            advice=advice,
            notice=notice,
            warn=warn,
        )

    @property
    def name(self) -> str:
        """The name of the spec."""
        return self.graph.spec.name

    @property
    def stages(self) -> list[str]:
        """The names of the stages, in an order in which each comes after what it needs."""
        return list(self.graph.nodes)

    def plan(
        self,
        stage: str | None = None,
        *,
        only: Names | None = None,
        from_: Names = (),
        force: Names = (),
        resample: Names = (),
        keep: Names = (),
    ) -> Plan:
        """Return what `run` would do with the same arguments, and why.

        Args:
            stage: show this stage alone.
            only: see `run`, as for the other arguments.

        Raises:
            UsageError: there is no such stage.
            SpecError: a stage's settings are wrong.
        """
        shown = None if stage is None else find_stages(self.graph, stage)
        return self.prepare(only=only, from_=from_, force=force, resample=resample, keep=keep).plan(
            shown
        )

    def run(
        self,
        *,
        only: Names | None = None,
        from_: Names = (),
        force: Names = (),
        resample: Names = (),
        keep: Names = (),
        keep_going: bool = False,
        jobs: int | None = None,
        locked: bool = False,
        room: bool = True,
        check: bool = True,
        progress: bool | Listener = True,
    ) -> Run:
        """Bring every stage up to date; what is cached is not repeated.

        Ctrl-C, or a notebook's stop button, stops the stages cleanly: what is finished is kept.

        Args:
            only: these stages and what they need, nothing else.
            from_: run these stages and all that depends on them, even when cached.
            force: run these stages even when cached.
            resample: run these stages and ask their models again, whatever the journal holds.
            keep: take what these stages made last as fresh, from now on.
            keep_going: after a failure, go on with the stages that do not depend on it.
            jobs: stages that may run at once; by default as many as the machine holds.
            locked: refuse what differs from the lock file.
            room: refuse to start when the disk seems too small.
            check: raise when a stage failed, or when the run was interrupted.
            progress: show how far the run is; or a function that is called with each event.

        Raises:
            UsageError: a name is not that of a stage, or two arguments exclude each other.
            SpecError: a stage's settings are wrong.
            MissingDependencyError: packages, programs or data are missing.
            StoreError: the store cannot be written, or the disk seems too small.
            RunError: ``check``, and a stage failed; ``error.run`` tells of all stages.
            KeyboardInterrupt: ``check``, and the run was interrupted.
        """
        planned = self.prepare(
            only=only, from_=from_, force=force, resample=resample, keep=keep,
            keep_going=keep_going, jobs=jobs, locked=locked,
        )  # fmt: skip
        found = planned.check(room=room)
        for warning in found:
            self._warn(warning)
        view = None if callable(progress) or not progress else _view()
        listeners = [progress] if callable(progress) else [view] if view else []
        try:
            run = planned.execute(listeners, found)
        finally:
            if view:
                view.close()
        if check:
            run.require()
        return run

    def prepare(
        self,
        *,
        only: Names | None = None,
        from_: Names = (),
        force: Names = (),
        resample: Names = (),
        keep: Names = (),
        keep_going: bool = False,
        jobs: int | None = None,
        locked: bool = False,
        spelling: Spelling | None = None,
    ) -> PlannedRun:
        """Plan a run, to be checked and executed step by step; `run` does all of it.

        Args:
            only: see `run`, as for the other arguments.
            spelling: spells an argument in messages.
        """
        from llmpipe.api.running import PlannedRun

        project = self._project()
        spelled = {"spelling": spelling} if spelling else {}
        chosen: RunOptions = choose(
            project,
            only=None if only is None else _names(only),
            from_=_names(from_),
            force=_names(force),
            resample=_names(resample),
            keep=_names(keep),
            **spelled,
        )
        how = replace(
            chosen, keep_going=keep_going, jobs=jobs, locked=locked, settings=self._settings
        )
        return PlannedRun(project, how)

    def path(self, artifact: str) -> Path:
        """Return where an artifact lies in the store. It is read-only: `copy` gives one to change.

        Args:
            artifact: as a spec would name it: ``gguf.q8_0``, or a stage with one output.

        Raises:
            UsageError: there is no such stage or output, or there are several to choose from.
            StoreError: the stage is not up to date.
        """
        node, output = find_output(self.graph, artifact)
        return self.stored().path(node, output, artifact)

    def copy(self, artifact: str, to: str | Path) -> Path:
        """Copy an artifact out of the store; return where it is.

        Args:
            artifact: as in `path`.
            to: a name that does not exist yet, or for a single file a folder that does.

        Raises:
            UsageError: as in `path`, or the name exists already.
            StoreError: the stage is not up to date, or the copy cannot be written.
        """
        from llmpipe.api.copying import copy_artifact

        source, target = self.path(artifact), Path(to)
        if target.is_dir() and source.is_file():
            target = target / source.name
        with self.store.in_use():
            copy_artifact(source, target)
        return target

    def rows(self, artifact: str) -> Rows:
        """Return the rows of an artifact, to iterate over or to look at: ``.head()``.

        Raises:
            UsageError: as in `path`, or the artifact has no rows.
            StoreError: the stage is not up to date.
        """
        from llmpipe.api.rows import Rows

        node, output = find_output(self.graph, artifact)
        path = self.stored().path(node, output, artifact)
        return Rows(path, node.ports.outputs[output].type, artifact)

    def metrics(self, stage: str) -> dict[str, Any]:
        """Return the metrics of a stage.

        Raises:
            UsageError: there is no such stage, or a sweep makes several of it.
            StoreError: the stage is not up to date.
        """
        return self.stored().record(find_stage(self.graph, stage).id).metrics

    def compile(self, stage: str, out: str | Path) -> list[str]:
        """Write what a stage would run into a new folder, to run it without llmpipe.

        Returns:
            What is worth knowing about it, a line each.

        Raises:
            UsageError: there is nothing to compile, or the folder is not empty.
            StoreError: what the stage needs is not up to date.
        """
        from llmpipe.api.compiling import compile_stage

        node = find_stage(self.graph, stage)
        return compile_stage(self._project(), node, Path(out), self._advice)

    def serve(
        self,
        stage: str | None = None,
        *,
        host: str | None = None,
        port: int | None = 0,
        api_key: str | None = None,
    ) -> Service:
        """Serve a stage: the model of a serve stage, the answers of a rag stage.

        Args:
            stage: which one, if several can be served.
            host: the address to bind; None for the stage's own, which is loopback by default.
            port: the port; 0 for any free one, None for the stage's own.
            api_key: what callers must send; the stage's own by default. Needed beyond loopback.

        Raises:
            UsageError: there is no such stage, or other machines could call without a key.
            MissingDependencyError: packages are missing.
            StoreError: what is to be served is not up to date.
            StageError: the address is taken, or what is served cannot be opened.
        """
        from llmpipe.api.services import Service, find_servable

        node = find_servable(self.graph, stage)
        return Service(self.stored(), node, host=host, port=port, api_key=api_key)

    def ask(
        self,
        stage: str | None,
        question: str,
        *,
        history: Sequence[Turn] = (),
        k: int | None = None,
    ) -> Answer:
        """Ask a rag stage a question.

        Args:
            stage: which one; None where there is only one.
            question: what to ask.
            history: the questions and answers before it, by which it is understood.
            k: passages that the model is given; the stage's by default.

        Returns:
            The answer with its ``text`` and ``citations``; ``abstained`` says that the documents do
            not hold one.

        Raises:
            UsageError: there is no such stage.
            MissingDependencyError: packages are missing.
            StoreError: the stage is not up to date.
            StageError: a part cannot be opened, or the question cannot be asked.
        """
        answer: Answer = self.answering(stage).answerer.answer(question, history, k=k)
        return answer

    def answering(self, stage: str | None) -> Answering:
        """Return what answers for a stage; it is opened once, until what it reads changes."""
        from llmpipe.api.services import Answering, find_answering
        from llmpipe.runner.needs import require_installed

        node, stored = find_answering(self.graph, stage), self.stored()
        require_installed(stored.project, node.id)
        key = stored.record(node.id).key
        before = self._answering.get(node.id)
        if before is not None and before[0] == key:
            return before[1]
        if before is not None:
            before[1].close()
        opened = Answering(stored, node)
        self._answering[node.id] = (key, opened)
        return opened

    def close(self) -> None:
        """Free what `ask` has loaded."""
        while self._answering:
            _, (_, opened) = self._answering.popitem()
            opened.close()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<pipeline {self.name}: {', '.join(self.graph.families)}>"

    def stored(self) -> Stored:
        """Return what the stages have made, as things are now."""
        from llmpipe.api.stored import Stored

        return Stored(self._project(), self._run, self._advice, self._warn)

    def _project(self) -> Project:
        """Return the project with nothing remembered of its files and its lock."""
        return Project(self.graph, self.store, self._notice)


class _PythonAdvice:
    """Says what to do in Python; see `llmpipe.api.stored.Advice`."""

    def __init__(self, graph: Graph, settings: Sequence[str]) -> None:
        self._spec = os.path.relpath(graph.spec.path)

    def make(self, stage: str | None) -> str:
        return f"pipe.run(only={[stage]!r})" if stage else "pipe.run()"

    def take(self, run: str) -> str:
        return f"llmpipe.load({self._spec!r}, run={run!r})"

    def runs(self) -> str:
        return f"llmpipe runs --spec {shlex.quote(self._spec)} lists the runs"


def _setting(path: str, value: Any) -> str:
    """Return a value to change as ``--set`` takes it: JSON is YAML."""
    try:
        return f"{path}={json.dumps(value, ensure_ascii=False, allow_nan=False, default=os.fspath)}"
    except (TypeError, ValueError) as error:
        raise UsageError(f"set: the value of {path} cannot stand in a spec: {error}") from None


def _names(names: Names) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def _view() -> Any:
    """Return what shows a run here: a table in a notebook, else what the command line shows."""
    from llmpipe.api.notebook import NotebookView, in_notebook

    if in_notebook():
        return NotebookView()
    from llmpipe.runner.console import make_view

    return make_view()


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=4)
