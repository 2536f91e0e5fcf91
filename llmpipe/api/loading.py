"""Read a spec as Python code names it: a path, values to change, profiles, an earlier run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpipe.api.pipeline import Pipeline
from llmpipe.api.selection import Names, names_of
from llmpipe.errors import UsageError
from llmpipe.runner.project import Project
from llmpipe.runner.store import Store, home_for

if TYPE_CHECKING:
    from llmpipe.api.stored import Advice
    from llmpipe.runner.statcache import Notice


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
    return open_spec(path, settings=settings, profiles=names_of(profiles), run=run)


def open_spec(
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
        run: an earlier run, whose artifacts are meant.
        advice: describes what to do about missing artifacts.
        remember: remember that the spec is sound, even where that means to begin a store.
        absent: accept data of packages that are not installed; `run` asks for them.
        notice: called with the progress of hashing an input file.
        warn: called with each warning.
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
    return Pipeline(
        project.graph,
        project.store,
        settings=settings,
        run=record,
        advice=advice,
        notice=notice,
        warn=warn,
    )


def _setting(path: str, value: Any) -> str:
    """Return a value to change as ``--set`` takes it: JSON is YAML."""
    try:
        return f"{path}={json.dumps(value, ensure_ascii=False, allow_nan=False, default=os.fspath)}"
    except (TypeError, ValueError) as error:
        raise UsageError(f"set: the value of {path} cannot be used in a spec: {error}") from None
