"""Train a step for real on the CPU and count what torch allocates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmpipe.estimate import build, step
from llmpipe.estimate.worker import batch_of, settings_of


def allocated(asked: Mapping[str, Any], folder: Path) -> int:
    """Return the most bytes that tensors held at once, by torch's profiler.

    Args:
        asked: as `llmpipe.estimate.worker.measure` takes it.
        folder: an empty one.
    """
    from torch.profiler import ProfilerActivity, profile

    cfg, document = settings_of(asked, folder)
    model = build.build(cfg)
    build.materialize(model)
    batch = batch_of(cfg, document, model.config.get_text_config())
    steps = step.Steps(model, cfg, batch, cuda=False)
    steps.warm_up()
    held = [tensor for tensors in steps.held().values() for tensor in tensors]
    held += [p.grad for p in steps.trainable if p.grad is not None]
    before = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in held}
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        steps.run()
    events = [e for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return sum(before.values()) + most
