"""Which small faults a module can have, and its text with one of them. Pure: reads and writes no file.

cosmic-ray's operators turn comparisons, signs, booleans and numbers, and empty loops; two of our own skip a call and drop a term.
"""

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import parso
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator

COMPARISONS = [
    "Eq_NotEq",
    "NotEq_Eq",
    "Lt_LtE",
    "Lt_GtE",
    "LtE_Lt",
    "LtE_Gt",
    "Gt_GtE",
    "Gt_LtE",
    "GtE_Gt",
    "GtE_Lt",
    "Is_IsNot",
    "IsNot_Is",
]
ARITHMETIC = [
    "Add_Sub",
    "Sub_Add",
    "Mul_Div",
    "Div_Mul",
    "Mul_Add",
    "FloorDiv_Mul",
    "Mod_FloorDiv",
    "Pow_Mul",
    "LShift_RShift",
    "RShift_LShift",
]
OTHERS = [
    "AddNot",
    "ReplaceTrueWithFalse",
    "ReplaceFalseWithTrue",
    "ReplaceAndWithOr",
    "ReplaceOrWithAnd",
    "ReplaceBreakWithContinue",
    "ReplaceContinueWithBreak",
    "NumberReplacer",
    "ExceptionReplacer",
    "ZeroIterationForLoop",
    "ReplaceUnaryOperator_Delete_USub",
    "ReplaceUnaryOperator_Delete_Not",
]


class SkipCall(Operator):
    """A statement that is nothing but a call does nothing: a write, a check or a signal is left out."""

    def mutation_positions(self, node: Any) -> Iterable[tuple[Any, Any]]:
        if node.type == "expr_stmt" or node.parent is None or node.parent.type != "simple_stmt":
            return
        last = node.children[-1] if hasattr(node, "children") else None
        if (
            node.type in ("atom_expr", "power")
            and last is not None
            and last.type == "trailer"
            and last.children[0] == "("
        ):
            yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        return parso.python.tree.Name("pass", node.start_pos, prefix=node.get_first_leaf().prefix)

    @classmethod
    def examples(cls) -> Sequence[Any]:
        return ()


class DropTerm(Operator):
    """A sum or a product loses what stands after its last sign."""

    def mutation_positions(self, node: Any) -> Iterable[tuple[Any, Any]]:
        if node.type in ("arith_expr", "term"):
            yield node.children[-2].start_pos, node.children[-1].end_pos

    def mutate(self, node: Any, index: int) -> Any:
        node.children = node.children[:-2]
        return node

    @classmethod
    def examples(cls) -> Sequence[Any]:
        return ()


def operators() -> dict[str, Operator]:
    """Every kind of fault, by name."""
    names = [f"ReplaceComparisonOperator_{name}" for name in COMPARISONS]
    names += [f"ReplaceBinaryOperator_{name}" for name in ARITHMETIC]
    made = {name: get_operator(f"core/{name}")() for name in (*names, *OTHERS)}
    return made | {"SkipCall": SkipCall(), "DropTerm": DropTerm()}


@dataclass(frozen=True, order=True)
class Fault:
    """One fault: `occurrence` counts the places in `module` where the operator `kind` applies. `line` counts from 1."""

    module: str
    line: int
    column: int
    kind: str
    occurrence: int


def faults(module: str, source: str) -> list[Fault]:
    """Every fault that a module's text can have."""
    nodes = list(ast_nodes(get_ast(source)))
    return [
        Fault(module, line, column, kind, occurrence)
        for kind, operator in operators().items()
        for occurrence, ((line, column), _) in enumerate(
            position for node in nodes for position in operator.mutation_positions(node)
        )
    ]


def draw(found: Sequence[Fault], count: int, chance: random.Random) -> list[Fault]:
    """At most `count` faults, each at another place.

    Places are drawn before kinds, because some places have many more kinds of faults than others.
    """
    places: defaultdict[tuple[str, int, int], list[Fault]] = defaultdict(list)
    for fault in sorted(found):
        places[fault.module, fault.line, fault.column].append(fault)
    chosen = chance.sample(sorted(places), min(count, len(places)))
    return [chance.choice(places[place]) for place in chosen]


def apply(fault: Fault, source: str) -> str:
    """The module's text with the fault in it."""
    text = mutate_code(source, operators()[fault.kind], fault.occurrence)
    if text is None:
        raise ValueError(f"{fault} does not exist in this text")
    return str(text)


def possible(fault: Fault, source: str) -> bool:
    """Does the text with the fault compile? Some operators fail on a tuple of exceptions or put `not` before `:=`."""
    try:
        compile(apply(fault, source), fault.module, "exec")
    except (SyntaxError, AttributeError):
        return False
    return True


def change(source: str, faulty: str) -> str:
    """The first line that differs, before and after: `a < b -> a <= b`."""
    for before, after in zip(source.splitlines(), faulty.splitlines(), strict=False):
        if before != after:
            return f"{before.strip()} -> {after.strip()}"
    return "a line fewer"
