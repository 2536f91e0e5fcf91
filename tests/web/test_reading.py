"""How the service reads what a request says."""

from __future__ import annotations

import pytest
from town_service import Serve
from web.calling import error_of

pytestmark = pytest.mark.heavy


def test_a_body_of_unknown_length_has_the_same_limit(serve: Serve) -> None:
    """A chunked request cannot fill the memory; the service goes on."""
    served = serve()
    parts = (b" " * 50_000 for _ in range(60))
    assert error_of(served.http.post("/v1/search", content=parts))[::2] == (413, "body_too_large")
    assert served.ask().status_code == 200
