"""Check a stage kind's class, and each of its return values, against the contract.

The registry does this for the kinds of other packages, `llmpipe.testing` for all.
"""

from __future__ import annotations

import json
import math
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, cast, get_args

import msgspec

from llmpipe.contracts.abilities import ABILITIES, Servable
from llmpipe.contracts.artifacts import ArtifactType, Input, Output, Ports
from llmpipe.contracts.config import ServedConfig, StageConfig
from llmpipe.contracts.context import StageResult
from llmpipe.contracts.estimates import Needs
from llmpipe.contracts.stage import Determinism, Effort, Finding, Stage, StageDefaults
from llmpipe.errors import LlmpipeError
from llmpipe.needs import Need

REQUIRED = ("ports", "run")
"""What a class must define itself; `StageDefaults` defines the rest."""

OURS = str(Path(__file__).parents[1])
"""The folder of llmpipe's own code."""

Blame = Callable[[str], LlmpipeError]
"""Makes an error about a fault of a kind that names its owner."""


def shortcomings(found: Any) -> Iterator[str]:
    """Yield what an object lacks of the contract of a stage kind."""
    if not isinstance(found, type):
        yield "it is not a class"
        return
    if not issubclass(found, StageDefaults):
        yield "it does not inherit from llmpipe.contracts.StageDefaults"
    config = getattr(found, "Config", None)
    if not (isinstance(config, type) and issubclass(config, StageConfig)):
        yield "its Config is not a subclass of llmpipe.contracts.StageConfig"
    elif not config.__struct_config__.forbid_unknown_fields:
        yield "its Config takes unknown fields"
    elif issubclass(found, Servable) and not issubclass(config, ServedConfig):
        yield "it is Servable and its Config is not a subclass of llmpipe.contracts.ServedConfig"
    if type(getattr(found, "VERSION", None)) is not int:
        yield "its VERSION is not a whole number"
    if getattr(found, "determinism", None) not in get_args(Determinism):
        yield f"its determinism is not one of {', '.join(get_args(Determinism))}"
    missing = [name for name in REQUIRED if not callable(getattr(found, name, None))]
    if missing:
        yield f"it has no {', '.join(missing)}"
    yield from _undelivered(found)
    imports = getattr(found, "imports", ())
    if not (isinstance(imports, tuple) and all(isinstance(name, str) for name in imports)):
        yield "its imports are not a tuple of names"


def variant_shortcomings(found: Any, base: type[StageConfig]) -> Iterator[str]:
    """Yield what a variant lacks of its contract; ``base`` is the config of its kind."""
    config = getattr(found, "Config", None)
    if not (isinstance(config, type) and issubclass(config, base)):
        yield f"its Config is not a subclass of {base.__module__}.{base.__name__}"
    elif not config.__struct_config__.forbid_unknown_fields:
        yield "its Config takes unknown fields"


def _undelivered(found: type) -> Iterator[str]:
    """Yield the abilities that a class declares but does not implement."""
    for ability in ABILITIES:
        if issubclass(found, ability):
            for name, member in vars(ability).items():
                wanted = getattr(member, "__isabstractmethod__", False)
                if wanted and getattr(getattr(found, name), "__isabstractmethod__", False):
                    yield f"it declares {ability.__name__} and has no {name}"


def checked(stage: type, blame: Blame) -> type[Stage]:
    """Return the kind with its return values checked: errors and wrong values are blamed on it.

    ``run`` is not wrapped: it runs in its own process, and its failure is that of the stage.
    """

    def guarded(name: str, complaint: Callable[[Any], str | None]) -> Any:
        ask = getattr(stage, name)

        @wraps(ask)
        def answer(*args: Any) -> Any:
            try:
                found = ask(*args)
            except LlmpipeError:
                raise
            except Exception as error:
                raise blame(f"{name} raised {raised(error)}") from error
            if wrong := complaint(found) or astray(name, found, args[0]):
                raise blame(wrong)
            return found

        return staticmethod(answer)

    own = {name: guarded(name, check) for name, check in ANSWERS.items() if hasattr(stage, name)}
    names = {"__module__": stage.__module__, "__doc__": stage.__doc__}
    return cast("type[Stage]", type(stage.__name__, (stage,), {**names, **own}))


def raised(error: BaseException) -> str:
    """Describe an exception, and where the code of another package raised it."""
    told = f"{type(error).__name__}: {error}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if _is_theirs(f.filename)]
    if isinstance(error, SyntaxError) or not frames:
        return told
    last = [frame for frame in frames if frame.filename == frames[0].filename][-1]
    return f"{told} ({last.filename}:{last.lineno})"


def _is_theirs(file: str) -> bool:
    """Return whether a file belongs neither to llmpipe nor to Python."""
    import sysconfig  # needed only for an error

    pythons = file.startswith(sysconfig.get_path("stdlib")) and "site-packages" not in file
    return not (pythons or file.startswith((OURS, "<frozen")))


def astray(name: str, found: Any, config: Any) -> str | None:
    """Describe a path in what ``ports`` or ``problems`` returned that leads to no field."""
    paths = []
    if name == "ports":
        paths = [(f"the input {port!r}", wanted.field) for port, wanted in found.inputs.items()]
    elif name == "problems":
        paths = [(f"the problem {text!r}", path) for path, text in found]
    for what, path in paths:
        if unknown := _unknown_field(config, path):
            return f"{name}: {what} is at the path {path}, but {unknown}"
    return None


def _unknown_field(value: Any, path: tuple[str | int, ...]) -> str | None:
    """Describe the first step of a path that is not a field; a mapping may lack a key."""
    for step in path:
        if isinstance(value, msgspec.Struct):
            form = type(value)
            known = dict(zip(form.__struct_encode_fields__, form.__struct_fields__, strict=True))
            if step not in known:
                return f"{form.__name__} has no field {step!r}"
            value = getattr(value, known[step])
            continue
        try:
            value = value[step]
        except (LookupError, TypeError):
            return None
    return None


def result_complaint(result: Any, declared: Collection[str], out: Path) -> str | None:
    """Describe what is wrong with the value that ``run`` returned.

    Args:
        result: The value.
        declared: The outputs that ``ports`` declares.
        out: The folder of the outputs.
    """
    if not isinstance(result, StageResult):
        return f"run returned {_shown(result)}, not a StageResult"
    outputs: Mapping[str, Any] = result.outputs
    metrics: Any = result.metrics
    summary: Any = result.summary
    for name in declared:
        if name not in outputs:
            return f"the StageResult of run lacks the output {name!r}, which ports declares"
    top = out.resolve()
    for name, path in outputs.items():
        if name not in declared:
            return f"run made the output {name!r}; ports declares {_listed(declared)}"
        if not isinstance(path, Path):
            return f"the output {name!r} is a {type(path).__name__}, not a Path"
        if not path.resolve().is_relative_to(top):
            return f"the output {name!r} is outside ctx.out: {path}"
        if not path.exists():
            return f"the output {name!r} was not made: {path.name} does not exist"
    if not isinstance(summary, str):
        return f"the summary is {_shown(summary)}, not a str"
    if not isinstance(metrics, Mapping):
        return f"the metrics are {_shown(metrics)}, not a mapping"
    return next(_not_json(dict(metrics), ()), None)


def number_complaint(metrics: Mapping[Any, Any]) -> str | None:
    """Describe the first metric that is infinite or not a number."""
    for path, value in _leaves(dict(metrics), ()):
        if isinstance(value, float) and not math.isfinite(value):
            return f"the metric {'.'.join(path)!r} is {value}, which JSON cannot hold"
    return None


def _not_json(value: Any, path: tuple[str, ...]) -> Iterator[str]:
    """Yield the metrics that JSON cannot hold."""
    name = ".".join(path)
    if isinstance(value, dict):
        for key, inner in value.items():
            if key is None or isinstance(key, (str, int, float)):  # JSON's writer takes them
                yield from _not_json(inner, (*path, str(key)))
            else:
                yield f"the metrics{f' {name!r}' if name else ''} have the key {key!r}, not a str"
    elif isinstance(value, (list, tuple)):
        for number, inner in enumerate(value):
            yield from _not_json(inner, (*path, str(number)))
    elif not (value is None or isinstance(value, (str, int, float))):
        yield f"the metric {name!r} is {_shown(value)}, a {type(value).__name__}: not JSON"


def _leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield each value below dicts and lists, with its path."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, (*path, str(key)))
    elif isinstance(value, (list, tuple)):
        for number, inner in enumerate(value):
            yield from _leaves(inner, (*path, str(number)))
    else:
        yield path, value


def ports_complaint(ports: Any) -> str | None:
    """Describe what is wrong with the value that ``ports`` returned."""
    if not isinstance(ports, Ports):
        return f"ports returned {_shown(ports)}, not Ports"
    known = get_args(ArtifactType)
    inputs: Mapping[str, Any] = ports.inputs
    outputs: Mapping[str, Any] = ports.outputs
    for name, wanted in inputs.items():
        if not isinstance(wanted, Input):
            return f"ports: the input {name!r} is {_shown(wanted)}, not an Input"
        for accepted in wanted.accepts:
            if accepted not in known:
                return (
                    f"ports: the input {name!r} accepts {accepted!r}, not one of {_listed(known)}"
                )
    for name, made in outputs.items():
        if not isinstance(made, Output):
            return f"ports: the output {name!r} is {_shown(made)}, not an Output"
        if made.type not in known:
            return f"ports: the output {name!r} is of type {made.type!r}, not {_listed(known)}"
        for link in filter(None, (made.origin, made.like)):
            if link not in inputs:
                return f"ports: the output {name!r} comes from {link!r}, which is not an input"
    if ports.default is not None and ports.default not in outputs:
        return f"ports: the default output {ports.default!r} is not one of {_listed(outputs)}"
    return None


def _fingerprint_complaint(found: Any) -> str | None:
    try:
        json.dumps(found, allow_nan=False)
    except (TypeError, ValueError) as error:
        return f"fingerprint returned what is not JSON: {error}"
    return None if isinstance(found, Mapping) else f"fingerprint returned {_shown(found)}"


def _problems_complaint(found: Any) -> str | None:
    if isinstance(found, list):
        pairs = all(isinstance(one, tuple) and len(one) == 2 for one in found)
        if pairs and all(isinstance(p, tuple) and isinstance(text, str) for p, text in found):
            return None
    return "problems returned something else than a list of (path, message)"


def _each(name: str, kind: type) -> Callable[[Any], str | None]:
    def complaint(found: Any) -> str | None:
        if isinstance(found, (list, tuple)) and all(isinstance(one, kind) for one in found):
            return None
        return f"{name} returned {_shown(found)}, not a list of {kind.__name__}"

    return complaint


def _one(name: str, kind: type, *, optional: bool = False) -> Callable[[Any], str | None]:
    def complaint(found: Any) -> str | None:
        if isinstance(found, kind) or (optional and found is None):
            return None
        return f"{name} returned {_shown(found)}, not {kind.__name__}"

    return complaint


ANSWERS: Mapping[str, Callable[[Any], str | None]] = {
    "ports": ports_complaint,
    "problems": _problems_complaint,
    "fingerprint": _fingerprint_complaint,
    "metrics": _each("metrics", str),
    "tools": _each("tools", str),
    "needs": _each("needs", Need),
    "review": _each("review", Finding),
    "preflight": _each("preflight", Finding),
    "effort": _one("effort", Effort, optional=True),
    "estimate": _one("estimate", Needs),
}
"""Checks of the return values; each returns what is wrong, if anything."""


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _listed(names: Collection[str]) -> str:
    return ", ".join(names) or "none"
