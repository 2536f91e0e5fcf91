"""kill -9 of a client that asks a faulty endpoint: what is sent again was in flight, nothing is lost.

``--long`` kills ten times.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from openai_endpoint import Answer, Endpoint

pytestmark = pytest.mark.heavy

CONCURRENCY, REQUESTS = 8, 240

ASK = """
import json, sys
from pathlib import Path
from llmpipe.backends.ledger import Ledger
from llmpipe.backends.openai.chat import ChatClient, ChatRequest
from llmpipe.backends.openai.journal import Journal
from llmpipe.backends.spending import Budget
asked = [ChatRequest([{"role": "user", "content": f"q{i}"}], 0.5, 16, i) for i in range(REQUESTS)]
with Journal(Path(sys.argv[2])) as journal, ChatClient(
    sys.argv[1], "m", {"model": "m"}, journal, CONCURRENCY, ledger=Ledger(None, Budget(requests=5000))
) as client:
    replies = client.ask(asked)
    print(json.dumps({"texts": [r.text for r in replies], "problems": [r.problem for r in replies],
                      "sent": client.sent, "lost": client.ledger.lost}))
""".replace("REQUESTS", str(REQUESTS)).replace("CONCURRENCY", str(CONCURRENCY))


class Faults:
    """Fails some of the requests, and counts what each request got."""

    def __init__(self) -> None:
        self.chance = random.Random(5)
        self.served: Counter[int] = Counter()
        self.lock = threading.Lock()

    def __call__(self, body: dict[str, Any], number: int) -> Answer | None:
        time.sleep(0.05)
        with self.lock:
            drawn = self.chance.random()
            if drawn < 0.07:
                return (429 if drawn < 0.05 else 500), {"error": {"message": "not now"}}, {}
            self.served[body["seed"]] += 1
        return None


def test_killed_clients_send_again_what_was_in_flight(tmp_path: Path, long_form: bool) -> None:
    """Replies that were journaled are never asked for again; the others at most once for each kill."""
    faults, chance = Faults(), random.Random(11)
    kills = 10 if long_form else 2
    with Endpoint(faults) as endpoint:
        command = [sys.executable, "-c", ASK, endpoint.url, str(tmp_path)]
        for kill in range(kills):
            with subprocess.Popen(command, stdout=subprocess.DEVNULL) as client:
                target = min(
                    len(endpoint.answered) + chance.randint(1, 20), REQUESTS - kills + kill
                )
                while len(endpoint.answered) < target:
                    assert client.poll() is None
                    time.sleep(0.005)
                os.kill(client.pid, signal.SIGKILL)
        time.sleep(0.2)  # what the endpoint is still serving
        last = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        before = len(endpoint.received)
        again = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        assert len(endpoint.received) == before
    assert last["problems"] == [None] * REQUESTS
    assert len(set(last["texts"])) == REQUESTS
    assert (again["texts"], again["sent"]) == (last["texts"], 0)
    twice = sum(count - 1 for count in faults.served.values())
    assert twice <= kills * CONCURRENCY
    assert last["lost"] >= twice  # all of them count in the budget
