#!/usr/bin/env bash
# bitsandbytes 0.50.2, CPU with AVX512-BF16: one forward pass of a 4-bit layer in eval mode changes
# the layer for good. It then (1) lets no gradient through when it is trained again, without an
# error, and (2) dequantizes to noise, which is what a merge of a LoRA adapter would read.
#
# Claims checked: before the pass the gradient is exact and the dequantized weights follow the
# original ones; after it the input has no gradient and the correlation of the weights is about 0.
# Exits with 0 if both hold, 1 if they do not, 2 if this CPU has no AVX512-BF16.
set -euo pipefail
grep -q avx512_bf16 /proc/cpuinfo || { echo "this CPU has no AVX512-BF16: nothing to show"; exit 2; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet bitsandbytes==0.50.2 torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON' 2>/dev/null
import sys

import bitsandbytes as bnb
import torch

print("bitsandbytes", bnb.__version__, "torch", torch.__version__)
torch.manual_seed(0)
weight = torch.randn(256, 128) * 0.05
layer = bnb.nn.Linear4bit(128, 256, bias=False, compute_dtype=torch.float32, quant_type="nf4")
layer.weight = bnb.nn.Params4bit(weight, requires_grad=False, quant_type="nf4")
layer = layer.to("cpu")
inputs, wanted = torch.randn(2, 128), torch.randn(2, 256)


def dequantized():
    return bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)


def correlation():
    return float(torch.corrcoef(torch.stack([dequantized().flatten(), weight.flatten()]))[0, 1])


def gradient():
    x = inputs.clone().requires_grad_()
    (layer.train()(x) * wanted + x.sum()).sum().backward()  # x.sum(): as a residual path would
    return x.grad - wanted.numel()


exact = wanted @ dequantized()
before = (correlation(), float((gradient() - exact).abs().max()))
print(f"before eval: weights correlate {before[0]:.3f}, gradient off by {before[1]:.2g}")
with torch.no_grad():
    layer.eval()(inputs)
after = (correlation(), float(gradient().abs().max()))
print(f"after eval:  weights correlate {after[0]:.3f}, largest gradient through the layer {after[1]:.2g}"
      f" (exact: {float(exact.abs().max()):.2g})")
shown = before[0] > 0.99 and before[1] < 1e-3 and abs(after[0]) < 0.1 and after[1] < 1e-3
print("as described" if shown else "NOT as described")
sys.exit(0 if shown else 1)
PYTHON
# Output seen, 2026-11-29, Python 3.11.7:
#   bitsandbytes 0.50.2 torch 2.13.0+cpu
#   before eval: weights correlate 0.996, gradient off by 3e-05
#   after eval:  weights correlate 0.008, largest gradient through the layer 0 (exact: 2.2)
#   as described
