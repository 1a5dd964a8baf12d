"""How people rate replies: how many people see an item, what they are asked, and how often they are asked again."""

from typing import Annotated

from pydantic import Field, model_validator

from contract.settings.base import Count, Fraction, Real, Seed, Settings, Text, Uri

Criterion = Annotated[Text, Field(min_length=1, max_length=40)]


class Rating(Settings):
    """How the items of a round are given to people."""

    people: Annotated[int, Field(ge=1, le=100, strict=True)] = 3
    """So many people rate each item. Skipping an item gives it to somebody else."""
    repeated: Fraction = 0.1
    """This share of a person's items is shown to the same person a second time, which tells how consistent they are."""
    repeat_after: Count = 10
    """At least so many other votes lie between the two, unless nothing else is left."""
    criteria: Annotated[tuple[Criterion, ...], Field(max_length=6)] = ("helpfulness", "correctness", "harmlessness")
    """Each reply may get 1 to 5 on each of these."""
    hold_minutes: Annotated[Real, Field(gt=0, le=1440)] = 30.0
    """For so long an item that was shown is kept for its person. Then somebody else gets it; a late vote counts too."""
    seed: Seed = 0

    @model_validator(mode="after")
    def _each_once(self) -> "Rating":
        if len(set(self.criteria)) < len(self.criteria):
            raise ValueError("criteria should name each criterion once")
        return self


class Trust(Settings):
    """Whose votes are left out. A share is too low if the upper end of its 95 % interval lies below the threshold."""

    min_agreement: Fraction = 0.5
    """With the majority of the others, where both prefer one of two replies. A coin agrees in half of these. It must
    lie below whichever one of the others is disregarded, so of two people neither is left out."""
    min_gold: Fraction = 0.5
    """With the gold items."""
    min_consistency: Fraction = 0.0
    """With the same person's first vote on an item."""
    min_seconds: Annotated[Real, Field(ge=0, le=3600)] = 0.0
    """Median time of a vote."""


class Judged(Settings):
    """A model behind an endpoint that compares replies beside people. Its address and key are in the environment:
    docs/feedback.md. `sample.judge` names a model of the store."""

    model: Annotated[Text, Field(min_length=1, max_length=200)] | None = None
    """As its endpoint names it. If unset, only people compare."""
    principles: Uri | None = None
    """A file of principles, one a line. The model then also criticises a reply to each prompt by one of them, revises
    it, and chooses between the two."""

    max_tokens: Annotated[int, Field(ge=16, le=65536, strict=True)] = 1024
    """Of an answer. A revision that is longer is cut off, and nothing is learned from it."""

    @model_validator(mode="after")
    def _has_a_model(self) -> "Judged":
        if self.principles and not self.model:
            raise ValueError("principles needs a model that revises by them; set judge.model")
        return self


Cron = Annotated[str, Field(pattern=r"^[0-9A-Za-z*/,#-]{1,60}( [0-9A-Za-z*/,#-]{1,60}){4}$")]


class Feedback(Settings):
    """How the votes of a round are collected. The votes that count go into the next run's recipe as a file."""

    rating: Rating = Rating()
    trust: Trust = Trust()
    judge: Judged = Judged()
    earlier: Fraction = 1.0
    """When a round is added, the weights of all rounds before it are multiplied by this."""
    hours: Annotated[Real, Field(gt=0, le=24 * 365)] = 336.0
    """A round waits so long for its votes, and then goes on with those that are there."""
    goes_on: bool = True
    """PPO and GRPO begin as the model of the last round. If false, as the SFT model again, in every round."""
    schedule: Cron | None = None
    """When a round that a new model starts may begin: five fields of cron in UTC, such as `0 9 * * 1`, Mondays at 9.
    If unset, and if a person starts the round: at once."""
