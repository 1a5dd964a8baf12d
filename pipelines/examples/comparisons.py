"""The shapes of rows that compare replies, and the pairs that are made of them.

Whatever a set holds, it is read as a ranking: a prompt with two or more replies and a number for each. Every two
replies whose numbers differ are a pair (Ouyang et al. 2022, section 3.5).
"""

import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from contract.conversation import Conversation, Preference, Role, Turn
from contract.examples import Unusable
from contract.schema import Drop
from pipelines.examples.fields import MOST_TURNS, Row, number, number_at, plain, prompt_of, said, text_at, turns_of
from pipelines.examples.shapes import QUESTIONS, REPLIES, RowShape, asked, drawn

CRITERIA = (
    "helpfulness",
    "correctness",
    "coherence",
    "instruction_following",
    "honesty",
    "truthfulness",
    "harmlessness",
)
"""Criteria of which more is better. HelpSteer's `verbosity` and `complexity` describe a reply and do not praise it."""


MOST_REPLIES = 100
"""Of one ranking that are compared: every two of them are looked at, and they make more pairs than any recipe takes."""


@dataclass(frozen=True)
class Reply:
    """A reply and its number: more is better."""

    text: str
    score: float


@dataclass(frozen=True)
class Ranking:
    """A prompt with replies. rated: their numbers are ratings, not only places in an order.

    open: the next row may hold more replies to the same prompt. task: what kind of prompt it is.
    """

    prompt: Conversation
    replies: tuple[Reply, ...]
    rated: bool = False
    open: bool = False
    task: str = ""


def pairs_of(ranking: Ranking, most: int) -> list[Preference]:
    """The pairs of a ranking, at most so many, drawn by their texts. Raises Unusable if there is none.

    Of more than MOST_REPLIES replies, so many are drawn by their texts.
    """
    if len(ranking.replies) < 2:
        raise Unusable(Drop.ONE_REPLY)
    replies, found = list(dict.fromkeys(ranking.replies)), []
    if len(replies) > MOST_REPLIES:
        replies = sorted(replies, key=lambda reply: drawn(reply.text, 1 << 62))[:MOST_REPLIES]
    for one, other in itertools.combinations(replies, 2):
        better, worse = (one, other) if one.score > other.score else (other, one)
        if one.score != other.score and one.text != other.text:
            scores = (better.score, worse.score) if ranking.rated else (None, None)
            found.append(Preference(ranking.prompt, better.text, worse.text, ranking.task, *scores))
    if not found:
        equal = len({reply.text for reply in replies}) == 1
        raise Unusable(Drop.REPLIES_ARE_EQUAL if equal else Drop.REPLIES_TIE)
    if len(found) > most:
        found = sorted(found, key=lambda pair: drawn(f"{pair.chosen}\0{pair.rejected}", 1 << 62))[:most]
    return found


def gathered(rankings: Iterable[tuple[str, Ranking | Unusable, str]]) -> Iterator[tuple[str, Ranking | Unusable, str]]:
    """The same rows, with those that follow each other and rate replies to one prompt made one: HelpSteer's rows.

    A row is its place, what was found, and its first characters. After MOST_REPLIES replies, another ranking begins.
    """
    held: tuple[str, Ranking, str] | None = None
    for place, found, snippet in rankings:
        if isinstance(found, Ranking) and found.open:
            if held and held[1].prompt == found.prompt and len(held[1].replies) < MOST_REPLIES:
                held = (held[0], replace(held[1], replies=held[1].replies + found.replies), held[2])
                continue
            if held:
                yield held
            held = (place, found, snippet)
            continue
        if held:
            yield held
            held = None
        yield place, found, snippet
    if held:
        yield held


def parse_dialogue(text: str) -> Conversation:
    """The turns of a dialogue with the marks `Human:` and `Assistant:`. It must end with a reply that is not empty."""
    pieces = re.split(r"(?:^|\n\n)(Human|Assistant):", text, maxsplit=MOST_TURNS + 1)
    if len(pieces) > 2 * MOST_TURNS + 1:
        raise Unusable(Drop.NOT_A_DIALOGUE, f"more than {MOST_TURNS:,} turns")
    names: dict[str, Role] = {"Human": "user", "Assistant": "assistant"}
    turns = tuple(Turn(names[name], words.strip()) for name, words in zip(pieces[1::2], pieces[2::2], strict=True))
    if pieces[0].strip() or len(turns) < 2 or turns[-1].role != "assistant":
        raise Unusable(Drop.NOT_A_DIALOGUE, "no dialogue that ends with a reply")
    if not turns[-1].text:
        raise Unusable(Drop.EMPTY_TEXT, "reply")
    return turns


def ordered(prompt: Conversation, replies: Sequence[str]) -> Ranking:
    """A ranking of replies that come best first."""
    return Ranking(prompt, tuple(Reply(text, -float(place)) for place, text in enumerate(replies)))


def _whole_dialogues(row: Row) -> list[Ranking]:
    """{chosen, rejected} as whole dialogues: hh-rlhf's text, or messages that differ in the last."""
    chosen, rejected = (_spoken(row, key) for key in ("chosen", "rejected"))
    if chosen[:-1] != rejected[:-1]:
        raise Unusable(Drop.PROMPTS_DIFFER)
    return [_preferred(row, chosen[:-1], chosen[-1].text, rejected[-1].text)]


def _preferred(row: Row, prompt: Conversation, chosen: str, rejected: str) -> Ranking:
    """A pair, with the scores beside it if they say the same as its order (UltraFeedback, binarized)."""
    better, worse = (number_at(row, f"score_{side}", f"{side}_score") for side in ("chosen", "rejected"))
    if better is None or worse is None or better <= worse:
        return ordered(prompt, (chosen, rejected))
    return Ranking(prompt, (Reply(chosen, better), Reply(rejected, worse)), rated=True)


def _spoken(row: Row, key: str) -> Conversation:
    value = row[key]
    turns = turns_of(value) if isinstance(value, list) else parse_dialogue(text_at(row, key))
    if len(turns) < 2 or turns[-1].role != "assistant":
        raise Unusable(Drop.NOT_A_DIALOGUE, "no dialogue that ends with a reply")
    return turns


def _chosen(row: Row) -> list[Ranking]:
    """A prompt, {chosen, rejected}: texts, messages, or lists of messages that may repeat the prompt."""
    if isinstance(row["chosen"], list) and len(row["chosen"]) > 1:
        return _whole_dialogues(row)
    return [_preferred(row, asked(row), said(row["chosen"], "chosen"), said(row["rejected"], "rejected"))]


SCORES = ("score", "reward", "rating", "pm_score", "votes", "upvotes", "rank")


def _logged(row: Row) -> list[Ranking]:
    """A production log: the answer that was accepted, and those that were rejected."""
    refused = row["rejected"] if isinstance(row["rejected"], list) else [row["rejected"]]
    worse = tuple(Reply(said(reply, "rejected"), 0.0) for reply in refused)
    return [Ranking(asked(row), (Reply(said(row["accepted"], "accepted"), 1.0), *worse))]


def _of_replies(row: Row) -> tuple[str, list[Any]]:
    for key in (*REPLIES, "replies", "ranked"):
        if isinstance(row.get(key), list):
            return key, row[key]
    raise Unusable(Drop.MISSING_TEXT, "outputs")


def _scored(weights: Mapping[str, float], row: Row) -> list[Ranking]:
    """Replies with a score each: beside it, or on several criteria. Replies without any score come best first.

    With `ranks` or `scores` beside the list, these count; of ranks less is better.
    """
    key, replies = _of_replies(row)
    prompt = asked({name: value for name, value in row.items() if name != key})
    words = [said(reply, key) for reply in replies]
    beside = row.get("scores", row.get("ranks", row.get("rank")))
    if isinstance(beside, list) and len(beside) == len(words):
        sign = 1 if row.get("scores") is not None else -1
        numbers = [number(value) for value in beside]
        found = [None if one is None else sign * one for one in numbers]
        return [_rated(prompt, words, found, rated=sign > 0)]
    scores = [rating(reply, weights) if isinstance(reply, dict) else None for reply in replies]
    if all(score is None for score in scores):
        return [ordered(prompt, words)]
    return [_rated(prompt, words, scores, rated=True)]


def _rated(prompt: Conversation, words: Sequence[str], scores: Sequence[float | None], rated: bool) -> Ranking:
    """A ranking of the replies that have a score."""
    known = [Reply(text, score) for text, score in zip(words, scores, strict=True) if score is not None]
    return Ranking(prompt, tuple(known), rated)


def rating(reply: Mapping[str, Any], weights: Mapping[str, float]) -> float | None:
    """The score of a reply: the weighted mean over its criteria, else its one score; None without any.

    UltraFeedback writes `annotations: {helpfulness: {Rating: "4"}}`, and its `overall_score` is not used: it is wrong
    for many replies (argilla/ultrafeedback-binarized-preferences).
    """
    for named in (reply.get("annotations"), reply.get("ratings"), reply.get("scores"), reply):
        if isinstance(named, dict):
            found = {name: one for name, value in named.items() if (one := _judged(value)) is not None}
            if (mean := weighted(found, weights)) is not None:
                return mean
    rank = number_at(reply, "rank")
    score = number_at(reply, *SCORES[:-1], "fine-grained_score")
    return score if score is not None or rank is None else -rank


def _judged(value: Any) -> float | None:
    if isinstance(value, dict):
        return number_at(value, "Rating", "rating", "score")
    return number(value)


def weighted(found: Mapping[str, float], weights: Mapping[str, float]) -> float | None:
    """The mean of the criteria that the recipe weighs, or else of those of which more is better; None without any."""
    used = weights or dict.fromkeys(CRITERIA, 1.0)
    given = {name: weight for name, weight in used.items() if name in found and weight > 0}
    total = sum(given.values())
    return sum(found[name] * weight for name, weight in given.items()) / total if total else None


def _row_by_row(weights: Mapping[str, float], row: Row) -> list[Ranking]:
    """{prompt, response, helpfulness, ...}: one rated reply a row (Wang et al. 2023)."""
    score = weighted({name: one for name, value in row.items() if (one := number(value)) is not None}, weights)
    if score is None:
        raise Unusable(Drop.MISSING_TEXT, "score")
    prompt = asked({name: value for name, value in row.items() if name != "response"})
    return [Ranking(prompt, (Reply(text_at(row, "response"), score),), rated=True, open=True)]


def _answered(row: Row) -> list[Ranking]:
    """A question of Stack Exchange with answers by votes: log2(1 + votes), one more if accepted, -1 if below zero.

    The scale is that of Askell et al. 2021, section 4.1, rounded as they do.
    """
    question = "\n\n".join(text_at(row, key) for key in ("title", "question", "body") if row.get(key))
    if not question:
        raise Unusable(Drop.MISSING_TEXT, "question")
    found = []
    if not isinstance(row["answers"], list):
        raise Unusable(Drop.MISSING_TEXT, "answers")
    for answer in row["answers"]:
        votes = number_at(answer, "pm_score", "score", "votes", "upvotes") if isinstance(answer, dict) else None
        if votes is None:
            raise Unusable(Drop.MISSING_TEXT, "votes")
        accepted = any(answer.get(key) is True for key in ("selected", "accepted", "is_accepted"))
        ready = "pm_score" in answer
        score = votes if ready else by_votes(votes, accepted)
        found.append(Reply(said(answer, "answers"), score))
    return [Ranking((Turn("user", question),), tuple(found), rated=True)]


def by_votes(votes: float, accepted: bool) -> float:
    """The score of an answer."""
    return -1.0 if votes < 0 else round(math.log2(1 + votes)) + accepted


def _tree(row: Row) -> list[Ranking]:
    """A tree of Open Assistant: wherever people ranked replies, a ranking; rank 0 is the best."""
    found: list[Ranking] = []
    waiting: list[tuple[Conversation, Any]] = [((), row["prompt"])]
    while waiting:
        before, node = waiting.pop()
        if not isinstance(node, dict) or not isinstance(node.get("text"), str) or len(before) > MOST_TURNS:
            raise Unusable(Drop.NOT_A_DIALOGUE, "a message of the tree has no text")
        role: Role = "assistant" if node.get("role") == "assistant" else "user"
        if not (words := plain(node["text"], "text")):
            continue
        turns = (*before, Turn(role, words))
        found_below = node.get("replies")
        below = found_below if isinstance(found_below, list) else []
        replies = [one for one in below if isinstance(one, dict) and not one.get("deleted")]
        waiting += [(turns, reply) for reply in reversed(replies)]
        ranked = [(one["text"], rank) for one in replies if (rank := number(one.get("rank"))) is not None]
        if role == "user" and len(ranked) > 1:
            known = tuple(Reply(plain(text, "text"), -rank) for text, rank in ranked if isinstance(text, str))
            found.append(Ranking(prompt_of(turns), tuple(one for one in known if one.text)))
    if not found:
        raise Unusable(Drop.ONE_REPLY)
    return found


Compared = RowShape[Ranking]


def comparisons(weights: Mapping[str, float]) -> tuple[Compared, ...]:
    """The shapes of comparisons; `weights` are those of criteria. One with fewer keys stands after fuller ones."""
    scored: Callable[[Row], list[Ranking]] = partial(_scored, weights)
    asking = (*QUESTIONS, "messages", "conversations")
    return (
        RowShape("log of accepted and rejected", (asking, ("accepted",), ("rejected",)), _logged),
        RowShape("prompt, chosen and rejected", (asking, ("chosen",), ("rejected",)), _chosen),
        RowShape("chosen and rejected dialogues", (("chosen",), ("rejected",)), _whole_dialogues),
        RowShape("tree of ranked replies", (("message_tree_id",), ("prompt",)), _tree),
        RowShape("answers by votes", (("question", "body"), ("answers",)), _answered),
        RowShape("replies, scored or best first", (asking, (*REPLIES, "replies", "ranked")), scored),
        RowShape("one rated reply a row", (("prompt", "instruction"), ("response",)), partial(_row_by_row, weights)),
    )
