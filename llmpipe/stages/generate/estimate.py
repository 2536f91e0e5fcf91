"""What a generation takes before it runs: the teacher's memory here, or requests to an endpoint.

Money follows from the prices that the spec names; without them it is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping

from llmpipe.backends.spending import Usage
from llmpipe.contracts import EstimateContext, Needs
from llmpipe.estimate.loaded import PLAIN, heaviest, in_llama_cpp, together
from llmpipe.estimate.weights import Unknown, find_weights
from llmpipe.needs import Given
from llmpipe.stages.generate.protocol import GenerateConfig, Traffic


def estimate(config: GenerateConfig, inputs: Mapping[str, Given], asked: EstimateContext) -> Needs:
    """Return the memory of a teacher that is served here, or the money for an endpoint's."""
    teacher = config.teacher
    notes = [_requests(config.traffic())]
    if not teacher.local:
        money = most_money(config)
        if money is None:
            notes.append("money is not known: name what the endpoint charges in `teacher.price`")
        return Needs(memory=PLAIN, parts={"process": PLAIN}, money=money, notes=tuple(notes))
    weights = find_weights(inputs["teacher"], online=asked.online)
    if isinstance(weights, Unknown):
        return Needs(notes=(f"memory is not known: {weights.reason}", *notes))
    served = in_llama_cpp(weights, context=teacher.slot, slots=teacher.concurrency)
    parts = heaviest(together({"process": PLAIN}, served))
    return Needs(memory=sum(parts.values()), parts=parts, notes=tuple(notes))


def most_money(config: GenerateConfig) -> float | None:
    """Return what the rows cost at most, in US dollars, if no reply is rejected.

    None if the spec names no price: prices are never guessed.
    """
    price, budget, traffic = config.teacher.price, config.budget, config.traffic()
    if price is None:
        return None
    money = price.worst(Usage(traffic.prompts, traffic.replies))
    return min(money, budget.money) if budget is not None and budget.money else money


def _requests(traffic: Traffic) -> str:
    return (
        f"{traffic.requests:,} requests if no reply is rejected, with prompts of at most about "
        f"{traffic.prompts:,} and replies of at most {traffic.replies:,} tokens; rejected replies "
        "cost more, and journaled ones nothing"
    )
