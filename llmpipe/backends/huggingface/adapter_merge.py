"""Merge an adapter into its base model, so that the result is the model that was trained.

This uses PEFT's own ``merge_and_unload`` after separating tied weights. If the embedding is also
the output head (or one layer is used twice), PEFT trains each use with its own change, but would
add both changes to the weight that they share.

`float32_blocks` and `hold_edges_in_float32` let a model of any number format compute in float32
without a second copy.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from llmpipe.errors import StageError

NEARLY = 1e-6
"""The relative difference up to which two merged weights count as equal; rounding explains it."""


def merge_adapter(tuned: Any, label: str) -> Any:
    """Merge the adapter of a PEFT model into its base, in place; return the plain model.

    Embedding and head stay tied if they are still equal. Otherwise they become two weights, with
    ``tie_word_embeddings: false`` in the model's config.

    Raises:
        StageError: The sum of a layer is not finite, or PEFT leaves a layer unmerged.
    """
    tied = bool(tuned.get_base_model().config.get_text_config().tie_word_embeddings)
    part_shared_weights(tuned)
    try:
        merged = tuned.merge_and_unload(safe_merge=True)
    except (ValueError, RuntimeError) as error:
        raise StageError(f"{label}: the adapter cannot be merged: {error}") from error
    _require_plain(merged, label)
    if tied:
        _tie_if_equal(merged)
    return merged


def _require_plain(merged: Any, label: str) -> None:
    """Require that no layer of PEFT is left in a merged model, as happens with nested ones."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    layers = (BaseTunerLayer, AuxiliaryTrainingWrapper)
    left = [name for name, module in merged.named_modules() if isinstance(module, layers)]
    if left:
        raise StageError(
            f"{label}: the adapter cannot be merged: PEFT leaves {left[0]} unmerged, which the "
            "adapter changes in two ways",
            hint="use base and adapter unmerged; or train lm_head and embed_tokens in one way, "
            "such as lora_modules_to_save: [embed_tokens, lm_head]",
        )


def part_shared_weights(tuned: Any) -> None:
    """Replace each further use of a shared weight with its own copy.

    Embedding and head stay tied if the adapter changes neither.
    """
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in tuned.modules() if isinstance(module, BaseTunerLayer)]
    changed = {id(p) for layer in layers for p in layer.get_base_layer().parameters(recurse=False)}
    tied = {id(p) for p in tuned.get_input_embeddings().parameters()} - changed
    uses = defaultdict(list)
    for module in tuned.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in tied:
                uses[id(parameter)].append((module, name, parameter))
    for _first, *others in uses.values():
        for module, name, parameter in others:
            copy = torch.nn.Parameter(parameter.detach().clone(), parameter.requires_grad)
            setattr(module, name, copy)


def _tie_if_equal(merged: Any) -> None:
    import torch

    one, other = merged.get_input_embeddings().weight, merged.get_output_embeddings().weight
    equal = one is other or (
        one.shape == other.shape
        and bool(torch.allclose(one, other, rtol=NEARLY, atol=NEARLY * float(one.abs().max())))
    )
    for config in (merged.config, merged.config.get_text_config()):
        config.tie_word_embeddings = equal
    merged.all_tied_weights_keys = merged.get_expanded_tied_weights_keys(all_submodels=True)
    if equal:
        merged.tie_weights()


def hold_edges_in_float32(model: Any) -> None:
    """Convert the weights outside the repeated blocks (embeddings, last norm, head) to float32."""
    inside = {id(p) for block in _blocks(model) for p in block.parameters()}
    for parameter in model.parameters():
        if id(parameter) not in inside and parameter.is_floating_point():
            parameter.data = parameter.data.float()


@contextlib.contextmanager
def float32_blocks(model: Any) -> Iterator[None]:
    """Let each repeated block compute in float32, converting its weights only while it runs.

    After `hold_edges_in_float32`, the arithmetic is that of ``model.float()``. The memory is that
    of the model and one block in float32.
    """
    handles = []
    for block in _blocks(model):
        before, after = _widening()
        handles.append(block.register_forward_pre_hook(before))
        handles.append(block.register_forward_hook(after, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _widening() -> tuple[Any, Any]:
    """Return the two hooks of one block, which share the saved weights."""
    import torch

    aside: list[tuple[Any, Any]] = []

    def before(block: Any, _arguments: Any) -> None:
        for parameter in block.parameters():
            if parameter.is_floating_point() and parameter.dtype != torch.float32:
                aside.append((parameter, parameter.data))
                parameter.data = parameter.data.float()

    def after(_block: Any, _arguments: Any, _output: Any) -> None:
        while aside:
            parameter, narrow = aside.pop()
            parameter.data = narrow

    return before, after


def _blocks(model: Any) -> list[Any]:
    """Return the modules in the outermost lists of modules: a transformer's layers."""
    import torch

    found: list[Any] = []
    for child in model.children():
        if isinstance(child, torch.nn.ModuleList):
            found.extend(child)
        else:
            found.extend(_blocks(child))
    return found
