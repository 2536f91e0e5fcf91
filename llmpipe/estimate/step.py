"""Run training steps as the trainer would and see what they hold at their peak."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from accelerate.utils.operations import convert_outputs_to_fp32
from torch import nn
from transformers import Trainer, TrainingArguments

from llmpipe.estimate.follow import Following


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


@dataclass(frozen=True, slots=True)
class Peak:
    """What is held at the moment of the peak, in bytes."""

    total: int
    weights: int
    adapter: int
    gradients: int
    optimizer: int
    logits: int
    activations: int

    def as_json(self) -> dict[str, int]:
        """Return the parts by name."""
        return asdict(self)


class Steps:
    """A model with its optimizer and a batch, ready to be trained; on fake tensors or real ones."""

    def __init__(self, model: nn.Module, cfg: Any, batch: Batch, *, cuda: bool) -> None:
        self.model, self.batch, self._cfg = model, batch, cfg
        self.inputs = batch.inputs()
        self.trainable = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = make_optimizer(cfg, self.trainable, cuda=cuda)
        self.accumulate = min(int(cfg.gradient_accumulation_steps or 1), 2)  # more holds no more
        kind = torch.bfloat16 if cfg.bf16 or cfg.bfloat16 else torch.float16
        self._cast = torch.autocast("cpu", dtype=kind) if cfg.bf16 or cfg.fp16 else None
        if batch.trained is not None:
            _choose_positions(model, batch.trained)

    def tensors(self) -> list[torch.Tensor]:
        """Return what is there before the first step."""
        scales = [
            tensor
            for parameter in self.model.parameters()
            for tensor in _scales(getattr(parameter, "quant_state", None))
        ]
        eight = [p.SCB for p in self.model.parameters() if hasattr(p, "SCB")]
        held = [*self.model.parameters(), *self.model.buffers(), *scales, *eight]
        return [*held, *self.inputs.values()]

    def run(self) -> None:
        """Train one step: its micro-batches, the clipping of gradients, the optimizer."""
        for _ in range(self.accumulate):
            self._loss().backward()
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


def peak_of(steps: Steps, *, block: int = 1) -> Peak:
    """Return what a step holds at its peak: optimizer states exist from the second step on."""
    following = Following(block)
    following.add(steps.tensors())
    width = int(steps.model.config.get_text_config().vocab_size)
    found: list[Peak] = []
    with following:
        steps.run()
        following.restart(width=width)
        steps.run()
        total, at = following.peak, following.peak_at
        following.restart(width=width, at=at, then=lambda: found.append(_parts(steps, following)))
        steps.run()
    parts = found[0] if found else _parts(steps, following)
    known = parts.total - parts.activations
    return Peak(**{**parts.as_json(), "total": total, "activations": max(0, total - known)})


def _parts(steps: Steps, following: Following) -> Peak:
    parameters = list(steps.model.parameters())
    trained = {id(p) for p in steps.trainable}
    is_adapter = len(trained) < len(parameters)
    base = [p for p in parameters if not is_adapter or id(p) not in trained]
    scales = [t for p in base for t in _scales(getattr(p, "quant_state", None))]
    adapter = following.size_of(steps.trainable) if is_adapter else 0
    weights = following.size_of([*base, *scales, *steps.model.buffers()])
    gradients = following.size_of(p.grad for p in steps.trainable)
    states = [t for state in steps.optimizer.state.values() for t in state.values()]
    optimizer = following.size_of(states)
    logits = following.logits()
    known = weights + adapter + gradients + optimizer + logits
    rest = following.now - known
    return Peak(following.now, weights, adapter, gradients, optimizer, logits, rest)


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
