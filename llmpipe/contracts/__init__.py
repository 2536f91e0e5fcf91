"""The terms that all parts of llmpipe share: artifacts, ports, stages and their context.

A stage kind is one class that follows `Stage`. The compiler reads its `ports`, the planner its
`fingerprint` and `tools`, and the worker calls its `run` with a `StageContext`. A kind declares
optional abilities by inheriting from a class of `llmpipe.contracts.abilities`. Nothing here imports
heavy packages or knows how the engine works.
"""

from llmpipe.contracts.abilities import (
    Answers,
    Compilable,
    Endpoint,
    Servable,
    ServeContext,
    Showable,
    Stochastic,
)
from llmpipe.contracts.artifacts import Artifact, ArtifactType, FieldPath, Input, Output, Ports
from llmpipe.contracts.config import (
    NON_SEMANTIC,
    SECRET,
    RandomSeed,
    Resources,
    SecretField,
    ServedConfig,
    StageConfig,
    reveal,
    semantic_fields,
)
from llmpipe.contracts.context import StageContext, StageResult, Target, write_json
from llmpipe.contracts.estimates import EstimateContext, Estimates, Hardware, Needs
from llmpipe.contracts.stage import Determinism, Effort, Finding, Stage, StageDefaults, Variants

__all__ = [
    "NON_SEMANTIC",
    "SECRET",
    "Answers",
    "Artifact",
    "ArtifactType",
    "Compilable",
    "Determinism",
    "Effort",
    "Endpoint",
    "EstimateContext",
    "Estimates",
    "FieldPath",
    "Finding",
    "Hardware",
    "Input",
    "Needs",
    "Output",
    "Ports",
    "RandomSeed",
    "Resources",
    "SecretField",
    "Servable",
    "ServeContext",
    "ServedConfig",
    "Showable",
    "Stage",
    "StageConfig",
    "StageContext",
    "StageDefaults",
    "StageResult",
    "Stochastic",
    "Target",
    "Variants",
    "reveal",
    "semantic_fields",
    "write_json",
]
