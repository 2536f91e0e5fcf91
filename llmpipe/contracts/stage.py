"""The contract of a stage kind: the questions that the engine asks its class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from llmpipe.contracts.config import StageConfig, semantic_fields
from llmpipe.contracts.context import StageResult
from llmpipe.contracts.ports import FieldPath, Ports
from llmpipe.contracts.variants import Variants

if TYPE_CHECKING:
    from llmpipe.needs import Given, Need

Determinism = Literal["exact", "same-machine", "external"]
"""What "the same spec gives the same artifacts" means for a kind: byte-equal anywhere; byte-equal
on one kind of machine; byte-equal given the journal of replies from outside."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that `Stage.review` or `Stage.preflight` found before anything runs.

    ``missing`` says that the tool which would check (and later do) the work is not installed. A
    ``warning`` is shown and stops nothing; with ``in_run`` the stage itself shows it when it runs.
    With ``file``, ``field`` is a place in that YAML file instead of in the stage.
    """

    field: FieldPath
    message: str
    hint: str | None = None
    missing: bool = False
    warning: bool = False
    file: Path | None = None
    in_run: bool = False


@dataclass(frozen=True, slots=True)
class Effort:
    """What the time of a stage grows with, as its config says."""

    amount: float
    """Steps, replies or passes over the inputs: the time is proportional to it."""
    grows: bool = True
    """Whether the time grows with the size of the inputs as well."""
    covers: frozenset[str] = frozenset()
    """The fields, dotted, that ``amount`` accounts for or that do not change the time. Where any
    other one changes, it is not known how long the stage will take."""


class Stage(Protocol):
    """What a stage kind's class offers. All members belong to the class; none is instantiated."""

    Config: ClassVar[type[StageConfig]]
    variants: ClassVar[Variants | None]
    """The forms of the config, where one field decides which other fields there are."""
    VERSION: ClassVar[int]
    """Raised by one whenever the code would make another artifact of the same inputs."""
    determinism: ClassVar[Determinism]
    cpus: ClassVar[int | None]
    """CPU threads that it needs where its config does not say; None means all there are."""
    reads_environment: ClassVar[bool]
    """Whether its ports or fingerprint look at more than the config, such as at the machine."""
    imports: ClassVar[tuple[str, ...]]
    """Packages that its own process imports and that take seconds: a run imports them once for all
    its stages."""

    @staticmethod
    def ports(config: Any) -> Ports:
        """Return the stage's inputs and outputs. Pure: looks at nothing but the config."""

    @staticmethod
    def problems(config: Any) -> list[tuple[FieldPath, str]]:
        """List cross-field mistakes as (path inside the config, message)."""

    @staticmethod
    def fingerprint(config: Any) -> Mapping[str, Any]:
        """Return the part of the config (and of the machine) that shapes the artifact, as JSON.

        References stay as written: the engine replaces them by content digests.
        """

    @staticmethod
    def metrics(config: Any) -> Sequence[str]:
        """Return the metrics that its metrics file will hold, as paths of keys joined by dots.

        A path to a block stands for all metrics in it. Empty where they are not known before.
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
    """The answers of most kinds to the optional questions. Every kind inherits from it."""

    variants: ClassVar[Variants | None] = None
    cpus: ClassVar[int | None] = None
    reads_environment: ClassVar[bool] = False
    imports: ClassVar[tuple[str, ...]] = ()

    @staticmethod
    def problems(config: Any) -> list[tuple[FieldPath, str]]:
        return []

    @staticmethod
    def fingerprint(config: Any) -> Mapping[str, Any]:
        return semantic_fields(config)

    @staticmethod
    def metrics(config: Any) -> Sequence[str]:
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
