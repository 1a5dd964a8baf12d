"""YAML as a person writes settings: plain values, each key once.

YAML lets the second of two equal keys win in silence; here that is an error. So is an alias, because a few lines of aliases stand for more
values than any machine holds, and nesting that no settings need.
"""

from typing import Any

import yaml

ERRORS = (yaml.YAMLError, TypeError, ValueError, LookupError, AttributeError, RecursionError, OverflowError)
"""What PyYAML raises at text: at 2024-13-45, for one, the ValueError of a date that does not exist."""

MAX_DIGITS = 4300  # of a number, as for Python's own; YAML 1.1 reads 1:1:1 to the base of sixty, in time that grows with the square
MAX_DEPTH = 20  # of values within values; a recipe needs five


def load(text: str) -> Any:
    """The value of a YAML document. Raises one of ERRORS."""
    return yaml.load(text, Loader=_Loader)


class _Loader(yaml.SafeLoader):
    _depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "an alias is not read here; write the value out", mark)
        if self._depth == MAX_DEPTH:
            raise yaml.composer.ComposerError(None, None, f"nested more than {MAX_DEPTH} deep", mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        if node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float") and len(node.value) > MAX_DIGITS:
            told = f"a number of more than {MAX_DIGITS:,} characters"
            raise yaml.constructor.ConstructorError(None, None, told, node.start_mark)
        return super().construct_object(node, deep)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", key_node.start_mark)
            seen.add(key)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping
