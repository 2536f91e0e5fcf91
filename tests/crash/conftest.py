"""What the crash tests share: a teacher, the pipeline, and what an undisturbed run of it makes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from crash.pipeline import Pipeline, named_reply
from openai_endpoint import Endpoint


@pytest.fixture
def teacher() -> Iterator[Endpoint]:
    """An endpoint whose replies carry the names of the requests."""
    with Endpoint() as endpoint:
        endpoint.reply = named_reply
        yield endpoint


@pytest.fixture
def pipeline(tmp_path: Path, teacher: Endpoint) -> Pipeline:
    """The pipeline, nothing run yet."""
    return Pipeline(tmp_path / "pipeline", teacher.url)


@pytest.fixture
def undisturbed(tmp_path: Path, teacher: Endpoint) -> dict[str, Any]:
    """The stages of a run in another store that was not disturbed."""
    return Pipeline(tmp_path / "undisturbed", teacher.url).run()
