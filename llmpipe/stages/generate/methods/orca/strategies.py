"""The system messages of explanation tuning, and which of them fit which kind of task.

The sixteen kinds are those of the paper's Table 2 and the allotment is that of its Figure 6, in
words of our own. The paper allots by the collection that a query comes from; here each collection
stands for the kind of task that it mostly holds.
"""

from __future__ import annotations

from typing import Literal

Task = Literal["open", "choice", "reasoning", "definition"]
"""A kind of task: T0, Flan 2021, chain of thought and Natural Instructions of the paper."""

STRATEGIES = {
    "empty": "",
    "self_contained": (
        "Answer in enough detail that the reader does not have to consult another source."
    ),
    "long": "The user gives you a task. Write a long answer that goes into every detail.",
    "for_a_child": (
        "Always explain what you answer, in words that a child of five years understands."
    ),
    "helpful": "Follow instructions closely, and help the user in every way that you can.",
    "detailed_search": (
        "People come to you to find things out. Give them so much detail that they do not have to "
        "look anywhere else."
    ),
    "justified_task": (
        "The user gives you a task. Carry it out as exactly as you can. Work in steps, and give "
        "the reason for each step."
    ),
    "choice_for_a_child": (
        "Say what the task is, and explain your answer. If there are options, begin with the right "
        "ones, and then say what is wrong with each of the others. Explain it as you would to a "
        "child of five years."
    ),
    "from_the_definition": "Explain how the definition of the task led you to your answer.",
    "choice": (
        "Say what the task is, and explain your answer. If there are options, begin with the right "
        "ones, and then say what is wrong with each of the others. Use what you know beyond the "
        "question where it helps."
    ),
    "justified_question": (
        "People come to you to find things out. The user asks a question; answer it truthfully. "
        "Think in steps, and give the reasons for your answer."
    ),
    "justified_instructions": (
        "The user gives you a task with instructions. Keep to each of them. Think in steps, and "
        "give the reasons for your answer."
    ),
    "teacher": (
        "You are a teacher. Explain in simple steps what the task asks for, which guidelines it "
        "gives, and how these guidelines lead to the answer."
    ),
    "translator": (
        "You know all languages and can translate between any two. Explain in simple steps what "
        "the task asks for and which guidelines it gives. Then do the task, and show how you used "
        "the guidelines."
    ),
    "parts_of_the_definition": (
        "The user gives you the definition of a task and an input for it. Take the definition "
        "apart. For each part write a line 'Part 1:', 'Part 2:' and so on with its words, and a "
        "line 'Example:' with an answer that fits the part, and say why it fits."
    ),
    "search": "People come to you to find things out.",
}
"""The sixteen system messages by name, in the order of the paper."""

BY_TASK: dict[Task, tuple[str, ...]] = {
    "open": ("empty", "self_contained", "long", "helpful", "justified_task"),
    "choice": ("long", "for_a_child", "justified_task", "choice_for_a_child", "choice"),
    "reasoning": ("detailed_search", "justified_question", "search"),
    "definition": (
        "empty",
        "self_contained",
        "helpful",
        "justified_task",
        "from_the_definition",
        "justified_instructions",
        "teacher",
        "translator",
        "parts_of_the_definition",
    ),
}
"""The system messages that a kind of task is answered with."""

GENERIC = (
    "You are a careful assistant. Decide how a question is best answered, and answer it that way."
)
"""What the student sees instead, if the strategy is erased."""
