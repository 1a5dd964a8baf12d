"""Evaluates XPath expressions that test only tags and attributes, by one walk, several times as fast as libxml2.

libxml2 allocates a set of nodes for every `self::div` and `@class`, and lxml passes the pattern of `re:test` as a new
string for every element. The walk reads the few attributes of each element and caches the result for each value,
because pages repeat values.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

TOKEN = re.compile(r"\s*(?:('[^']*'|\"[^\"]*\")|(re:test|starts-with|self::|\.//|[\w-]+)|(.))", re.DOTALL)
MEMORY = 1 << 14  # cached values for each attribute of an expression: a few megabytes in all
NO, YES, PERHAPS = 0, 1, 2  # PERHAPS: true if this attribute stands before the others of a `@a|@b`

Value = Callable[[str | None], bool]
"""A test of an attribute's value, which is None if the attribute is missing."""


class Untranslated(Exception):
    """The expression does more than a walk can do."""


@dataclass(frozen=True)
class Asked:
    """A test of the attribute among `names` that comes first in the tag; without names, a test of the element."""

    names: tuple[str, ...]
    test: Callable[[Any], bool]

    def of(self, element: Any) -> bool:
        return self.test(_first(element, self.names) if self.names else element)


@dataclass
class Step:
    """`.//tag[any of these][and any of these]`."""

    tags: tuple[str, ...]
    predicates: list[list[Asked]] = field(default_factory=list)


class _Answers(dict[str, int]):
    """A cache of NO, YES or PERHAPS by the value of one attribute."""

    def __init__(self, alone: Iterable[Value], among: Iterable[Value]) -> None:
        self._alone, self._among = tuple(alone), tuple(among)

    def __missing__(self, value: str) -> int:
        if len(self) >= MEMORY:
            self.clear()
        found = any(test(value) for test in self._alone)
        self[value] = YES if found else PERHAPS if any(test(value) for test in self._among) else NO
        return self[value]


class _Tests:
    """The tests for the elements with one tag: those in the first predicate of each step."""

    def __init__(self, steps: list[Step]) -> None:
        self.always = any(not step.predicates for step in steps)
        asked = [one for step in steps if step.predicates for one in step.predicates[0]]
        self._unions = [one for one in asked if len(one.names) > 1]
        names = dict.fromkeys(name for one in asked for name in one.names)
        self.answers = [
            (
                name,
                _Answers(
                    (one.test for one in asked if one.names == (name,)),
                    (one.test for one in self._unions if name in one.names),
                ),
            )
            for name in names
        ]

    def in_order(self, element: Any) -> bool:
        return any(one.of(element) for one in self._unions)


class Walk:
    """Called like an XPath expression. Returns the matching elements below a tree, in document order.

    Raises Untranslated for an expression that a walk cannot evaluate.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        steps, self._first = _Parser(path).steps()
        if any(not _plain(one) for step in steps for one in (step.predicates or [[]])[0]):
            raise Untranslated
        if len(steps) > 1 and any(len(step.predicates) > 1 for step in steps):
            raise Untranslated
        self._rest = steps[0].predicates[1:]
        tags = {tag for step in steps for tag in step.tags}
        self._tags = ("*",) if "*" in tags else tuple(sorted(tags))
        self._tests = {tag: _Tests([step for step in steps if {tag, "*"} & set(step.tags)]) for tag in tags | {"*"}}

    def __call__(self, tree: Any) -> list[Any]:
        return list(islice(self._find(tree), 1)) if self._first else list(self._find(tree))

    def _find(self, tree: Any) -> Iterable[Any]:
        by_tag, other = self._tests, self._tests["*"]
        for element in tree.iterdescendants(*self._tags):
            tests = by_tag.get(element.tag, other)
            if not tests.always:
                get, perhaps = element.get, NO
                for name, answers in tests.answers:
                    value = get(name)
                    if value is not None:
                        answer = answers[value]
                        if answer == YES:
                            break
                        perhaps |= answer
                else:
                    if not perhaps or not tests.in_order(element):
                        continue
            if not self._rest or all(any(one.of(element) for one in asked) for asked in self._rest):
                yield element


def _plain(asked: Asked) -> bool:
    """Whether a test reads only attributes, and is false for an element without them."""
    return bool(asked.names) and not asked.test(None)


def _first(element: Any, names: tuple[str, ...]) -> str | None:
    """The value of `@a|@b` in XPath: that of the attribute that comes first in the tag."""
    if len(names) == 1:
        value: str | None = element.get(names[0])
        return value
    return next((value for name, value in element.items() if name in names), None)


class _Parser:
    """A recursive-descent parser of the XPath subset that trafilatura uses. Raises Untranslated for anything else."""

    def __init__(self, path: str) -> None:
        self._tokens = [match[1] or match[2] or match[3] for match in TOKEN.finditer(path.strip())]

    def steps(self) -> tuple[list[Step], bool]:
        """The steps of a union, and whether only the first matching element is wanted."""
        first = self._take("(")
        steps = [self._step()]
        while self._take("|"):
            steps.append(self._step())
        if first:
            self._expect(")", "[", "1", "]")
        if self._tokens:
            raise Untranslated
        return steps, first

    def _step(self) -> Step:
        self._expect(".//")
        step = Step((self._next(),))
        while self._take("["):
            tags = self._tags_alone()
            if tags and step.tags == ("*",):
                step.tags = tags
                continue
            step.predicates.append(self._any())
            self._expect("]")
        return step

    def _tags_alone(self) -> tuple[str, ...]:
        """Consume `self::a or self::b]` and return its tags. For any other predicate, consume and return nothing."""
        inside = self._tokens[: self._tokens.index("]")] if "]" in self._tokens else []
        if len(inside) % 3 != 2 or set(inside[::3]) != {"self::"} or set(inside[2::3]) - {"or"}:
            return ()
        del self._tokens[: len(inside) + 1]
        return tuple(inside[1::3])

    def _any(self) -> list[Asked]:
        """Parse tests joined by `or`."""
        tests = [self._test()]
        while self._take("or"):
            tests.append(self._test())
        return tests

    def _test(self) -> Asked:
        word = self._next()
        if word == "not":
            self._expect("(")
            inner = self._any()
            self._expect(")")
            return Asked((), lambda element: not any(one.of(element) for one in inner))
        if word == "self::":
            tag = self._next()
            return Asked((), lambda element: element.tag == tag)
        if word == ".//":
            path = f".//{self._next()}"
            return Asked((), lambda element: element.find(path) is not None)
        if word == "@":
            return self._attribute(self._next())
        if word in ("re:test", "contains", "starts-with"):
            return self._function(word)
        raise Untranslated

    def _attribute(self, name: str) -> Asked:
        if not self._take("="):
            return Asked((name,), lambda value: value is not None)
        wanted = self._text()
        return Asked((name,), lambda value: value == wanted)

    def _function(self, function: str) -> Asked:
        self._expect("(")
        names, table = self._value()
        self._expect(",")
        text = self._text()
        flags = self._text() if self._take(",") else ""
        self._expect(")")
        if function == "contains":
            return Asked(names, lambda value: text in (value or "").translate(table))
        if function == "starts-with":
            return Asked(names, lambda value: (value or "").translate(table).startswith(text))
        search = re.compile(text, re.IGNORECASE if "i" in flags else 0).search
        return Asked(names, lambda value: search(value or "") is not None)

    def _value(self) -> tuple[tuple[str, ...], dict[int, int]]:
        """Parse `@a|@b`, or `translate` of it. Returns (attribute names, table for `str.translate`)."""
        table: dict[int, int] = {}
        translated = self._take("translate")
        if translated:
            self._expect("(")
        names: list[str] = []
        while not names or self._take("|"):
            self._expect("@")
            names.append(self._next())
        if translated:
            self._expect(",")
            before = self._text()
            self._expect(",")
            table = str.maketrans(before, self._text())
            self._expect(")")
        return tuple(names), table

    def _next(self) -> str:
        if not self._tokens:
            raise Untranslated
        return self._tokens.pop(0)

    def _take(self, word: str) -> bool:
        if self._tokens[:1] != [word]:
            return False
        self._tokens.pop(0)
        return True

    def _expect(self, *tokens: str) -> None:
        if not all(map(self._take, tokens)):
            raise Untranslated

    def _text(self) -> str:
        word = self._next()
        if word[0] not in "'\"":
            raise Untranslated
        return word[1:-1]
