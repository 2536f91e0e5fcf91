"""How answers refuse, and how they speak of themselves as a language model, in several languages.

Phrases are normalized: without case, with one space between words.
"""

from __future__ import annotations

REFUSALS = (
    "i cannot help with", "i can't help with", "i cannot assist", "i can't assist",
    "i'm sorry, but i can", "i am sorry, but i can", "sorry, i can't", "sorry, i cannot",
    "i'm unable to", "i am unable to", "i won't be able to", "i cannot fulfill",
    "i can't fulfill", "i cannot provide", "i can't provide", "i must decline",
    "es tut mir leid, aber ich kann", "tut mir leid, ich kann", "ich kann dir dabei nicht helfen",
    "ich kann ihnen dabei nicht helfen", "dabei kann ich nicht helfen",
    "je suis désolé, mais je ne peux", "désolé, je ne peux", "je ne peux pas vous aider",
    "lo siento, pero no puedo", "lo siento, no puedo", "no puedo ayudarte con",
    "no puedo ayudarle con", "mi dispiace, ma non posso", "non posso aiutarti con",
    "desculpe, mas não posso", "sinto muito, mas não posso", "não posso ajudar com",
    "het spijt me, maar ik kan", "sorry, ik kan", "ik kan je daar niet mee helpen",
    "к сожалению, я не могу", "извините, но я не могу", "я не могу помочь",
    "抱歉,我不能", "抱歉,我无法", "对不起,我不能", "对不起,我无法", "很抱歉,我无法",
)  # fmt: skip

OF_ITSELF = (
    "as an ai language model", "as an ai model", "as an ai assistant", "as a language model",
    "as a large language model", "i am just an ai", "i'm just an ai", "my training data",
    "my knowledge cutoff", "als ki-sprachmodell", "als sprachmodell", "als ki-modell",
    "en tant que modèle de langage", "en tant qu'ia", "en tant qu'intelligence artificielle",
    "como modelo de lenguaje", "como modelo de lengua", "como inteligencia artificial, ",
    "come modello linguistico", "come modello di linguaggio", "como modelo de linguagem",
    "als ai-taalmodel", "als taalmodel", "как языковая модель", "как искусственный интеллект, я",
    "作为一个ai", "作为一个人工智能", "作为ai语言模型", "作为人工智能语言模型",
)  # fmt: skip
