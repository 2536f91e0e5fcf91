"""Prometheus metrics of the services."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response

if TYPE_CHECKING:
    from llmpipe.retrieval.answer import Answer

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250)


class RequestMetrics:
    """The metrics of every service: its requests."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.count = Counter(
            "llmpipe_requests",
            "Requests by route and status; 499 is a client that disconnected.",
            ("route", "status"),
            registry=registry,
        )
        self.seconds = Histogram(
            "llmpipe_request_seconds",
            "Seconds from a request to the end of its response.",
            ("route",),
            registry=registry,
            buckets=_SECONDS,
        )
        self.in_flight = Gauge(
            "llmpipe_requests_in_flight", "Requests in progress.", registry=registry
        )

    async def show(self, request: Request) -> Response:
        """Return all metrics of the registry in Prometheus' format."""
        return Response(generate_latest(self.registry), media_type=CONTENT_TYPE_LATEST)


class Metrics:
    """The metrics of a service that answers questions."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self.requests = RequestMetrics(registry)
        self.waiting = Gauge(
            "llmpipe_questions_waiting", "Questions that wait for a slot.", registry=registry
        )
        self._answers = Counter(
            "llmpipe_answers", "Answered questions, including abstentions.", registry=registry
        )
        self._abstentions = Counter(
            "llmpipe_abstentions",
            "Answers that say that the sources do not contain one.",
            registry=registry,
        )
        self._tokens = Counter(
            "llmpipe_generated_tokens", "Tokens of the answers.", registry=registry
        )
        self._retrieval = Histogram(
            "llmpipe_retrieval_seconds",
            "Seconds of searching and reranking for an answer.",
            registry=registry,
            buckets=_SECONDS,
        )
        self._generation = Histogram(
            "llmpipe_generation_seconds",
            "Seconds in which the model wrote an answer.",
            registry=registry,
            buckets=_SECONDS,
        )

    def count_answer(self, answer: Answer) -> None:
        """Count a completed answer."""
        self._answers.inc()
        self._retrieval.observe(answer.timings.retrieve + answer.timings.rerank)
        if answer.abstained:
            self._abstentions.inc()
        if answer.timings.generate:
            self._generation.observe(answer.timings.generate)
        self._tokens.inc(answer.usage.completion_tokens or 0)
