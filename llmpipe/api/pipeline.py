"""A pipeline as Python code uses it: plan, run, read, serve, ask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llmpipe.api.selection import (
    Names,
    Spelling,
    choose,
    find_output,
    find_stage,
    find_stages,
    in_python,
    names_of,
)  # fmt: skip
from llmpipe.api.view import PipelineView

if TYPE_CHECKING:
    from llmpipe.api.estimate import Estimate
    from llmpipe.api.plan import Plan
    from llmpipe.api.publishing import Publication
    from llmpipe.api.rows import Rows
    from llmpipe.api.running import PlannedRun, Run
    from llmpipe.api.services import Answering, Service
    from llmpipe.retrieval.answer import Answer
    from llmpipe.retrieval.prompt import Turn
    from llmpipe.runner.events import Listener


class Pipeline(PipelineView):
    """A spec, its stages and what they have made. Made by `load`.

    It may be used from any thread and in a running event loop. What `ask` has loaded stays loaded
    until `close`, or the end of a ``with`` block.
    """

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
        run = self.prepare(only=only, from_=from_, force=force, resample=resample, keep=keep)
        return run.plan(shown)

    def estimate(
        self,
        stage: str | None = None,
        *,
        gpu: str | None = None,
        price: float | None = None,
        online: bool = False,
    ) -> Estimate:
        """Return what stages take before they run: memory, disk, download, time.

        A training is run on tensors without content, so this takes seconds for each the first time.

        Args:
            stage: this stage alone.
            gpu: the GPUs that it is for, such as ``24GB`` or ``80GBx8``; this machine by default.
            price: US dollars that the machine costs an hour.
            online: whether a model's ``config.json`` may be downloaded.

        Raises:
            UsageError: there is no such stage, or ``gpu`` does not describe GPUs.
            SpecError: a stage's settings are wrong.
        """
        from llmpipe.api.estimate import estimate_stages

        shown = None if stage is None else find_stages(self.graph, stage)
        return estimate_stages(self.prepare(), shown, gpu=gpu, price=price, online=online)

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
        fit: bool = True,
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
            jobs: number of stages that may run at once; by default, as many as fit.
            locked: refuse what differs from the lock file.
            room: refuse to start when the disk seems too small.
            fit: refuse to start when a stage needs more memory than there is.
            check: raise when a stage failed, or when the run was interrupted.
            progress: show how far the run is; or a function that is called with each event.

        Raises:
            UsageError: a name is not that of a stage, or two arguments exclude each other.
            SpecError: a stage's settings are wrong.
            MissingDependencyError: packages, programs or data are missing.
            StoreError: the store cannot be written, or the disk seems too small.
            RunError: ``check``, and a stage failed; ``error.run`` has the results of all stages.
            KeyboardInterrupt: ``check``, and the run was interrupted.
        """
        planned = self.prepare(
            only=only, from_=from_, force=force, resample=resample, keep=keep,
            keep_going=keep_going, jobs=jobs, locked=locked,
        )  # fmt: skip
        from llmpipe.api.notebook import make_view

        found = planned.check(room=room, fit=fit)
        for warning in found:
            self._warn(warning)
        view = None if callable(progress) or not progress else make_view()
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
        spelling: Spelling = in_python,
    ) -> PlannedRun:
        """Plan a run, to be checked and executed step by step; `run` does all of it.

        Args:
            only: see `run`, as for the other arguments.
            spelling: spells an argument in messages.
        """
        from llmpipe.api.running import PlannedRun

        project = self._project()
        chosen = choose(
            project, only=None if only is None else names_of(only), from_=names_of(from_),
            force=names_of(force), resample=names_of(resample), keep=names_of(keep),
            spelling=spelling,
        )  # fmt: skip
        how = replace(
            chosen, keep_going=keep_going, jobs=jobs, locked=locked, settings=self._settings
        )
        return PlannedRun(project, how)

    def path(self, artifact: str) -> Path:
        """Return the path of an artifact in the store, read-only; `copy` makes a writable copy.

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

    def publication(
        self,
        to: str,
        stages: Names = (),
        *,
        license: str | None = None,  # noqa: A002 (as the option --license)
    ) -> Publication:
        """Collect models for a repository of the Hugging Face hub, and write their model card.

        Nothing is sent before its method ``publish`` is called.

        Args:
            to: the repository: ``owner/name``.
            stages: stages or their outputs; by default everything that was trained.
            license: the license of the files; by default what the base model states.

        Raises:
            UsageError: there is no such stage, nothing to publish, or no license.
            StoreError: a stage is not up to date.
            HubError: the license of a base model on the hub cannot be read.
        """
        from llmpipe.api.publishing import make_publication

        return make_publication(
            self._project(), self.stored(), to, stages, license, warn=self._warn
        )

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

    def compile(
        self,
        stage: str,
        out: str | Path,
        *,
        device: str | None = None,
        base_model: Literal["path", "copy", "relative"] = "path",
    ) -> list[str]:
        """Write what a stage would run into a new folder; if it fails, no folder is left.

        Args:
            stage: the stage.
            out: the folder.
            device: the device of the machine that will run it: ``cpu``, ``cuda``, or ``cuda:8`` for
                eight GPUs; None for this machine's. With a device, models of the hub keep their ids
                and are not downloaded, and Axolotl judges the settings as on that device.
            base_model: how the folder names a local base model: by its path on this machine, by a
                copy inside the folder, or by its path relative to the folder.

        Returns:
            What is worth knowing about it, a line each.

        Raises:
            UsageError: there is nothing to compile, the folder is not empty, or there is no such
                device.
            StageError: the stage's settings are wrong, or wrong for that device.
            StoreError: what the stage needs is not up to date.
        """
        from llmpipe.api.compiling import compile_stage
        from llmpipe.backends.device import named_device
        from llmpipe.contracts import Target

        if device is not None:
            named_device(device)
        target = Target(device, base_model)
        node = find_stage(self.graph, stage)
        return compile_stage(self._project(), node, Path(out), self._advice, target)

    def show(self, stage: str, *, rows: int = 3) -> tuple[list[str], list[str]]:
        """Return the first rows of a training stage as Axolotl tokenizes them, or of a generation.

        A generation stage asks its teacher for them; a run does not ask for these replies again.

        Args:
            stage: the stage.
            rows: how many rows.

        Returns:
            The texts, what is trained between ⟦ and ⟧, or prompts, rows, rejects and a summary;
            and what is worth knowing about them, a line each.

        Raises:
            UsageError: the stage neither trains nor generates.
            StoreError: what the stage needs is not up to date.
            StageError: the rows cannot be trained on, or the teacher cannot be asked.
        """
        from llmpipe.api.compiling import show_rows

        return show_rows(self._project(), find_stage(self.graph, stage), rows, self._advice)

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
            k: passages in the model's prompt; the stage's by default.

        Returns:
            The answer: ``text``, ``citations``, and ``abstained`` if no document contains one.

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
        if self._answering is None:
            from llmpipe.api.services import OpenAnswering

            self._answering = OpenAnswering()
        return self._answering.find(self.stored(), stage)

    def close(self) -> None:
        """Free what `ask` has loaded."""
        if self._answering is not None:
            self._answering.close()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
