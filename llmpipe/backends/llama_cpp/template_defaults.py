"""Find out whether a chat template enables thinking by default.

llama.cpp sets ``enable_thinking`` to true for every template that has this switch. transformers,
and therefore training, leaves it undefined. If a template thinks only on request (as those of
Qwen3.5's small models), the served prompt would differ from the trained one.
"""

from __future__ import annotations

SWITCH = "enable_thinking"

_CHAT = [{"role": "user", "content": "a"}]


def thinks_only_on_request(template: str) -> bool:
    """Return whether a template omits thinking by default and has a switch for it.

    Also return False if jinja2 cannot read the template. Then llama.cpp's own
    default applies, and the parity check finds a difference.
    """
    if SWITCH not in template:
        return False
    by_default = _rendered(template)
    on, off = (_rendered(template, enable_thinking=told) for told in (True, False))
    return by_default is not None and by_default == off != on


def _rendered(template: str, **arguments: bool) -> str | None:
    """Render a question as transformers does; return None if the template fails."""
    from jinja2.exceptions import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["strftime_now"] = lambda form: ""  # the date does not matter
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
