"""Where a server listens and who may call it."""

from __future__ import annotations

import pytest

from llmpipe.backends.binding import bind, read_api_key
from llmpipe.errors import StageError, UsageError


def test_a_key_is_read_without_the_space_around_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Callers' keys come without it, too."""
    monkeypatch.setenv("TOWN_KEY", " s3cret\r\n")
    assert read_api_key("TOWN_KEY") == "s3cret"


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("\n", "TOWN_KEY has no API key"),
        ("s3cret-ü", "the API key in TOWN_KEY has characters that cannot be sent"),
        ("s3cret\nkey", "the API key in TOWN_KEY has characters that cannot be sent"),
    ],
)
def test_a_key_that_no_caller_could_send_is_refused(
    monkeypatch: pytest.MonkeyPatch, key: str, message: str
) -> None:
    """Before it is asked for, and without being shown."""
    monkeypatch.setenv("TOWN_KEY", key)
    with pytest.raises(UsageError, match=message) as caught:
        read_api_key("TOWN_KEY")
    assert "s3cret" not in caught.value.render()


@pytest.mark.parametrize("host", ["a..b", "a" * 70 + ".example", "no\0host", "\udcff"])
def test_what_is_no_name_of_a_host_is_said(host: str) -> None:
    """However it fails to be one."""
    with pytest.raises(StageError, match="the host name is unknown"):
        bind(host, 0)
