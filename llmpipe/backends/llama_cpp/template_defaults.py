"""What a chat template does where nobody says whether the model is to think.

llama.cpp sets ``enable_thinking`` to true for every template that has the switch; transformers, and
so training, leaves it undefined. Templates whose model thinks only when told to (Qwen3.5's small
ones) would then be served another prompt than the model was trained on.
"""

from __future__ import annotations

SWITCH = "enable_thinking"

_CHAT = [{"role": "user", "content": "a"}]


def thinks_only_if_told(template: str) -> bool:
    """Return whether a template leaves thinking out by default, and has a switch to have it.

    False as well where jinja2 cannot read the template: then llama.cpp's own default holds, and the
    parity gate sees a difference.
    """
    if SWITCH not in template:
        return False
    by_default = _rendered(template)
    on, off = (_rendered(template, enable_thinking=told) for told in (True, False))
    return by_default is not None and by_default == off != on


def _rendered(template: str, **arguments: bool) -> str | None:
    """Render a question as transformers does; None where the template cannot be rendered so."""
    from jinja2.exceptions import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["strftime_now"] = lambda form: ""  # the day matters to neither side
    environment.globals["raise_exception"] = _refuse
    try:
        return environment.from_string(template).render(
            messages=_CHAT, add_generation_prompt=True, bos_token="", eos_token="", **arguments
        )
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError):
        return None


def _refuse(message: str) -> str:
    from jinja2.exceptions import TemplateError

    raise TemplateError(message)
