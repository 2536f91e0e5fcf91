"""The configuration of an ``evaluate`` stage."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from llmpipe.contracts import RandomSeed, StageConfig
from llmpipe.formats.mapping import ColumnMap

Metric = Literal["loss", "kl", "same_top", "rouge_l", "exact_match", "json_match"]


class FewShot(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Examples that precede every question as earlier turns of the conversation."""

    data: str
    """Rows to draw the examples from. Rows with an evaluated question are skipped."""
    count: Annotated[int, msgspec.Meta(ge=1)] = 5
    """The number of examples."""
    random_seed: RandomSeed = 0
    """Determines which examples are drawn. All questions get the same ones."""


class EvaluateConfig(StageConfig, frozen=True, kw_only=True):
    """The models to compare, and the rows."""

    models: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    """The models to compare: models, adapters, GGUFs, or `base`, the model that the others were
    trained from."""
    data: str
    """The held-out rows, in any known format. The last assistant turn is the reference answer.
    Reasoning before it (`<think>…</think>`) is not compared; it counts in `loss` if the chat
    template writes it."""
    map: ColumnMap | None = None
    """The columns of `data` with the question and the answer, if the format is not a known one."""
    limit: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Use only this many rows, drawn by `random_seed`."""
    metrics: Annotated[tuple[Metric, ...], msgspec.Meta(min_length=1)] = (
        "loss",
        "rouge_l",
        "exact_match",
    )
    """The metrics. All but `loss`, `kl` and `same_top` require generated answers, which takes most
    of the time. `kl` is the divergence from the model before the GGUFs in nats per token,
    `same_top` the share of tokens with the same likeliest token. Both keep that model's logits in
    the work folder: 4 bytes for each token of the answers times the size of the vocabulary."""
    fail_above: dict[str, float] = msgspec.field(default_factory=dict)
    """The most that `loss` or `kl` may be for each model, such as `{kl: 0.1}`; above it, or where
    it cannot be measured, the stage fails."""
    max_new_tokens: Annotated[int, msgspec.Meta(ge=1)] = 128
    """Maximum tokens of a reply, including reasoning; a longer reply is cut. A reply that is cut
    inside its reasoning has no answer; such replies are counted."""
    batch_size: Annotated[int, msgspec.Meta(ge=1)] = 32
    """Answers that transformers generates at the same time; memory grows with it."""
    few_shot: FewShot | None = None
    """Examples to put before every question."""
    json_schema: str | None = None
    """A JSON Schema file for the answers, enforced by llama.cpp while decoding; GGUF only. A schema
    that llama.cpp would ignore is an error, and so is an answer that does not follow it, unless it
    was cut. Reasoning is exempt if the model's chat template supports it."""
    reward_model: str | None = None
    """A model that marks every answer in its conversation, as the metric `reward`: a stage with
    `reward_model: true` and no adapter, a folder or a hub id."""
    random_seed: RandomSeed = 0
    """Determines which rows `limit` draws, and the resamples for the intervals."""
