"""Which captions an edit touches, in words: `has:hat and not has:outdoors`.

Terms are `has:TAG`, `name:PATTERN` (a path below the folder), `missing` (no caption) and `sentence` (has one), with `*`
for any text; joined by `and`, `or`, `not` and brackets. A tag of several words is quoted: `has:"long hair"`.
"""

import re
from collections.abc import Callable

from lorakiln.base.errors import UserError
from lorakiln.tag.caption import Caption
from lorakiln.tag.rules import matches, wild

Test = Callable[[str, Caption], bool]
_TOKEN = re.compile(r"""\s*(?:(\(|\))|((?:has|name):(?:"[^"]*"|'[^']*'|[^\s()]+))|(\w+))""")


def parse(text: str) -> Test:
    """A test of (picture's name, its caption). Raises UserError naming the place that is not understood."""
    tokens, at = [], 0
    text = text.strip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise UserError(f"--where {text}: cannot be read from '{text[at:]}'")
        tokens.append(match[match.lastindex or 0])
        at = match.end()
    if not tokens:
        return lambda name, caption: True
    test, rest = _either(tokens, text)
    if rest:
        raise UserError(f"--where {text}: '{rest[0]}' is one too many; join terms with 'and' or 'or'")
    return test


def _either(tokens: list[str], text: str) -> tuple[Test, list[str]]:
    test, tokens = _both(tokens, text)
    while tokens and tokens[0] == "or":
        test, tokens = _join(any, test, _both(tokens[1:], text))
    return test, tokens


def _both(tokens: list[str], text: str) -> tuple[Test, list[str]]:
    test, tokens = _one(tokens, text)
    while tokens and tokens[0] == "and":
        test, tokens = _join(all, test, _one(tokens[1:], text))
    return test, tokens


def _join(how: Callable, first: Test, more: tuple[Test, list[str]]) -> tuple[Test, list[str]]:
    second, rest = more
    return lambda name, caption: how((first(name, caption), second(name, caption))), rest


def _one(tokens: list[str], text: str) -> tuple[Test, list[str]]:
    if not tokens:
        raise UserError(f"--where {text}: ends too early; a term is has:TAG, name:PATTERN, missing or sentence")
    head, *rest = tokens
    if head == "not":
        test, rest = _one(rest, text)
        return lambda name, caption: not test(name, caption), rest
    if head == "(":
        test, rest = _either(rest, text)
        if not rest or rest[0] != ")":
            raise UserError(f"--where {text}: a bracket is not closed")
        return test, rest[1:]
    return _term(head, text), rest


def _term(term: str, text: str) -> Test:
    kind, _, value = term.partition(":")
    value = value.strip("\"'")
    if kind == "has" and value:
        return lambda name, caption: any(matches(tag, [value]) for tag in caption.tags)
    if kind == "name" and value:
        pattern = re.compile(wild(value), re.DOTALL)
        return lambda name, caption: pattern.fullmatch(name) is not None
    if term == "missing":
        return lambda name, caption: not caption.tags and not caption.sentence
    if term == "sentence":
        return lambda name, caption: bool(caption.sentence)
    raise UserError(f"--where {text}: unknown term '{term}'; choose from has:TAG, name:PATTERN, missing, sentence")
