"""What rows cost: before a run, within a budget and `patience`, and in a preview."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from chat_clients import client_for
from generation import TEACHER, Client, MethodRun
from openai_endpoint import Endpoint

from llmpipe.backends.ledger import Ledger
from llmpipe.backends.spending import Budget
from llmpipe.registry import variant_class
from llmpipe.stages.generate import Generate, _for_preview
from llmpipe.stages.generate.methods.evol_instruct import EvolInstruct
from llmpipe.stages.generate.methods.orca import Orca, OrcaConfig

pytestmark = pytest.mark.heavy


def orca(folder: Path) -> MethodRun:
    """Return a run of Orca over forty queries."""
    run = MethodRun(folder, Orca, method="orca", seeds="./s.jsonl")
    run.write("seeds", [{"instruction": f"Why is item {i} heavy?"} for i in range(40)])
    return run


def test_what_was_paid_before_a_budget_ended_becomes_rows(tmp_path: Path) -> None:
    """The budget ends inside the first batch: its answered requests are rows, and no more."""
    with Endpoint() as endpoint:
        endpoint.usage = lambda body: (1, 1)
        ledger = Ledger(budget=Budget(requests=5))
        with client_for(endpoint.url, tmp_path, ledger=ledger, concurrency=2) as client:
            run = orca(tmp_path)
            state = run(client, 40)
        assert len(endpoint.answered) == len(state.rows) == 5
        assert {reject.reason for reject in state.rejects} <= {"budget"}
        (told,) = run.told
        assert told.startswith("the budget of 5 requests is reached")
        assert "5 of 40 rows so far" in told


def test_the_rounds_before_a_budget_ended_become_rows(tmp_path: Path) -> None:
    """Evol-Instruct: a budget that ends in the third round leaves the rows of the first two."""
    run = MethodRun(tmp_path, EvolInstruct, method="evol-instruct", seeds="./s.jsonl", rounds=4)
    run.write("seeds", [{"instruction": "Why is item 7 heavy?"}])
    with Endpoint() as endpoint:
        endpoint.usage = lambda body: (1, 1)
        ledger = Ledger(budget=Budget(requests=7))
        with client_for(endpoint.url, tmp_path, ledger=ledger, concurrency=1) as client:
            state = run(client, 4)
    assert len(state.rows) == 2


@pytest.mark.parametrize(("patience", "mode", "most"), [(5, "requests", 5), (5, "batch", 40)])
def test_patience_limits_what_is_paid(tmp_path: Path, patience: int, mode: str, most: int) -> None:
    """A teacher of useless replies gets as many requests as `patience`; a batch holds all."""
    client = Client(lambda request: "")
    teacher = {**TEACHER, "mode": mode}
    with pytest.raises(Exception, match="wrote no usable row"):
        orca(tmp_path)(client, 40, patience=patience, teacher=teacher)
    assert len(client.asked) == most


@pytest.mark.parametrize(("allow_fewer", "same"), [(True, False), (False, True)])
def test_a_budget_that_decides_the_rows_is_part_of_their_key(allow_fewer: bool, same: bool) -> None:
    """A raised budget goes on where fewer rows were allowed; otherwise it changes nothing."""

    def key(**budget: Any) -> Any:
        config = msgspec.convert(
            {"kind": "generate", "method": "orca", "teacher": TEACHER, "count": 9, "seeds": "s",
             "allow_fewer": allow_fewer, "budget": budget}, OrcaConfig,
        )  # fmt: skip
        return Generate.fingerprint(config)

    assert (key(requests=3) == key(requests=9)) is same


@pytest.mark.parametrize(
    ("fields", "replies"),
    [
        ({"method": "preference", "seeds": "s", "answers": 3}, 9),
        ({"method": "textbook", "topics": ["t"]}, 4),
        ({"method": "textbook", "topics": ["t"], "judge": None}, 1),
        ({"method": "rewrite", "seeds": "s"}, 2),
        ({"method": "rewrite", "seeds": "s", "judge": False}, 1),
        ({"method": "template", "columns": {"a": {"prompt": "x"}, "b": {"prompt": "y"}},
          "validators": [{"column": "a", "judge": {"rubric": "r", "scale": [1, 5], "threshold": 3}}]},
         5),
        ({"method": "template", "columns": {"a": {"values": ["x"]}}}, 0),
        ({"method": "qa", "passages": "p", "questions_per_passage": 4}, 0.25),
        ({"method": "translate", "seeds": "s", "language": "de", "roles": ["user", "assistant"]}, 2),
    ],
)  # fmt: skip
def test_an_estimate_counts_every_reply(fields: dict[str, Any], replies: float) -> None:
    """Judgments and repetitions too; a request that makes several rows is shared by them."""
    cls = variant_class(Generate, fields["method"])
    config = msgspec.convert(
        {"kind": "generate", "teacher": TEACHER, "count": 100, **fields}, cls.Config
    )
    assert config.traffic().requests == 100 * replies


def test_a_preview_waits_for_no_batch() -> None:
    """A batch takes up to a day, and would hold more than is shown."""
    config = msgspec.convert(
        {"kind": "generate", "method": "orca", "teacher": {**TEACHER, "mode": "batch"},
         "count": 9, "seeds": "s"}, OrcaConfig,
    )  # fmt: skip
    assert _for_preview(config, 2).teacher.mode == "requests"


@pytest.mark.parametrize(("engine", "problems"), [("anthropic", 2), ("openai", 0)])
def test_a_temperature_that_an_engine_does_not_take(engine: str, problems: int) -> None:
    """Claude takes 1 at most; the teacher's own, and those of answers."""
    teacher = {**TEACHER, "engine": engine, "temperature": 1.5, "api_key": "${secret:KEY}"}
    config = msgspec.convert(
        {"kind": "generate", "method": "preference", "teacher": teacher, "count": 9, "seeds": "s",
         "answers": 2, "temperatures": [0.5, 1.2]}, variant_class(Generate, "preference").Config,
    )  # fmt: skip
    told = [message for _, message in Generate.problems(config) if "takes 1 at most" in message]
    assert len(told) == problems
