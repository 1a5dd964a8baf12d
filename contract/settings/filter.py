"""The rules of `filter`. A threshold is one field, and the type of the field carries its rule.

A rule says which score the threshold limits, which reason a dropped document gets, and who published the rule. Rules
are asked in the order of the fields. The table of rules, the drop reasons of `filter`, the names of the scores and the
table in docs/filters.md are all derived from these fields.
"""

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NewType

from pydantic import Field, ValidationInfo, field_validator, model_validator

from contract.settings.base import Count, Fraction, NotNegative, Positive, Real, Settings

Reason = NewType("Reason", str)
"""Why a document was dropped: what manifests, logs and the funnel show. Rules and single stages name their own.

The reasons that several places share are `contract.schema.Drop`.
"""

Comparison = Literal["<", "<=", ">", ">="]
COMPARISONS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}

MeasuredOn = Literal["extracted text", "line corrections", "kept text"]
"""`kept text` is what line corrections and C4's line rules leave of the extracted text, before masking."""


@dataclass(frozen=True)
class DropsIf:
    """The rule of a threshold: drop a document if `score comparison threshold` is true.

    score: its name; if the threshold is a table n -> threshold, `{n}` stands for n, and each n makes a rule.
    rule_set: only for thresholds that stand outside a rule set's own section.
    needs: the setting of `score` that must be set for the score to be measured.
    """

    score: str
    comparison: Comparison
    reason: str
    source: str
    measured_on: MeasuredOn = "extracted text"
    rule_set: str = ""
    needs: str = ""


@dataclass(frozen=True)
class Rule:
    """Drops a document if `score comparison limit` is true. A score that was not measured never drops.

    setting: the dotted key of the threshold below `filter`. The other fields are those of `DropsIf`.
    """

    rule_set: str
    reason: Reason
    score: str
    comparison: Comparison
    limit: float
    setting: str = ""
    source: str = ""
    measured_on: MeasuredOn = "extracted text"
    needs: str = ""

    def drops(self, value: float | None) -> bool:
        return value is not None and bool(COMPARISONS[self.comparison](value, self.limit))

    @property
    def can_drop(self) -> bool:
        """Whether any document can break the rule: no score is negative, so none is below 0."""
        return self.comparison != "<" or self.limit > 0


class RuleSet(Settings):
    """The base of a section of rules that are switched on together."""

    enabled: bool = True


TopN = Annotated[int, Field(ge=2, le=4, strict=True)]
DuplicateN = Annotated[int, Field(ge=5, le=10, strict=True)]

GOPHER_TABLE = "Gopher, table A1"


class GopherRepetition(RuleSet):
    """Gopher's (MassiveText's) limits on repeated lines, paragraphs and word n-grams.

    In a table n -> threshold, a recipe that sets one n keeps the others' defaults; 1.0 switches an n off.
    """

    duplicate_line_fraction: Annotated[Fraction, DropsIf("duplicate_lines", ">", "duplicate_lines", GOPHER_TABLE)] = (
        0.30
    )
    duplicate_line_char_fraction: Annotated[
        Fraction, DropsIf("duplicate_line_chars", ">", "duplicate_line_chars", GOPHER_TABLE)
    ] = 0.20
    duplicate_paragraph_fraction: Annotated[
        Fraction, DropsIf("duplicate_paragraphs", ">", "duplicate_paragraphs", GOPHER_TABLE)
    ] = 0.30
    duplicate_paragraph_char_fraction: Annotated[
        Fraction, DropsIf("duplicate_paragraph_chars", ">", "duplicate_paragraph_chars", GOPHER_TABLE)
    ] = 0.20
    top_ngram_char_fraction: Annotated[dict[TopN, Fraction], DropsIf("top_{n}gram", ">", "top_ngram", GOPHER_TABLE)] = {
        2: 0.20, 3: 0.18, 4: 0.16,
    }  # fmt: skip
    duplicate_ngram_char_fraction: Annotated[
        dict[DuplicateN, Fraction], DropsIf("duplicate_{n}grams", ">", "duplicate_ngrams", GOPHER_TABLE)
    ] = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}

    @field_validator("top_ngram_char_fraction", "duplicate_ngram_char_fraction", mode="before")
    @classmethod
    def _differences(cls, given: Any, info: ValidationInfo) -> Any:
        known = cls.model_fields[info.field_name or ""].default
        if not isinstance(given, dict):
            return given
        return known | {int(n) if isinstance(n, str) and n.isdigit() else n: value for n, value in given.items()}


GOPHER = "Gopher, A1.1"


class GopherQuality(RuleSet):
    """Gopher's document quality rules, but for the word count: that is `filter.min_words` and `filter.max_words`."""

    min_mean_word_chars: Annotated[NotNegative, DropsIf("mean_word_chars", "<", "mean_word_length", GOPHER)] = 3
    max_mean_word_chars: Annotated[NotNegative, DropsIf("mean_word_chars", ">", "mean_word_length", GOPHER)] = 10
    max_hash_ratio: Annotated[NotNegative, DropsIf("hash_ratio", ">", "hash_ratio", GOPHER)] = 0.1
    max_ellipsis_ratio: Annotated[NotNegative, DropsIf("ellipsis_ratio", ">", "ellipsis_ratio", GOPHER)] = 0.1
    max_bullet_line_fraction: Annotated[Fraction, DropsIf("bullet_lines", ">", "bullet_lines", GOPHER)] = 0.9
    max_ellipsis_line_fraction: Annotated[Fraction, DropsIf("ellipsis_lines", ">", "ellipsis_lines", GOPHER)] = 0.3
    min_alpha_word_fraction: Annotated[Fraction, DropsIf("alpha_words", "<", "few_alpha_words", GOPHER)] = 0.8
    min_stop_words: Annotated[Count, DropsIf("stop_words", "<", "few_stop_words", GOPHER)] = 2
    """Distinct stop words."""

    @model_validator(mode="after")
    def _ordered(self) -> "GopherQuality":
        if self.min_mean_word_chars > self.max_mean_word_chars:
            raise ValueError(
                f"min_mean_word_chars {self.min_mean_word_chars} is above "
                f"max_mean_word_chars {self.max_mean_word_chars}"
            )
        return self


C4_PAPER = "C4, section 2.2"


class C4(RuleSet):
    """C4's document rules; its line rules are `score.c4_lines`. The minimum of 5 sentences is C4's; DCLM has 3."""

    enabled: bool = False
    max_lorem_ipsum: Annotated[Count, DropsIf("lorem_ipsum", ">", "c4_lorem_ipsum", C4_PAPER)] = 0
    max_curly_brackets: Annotated[Count, DropsIf("curly_brackets", ">", "c4_curly_bracket", C4_PAPER)] = 0
    """Curly brackets are a sign of code."""
    max_bad_words: Annotated[Count, DropsIf("bad_words", ">", "c4_bad_words", C4_PAPER, needs="bad_words")] = 0
    """Most occurrences of listed words."""
    min_sentences: Annotated[Count, DropsIf("sentences", "<", "c4_too_few_sentences", C4_PAPER, "kept text")] = 5


class MC4(RuleSet):
    """mC4's rule: enough lines of at least `score.long_line_chars`.

    It suits languages whose sentences end in other punctuation than C4's rules look for.
    """

    enabled: bool = False
    min_long_lines: Annotated[Count, DropsIf("long_lines", "<", "mc4_few_long_lines", "mC4, section 3.1")] = 3


FINEWEB = "FineWeb, section 3.5"


class FineWeb(RuleSet):
    """FineWeb's additional rules. Its thresholds are inclusive, as published."""

    min_punctuated_line_fraction: Annotated[
        Fraction, DropsIf("punctuated_lines", "<=", "line_punctuation", FINEWEB, "kept text")
    ] = 0.12
    max_duplicate_line_char_fraction: Annotated[
        Fraction, DropsIf("kept_duplicate_line_chars", ">=", "fineweb_duplicate_line_chars", FINEWEB, "kept text")
    ] = 0.1
    """The paper's value."""
    max_short_line_fraction: Annotated[Fraction, DropsIf("short_lines", ">=", "short_lines", FINEWEB, "kept text")] = (
        0.67
    )
    """Lines of fewer than `score.short_line_chars` characters."""


ROOTS = "BLOOM (ROOTS), appendix A"


class Bloom(RuleSet):
    """BLOOM's rules with its English thresholds."""

    enabled: bool = False
    max_char_repetition: Annotated[Fraction, DropsIf("char_repetition", ">", "bloom_char_repetition", ROOTS)] = 0.106
    max_word_repetition: Annotated[Fraction, DropsIf("word_repetition", ">", "bloom_word_repetition", ROOTS)] = 0.19
    max_special_char_fraction: Annotated[Fraction, DropsIf("special_chars", ">", "bloom_special_chars", ROOTS)] = 0.4
    min_stop_word_fraction: Annotated[Fraction, DropsIf("stop_word_fraction", "<", "bloom_stop_words", ROOTS)] = 0.3
    max_bad_word_fraction: Annotated[
        Fraction, DropsIf("bad_word_fraction", ">", "bloom_flagged_words", ROOTS, needs="bad_words")
    ] = 0.01
    max_perplexity: Annotated[
        Real, Field(gt=0, le=1e12), DropsIf("perplexity", ">", "bloom_perplexity", ROOTS, needs="perplexity_model")
    ] = 1500


class Filter(Settings):
    """The rule sets and their thresholds.

    RefinedWeb's rules come first, in its order (repetition, document-wise, line-wise), so that the two funnels can be
    compared step by step. The rule sets of other corpora follow.
    """

    gopher_repetition: GopherRepetition = GopherRepetition()
    min_words: Annotated[Count, DropsIf("words", "<", "too_few_words", GOPHER, rule_set="length")] = 50
    max_words: Annotated[Positive, DropsIf("words", ">", "too_many_words", GOPHER, rule_set="length")] = 100_000
    """In scripts without spaces, as many characters as so many words have on average."""
    gopher_quality: GopherQuality = GopherQuality()
    max_removed_word_fraction: Annotated[
        Fraction,
        DropsIf("removed_word_fraction", ">", "lines_removed", "RefinedWeb, G.2", "line corrections", rule_set="lines"),
    ] = 0.05
    """The fraction of a document's words that `score.lines` may remove."""
    c4: C4 = C4()
    mc4: MC4 = MC4()
    fineweb: FineWeb = FineWeb()
    bloom: Bloom = Bloom()

    @model_validator(mode="after")
    def _ordered(self) -> "Filter":
        if self.min_words > self.max_words:
            raise ValueError(f"min_words {self.min_words} is above max_words {self.max_words}")
        return self

    def differences(self, default: Settings, above: str = "") -> Iterator[tuple[str, Any]]:
        """Yield the rules that are asked, as one value.

        So a rule that is off changes no result, whatever its threshold; a changed default changes those that use it.
        """
        asked = (f"{one.reason} if {one.score} {one.comparison} {one.limit}" for one in self.rules())
        yield f"{above}rules", list(asked)
        of_rules = {*_keys_of_rules(self)}
        yield from (pair for pair in super().differences(default, above) if pair[0].removeprefix(above) not in of_rules)

    def rules(self) -> list[Rule]:
        """The rules to ask, in order: those of enabled rule sets that can drop a document."""
        disabled = {name for name, section in self if isinstance(section, RuleSet) and not section.enabled}
        return [rule for rule in declared_rules(self) if rule.rule_set not in disabled and rule.can_drop]


def _keys_of_rules(settings: Settings, above: str = "") -> Iterator[str]:
    """Yield the dotted key of every threshold and of every switch of a rule set: `Filter.rules` says all of them."""
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, RuleSet):
            yield from (f"{name}.enabled", *_keys_of_rules(value, f"{name}."))
        elif any(isinstance(one, DropsIf) for one in field.metadata):
            yield f"{above}{name}"


def declared_rules(settings: Settings, rule_set: str = "") -> Iterator[Rule]:
    """Yield the rule of every threshold, enabled or not, in the order of the fields.

    rule_set: the name of the section that `settings` are; empty for `filter` itself.
    """
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        key = f"{rule_set}.{name}" if rule_set else name
        if isinstance(value, RuleSet):
            yield from declared_rules(value, name)
        for declared in field.metadata:
            if isinstance(declared, DropsIf):
                yield from _rules_of(declared, value, rule_set, key)


def _rules_of(declared: DropsIf, threshold: Any, rule_set: str, key: str) -> Iterator[Rule]:
    """Yield the rule of one threshold, or of each n if the threshold is a table n -> threshold."""
    limits = sorted(threshold.items()) if isinstance(threshold, dict) else [("", threshold)]
    for n, limit in limits:
        yield Rule(
            declared.rule_set or rule_set,
            Reason(declared.reason),
            declared.score.format(n=n),
            declared.comparison,
            limit,
            f"{key}.{n}" if n else key,
            declared.source,
            declared.measured_on,
            declared.needs,
        )


RULES: tuple[Rule, ...] = tuple(declared_rules(Filter()))
"""Every rule with its default threshold, also of the rule sets that are off by default."""

RULE_SETS: dict[str, str] = {rule.reason: rule.rule_set for rule in RULES}
"""Drop reason of `filter` -> the rule set that it belongs to."""
