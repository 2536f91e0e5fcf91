"""Run training steps as the trainer would and see what they hold at their peak."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils.operations import convert_outputs_to_fp32
from torch import nn
from transformers import Trainer, TrainingArguments

from llmpipe.estimate.follow import LOGITS, OTHER, Following

PARTS = ("weights", "adapter", "gradients", "optimizer", LOGITS, OTHER)


@dataclass(frozen=True, slots=True)
class Batch:
    """The shape of one micro-batch, at its largest.

    Args:
        rows: how many sequences it has.
        length: tokens of each, padding included.
        mask: whether attention sees a mask of padding.
        packed: whether a sequence holds several rows, told apart by their positions.
        trained: tokens for which logits are computed; None for all.
        pairs: each row is a chosen and a rejected answer, and the loss compares their likelihoods.
        reference: the likelihoods are also computed by a reference model.
    """

    rows: int
    length: int
    mask: bool = True
    packed: bool = False
    trained: int | None = None
    pairs: bool = False
    reference: bool = False

    def inputs(self) -> dict[str, torch.Tensor]:
        """Return the tensors that the model is called with."""
        shape = (self.rows * (2 if self.pairs else 1), self.length)
        ids = torch.zeros(shape, dtype=torch.long)
        made = {"input_ids": ids}
        if not self.pairs:
            made["labels"] = torch.zeros(shape, dtype=torch.long)
        if self.packed:
            half = self.length // 2
            made["position_ids"] = (torch.arange(self.length) % max(half, 1)).expand(shape)
        elif self.mask:
            made["attention_mask"] = torch.ones(shape, dtype=torch.long)
            made["attention_mask"][:, -1] = 0
        return made


class Steps:
    """A model with its optimizer and a batch, ready to be trained; on fake tensors or real ones."""

    def __init__(self, model: nn.Module, cfg: Any, batch: Batch, *, cuda: bool) -> None:
        self.model, self.batch, self._cfg = model, batch, cfg
        self.inputs = batch.inputs()
        self.trainable = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = make_optimizer(cfg, self.trainable, cuda=cuda)
        self.accumulates = int(cfg.gradient_accumulation_steps or 1) > 1
        kind = torch.bfloat16 if cfg.bf16 or cfg.bfloat16 else torch.float16
        self._cast = torch.autocast("cpu", dtype=kind) if cfg.bf16 or cfg.fp16 else None
        if batch.trained is not None:
            _choose_positions(model, batch.trained)

    def held(self) -> dict[str, list[torch.Tensor]]:
        """Return what is there between two steps, by what it is."""
        trained = {id(parameter) for parameter in self.trainable}
        base = [p for p in self.model.parameters() if id(p) not in trained]
        scales = [t for p in base for t in _scales(getattr(p, "quant_state", None))]
        eight = [p.SCB for p in base if hasattr(p, "SCB")]
        buffers = list(self.model.buffers())
        states = [t for state in self.optimizer.state.values() for t in state.values()]
        return {
            "weights": [*base, *scales, *eight, *buffers],
            "adapter" if base else "weights ": self.trainable,
            "optimizer": [t for t in states if isinstance(t, torch.Tensor)],
            "inputs": list(self.inputs.values()),
        }

    def warm_up(self) -> None:
        """Make the optimizer's states, which exist from the first step on."""
        for parameter in self.trainable:
            parameter.grad = torch.zeros_like(parameter)
        self.optimizer.step()
        if not self.accumulates:
            self.optimizer.zero_grad()

    def run(self, following: Following | None = None) -> None:
        """Train a step: the last of its micro-batches, the clipping, the optimizer."""
        loss = self._loss()
        if following:
            following.backward = True
        loss.backward()
        if following:
            following.backward = False
        del loss
        limit = self._cfg.max_grad_norm
        if limit is None or limit > 0:
            torch.nn.utils.clip_grad_norm_(self.trainable, limit or 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _loss(self) -> torch.Tensor:
        if self.batch.pairs:
            return self._preference_loss()
        loss: torch.Tensor = self._forward(self.model)["loss"]
        return loss

    def _forward(self, model: nn.Module) -> Any:
        """Call the model as `accelerate` does."""
        if self._cast is None:
            return model(**self.inputs)
        with self._cast:
            made = model(**self.inputs)
        return convert_outputs_to_fp32(lambda: made)()

    def _preference_loss(self) -> torch.Tensor:
        """Compare the likelihoods of chosen and rejected answers, as TRL's trainers of pairs do."""
        wanted = torch.zeros_like(self.inputs["input_ids"])[:, 1:]
        reference: torch.Tensor | float = 0.0
        if self.batch.reference:
            with torch.no_grad():
                reference = _likelihood(self._forward(self.model)["logits"], wanted)
        margin = _likelihood(self._forward(self.model)["logits"], wanted) - reference
        chosen, rejected = margin.chunk(2)
        return -torch.nn.functional.logsigmoid(chosen - rejected).mean()


def peak_of(steps: Steps, *, block: int = 1) -> dict[str, int]:
    """Return what a step holds at its peak, in bytes: `PARTS`."""
    following = Following(block)

    def is_gradient(parameter: torch.Tensor) -> None:
        following.add([parameter.grad], "gradients")

    hooks = [p.register_post_accumulate_grad_hook(is_gradient) for p in steps.trainable]
    steps.warm_up()
    for name, tensors in steps.held().items():
        following.add(tensors, name.strip())
    following.add((p.grad for p in steps.trainable), "gradients")
    following.restart(width=int(steps.model.config.get_text_config().vocab_size))
    with following:
        steps.run(following)
    for hook in hooks:
        hook.remove()
    peak = dict(following.peak)
    peak[OTHER] = peak.get(OTHER, 0) + peak.pop("inputs", 0)
    return {name: peak.get(name, 0) for name in PARTS}


def make_optimizer(cfg: Any, parameters: list[Any], *, cuda: bool) -> Any:
    """Return the optimizer that the name means to transformers, or to Axolotl."""
    name = str(cfg.optimizer or "adamw_torch_fused")
    try:
        arguments = TrainingArguments(output_dir="unused", optim=name, use_cpu=True)
        kind, options = Trainer.get_optimizer_cls_and_kwargs(arguments)
    except ValueError as error:
        raise UnknownOptimizerError(name) from error
    if cuda and kind.__module__.startswith("torch.optim") and not options.get("fused"):
        options = {**options, "foreach": True}  # what torch chooses on a GPU
    return kind(parameters, **options)


class UnknownOptimizerError(ValueError):
    """An optimizer that is neither torch's nor bitsandbytes'; carries its name."""


def _choose_positions(model: nn.Module, count: int) -> None:
    """Let the head see so many positions, as llmpipe's plugin does in a training."""
    from llmpipe.backends.axolotl.plugins.axolotl_logits import TrainedPositions

    class Fixed(TrainedPositions):
        def _choose(self, model: nn.Module, args: Any, inputs: dict[str, Any]) -> None:
            self._positions = torch.zeros(count, dtype=torch.long)
            self._targets = torch.zeros((1, count), dtype=torch.long)

    Fixed().attach(model)


def _likelihood(logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    from trl.trainer.utils import selective_log_softmax

    found: torch.Tensor = selective_log_softmax(logits[:, :-1], wanted).sum(-1)
    return found


def _scales(state: Any) -> list[torch.Tensor]:
    """Return the tensors that belong to a weight in 4 bits."""
    if state is None:
        return []
    own = [state.absmax, state.code, state.offset]
    return [*(t for t in own if t is not None), *_scales(state.state2)]
