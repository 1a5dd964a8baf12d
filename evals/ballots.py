"""Pairs to judge and ballots as files, and what ballots show as lines of text."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from contract.errors import InputError
from contract.printable import printable
from evals.grading import Score, scored
from evals.judge import MOST_POINTS, Ballot, Judging, Pair, Rating, counted
from evals.preference import by_group, length_controlled, position_bias, self_preference, win_rate

LEAST_SHARED = 10  # pairs that others judged as well: of fewer, an interval says little
T = TypeVar("T")
V = TypeVar("V", Ballot, Rating)


def read_pairs(path: Path, needed: Sequence[str] = ("prompt", "ours", "theirs")) -> list[Pair]:
    """Pairs of JSONL: {"id", "prompt", "ours", "theirs"}, and perhaps "category", "difficulty" and "score".

    needed: what is no empty text if it is not there. score: from 0 to 1, what people or another judge give ours; the
    ballots of another judge have it. Raises InputError for anything else, and if two pairs have one id.
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
            texts = {name: row[name] if name in needed else row.get(name, "") for name in ("prompt", "ours", "theirs")}
            if not all(isinstance(text, str) for text in texts.values()):
                raise ValueError("prompt, ours and theirs must be texts")
            groups = {name: str(row.get(name) or "") for name in ("category", "difficulty")}
            made = Pair(str(row["id"]), **texts, **groups, others=_others(row.get("score")))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(
                f"{path}:{number}: is no pair of replies ({error}); it needs id, {', '.join(needed)}"
            ) from None
        if made.id in found:
            raise InputError(f"{path}:{number}: the id {made.id!r} occurs twice; pairs need ids of their own")
        found[made.id] = made
    if not found:
        raise InputError(f"{path}: holds no pairs")
    return [*found.values()]


def _others(score: object) -> float | None:
    if score is None:
        return None
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
        raise ValueError("score must be a number from 0 to 1")
    return float(score)


@contextlib.contextmanager
def ballot_file(path: Path | None) -> Iterator[Callable[[Ballot | Rating], None]]:
    """What writes a ballot or a rating as one line, at once, so that a run that ends early loses none.

    A ballot has both verdicts with their reasons, and the score; a rating its points and their reasons. Without a path
    nothing is written. Raises InputError if it cannot be.
    """
    if path is None:
        yield lambda _: None
        return

    def write(one: Ballot | Rating) -> None:
        row = asdict(one)
        row = {**row.pop("pair"), **row} | ({"score": one.score} if isinstance(one, Ballot) else {})
        with _writing(path):
            out.write(json.dumps(row) + "\n")
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
    others = {one.pair.id: one.pair.others for one in made.ballots if one.pair.others is not None}
    if len(others) >= LEAST_SHARED:
        more = self_preference(made.ballots, others)
        own = "it likes its own family, if ours is of it" if more.found else "no liking for its own family can be told"
        lines.append(
            f"gives ours {more.difference:+.4f} [{more.low:+.4f}, {more.high:+.4f}] more than the pairs' scores do, "
            f"n = {more.n:,}: {own}"
        )
    return lines + [f"{name}: {_shown(score)}" for name, score in _groups(made.ballots, win_rate)]


def rating_lines(ratings: Sequence[Rating], unrated: Mapping[str, str]) -> list[str]:
    """What ratings show: the mean points, those of each category and difficulty, and what was not rated."""
    lines = [counted(len(ratings), unrated, "replies")]
    if not ratings:
        return lines
    lines.append(f"points from 1 to {MOST_POINTS}: {_points(ratings)}")
    return lines + [f"{name}: {said}" for name, said in _groups(ratings, _points)]


def _points(ratings: Sequence[Rating]) -> str:
    """Their mean with its interval. Ratings of one prompt are a cluster."""
    span = MOST_POINTS - 1
    found = scored([(one.points - 1) / span for one in ratings], [one.pair.prompt for one in ratings])
    mean, low, high = (1 + span * share for share in (found.mean, found.low, found.high))
    return f"{mean:.2f} [{low:.2f}, {high:.2f}], n = {found.n:,}"


def _groups(some: Sequence[V], told: Callable[[Sequence[V]], T]) -> Iterator[tuple[str, T]]:
    """What `told` makes of each category, then of each difficulty, where there are several of them."""
    for name, group in (("category", lambda one: one.pair.category), ("difficulty", lambda one: one.pair.difficulty)):
        parts = by_group(some, group)
        if len(parts) > 1:
            yield from ((f"  {name} {printable(part) or 'none'}", told(of)) for part, of in parts.items())


def _shown(score: Score) -> str:
    return f"{score.mean:.4f} [{score.low:.4f}, {score.high:.4f}], n = {score.n:,}"
