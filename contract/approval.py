"""A person's refusal of PPO, kept in the store so that the stages after it go on with the instruction-tuned model.

With `gate.approval` the DAG `align` asks before PPO. An approval leaves no trace here; a refusal is a small file,
`refusals/<fingerprint of PPO>.json`. It changes no fingerprint: a later approval removes the file.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from contract.errors import DamagedError
from contract.headline import left_out
from contract.identity import Input
from contract.manifest import Manifest, find
from contract.plan import Task
from contract.printable import printable
from contract.results import Evaluate, Gate
from contract.store import Store

MAX_CHARS = 200  # of a name


@dataclass(frozen=True)
class Refusal:
    """Who refused PPO, and when (ISO 8601, UTC). `by` is empty if nobody answered in time."""

    by: str
    at: str

    @property
    def why(self) -> str:
        """Why PPO did not run, in one printable line."""
        who = f"{self.by[:MAX_CHARS]} rejected it" if self.by else "nobody approved it in time"
        return printable(f"PPO is left out, because {who} ({self.at[:MAX_CHARS]})")


def place(ppo: Task | Input) -> str:
    """The path of a refusal, relative to the store."""
    return f"refusals/{ppo.fingerprint}.json"


def refuse(store: Store, ppo: Task | Input, refusal: Refusal) -> None:
    """Keep a refusal; it takes the place of an earlier one."""
    store.write_bytes(place(ppo), json.dumps(asdict(refusal)).encode())


def allow(store: Store, ppo: Task | Input) -> bool:
    """Remove a refusal. Returns whether there was one."""
    there = store.exists(place(ppo))
    if there:
        store.delete(place(ppo))
    return there


def refusal(store: Store, ppo: Task | Input) -> Refusal | None:
    """The refusal of PPO, or None. Raises DamagedError if the file is not one."""
    try:
        said = store.read_bytes(place(ppo))
    except FileNotFoundError:
        return None
    try:
        values = json.loads(said)
        return Refusal(str(values["by"]), str(values["at"]))
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{store.full(place(ppo))}: is not a refusal; delete it to be asked again") from error


def beyond(figures: Evaluate, at_least: Mapping[str, float], at_most: Mapping[str, float]) -> list[str]:
    """The figures of `evaluate` that are beyond their bounds, in words. One that was not measured reaches none."""
    said = []
    for bounds, word, sign in ((at_least, "under", 1.0), (at_most, "above", -1.0)):
        for name, bound in bounds.items():
            value = getattr(figures, name)
            if value is None or not sign * value >= sign * bound:
                said.append(f"{name} {'was not measured' if value is None else f'{value:.4g} is {word} {bound:g}'}")
    return said


def without_ppo(store: Store, gate: Manifest, ppo: Task | Input) -> str | None:
    """Why the tuned model is the result: the gate is closed, or PPO was refused and is not done. None if PPO's is."""
    if not Gate.of(gate).open:
        return left_out(gate)
    refused = refusal(store, ppo)
    return refused.why if refused and find(store, ppo) is None else None
