"""The contract of a stage kind: the questions that the engine asks its class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from llmpipe.contracts.artifacts import ArtifactType, FieldPath, Ports
from llmpipe.contracts.config import StageConfig, semantic_fields
from llmpipe.contracts.context import StageResult

if TYPE_CHECKING:
    from llmpipe.needs import Given, Need

Determinism = Literal["exact", "same-machine", "external"]
"""What "the same spec gives the same artifacts" means for a kind: equal bytes on any machine, on
one kind of machine, or with the same journal of external replies."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding of `Stage.review` or `Stage.preflight`, before anything runs.

    ``missing`` means that the tool for the check, and later for the work, is not installed. A
    ``warning`` is shown and stops nothing; with ``in_run``, the stage itself shows it when it runs.
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
    """What the duration of a stage grows with, according to its config."""

    amount: float
    """Steps, replies or passes over the inputs: the duration is proportional to it."""
    grows: bool = True
    """Whether the duration also grows with the size of the inputs."""
    covers: frozenset[str] = frozenset()
    """The fields, dotted, that ``amount`` accounts for or that do not change the duration. If
    another field changes, the duration is unknown."""


@dataclass(frozen=True, slots=True)
class Variants:
    """The forms of a kind's config, such as the methods of ``generate``, selected by one field.

    A variant's class has a ``Config``, a subclass of the kind's own that pins the field to the
    variant's name. It is imported when a spec names the variant. A field without effect in a
    variant cannot be written there.
    """

    field: str
    """The field that selects the variant."""
    classes: Mapping[str, str]
    """llmpipe's own variants by name, as ``package.module:Class``."""
    entry_points: str
    """The entry point group through which other packages offer variants."""


class Stage(Protocol):
    """What the class of a stage kind offers. All members belong to the class."""

    Config: ClassVar[type[StageConfig]]
    variants: ClassVar[Variants | None]
    """The forms of the config, if one field determines which other fields there are."""
    VERSION: ClassVar[int]
    """Raised by one whenever the code would make another artifact from the same inputs."""
    determinism: ClassVar[Determinism]
    cpus: ClassVar[int | None]
    """CPU threads that it needs if its config does not say; None means all of the machine."""
    reads_environment: ClassVar[bool]
    """Whether its ports or fingerprint depend on more than the config, such as on the machine."""
    imports: ClassVar[tuple[str, ...]]
    """Packages that its process imports and that take seconds to import: a run imports them once
    for all its stages."""

    @staticmethod
    def ports(config: Any) -> Ports:
        """Return the stage's inputs and outputs. Pure: depends only on the config."""

    @staticmethod
    def problems(config: Any) -> list[tuple[FieldPath, str]]:
        """List cross-field mistakes as (path inside the config, message)."""

    @staticmethod
    def fingerprint(config: Any) -> Mapping[str, Any]:
        """Return the part of the config (and of the machine) that shapes the artifact, as JSON.

        References stay as they are written: the engine replaces them by content digests.
        """

    @staticmethod
    def metrics(config: Any, types: Mapping[str, ArtifactType]) -> Sequence[str]:
        """Return the metrics that the metrics file will hold, as keys joined by dots.

        ``types`` holds the artifact type of each input, by port.
        The path of a block stands for all metrics in it. Empty if they are not known in advance.
        """

    @staticmethod
    def effort(fingerprint: Mapping[str, Any]) -> Effort | None:
        """Return what the duration of a stage grows with, or None if unknown."""

    @staticmethod
    def tools(config: Any) -> tuple[str, ...]:
        """List the distributions (``axolotl``) whose versions shape the artifact."""

    @staticmethod
    def needs(config: Any, inputs: Mapping[str, Given]) -> tuple[Need, ...]:
        """List the packages and programs that `run` needs, and whether they are installed.

        Called by ``run`` before anything runs and by ``doctor``: it must be quick and import none
        of them. ``inputs`` holds what is known of the inputs, by port.
        """

    @staticmethod
    def review(config: Any, folder: Path) -> list[Finding]:
        """Check the config together with the files that it names and this machine.

        Called by ``validate`` and, for stages that will run, by ``plan`` and ``run``: it must be
        quick, and run no tool. ``folder`` is the spec's.
        """

    @staticmethod
    def preflight(config: Any, folder: Path, memo: Path) -> list[Finding]:
        """Ask the installed tools whether they accept this config.

        Called by ``validate`` and, for stages that will run, by ``run``, but never by ``plan``. It
        may be slow once: ``memo`` is a folder for remembering results. ``folder`` is the spec's.
        """

    @staticmethod
    def run(ctx: Any) -> StageResult:
        """Do the work, in the stage's own process."""


class StageDefaults:
    """Defaults for the optional members. Every kind inherits from it."""

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
    def metrics(config: Any, types: Mapping[str, ArtifactType]) -> Sequence[str]:
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
