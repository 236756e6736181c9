"""Sixty fixed prompts that have nothing to do with any repository, each checked by program: what must not be forgotten.

In the manner of IFEval (Zhou et al. 2023): instructions whose obedience a few lines of code can see. Pure.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from dataclasses import dataclass

Check = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Canary:
    """A prompt, and whether an answer does what it asks."""

    prompt: str
    passes: Check


def _says(*words: str) -> Check:
    """Holds one of `words`, as a whole word, whatever its case."""
    rule = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, words))})(?!\w)", re.IGNORECASE)
    return lambda answer: bool(rule.search(answer))


def _all(*checks: Check) -> Check:
    return lambda answer: all(check(answer) for check in checks)


def _words(most: int) -> Check:
    return lambda answer: 1 <= len(answer.split()) <= most


def _lines(prefix: str, count: int) -> Check:
    rule = re.compile(rf"^\s*{prefix}\s*\S", re.MULTILINE)
    return lambda answer: len(rule.findall(answer)) == count


def _code(answer: str) -> str:
    found = re.search(r"```(?:python)?\n(.*?)```", answer, re.DOTALL)
    return found[1] if found else answer


def _python(*needed: str) -> Check:
    """Is Python that parses and holds all of `needed`."""

    def check(answer: str) -> bool:
        code = _code(answer)
        try:
            return bool(ast.parse(code).body) and all(part in code for part in needed)
        except (SyntaxError, ValueError):
            return False

    return check


def _json(*keys: str) -> Check:
    def check(answer: str) -> bool:
        found = re.search(r"[\[{].*[\]}]", answer, re.DOTALL)
        try:
            value = json.loads(found[0]) if found else None
        except ValueError:
            return False
        return isinstance(value, dict if keys else list) and all(key in value for key in keys)

    return check


def _lower(answer: str) -> bool:
    return any(map(str.isalpha, answer)) and answer == answer.lower()


def _upper(answer: str) -> bool:
    return any(map(str.isalpha, answer)) and answer == answer.upper()


def _without(letter: str) -> Check:
    return lambda answer: bool(answer.strip()) and letter not in answer.lower()


def _ends(text: str) -> Check:
    return lambda answer: answer.rstrip().rstrip(".").endswith(text)


def _starts(text: str) -> Check:
    return lambda answer: answer.lstrip().startswith(text)


def _letters(answer: str) -> bool:
    return bool(re.search(r"a\W*b\W*c\W*d\W*e", answer, re.IGNORECASE))


def _stays_short(answer: str) -> bool:
    return 0 < len(answer.strip()) <= 200


CANARIES: tuple[Canary, ...] = tuple(
    Canary(prompt, passes)
    for prompt, passes in (
        # What everybody knows.
        ("What is the capital of France? Answer with one word.", _all(_says("Paris"), _words(3))),
        ("What is the capital of Japan?", _says("Tokyo")),
        ("How many days does a week have?", _says("7", "seven")),
        ("How many months does a year have?", _says("12", "twelve")),
        ("Which planet do we live on?", _says("Earth")),
        ("What color is the sky on a clear day?", _says("blue")),
        ("What is the opposite of hot?", _says("cold")),
        ("What do bees make?", _says("honey")),
        ("Who wrote Romeo and Juliet?", _says("Shakespeare")),
        ("What is frozen water called?", _says("ice")),
        ("What is the chemical symbol of water?", _says("H2O", "H₂O")),
        ("Which ocean is the largest?", _says("Pacific")),
        ("At how many degrees Celsius does water boil?", _says("100", "hundred")),
        ("Name the first month of the year.", _says("January")),
        # Arithmetic.
        ("What is 2 + 2? Answer with the number.", _says("4", "four")),
        ("What is 10 - 3? Answer with the number.", _says("7", "seven")),
        ("What is 5 times 6? Answer with the number.", _says("30", "thirty")),
        ("What is 9 + 8? Answer with the number.", _says("17", "seventeen")),
        ("What is 100 divided by 4? Answer with the number.", _says("25")),
        ("What is half of 18? Answer with the number.", _says("9", "nine")),
        ("Which is larger, 9 or 4? Answer with the number.", _all(_says("9", "nine"), _words(12))),
        ("Continue the sequence with one number: 2, 4, 6, 8,", _says("10", "ten")),
        # Form.
        ("Write the word hello in capital letters, and nothing else.", _all(_says("HELLO"), _upper)),
        ("Write one sentence about the sea, in lower case letters only.", _lower),
        ("Write one sentence about dogs, in capital letters only.", _upper),
        ("List three fruits, each on a line of its own that begins with '- '.", _lines("-", 3)),
        ("List four animals, each on a line of its own that begins with '* '.", _lines(r"\*", 4)),
        ("List three colors as a numbered list.", _lines(r"\d\.", 3)),
        ("Answer with yes or no: is fire hot?", _all(_says("yes"), _words(8))),
        ("Answer with yes or no: can pigs fly?", _all(_says("no"), _words(8))),
        ("Say good morning in at most five words.", _words(5)),
        ("Describe a cat in at most ten words.", _words(10)),
        ("Begin your answer with the word Certainly. What is a book?", _starts("Certainly")),
        ("End your answer with the word done. What is a chair?", _ends("done")),
        ("Answer without the letter z: what is a house?", _without("z")),
        ("Put your answer in quotation marks: what is the color of snow?", _all(_starts('"'), _says("white"))),
        ("Repeat exactly: the quick brown fox", _says("the quick brown fox")),
        ("Write the numbers from 1 to 5, separated by commas.", _says("1, 2, 3, 4, 5", "1,2,3,4,5")),
        ("Write the first five letters of the alphabet.", _letters),
        ("Spell the word cat with hyphens between its letters.", _says("c-a-t")),
        ("Explain in one short sentence what rain is.", _stays_short),
        ("Give a title for a story about a dragon. Only the title.", _words(12)),
        ("Answer only with an empty JSON list.", _json()),
        ('Answer only with a JSON object that has the keys "name" and "age".', _json("name", "age")),
        ('Write a JSON object with one key "ok" whose value is true.', _json("ok")),
        # Programs that have nothing to do with the repository.
        ("Write a Python function add(a, b) that returns their sum. Only code.", _python("def add", "return")),
        ("Write a Python function is_even(n). Only code.", _python("def is_even", "% 2")),
        ("Write one line of Python that prints Hello.", _python("print(", "Hello")),
        ("Write a Python class Dog with a method bark. Only code.", _python("class Dog", "def bark")),
        ("Write a Python list comprehension that squares the numbers of range(10).", _python(" for ", "range(10)")),
        ("Which Python keyword defines a function?", _says("def")),
        ("Which Python keyword begins a loop over a list?", _says("for")),
        ("Which Python function gives the length of a list?", _says("len", "len()")),
        ("Which HTML tag makes a link?", _says("a", "<a>", "anchor")),
        ("Which SQL keyword reads rows from a table?", _says("SELECT")),
        ("Which git command records changes in the repository?", _says("commit", "git commit")),
        ("Which shell command lists the files of a folder?", _says("ls", "dir")),
        ("What does HTTP status 404 mean?", _says("not found")),
        ("What does CPU stand for?", _says("central processing unit")),
        ("In which data structure is the last one in the first one out?", _says("stack", "LIFO")),
    )
)  # fmt: skip
