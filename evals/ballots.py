"""Pairs to judge and ballots as files, and what ballots show as lines of text."""

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from contract.errors import InputError
from contract.printable import printable
from evals.grading import Score
from evals.judge import Ballot, Judging, Pair
from evals.preference import by_group, length_controlled, position_bias, win_rate


def read_pairs(path: Path) -> list[Pair]:
    """Pairs of JSONL: {"id", "prompt", "ours", "theirs"}, and perhaps "category" and "difficulty".

    Raises InputError for anything else, and if two pairs have one id.
    """
    try:
        lines = path.read_text("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    found: dict[str, Pair] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            prompt, ours, theirs = (row[name] for name in ("prompt", "ours", "theirs"))
            if not all(isinstance(text, str) for text in (prompt, ours, theirs)):
                raise ValueError("prompt, ours and theirs must be texts")
            groups = (str(row.get("category") or ""), str(row.get("difficulty") or ""))
            made = Pair(str(row["id"]), prompt, ours, theirs, *groups)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(
                f"{path}:{number}: is no pair of replies ({error}); it needs id, prompt, ours, theirs"
            ) from None
        if made.id in found:
            raise InputError(f"{path}:{number}: the id {made.id!r} occurs twice; pairs need ids of their own")
        found[made.id] = made
    if not found:
        raise InputError(f"{path}: holds no pairs")
    return [*found.values()]


@contextlib.contextmanager
def ballot_file(path: Path | None) -> Iterator[Callable[[Ballot], None]]:
    """What writes a ballot as one line, at once, so that a run that ends early loses none: both verdicts with their
    reasons, and the score. Without a path it writes nothing. Raises InputError if it cannot."""
    if path is None:
        yield lambda _: None
        return

    def write(one: Ballot) -> None:
        verdicts = {"forward": one.forward, "backward": one.backward, "score": one.score, "reasons": one.reasons}
        with _writing(path):
            out.write(json.dumps({**asdict(one.pair), **verdicts}) + "\n")
            out.flush()

    with _writing(path):
        out = path.open("w")
    with out:
        yield write


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error}") from None


def lines_of(made: Judging) -> list[str]:
    """What a judging shows: the win rate, at equal length too, its biases, each category, and what was not judged."""
    lines = [made.told()]
    if not made.ballots:
        return lines
    bias = position_bias(made.ballots)
    length = length_controlled(made.ballots)
    likes = "longer replies win more often" if length.likes_length else "no liking for length can be told"
    place = "the order decides verdicts" if bias.biased else "no liking for a place can be told"
    lines += [
        f"win rate {_shown(win_rate(made.ballots))}",
        f"at equal length {length.controlled:.4f} [{length.low:.4f}, {length.high:.4f}]: {likes}",
        f"first reply preferred in {bias.first:.1%} [{bias.low:.1%}, {bias.high:.1%}] of decided verdicts: {place}",
        f"both orders agree on {bias.consistent:.1%} of the pairs",
    ]
    for name, group in (("category", lambda one: one.pair.category), ("difficulty", lambda one: one.pair.difficulty)):
        parts = by_group(made.ballots, group)
        if len(parts) > 1:
            lines += [f"  {name} {printable(part) or 'none'}: {_shown(score)}" for part, score in parts.items()]
    return lines


def _shown(score: Score) -> str:
    return f"{score.mean:.4f} [{score.low:.4f}, {score.high:.4f}], n = {score.n:,}"
