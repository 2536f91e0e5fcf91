"""An Axolotl plugin that saves a training a process that would only cost time.

Axolotl saves the prepared rows in one process per 256 of them, and in one where there are fewer.
`datasets` starts a new process for each, even a single one, and each imports Axolotl for itself:
five seconds for a few hundred rows. This file is copied beside each configuration that llmpipe
compiles and needs nothing of llmpipe.
"""

from __future__ import annotations

import functools
from typing import Any

from axolotl.integrations.base import BasePlugin
from datasets import Dataset


class StartupPlugin(BasePlugin):  # type: ignore[misc]  # Axolotl is not typed
    """Saves rows in the training's own process where one process is to save them."""

    def register(self, cfg: Any) -> None:
        """Called by Axolotl before it loads any rows."""
        save_in_this_process()


def save_in_this_process() -> None:
    """Make ``Dataset.save_to_disk`` use this process alone; the files are the same."""
    save = Dataset.save_to_disk

    @functools.wraps(save)
    def saved(*args: Any, num_proc: int | None = None, **options: Any) -> None:
        save(*args, num_proc=None if num_proc == 1 else num_proc, **options)

    Dataset.save_to_disk = saved
