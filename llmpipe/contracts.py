"""The words that every room of llmpipe shares: artifacts, ports, stages and what a stage is given.

A stage kind is one class that follows `Stage`. The compiler reads its `ports`, the planner its
`fingerprint` and `tools`, and the worker calls its `run` with a `StageContext`. Nothing here
imports anything heavy, and nothing here knows how the engine works.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, Literal, Protocol, TypeVar

import msgspec

from llmpipe.errors import StageError

if TYPE_CHECKING:
    from llmpipe.needs import Given, Need

ArtifactType = Literal[
    "records",  # rows of any shape: JSONL, JSON or CSV, one file
    "dataset",  # rows ready to train on: one JSONL file in one of the formats of `llmpipe.formats`
    "model",  # a Hugging Face folder: config, safetensors, tokenizer
    "adapter",  # a PEFT folder: adapter_config.json, adapter_model.safetensors
    "gguf",  # one GGUF file
    "documents",  # one JSONL file of texts with their sections and pages
    "chunks",  # a folder: the chunks, and their documents
    "embeddings",  # a folder: a vector for each chunk, and the chunks
    "index",  # a folder: what can be searched, and all that it finds
    "metrics",  # one JSON file of figures
    "file",  # any file or folder that only its own stage understands
]

Determinism = Literal["exact", "same-machine", "external"]
"""What "the same spec gives the same artifacts" means for a kind: byte-equal anywhere; byte-equal
on one kind of machine; byte-equal given the journal of replies from outside."""

FieldPath = tuple[str | int, ...]
"""Where a value stands inside a stage's config: ``("sources", 0, "data")``."""

SECRET = re.compile(r"\$\{secret:([A-Za-z_][A-Za-z0-9_]*)\}")
"""How a secret stands in a resolved config: by name. Its value never enters one."""

SecretField = Annotated[
    str | None, msgspec.Meta(extra_json_schema={"writeOnly": True, "format": "password"})
]
"""The type of a field that holds nothing but a secret: ``${secret:NAME}``, never its value."""


_MEMORY = re.compile(r"(\d{1,9}(?:\.\d{1,9})?) ?([kMGT])(i?)B")
_MEMORY_POWERS = {"k": 1, "M": 2, "G": 3, "T": 4}


class Resources(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a stage needs of the machine while it runs. Stages that fit together run together."""

    cpus: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """CPU threads; without it as many as its kind needs: one, or all that there are."""
    memory: Annotated[str, msgspec.Meta(pattern=f"^{_MEMORY.pattern}$")] | None = None
    """Main memory, such as 8GB or 512MiB; stages whose needs exceed the machine's take turns."""
    gpus: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """GPUs of its own, through CUDA_VISIBLE_DEVICES; without it the stage sees all there are."""

    def memory_bytes(self) -> int:
        """Give the memory in bytes; 0 where none is named."""
        match = _MEMORY.fullmatch(self.memory or "")
        if not match:
            return 0
        base = 1024 if match[3] else 1000
        return int(float(match[1]) * base ** _MEMORY_POWERS[match[2]])


class StageConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The fields that every stage has. A kind's config class inherits from this one."""

    kind: str
    """Which kind of stage this is."""
    description: str = ""
    """What the stage is for, in the words of the spec's author."""
    timeout: Annotated[float, msgspec.Meta(gt=0, le=1e9)] | None = None
    """Seconds after which the stage is stopped and counts as failed."""
    retries: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0
    """How often the stage is tried again when it fails, each time after a longer pause."""
    resources: Resources = Resources()
    """What the stage needs of the machine while it runs."""
    freeze: bool = False
    """Take what the stage made last as fresh, whatever has changed since; the plan says so."""
    matrix: dict[str, Any] | None = None
    """Axes (paths inside the stage) with lists of values: the stage, and what hangs on it, is made
    at every point; also `exclude`, `include` and `max_parallel`."""


NON_SEMANTIC = frozenset(
    {"kind", "description", "timeout", "retries", "resources", "freeze", "matrix"}
)
"""Config fields that never change an artifact and so never enter a cache key."""


@dataclass(frozen=True, slots=True)
class Input:
    """One reference that a stage's config holds.

    ``field`` is its path inside the stage's config (for messages), ``value`` the text as written,
    ``accepts`` the artifact types that fit as they are. When only ``model`` fits and an adapter or
    a GGUF is given, the compiler derives the merge or the import; ``refuse`` maps a type to the
    message that forbids this where the choice would change the science.
    """

    field: FieldPath
    value: str
    accepts: tuple[ArtifactType, ...]
    refuse: Mapping[str, str] = dataclasses.field(default_factory=dict)
    base_allowed: bool = False
    """Whether the reserved word ``base`` may stand here."""
    glob: bool = False
    """Whether a path here may be a pattern of file names or any folder; a hub id may not."""
    gather: bool = False
    """Whether it takes a stage at every point of its sweep at once, as ports ``name[point]``."""
    figure: str | None = None
    """The figure that is looked for in the metrics that it names, where it is one."""


@dataclass(frozen=True, slots=True)
class Output:
    """One thing that a stage makes.

    ``origin`` names the input that the output descends from; ``trained`` says that it learned
    something on the way (a fine-tuned model) rather than being converted (a merge, an export).
    """

    type: ArtifactType
    origin: str | None = None
    trained: bool = False
    like: str | None = None
    """The input whose artifact it is, and whose type it takes; ``type`` is then a placeholder."""


@dataclass(frozen=True, slots=True)
class Ports:
    """A stage's typed inputs and outputs. ``default`` is the output that a bare stage id means."""

    inputs: Mapping[str, Input]
    outputs: Mapping[str, Output]
    default: str | None = None


@dataclass(frozen=True, slots=True)
class Artifact:
    """An input as the worker sees it: a readable path.

    An adapter comes with its ``base`` model, embeddings and an index with their embedder's. Where a
    pattern of file names or a folder stood in the spec, ``path`` is the folder below which the
    files that match ``pattern`` are meant (`llmpipe.patterns.matching_files`).
    """

    path: Path
    type: ArtifactType
    digest: str
    label: str
    """What messages should call it: ``dataset.train`` or ``./data/a.jsonl``."""
    base: Artifact | None = None
    pattern: str | None = None


@dataclass(frozen=True, slots=True)
class StageResult:
    """What a stage gives back.

    ``outputs`` maps every declared output to a path under `StageContext.out`; ``metrics`` are its
    figures as JSON data; ``summary`` is what a person should read: a few words or a small table.
    """

    outputs: Mapping[str, Path]
    metrics: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    summary: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that `Stage.review` or `Stage.preflight` found before anything runs.

    ``missing`` says that the tool which would check (and later do) the work is not installed. A
    ``warning`` is told and stops nothing; with ``in_run`` the stage itself tells it when it runs.
    With ``file``, ``field`` is a place in that YAML file instead of in the stage.
    """

    field: FieldPath
    message: str
    hint: str | None = None
    missing: bool = False
    warning: bool = False
    file: Path | None = None
    in_run: bool = False


ConfigT = TypeVar("ConfigT", bound=StageConfig)


@dataclass(slots=True)
class StageContext(Generic[ConfigT]):
    """All that a running stage may know and touch.

    ``out`` is an empty folder that is published when `run` returns; ``work`` belongs to this key
    and survives a crash (checkpoints); ``journal`` is the store's folder of paid replies, shared by
    all keys; ``tools`` is where ``llmpipe tools install`` puts programs; ``resample`` says to draw
    anew what the journal holds.
    """

    config: ConfigT
    stage: str
    inputs: Mapping[str, Artifact]
    out: Path
    work: Path
    journal: Path
    tools: Path
    spec_dir: Path
    threads: int
    emit: Callable[[Mapping[str, Any]], None] = lambda event: None
    resample: bool = False

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Report how far the stage is; ``note`` is a few words such as ``loss 2.31``."""
        self.emit({"event": "progress", "done": done, "total": total, "note": note})

    def warn(self, message: str) -> None:
        """Tell the user something that they should know and that is no error."""
        self.emit({"event": "warning", "message": message})

    def reveal(self, text: str) -> str:
        """See `reveal`."""
        return reveal(text)

    def input(self, name: str) -> Artifact:
        """Give the input called ``name``."""
        return self.inputs[name]


def reveal(text: str) -> str:
    """Put the values of ``${secret:NAME}`` into ``text``.

    Raises:
        StageError: the environment has no such variable.
    """
    return SECRET.sub(_secret_value, text)


def _secret_value(match: re.Match[str]) -> str:
    name = match.group(1)
    value = os.environ.get(name)
    if not value:
        raise StageError(
            f"the secret {name} is not set", hint=f"set it in the environment: export {name}=…"
        )
    return value


@dataclass(frozen=True, slots=True)
class Effort:
    """What the time of a stage grows with, as its config says."""

    amount: float
    """Steps, replies or passes over the inputs: the time is proportional to it."""
    grows: bool = True
    """Whether the time grows with the size of the inputs as well."""
    covers: frozenset[str] = frozenset()
    """The fields, dotted, that ``amount`` accounts for or that do not change the time. Where any
    other one changes, nobody can tell how long the stage will take."""


class Stage(Protocol):
    """What a stage kind's class offers. All members belong to the class; none is instantiated."""

    Config: ClassVar[type[StageConfig]]
    VERSION: ClassVar[int]
    """Raised by one whenever the code would make another artifact of the same inputs."""
    determinism: ClassVar[Determinism]
    cpus: ClassVar[int | None]
    """CPU threads that it needs where its config does not say; None means all there are."""
    stochastic: ClassVar[bool]
    """Whether it asks for replies that could be others another time, as ``--resample`` wants."""
    reads_environment: ClassVar[bool]
    """Whether its ports or fingerprint look at more than the config, such as at the machine."""
    imports: ClassVar[tuple[str, ...]]
    """Packages that its own process imports and that take seconds: a run imports them once for all
    its stages."""

    @staticmethod
    def ports(config: Any) -> Ports:
        """Give the stage's inputs and outputs. Pure: looks at nothing but the config."""

    @staticmethod
    def problems(config: Any) -> list[tuple[FieldPath, str]]:
        """List cross-field mistakes as (path inside the config, message)."""

    @staticmethod
    def fingerprint(config: Any) -> Mapping[str, Any]:
        """Give the part of the config (and of the machine) that shapes the artifact, as JSON.

        References stay as written: the engine replaces them by content digests.
        """

    @staticmethod
    def figures(config: Any) -> Sequence[str]:
        """Return the figures that its metrics file will hold, as ways of keys joined by dots.

        A way to a block stands for all figures in it. Nothing where they are not known before.
        """

    @staticmethod
    def effort(fingerprint: Mapping[str, Any]) -> Effort | None:
        """Return what the time of a stage with this `fingerprint` grows with; None: unknown."""

    @staticmethod
    def tools(config: Any) -> tuple[str, ...]:
        """Name the distributions (``axolotl``) whose version shapes the artifact."""

    @staticmethod
    def needs(config: Any, inputs: Mapping[str, Given]) -> tuple[Need, ...]:
        """Name the packages and programs that `run` takes, and say whether they are here.

        Asked by ``run`` before anything runs and by ``doctor``: it must be quick and import none of
        them. ``inputs`` tells by port what is known of the inputs.
        """

    @staticmethod
    def review(config: Any, folder: Path) -> list[Finding]:
        """Judge the config together with the files that it names and this machine.

        Called by ``validate`` and, for stages that are to run, by ``plan`` and ``run``: it must be
        quick, and asks no tool. ``folder`` is the spec's.
        """

    @staticmethod
    def preflight(config: Any, folder: Path, memo: Path) -> list[Finding]:
        """Ask the installed tools whether they would take this config.

        Called by ``validate`` and, for stages that are to run, by ``run``; never by ``plan``. May
        be slow once: ``memo`` is a folder for remembering answers. ``folder`` is the spec's.
        """

    @staticmethod
    def run(ctx: Any) -> StageResult:
        """Do the work. Runs in a process of its own."""


class StageDefaults:
    """What most kinds answer to the optional questions of `Stage`."""

    cpus: ClassVar[int | None] = None
    stochastic: ClassVar[bool] = False
    reads_environment: ClassVar[bool] = False
    imports: ClassVar[tuple[str, ...]] = ()

    @staticmethod
    def problems(config: Any) -> list[tuple[FieldPath, str]]:
        return []

    @staticmethod
    def fingerprint(config: Any) -> Mapping[str, Any]:
        return semantic_fields(config)

    @staticmethod
    def figures(config: Any) -> Sequence[str]:
        return ()

    @staticmethod
    def effort(fingerprint: Mapping[str, Any]) -> Effort | None:
        return Effort(1.0)

    @staticmethod
    def tools(config: Any) -> tuple[str, ...]:
        return ()

    @staticmethod
    def needs(config: Any, inputs: Mapping[str, Given]) -> tuple[Need, ...]:
        return ()

    @staticmethod
    def review(config: Any, folder: Path) -> list[Finding]:
        return []

    @staticmethod
    def preflight(config: Any, folder: Path, memo: Path) -> list[Finding]:
        return []


def semantic_fields(
    config: StageConfig, *, without: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """Give the config as JSON data, less the fields that never shape an artifact."""
    data: dict[str, Any] = msgspec.to_builtins(config)
    return {k: v for k, v in data.items() if k not in NON_SEMANTIC and k not in without}


def write_json(path: Path, value: Any) -> Path:
    """Write a small JSON file the same way every time: sorted keys, two spaces, a final newline."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")
    return path
