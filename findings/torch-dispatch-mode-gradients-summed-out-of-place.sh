#!/usr/bin/env bash
# torch 2.13.0: a TorchDispatchMode that does nothing changes how autograd sums the gradients of a
# tensor that is used several times. Without it they are added in place; under it every sum is a new
# tensor. So a memory tracker written as such a mode sees a peak that the program does not have
# without the tracker.
#
# Claim checked: for a tensor that is used six times, the backward pass runs aten::add_ five times
# without the mode and never with it; the gradient is the same.
# Exits with 0 if that holds, 1 if it does not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON' 2>/dev/null
import sys
from contextlib import nullcontext

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

USES = 6


class Nothing(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


def backward(mode):
    leaf = torch.ones(1000, requires_grad=True)
    shared = leaf * 1.0
    total = torch.stack([(shared * float(n)).sum() for n in range(1, USES + 1)]).sum()
    with profile(activities=[ProfilerActivity.CPU]) as profiled, mode:
        total.backward()
    counts = {event.key: event.count for event in profiled.key_averages()}
    return counts.get("aten::add_", 0), counts.get("aten::add", 0), leaf.grad[0].item()


print("torch", torch.__version__)
plain, under = backward(nullcontext()), backward(Nothing())
# Under a mode, the profiler counts an operator once for each of two layers.
print("without a mode: add_ %d times, add %d times, gradient %g" % plain)
print("under one that does nothing: add_ %d times, add %d times, gradient %g" % under)
sys.exit(not (plain == (USES - 1, 0, 21.0) and under[0] == 0 and under[2] == 21.0))
PYTHON
