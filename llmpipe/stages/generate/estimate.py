"""What a generation takes before it runs: the teacher's memory here, or requests to an endpoint.

Money follows from the prices that the spec names; without them it is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping

from llmpipe.contracts import EstimateContext, Needs
from llmpipe.estimate.loaded import PLAIN, heaviest, in_llama_cpp, together
from llmpipe.estimate.weights import Unknown, find_weights
from llmpipe.needs import Given
from llmpipe.stages.generate.protocol import GenerateConfig, Traffic

MILLION = 1_000_000


def estimate(config: GenerateConfig, inputs: Mapping[str, Given], asked: EstimateContext) -> Needs:
    """Return the memory of a teacher that is served here, or the money for an endpoint's."""
    teacher, traffic = config.teacher, config.traffic()
    notes = [_requests(traffic)]
    if teacher.engine == "openai":
        money = None
        if teacher.price is None:
            notes.append("money is not known: name what the endpoint charges in `teacher.price`")
        elif traffic is None:
            notes.append("money is not known, because the number of requests is not")
        else:
            prompts, replies = traffic.prompts, traffic.replies
            total = prompts * teacher.price.input + replies * teacher.price.output
            money = total / MILLION
        return Needs(memory=PLAIN, parts={"process": PLAIN}, money=money, notes=tuple(notes))
    weights = find_weights(inputs["teacher"], online=asked.online)
    if isinstance(weights, Unknown):
        return Needs(notes=(f"memory is not known: {weights.reason}", *notes))
    served = in_llama_cpp(weights, context=teacher.context, slots=teacher.concurrency)
    parts = heaviest(together({"process": PLAIN}, served))
    return Needs(memory=sum(parts.values()), parts=parts, notes=tuple(notes))


def _requests(traffic: Traffic | None) -> str:
    if traffic is None:
        return "the number of requests depends on the teacher's replies"
    return (
        f"{traffic.requests:,} requests if no reply is rejected, with prompts of at most about "
        f"{traffic.prompts:,} and replies of at most {traffic.replies:,} tokens; rejected replies "
        "cost more, and journaled ones nothing"
    )
