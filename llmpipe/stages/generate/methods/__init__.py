"""The generation methods: one package or module each, imported only when a spec names it.

Adding one means adding a file here and a line to `METHODS`. Packages may bring methods of their
own through the entry point group `ENTRY_POINTS` (``name = "package.module:Class"``).
"""

from __future__ import annotations

METHODS = {
    "evol-instruct": "llmpipe.stages.generate.methods.evol_instruct:EvolInstruct",
    "orca": "llmpipe.stages.generate.methods.orca:Orca",
    "preference": "llmpipe.stages.generate.methods.preference:PreferenceMethod",
    "qa": "llmpipe.stages.generate.methods.qa:Qa",
    "rewrite": "llmpipe.stages.generate.methods.rewrite:Rewrite",
    "self-instruct": "llmpipe.stages.generate.methods.self_instruct:SelfInstruct",
    "template": "llmpipe.stages.generate.methods.template:TemplateMethod",
    "textbook": "llmpipe.stages.generate.methods.textbook:Textbook",
    "translate": "llmpipe.stages.generate.methods.translate:Translate",
}
"""Method → ``module:Class``; the class keeps `llmpipe.stages.generate.protocol.Method`."""

ENTRY_POINTS = "llmpipe.generation_methods"
