"""The rules of `check_docs.py --prose`, for public and private names alike.

- The first line of a docstring says what the thing is (a noun phrase) or what
  it does (a verb): it must not begin with What, Which, Whether, How or Where.
- An entry of `Args:` or `Attributes:` names a thing. Its first word must not be
  a preposition (Of, For, As, With, In, ...), a conjunction, a pronoun (That,
  Those, It, Whatever, ...) or one of What, Which, How, Where, When, Why and
  Who; and its first sentence, "Defaults to ..." aside, must hold more than
  function words. Code in backticks and numbers count as nouns. "Whether ..." is
  fine for a flag, and so is "Same as in `fine_tune`." in place of "As for ...".
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from _docstrings import DEFAULT, Definition, entries, split_sections

# First words of a docstring, and of the text of an argument, that `--prose`
# refuses. None of them can begin a noun phrase.
QUESTIONS = {"what", "which", "whether", "how", "where"}
OPENERS = QUESTIONS - {"whether"} | set(
    "when why who whose whom whatever whichever whoever wherever whenever "
    "about above across after against among around as at before behind below "
    "beneath beside besides between beyond by during except for from in inside "
    "into like near of off on onto out outside over per since than through to "
    "toward towards under until up upon via with within without and because "
    "but if nor or so such though unless while likewise that those it they "
    "them he she we you yours ours theirs itself themselves "
    "anything everything nothing something".split()
)
# Words that name nothing by themselves.
FUNCTION_WORDS = OPENERS | set(
    "whether a an the this these its their our your his her own same other "
    "others another each every any all both either neither some none no not "
    "only many much more most few fewer less least one ones two be is are was "
    "were been being has have had do does did done can could may might must "
    "shall should will would there here then too also even just else yet "
    "again already".split()
)
WORD = re.compile(r"`[^`]*`|[A-Za-z0-9][\w'-]*")
SENTENCE = re.compile(r"\.(?: |$)")


def prose(folder: Path) -> list[str]:
    """Returns the messages of `--prose`, and then their number by room."""
    messages = []
    counts: Counter[str] = Counter()
    for path in sorted(folder.rglob("*.py")):
        found = sorted(check_prose(ast.parse(path.read_text(encoding="utf-8"))))
        counts[path.relative_to(folder).parts[0]] += len(found)
        messages += [f"{path}:{line}: {message}" for line, message in found]
    totals = [f"{count:5} {room}" for room, count in counts.items() if count]
    return messages + totals


def check_prose(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yields `(line, message)` for each docstring that reads badly."""
    for node in ast.walk(tree):
        if not isinstance(node, Definition | ast.Module):
            continue
        doc = ast.get_docstring(node)
        if not doc:
            continue
        line = node.body[0].lineno
        name = "module" if isinstance(node, ast.Module) else node.name
        first = first_word(doc)
        if first.lower() in QUESTIONS:
            yield (
                line,
                f"`{name}`: the first line must say what it is or does. "
                f'It begins with "{first}"',
            )
        sections = split_sections(doc)
        for title in ("Args", "Attributes"):
            for entry, text in entries(sections.get(title, [])).items():
                for message in check_entry(entry, text):
                    yield line, f"`{name}`: {message}"


def check_entry(name: str, text: str) -> Iterator[str]:
    """Yields what is wrong with the text of the argument `name`."""
    text = DEFAULT.split(text)[0].strip()
    first = first_word(text)
    words = WORD.findall(SENTENCE.split(text)[0])
    if first.lower() in OPENERS:
        yield f'`{name}` must begin with a noun. It begins with "{first}"'
    elif all(word.lower() in FUNCTION_WORDS for word in words):
        yield f'`{name}` must name a thing. Received: "{text}"'


def first_word(text: str) -> str:
    """Returns the first word of a text, "" where that is code or a number."""
    match = re.match(r"[A-Za-z][\w'-]*", text)
    return match[0] if match else ""
