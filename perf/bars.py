"""Bars: what a measurement must reach, as lines that a machine can read."""

from collections.abc import Callable
from dataclasses import dataclass, field
from operator import eq, ge, le


@dataclass
class Bars:
    """Collects `BAR <name> <value> <bar> ok|short` lines; `code` is 1 when one is short."""

    short: list[str] = field(default_factory=list)

    def at_least(self, name: str, value: float, bar: float) -> None:
        self._add(name, value, bar, ge)

    def at_most(self, name: str, value: float, bar: float) -> None:
        self._add(name, value, bar, le)

    def exactly(self, name: str, value: float, bar: float) -> None:
        self._add(name, value, bar, eq)

    def _add(self, name: str, value: float, bar: float, reached: Callable[[float, float], bool]) -> None:
        ok = reached(value, bar)
        shown = str(value) if isinstance(value, int) else f"{value:.4g}"
        print(f"BAR {name} {shown} {bar:g} {'ok' if ok else 'short'}", flush=True)
        if not ok:
            self.short.append(name)

    @property
    def code(self) -> int:
        return 1 if self.short else 0
