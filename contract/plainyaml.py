"""YAML for settings: plain values, each key once.

Of two equal keys YAML silently takes the second; here they are an error. Aliases are an error, too, because a few lines
of them can stand for more values than any machine holds, and so is nesting deeper than settings need.
"""

from typing import Any

import yaml

ERRORS = (yaml.YAMLError, TypeError, ValueError, LookupError, AttributeError, RecursionError, OverflowError)
"""What PyYAML may raise for a text; for 2024-13-45, for example, the ValueError of a date that does not exist."""

# Python's own limit for int; YAML 1.1 also reads 1:1:1 to the base of sixty, in time quadratic in the length.
MAX_DIGITS = 4300
MAX_DEPTH = 20  # levels of nesting; a recipe needs five


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
            problem = f"a number of more than {MAX_DIGITS:,} characters"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
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
