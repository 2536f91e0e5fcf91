"""Keep what transformers and its companions say of themselves out of logs and off the terminal.

Imported, torchao, bitsandbytes and torch tell of parts that a CPU has no use for; at work,
transformers draws progress bars of its own. Errors are raised and not logged, so none is lost.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def suppress_logs() -> Iterator[None]:
    """Keep their warnings and progress bars quiet; what was set before is set again after."""
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
