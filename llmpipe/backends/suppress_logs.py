"""Suppress warnings and progress bars of transformers and related libraries.

On import, torchao, bitsandbytes and torch warn about parts that a CPU does not need. At work,
transformers draws its own progress bars. No error is lost, because errors are raised, not logged.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def suppress_logs() -> Iterator[None]:
    """Suppress warnings and progress bars in the block, and restore the settings afterward."""
    silenced = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            from transformers.utils import logging as bars

            shown = bars.is_progress_bar_enabled()
            bars.disable_progress_bar()
            try:
                yield
            finally:
                if shown:
                    bars.enable_progress_bar()
    finally:
        logging.disable(silenced)
