"""Find settings of a request that its choice of samplers would leave without effect.

llama.cpp samples with Mirostat instead of all other samplers but the temperature, and with
``samplers`` by those in the list only. A ``temperature`` of 0 has no effect either if the list
leaves the temperature out: the answer would be random, with status 200.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmpipe.web.errors import unsupported

SETTINGS: Mapping[str, Mapping[str, tuple[float, ...]]] = {
    "dry": {"dry_multiplier": (0,)},
    "min_p": {"min_p": (0,)},
    "penalties": {
        "repeat_penalty": (1,),
        "frequency_penalty": (0,),
        "presence_penalty": (0,),
    },
    "temperature": {"temperature": (1,), "dynatemp_range": (0,)},
    "top_k": {"top_k": (0, -1)},
    "top_n_sigma": {"top_n_sigma": (0, -1)},
    "top_p": {"top_p": (1,)},
    "typ_p": {"typical_p": (1,)},
    "xtc": {"xtc_probability": (0,)},
}
"""The fields that switch each sampler on, with the values that switch it off.

Its other fields, such as ``dry_base``, are details: they ask for nothing by themselves.
"""


def require_used(request: Any) -> None:
    """Require that the samplers of a request read all settings in it.

    Raises:
        ApiError: They do not read one that asks for something.
    """
    if request.mirostat:
        used, why = ["temperature"], "beside `mirostat`, which replaces all but the temperature"
        if request.samplers is not None:
            raise unsupported(f"`samplers` {why}")
    elif request.samplers is not None:
        used, why = request.samplers, "without its sampler in `samplers`"
    else:
        return
    for sampler, fields in SETTINGS.items():
        for name, off in fields.items():
            value = getattr(request, name)
            if sampler not in used and value is not None and value not in off:
                raise unsupported(f"`{name}` {why}")
