"""An Axolotl plugin that computes the logits of trained tokens only.

A causal language model computes logits for every token, and the loss then ignores those of prompts
and of padding. Here the model's head sees only the positions whose next token has a label. Loss and
gradients are the same up to rounding. A step takes less time and saves about 12 bytes for each
logit that is not computed.

The plugin leaves a training as it is where it cannot be sure of that (`obstacle`), and logs why.
Evaluations always compute all logits. This file is copied beside each configuration that llmpipe
compiles and needs nothing of llmpipe.
"""

from __future__ import annotations

import inspect
import logging
from typing import Any

from axolotl.integrations.base import BasePlugin
from torch import Tensor, nn

LOG = logging.getLogger("axolotl.llmpipe.logits")

IGNORED = -100
"""The label of a token that is not trained."""

WORTHWHILE = 0.9
"""The largest share of trained positions at which the head still computes fewer of them."""

HEAD, LOSS = "self.lm_head(hidden_states[:, slice_indices, :])", "self.loss_function("
"""How a model of transformers computes logits at chosen positions, and then its loss."""

USUAL_LOSS = ("transformers.loss.loss_utils", "ForCausalLMLoss")
USUAL_TRAINERS = ("transformers.trainer", "axolotl.core.trainers.base")


class LogitsPlugin(BasePlugin):  # type: ignore[misc]  # Axolotl is not typed
    """Attaches `TrainedPositions` to a model that is trained on the usual loss."""

    def post_trainer_create(self, cfg: Any, trainer: Any) -> None:
        """Called by Axolotl when the trainer has been made, before it wraps the model."""
        reason = obstacle(cfg, trainer)
        if reason:
            LOG.info("logits are computed for all tokens: %s", reason)
            return
        TrainedPositions().attach(trainer.model)
        LOG.info("logits are computed for trained tokens only")


def obstacle(cfg: Any, trainer: Any) -> str | None:
    """Return why the head must see all positions in this training, or None."""
    model = bare_model(trainer.model)
    loss = getattr(model, "loss_function", None)
    if type(trainer).compute_loss.__module__ not in USUAL_TRAINERS:
        return f"{type(trainer).__name__} computes a loss of its own"
    if getattr(trainer.args, "orpo_alpha", None) or trainer.compute_loss_func is not None:
        return "the configuration asks for another loss"
    if (getattr(loss, "__module__", ""), getattr(loss, "__name__", "")) != USUAL_LOSS:
        return f"{type(model).__name__} has another loss function"
    source = inspect.getsource(model.forward)
    if source.count(HEAD) != 1 or source.count(LOSS) != 1:
        return f"{type(model).__name__} computes its loss in another way"
    if cfg.torch_compile or (cfg.context_parallel_size or 1) > 1 or cfg.tiled_mlp:
        return "it does not go with torch_compile, context_parallel_size or tiled_mlp"
    return None


def bare_model(model: Any) -> Any:
    """Return the model under a PEFT wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


class TrainedPositions:
    """Lets one model's head and loss see the trained positions of each batch.

    The model's own code runs in between, such as soft-capping: it treats every position by itself,
    since transformers lets a caller choose the positions (``logits_to_keep``).
    """

    def __init__(self) -> None:
        self._positions: Tensor | None = None
        """Trained positions of the batch at hand, in the flattened batch; None where all count."""
        self._targets: Tensor | None = None

    def attach(self, model: nn.Module) -> None:
        """Change what ``model`` computes while it trains; ``model`` is what the trainer calls."""
        bare = bare_model(model)
        self._loss = bare.loss_function
        bare.loss_function = self._compute_loss
        bare.get_output_embeddings().register_forward_pre_hook(self._select)
        model.register_forward_pre_hook(self._choose, with_kwargs=True)

    def _choose(self, model: nn.Module, args: Any, inputs: dict[str, Any]) -> None:
        """Find the positions of a batch before the model sees it."""
        self._positions = self._targets = None
        labels = inputs.get("labels")
        if not model.training or labels is None or inputs.get("shift_labels") is not None:
            return
        targets = nn.functional.pad(labels, (0, 1), value=IGNORED)[:, 1:].flatten()
        positions = (targets != IGNORED).nonzero().flatten()
        if 0 < len(positions) <= WORTHWHILE * len(targets):
            self._positions, self._targets = positions, targets[positions][None]

    def _select(self, head: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        """Hand the head the hidden states of the chosen positions, as one row."""
        if self._positions is None:
            return None
        hidden = args[0].flatten(0, 1)
        return (hidden.index_select(0, self._positions.to(hidden.device))[None], *args[1:])

    def _compute_loss(self, logits: Tensor, labels: Tensor, *args: Any, **options: Any) -> Tensor:
        """Stand in for the model's ``loss_function``."""
        if self._targets is not None:
            options["shift_labels"] = self._targets
            self._positions = self._targets = None
        loss: Tensor = self._loss(logits, labels, *args, **options)
        return loss
