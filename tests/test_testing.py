"""What `llmpipe.testing` says of kinds that do not follow the contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmpipe.contracts import Input, Output, Ports, StageConfig, StageDefaults, StageResult
from llmpipe.testing import StageConformance, run_stage


class CopyConfig(StageConfig, frozen=True, kw_only=True):
    """Copy."""

    data: str
    """The rows."""


class Copy(StageDefaults):
    """A kind that follows the contract."""

    Config = CopyConfig
    VERSION = 1
    determinism = "exact"
    returned: Any = None

    @staticmethod
    def ports(config: CopyConfig) -> Ports:
        return Ports({"data": Input(("data",), config.data, ("file",))}, {"out": Output("file")})

    @classmethod
    def run(cls, ctx: Any) -> Any:
        (ctx.out / "o").write_text("o")
        return cls.returned(ctx.out / "o")


@pytest.mark.parametrize(
    ("returned", "why"),
    [
        (lambda path: None, "run returned None, not a StageResult"),
        (lambda path: StageResult({}), "lacks the output 'out', which ports declares"),
        (lambda path: StageResult({"out": path, "b": path}), "made the output 'b'; ports declares out"),
        (lambda path: StageResult({"out": str(path)}), "the output 'out' is a str, not a Path"),
        (lambda path: StageResult({"out": path.parent / "x"}), "was not made: x does not exist"),
        (lambda path: StageResult({"out": path.parent.parent}), "'out' is outside ctx.out"),
        (lambda path: StageResult({"out": path}, {"a": {"b": {1}}}), "the metric 'a.b' is {1}, a set: not JSON"),
        (lambda path: StageResult({"out": path}, {"a": [path]}), "the metric 'a.0' is PosixPath"),
        (lambda path: StageResult({"out": path}, {"a": {(1,): 2}}), "the metrics 'a' have the key (1,), not a str"),
        (lambda path: StageResult({"out": path}, {"a": float("nan")}), "the metric 'a' is nan, which"),
        (lambda path: StageResult({"out": path}, 3), "the metrics are 3, not a mapping"),
        (lambda path: StageResult({"out": path}, {}, 3), "the summary is 3, not a str"),
    ],
)  # fmt: skip
def test_a_wrong_result_is_described(tmp_path: Path, returned: Any, why: str) -> None:
    """With the name of the output or metric."""
    (tmp_path / "rows").write_text("x")
    wrong = type("Wrong", (Copy,), {"returned": returned})
    with pytest.raises(AssertionError) as caught:
        run_stage(wrong, {"data": "./rows"}, tmp_path)
    assert why in str(caught.value)


def failure(test: str, **members: Any) -> str:
    """Return the message of a conformance test that fails."""
    suite = type("TestKind", (StageConformance,), members)()
    with pytest.raises(AssertionError) as caught:
        getattr(suite, test)()
    return str(caught.value)


def test_a_suite_that_tests_nothing_fails() -> None:
    """A forgotten stage or config is named: no test passes without it."""
    tests = [name for name in vars(StageConformance) if name.startswith("test_")]
    for test in tests:
        assert "TestKind does not set stage" in failure(test, configs=({"data": "d"},))
    for test in ("test_its_ports_follow_the_config", "test_its_fingerprint_is_json"):
        assert "TestKind does not set configs" in failure(test, stage=Copy)


def test_what_a_class_lacks_is_listed() -> None:
    """The failure has a message, also where pytest does not rewrite assertions."""
    told = failure("test_it_offers_the_contract", stage=type("Bare", (StageDefaults,), {}))
    assert "its VERSION is not a whole number" in told
    assert "it has no ports, run" in told


def test_a_path_that_leads_to_no_field_is_named() -> None:
    """The class that lacks the field is named, too."""

    def ports(config: CopyConfig) -> Ports:
        return Ports({"data": Input(("dat",), config.data, ("file",))}, {})

    astray = type("Astray", (Copy,), {"ports": staticmethod(ports)})
    told = failure("test_its_ports_follow_the_config", stage=astray, configs=({"data": "d"},))
    assert "the input 'data' is at the path ('dat',), but CopyConfig has no field 'dat'" in told


def test_a_problem_at_a_path_that_leads_to_no_field_is_named(tmp_path: Path) -> None:
    """A wrong path in ``problems`` is found when a test expects a problem, too."""

    def problems(config: CopyConfig) -> list[Any]:
        return [(("dat",), "wrong")]

    astray = type("Astray", (Copy,), {"problems": staticmethod(problems)})
    with pytest.raises(AssertionError, match="CopyConfig has no field 'dat'"):
        run_stage(astray, {"data": "./rows"}, tmp_path)
