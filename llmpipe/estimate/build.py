"""Build what Axolotl would train, without weights: its own classes on fake tensors.

Runs in a process of its own that may import Axolotl (`llmpipe.estimate.worker`).
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from typing import Any

import bitsandbytes as bnb
import torch
import transformers
from axolotl.loaders.model import ModelLoader
from axolotl.utils.config import normalize_config, validate_config
from axolotl.utils.dict import DictDefault
from axolotl.utils.freeze import freeze_layers_except
from torch import nn

OTHER_ATTENTION = "sdpa"
"""Stands in for kernels that exist on a GPU only: it saves the same tensors for the backward pass,
queries, keys, values, output and a number per row and head (FlashAttention-2, arXiv:2307.08691)."""


class _Tokenizer:
    """What Axolotl asks a tokenizer for while it loads a model."""

    def __init__(self, config: Any) -> None:
        text = config.get_text_config()
        self._size = int(text.vocab_size)
        self.bos_token_id, self.eos_token_id = text.bos_token_id, text.eos_token_id

    def __len__(self) -> int:
        return self._size


def settings_for(document: Mapping[str, Any], capabilities: Mapping[str, Any]) -> Any:
    """Return the settings as Axolotl completes them for a device with these capabilities."""
    given = copy.deepcopy(dict(document))
    given["plugins"] = []  # what they change of the model is not counted
    versions = {"torch_version": torch.__version__.partition("+")[0]}
    cfg = validate_config(
        DictDefault(given), capabilities=dict(capabilities), env_capabilities=versions
    )
    normalize_config(cfg)
    return cfg


def build(cfg: Any) -> nn.Module:
    """Return the model with its adapter, on the device ``meta``."""
    loader = ModelLoader(cfg, None)
    loader.tokenizer = _Tokenizer(loader.model_config)
    loader._set_auto_model_loader()
    loader.model_kwargs["torch_dtype"] = cfg.torch_dtype
    loader._set_quantization_config()
    with torch.device("meta"), without_values(), _quiet():
        loader.model = _bare_model(loader)
        loader._configure_embedding_dtypes()
        cfg.rl, rl = None, cfg.rl  # else the trainer would add the same adapter
        loader._load_adapters()
        cfg.rl = rl
    if cfg.unfrozen_parameters:
        freeze_layers_except(loader.model, cfg.unfrozen_parameters)
    if cfg.gradient_checkpointing:
        loader.model.gradient_checkpointing_enable(
            gradient_checkpointing_kwargs=cfg.gradient_checkpointing_kwargs
            or {"use_reentrant": False}
        )
    _let_fake_weights_dequantize()
    loader.model.train()
    return loader.model


def _bare_model(loader: Any) -> nn.Module:
    config = loader.model_config
    attention = loader.cfg.attn_implementation or "sdpa"
    config._attn_implementation = attention if attention == "eager" else OTHER_ATTENTION
    config.use_cache = False
    named = loader.model_type
    kind = getattr(transformers, named) if named and "Auto" not in named else None
    kind = kind or getattr(transformers, named or "", None) or loader.auto_model_loader
    if loader.cfg.num_labels:
        config.num_labels = loader.cfg.num_labels
        if config.pad_token_id is None:  # Axolotl takes it from the tokenizer
            config.pad_token_id = 0
    make = kind.from_config if hasattr(kind, "from_config") else kind._from_config
    model = make(config, dtype=loader.cfg.torch_dtype)
    quantization = loader.model_kwargs.get("quantization_config")
    if quantization is not None:
        _quantize(model, quantization)
    return model


def _quantize(model: nn.Module, quantization: Any) -> None:
    """Replace linear layers by bitsandbytes', as transformers does while it loads weights."""
    from transformers.integrations.bitsandbytes import replace_with_bnb_linear
    from transformers.quantizers.auto import AutoHfQuantizer

    quantizer = AutoHfQuantizer.from_config(quantization, pre_quantized=False)
    kept = quantizer.get_modules_to_not_convert(
        model, quantization.llm_int8_skip_modules, model._keep_in_fp32_modules
    )
    replace_with_bnb_linear(model, kept, quantization_config=quantization)
    four = bool(quantization.load_in_4bit)
    model.is_loaded_in_4bit, model.is_loaded_in_8bit = four, not four
    model.is_quantized, model.quantization_method = True, quantization.quantization_method()
    model.config.quantization_config = quantization
    for module in model.modules():
        weight: Any = getattr(module, "weight", None)
        if type(weight).__name__ == "Params4bit":
            module.weight = weight._quantize(torch.device("meta"))
        elif type(module).__name__ == "Linear8bitLt":
            eight = torch.empty(weight.shape, dtype=torch.int8)
            module.weight = nn.Parameter(eight, requires_grad=False)
            module.state.threshold = 0.0  # outlier columns depend on the values; they are few


def materialize(model: nn.Module) -> None:
    """Put a tensor of the current mode in place of each meta tensor; ties are kept."""
    made: dict[int, Any] = {}

    def real(tensor: Any) -> Any:
        if not isinstance(tensor, torch.Tensor) or tensor.device.type != "meta":
            return tensor
        if id(tensor) not in made:
            made[id(tensor)] = _on_cpu(tensor)
        return made[id(tensor)]

    originals = []  # kept, so that no id comes twice
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                originals.append(tensor)
                state = getattr(tensor, "quant_state", None)
                tensors[name] = real(tensor)
                if state is not None:
                    _materialize_state(state, real)
                    module.quant_state = tensors[name].quant_state = state
                elif type(module).__name__ == "Linear8bitLt" and name == "weight":
                    tensors[name].CB = tensors[name].data
                    tensors[name].SCB = torch.ones(tensor.shape[0])


def _materialize_state(state: Any, real: Any) -> None:
    """Do the same for the scales of a weight in 4 bits, which may be quantized themselves."""
    for name in ("absmax", "code", "offset"):
        setattr(state, name, real(getattr(state, name)))
    if state.state2 is not None:
        _materialize_state(state.state2, real)


def _on_cpu(tensor: Any) -> Any:
    made = torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device="cpu")
    if isinstance(tensor, nn.Parameter):
        made.zero_()
        return nn.Parameter(made, requires_grad=tensor.requires_grad)
    return made


def _let_fake_weights_dequantize() -> None:
    """Let DoRA read weights in 4 bits that are not of bitsandbytes' class: fake ones cannot be."""
    from peft.tuners.lora import dora

    original = dora.dequantize_module_weight

    def dequantized(module: nn.Module) -> Any:
        state = getattr(module.weight, "quant_state", None)
        if state is None:
            return original(module)
        return bnb.functional.dequantize_4bit(module.weight.data, state)

    dora.dequantize_module_weight = dequantized


@contextlib.contextmanager
def without_values() -> Iterator[None]:
    """Let bitsandbytes make its tables of 256 values empty: fake tensors have no values to read."""
    functional, original = bnb.functional, bnb.functional.create_dynamic_map
    tables = dict(functional.name2qmap)
    functional.create_dynamic_map = lambda *args, **options: torch.empty(256)
    try:
        yield
    finally:
        functional.create_dynamic_map = original
        functional.name2qmap.clear()
        functional.name2qmap.update(tables)


@contextlib.contextmanager
def masked(packed: bool) -> Iterator[None]:
    """Tell transformers whether a row holds several rows; with fake tensors it cannot see that."""
    from transformers import masking_utils

    original = masking_utils.find_packed_sequence_indices
    if not packed:
        masking_utils.find_packed_sequence_indices = lambda *args, **options: None
    try:
        yield
    finally:
        masking_utils.find_packed_sequence_indices = original


def sizes(model: nn.Module) -> dict[str, int]:
    """Return what formulas need: parameters, the largest layer and weight, the cache of a token."""
    text = model.config.get_text_config()
    heads = int(getattr(text, "num_attention_heads", 1))
    width = int(getattr(text, "head_dim", None) or text.hidden_size // heads)
    keys = int(getattr(text, "num_key_value_heads", None) or heads)
    states = [s for p in model.parameters() if (s := getattr(p, "quant_state", None)) is not None]
    layers = [m for name, m in model.named_modules() if name.rpartition(".")[2].isdecimal()]
    return {
        "parameters": _count(model),
        "largest_layer": max((_bytes(layer) for layer in layers), default=0),
        "largest_quantized": max((2 * s.shape.numel() for s in states), default=0),
        "cache_per_token": 2 * 2 * int(text.num_hidden_layers) * keys * width,
    }


def _count(model: nn.Module) -> int:
    states = ((p, getattr(p, "quant_state", None)) for p in model.parameters())
    return sum(p.numel() if s is None else s.shape.numel() for p, s in states)


def _bytes(module: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what Axolotl and PEFT print off standard output."""
    import io

    with contextlib.redirect_stdout(io.StringIO()):
        yield
