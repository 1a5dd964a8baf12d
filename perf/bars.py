"""Bars: what a measurement must reach, as lines that a machine can read."""

from collections.abc import Callable
from dataclasses import dataclass, field
from operator import ge, le


@dataclass
class Bars:
    """Collects `BAR <name> <value> <bar> ok|short` lines; `code` is 1 when one is short."""

    short: list[str] = field(default_factory=list)

    def at_least(self, name: str, value: float, bar: float) -> None:
        self._add(name, value, bar, ge)

    def at_most(self, name: str, value: float, bar: float) -> None:
        self._add(name, value, bar, le)

    def _add(self, name: str, value: float, bar: float, reached: Callable[[float, float], bool]) -> None:
        ok = reached(value, bar)
        print(f"BAR {name} {value:.4g} {bar:g} {'ok' if ok else 'short'}", flush=True)
        if not ok:
            self.short.append(name)

    @property
    def code(self) -> int:
        return 1 if self.short else 0
