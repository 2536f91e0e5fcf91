"""The reference page of the Python API, made from signatures and docstrings.

``python tests/python_api.py`` writes it; `test_reference` holds that it is fresh.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

import llmpipe
import llmpipe.errors
import llmpipe.needs
import llmpipe.testing
from llmpipe import contracts
from llmpipe.contracts import Resources, abilities
from llmpipe.spec.described import own_field_docs

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "python-api.md"

HEAD = """\
# The Python API

This page is made from the code by `make python-api`; change it there. The command line stands on top of
this API: both plan, run and say the same. [The notebook](../../examples/notebook/tour.ipynb) shows it at work.

```python
import llmpipe

pipe = llmpipe.load("spec.yaml", set={"params.steps": 5}, profiles=["gpu"])
pipe.plan()                       # what would run, and why; a table in a notebook
run = pipe.run(only=["quality"])  # with progress; run.metrics, run.report
pipe.path("gguf.q8_0")            # where an artifact lies
pipe.rows("dataset.train").head()
pipe.metrics("quality")
with pipe.serve("chat") as chat:
    chat.client.chat.completions.create(model=chat.stage, messages=[…])
pipe.ask("answers", "How long does a permit take?").citations
```

`import llmpipe` is light: a module is imported when it is used. Everything works from any thread and in a
running event loop, such as a notebook's. Ctrl-C, or a notebook's stop button, stops a run cleanly.
"""

FOR_THE_COMMAND_LINE = {"prepare", "answering", "stored"}
"""Methods that are not part of the API."""

ALIASES = {"Names": "str | Iterable[str]"}
"""Types that the code names, as the page shows them."""

ERRORS = """\
## Errors

Whatever llmpipe raises on purpose is an `LlmpipeError`, with `message`, `hint` (what to do), `location` (the
place in a file, where there is one) and `render()`, the text that the command line prints. Python shows place
and hint below a traceback.

```
{tree}
```
"""

KINDS = """\
## For stage kinds of your own

[Write a stage kind](../how-to/write-a-stage-kind.md) shows how. A kind inherits from
`llmpipe.contracts.StageDefaults`, which has a default for every member of `Stage` except `Config`, `VERSION`,
`determinism`, `ports` and `run`. `Need`, `Given` and `packages` are in `llmpipe.needs`, the other names in
`llmpipe.contracts`. `ArtifactType` is one of [these types](spec.md#references), `FieldPath` a tuple of names and
positions: `("sources", 0, "data")`, and `Determinism` one of `exact`, `same-machine` and `external`.
"""

CONTRACT = (
    "Stage", "StageConfig", "StageContext", "StageResult", "Ports", "Input", "Output", "Artifact",
    "Finding", "Effort", "Variants",
)  # fmt: skip
"""The classes that every kind uses, or may use, in the order of the page."""

FOR_ABILITIES = (
    "ServedConfig", "ServeContext", "Endpoint", "EstimateContext", "Hardware", "Needs",
)  # fmt: skip

ABILITIES = """\
## What only some kinds can do

A kind inherits from one of these classes, besides `StageDefaults`, to declare that it can do more.
"""

STARS = {"VAR_POSITIONAL": "*", "VAR_KEYWORD": "**"}

SECTION = re.compile(r"^(Args|Raises|Returns|Yields|Attributes):$", re.MULTILINE)
ITEM = re.compile(r"^    (\S[^:]*): ", re.MULTILINE)
CODE = re.compile(r"``(.+?)``")


def page() -> str:
    """Return the page as Markdown."""
    tree = inspect.getdoc(llmpipe.errors) or ""
    drawn = "\n".join(line[4:] for line in tree.splitlines() if line.startswith("    "))
    parts = [HEAD, *function("llmpipe.load", llmpipe.load, "## ")]
    for name in (
        "Pipeline", "Plan", "Run", "Rows", "Table", "Service", "RemoteStore", "Transfer",
        "Publication", "Published",
    ):  # fmt: skip
        parts += klass(name, getattr(llmpipe, name))
    parts.append(ERRORS.format(tree=drawn))
    parts.append(KINDS)
    for name in CONTRACT:
        parts += klass(name, getattr(contracts, name), "### ", "#### ", fields=True)
    for name in ("Need", "Given"):
        parts += klass(name, getattr(llmpipe.needs, name), "### ", "#### ", fields=True)
    parts += function("packages", llmpipe.needs.packages, "### ")
    parts.append(ABILITIES)
    for ability in abilities.ABILITIES:
        parts += klass(ability.__name__, ability, "### ", "#### ")
    for name in FOR_ABILITIES:
        parts += klass(name, getattr(contracts, name), "### ", "#### ", fields=True)
    parts.append("## `llmpipe.testing`\n\n" + prose(inspect.getdoc(llmpipe.testing) or "") + "\n")
    for name in ("run_stage", "make_context", "make_config", "require_same_twice"):
        parts += function(name, getattr(llmpipe.testing, name), "### ")
    parts += klass("StageConformance", llmpipe.testing.StageConformance, "### ", "#### ")
    return "\n".join(part.rstrip() + "\n" for part in parts)


def klass(
    name: str, cls: Any, level: str = "## ", below: str = "### ", *, fields: bool = False
) -> Iterator[str]:
    """Yield a class: what it is, then its methods and properties, in the order of the code."""
    yield f"{level}`{name}`\n\n{prose(own_doc(cls))}"
    if fields:
        yield "\n".join(described_fields(cls))
    bases = [base for base in reversed(cls.__mro__) if base.__module__.startswith("llmpipe.api.")]
    for member, value in {k: v for base in bases or [cls] for k, v in vars(base).items()}.items():
        if member.startswith("_") or member in FOR_THE_COMMAND_LINE:
            continue
        called = value.__func__ if isinstance(value, (staticmethod, classmethod)) else value
        if inspect.isfunction(called):
            yield from function(f"{name}.{member}", called, below)
        elif isinstance(value, property) or hasattr(value, "func"):
            yield f"{below}`{name}.{member}`\n\n{prose(inspect.getdoc(value) or '')}"


def described_fields(cls: Any) -> Iterator[str]:
    """Yield the fields of a class as a list: type, default, and the docstring below the field."""
    docs, defaults = own_field_docs(cls), field_defaults(cls)
    for field, annotation in cls.__annotations__.items():
        kind = re.sub(r"^ClassVar\[(.*)\]$", r"\1", annotation)
        shown = f" = {defaults[field]}" if field in defaults else ""
        doc = CODE.sub(r"`\1`", " ".join(docs.get(field, "").split()))
        yield f"- `{field}: {kind}{shown}`" + (f": {doc}" if doc else "")


def field_defaults(cls: Any) -> dict[str, str]:
    """Return the defaults of a class's fields, as code."""
    found: dict[str, Any] = {}
    if issubclass(cls, msgspec.Struct):
        found = {field.name: field.default for field in msgspec.structs.fields(cls)}
    elif dataclasses.is_dataclass(cls):
        for field in dataclasses.fields(cls):
            made = field.default_factory
            found[field.name] = field.default if made is dataclasses.MISSING else made
    return {
        name: as_code(value)
        for name, value in found.items()
        if value not in (msgspec.NODEFAULT, dataclasses.MISSING)
    }


def as_code(value: Any) -> str:
    """Return a default as code; a factory is called, and a function is not shown."""
    if isinstance(value, type):
        return f"{value.__name__}()"
    if isinstance(value, (Path, Resources)):
        return f"{type(value).__name__.removeprefix('Posix')}()"
    return "…" if callable(value) else repr(value)


def function(name: str, called: Any, level: str) -> Iterator[str]:
    """Yield a function: its signature, then its docstring."""
    signature = inspect.signature(called)
    shown = [p for p in signature.parameters.values() if p.name not in ("self", "cls")]
    short, listed = name.rpartition(".")[2], list(parameters(shown))
    text = f"{short}({', '.join(listed)}) -> {signature.return_annotation}"
    if len(text) > 90:
        lines = "".join(f"    {part},\n" for part in listed)
        text = f"{short}(\n{lines}) -> {signature.return_annotation}"
    yield f"{level}`{name}`\n\n```python\n{text}\n```\n\n{prose(own_doc(called))}"


def parameters(shown: list[inspect.Parameter]) -> Iterator[str]:
    """Yield the parameters as they are written, with the star before the named ones."""
    starred = False
    for parameter in shown:
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            starred = True
            yield "*"
        kind = re.sub(r"\w+", lambda word: ALIASES.get(word[0], word[0]), parameter.annotation)
        star = STARS.get(parameter.kind.name, "")
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        yield f"{star}{parameter.name}: {kind}{default}"


def own_doc(thing: Any) -> str:
    """Return the docstring of a thing, not that of what it inherits from."""
    return inspect.cleandoc(thing.__doc__ or "")


def prose(text: str) -> str:
    """Return a docstring as Markdown: sections become lists."""
    blocks = SECTION.split(text)
    parts = [blocks[0].rstrip()]
    for title, body in zip(blocks[1::2], blocks[2::2], strict=True):
        parts.append(f"{title}:\n\n{items(body)}")
    return CODE.sub(r"`\1`", "\n\n".join(parts)) + "\n"


def items(body: str) -> str:
    """Return the items of a section as a list; a section of one text is that text."""
    if not ITEM.search(body):
        return " ".join(body.split())
    found = ITEM.split(body)
    pairs = zip(found[1::2], found[2::2], strict=True)
    return "\n".join(f"- `{name}`: {' '.join(text.split())}" for name, text in pairs)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
