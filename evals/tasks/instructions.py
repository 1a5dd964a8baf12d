"""IFEval: whether a reply follows instructions that a program can check (Zhou et al. 2023).

The score is the strict one: 1 if all instructions of a prompt are followed. The reply's language is told by its
letters, and among languages with Latin letters by their commonest words, in place of the library that IFEval takes.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from evals.tasks.task import MOST_CHARS, NOTHING, Item, Style, Task, Verdict

Row = Mapping[str, Any]
Values = Mapping[str, Any]
CONSTRAINED = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
WORD = re.compile(r"\w+")
SENTENCE = re.compile(r"(?<![.!?。！？])[.!?。！？]++(?=[\s\"')\]”’]|\Z)|[。！？]")
BULLET = re.compile(r"^[ \t]{0,20}(?:\*(?!\*)|-)[ \t]*[^\s*-]", re.MULTILINE)
HIGHLIGHT = re.compile(r"\*\*[^\n*]{1,2000}\*\*|\*[^\n*]{1,2000}\*")
PLACEHOLDER = re.compile(r"\[[^\[\]]{1,2000}\]")
TITLE = re.compile(r"<<[^\n<>]{1,2000}>>")
SCRIPTS = {
    "ar": "\u0600-\u06ff", "fa": "\u0600-\u06ff", "ur": "\u0600-\u06ff", "ru": "\u0400-\u04ff", "bg": "\u0400-\u04ff",
    "uk": "\u0400-\u04ff", "hi": "\u0900-\u097f", "mr": "\u0900-\u097f", "ne": "\u0900-\u097f", "bn": "\u0980-\u09ff",
    "pa": "\u0a00-\u0a7f", "gu": "\u0a80-\u0aff", "ta": "\u0b80-\u0bff", "te": "\u0c00-\u0c7f", "kn": "\u0c80-\u0cff",
    "ml": "\u0d00-\u0d7f", "th": "\u0e00-\u0e7f", "ko": "\uac00-\ud7af", "ja": "\u3040-\u30ff", "zh": "\u4e00-\u9fff",
    "he": "\u0590-\u05ff", "el": "\u0370-\u03ff",
}  # fmt: skip
COMMON_WORDS = {
    "en": "the of and to in is that it for was with as are you this have",
    "de": "der die und das ist nicht ein zu mit den auf für von sich eine",
    "fr": "le la les des et est que une dans pour qui pas du sur vous",
    "es": "el los las que una por con para del es se como más pero su",
    "pt": "os que uma não com para por mais como dos foi seu em ao você",
    "it": "il di che non una per sono con della gli le è questo nel alla",
    "vi": "và của là có không được cho một những trong với các người này đã",
    "fi": "ja on ei että se hän oli mutta kun niin ovat tämä myös kuin tai",
    "sw": "na ya wa kwa ni katika za la kama hii lakini watu sana kuwa yake",
    "nl": "de het een en van niet dat is te op zijn met voor aan er",
    "sv": "och att det som är en på för av med inte den har jag till",
    "pl": "nie się jest na to że do jak ale co być tak dla przez był",
}
LATIN = {name: frozenset(text.split()) for name, text in COMMON_WORDS.items()}


def compared(count: int, relation: str, wanted: int) -> bool:
    """`at least` or `less than` so many. Raises ValueError for another relation."""
    if relation == "at least":
        return count >= wanted
    if relation == "less than":
        return count < wanted
    raise ValueError(f"the relation {relation!r} is neither 'at least' nor 'less than'")


def count_words(text: str) -> int:
    return len(WORD.findall(text))


def occurrences(text: str, keyword: str) -> int:
    """How often a keyword stands in a text as a whole word, in upper or lower case."""
    return len(re.findall(rf"(?<!\w){re.escape(keyword)}(?!\w)", text, re.IGNORECASE))


def first_word(text: str, values: Values) -> bool:
    """So many paragraphs between blank lines, of which the n-th begins with a word."""
    paragraphs = [one for one in text.split("\n\n") if one.strip()]
    at = int(values["nth_paragraph"])
    if len(paragraphs) != int(values["num_paragraphs"]) or at > len(paragraphs):
        return False
    words = paragraphs[at - 1].split()
    return words[0].strip("'\".,?!*").lower() == str(values["first_word"]).lower()


def is_json(text: str) -> bool:
    """Whether the reply is JSON, perhaps between fences."""
    bare = text.strip()
    for mark in ("```json", "```Json", "```JSON", "```"):
        bare = bare.removeprefix(mark)
    try:
        json.loads(bare.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def language_is(text: str, language: str) -> bool:
    """Whether a text is in the language of this code. Raises ValueError for one that no rule is here for."""
    letters = [one for one in text if one.isalpha()]
    if not letters:
        return True
    if language in SCRIPTS:
        own = len(re.findall(f"[{SCRIPTS[language]}]", text))
        return own / len(letters) > (0.1 if language == "ja" else 0.5)
    if language not in COMMON_WORDS:
        raise ValueError(f"no rule tells the language {language!r}")
    words = WORD.findall(text.lower())
    counts = {name: sum(word in common for word in words) for name, common in LATIN.items()}
    return counts[language] == max(counts.values()) and sum(one.isascii() for one in letters) > len(letters) / 2


def in_case(text: str, upper: bool) -> bool:
    return (text.isupper() if upper else text.islower()) and language_is(text.lower(), "en")


def sections(text: str, values: Values) -> bool:
    """So many sections or more, which begin with for example `SECTION 1`."""
    marker = re.escape(str(values["section_spliter"]).strip())
    return len(re.findall(rf"\s?{marker}\s?\d{{1,6}}", text)) >= int(values["num_sections"])


def parted(text: str, mark: str) -> list[str] | None:
    """The parts between marks; None if one that is not at an end is empty."""
    parts = [one.strip() for one in text.split(mark)]
    return None if any(not one for one in parts[1:-1]) else [one for one in parts if one]


def two_responses(text: str, values: Values) -> bool:
    parts = parted(text, "******")
    return parts is not None and len(parts) == 2 and parts[0] != parts[1]


def postscript(text: str, values: Values) -> bool:
    """Whether a line holds the marker, for example P.S., in upper or lower case, with or without spaces."""
    marker = str(values["postscript_marker"]).lower().replace(" ", "")
    return any(line.lower().replace(" ", "").find(marker) >= 0 for line in text.split("\n"))


def letter_count(text: str, values: Values) -> bool:
    count = text.lower().count(str(values["letter"]).lower())
    return compared(count, values["let_relation"], int(values["let_frequency"]))


def paragraphs(text: str, values: Values) -> bool:
    parts = parted(text, "***")
    return parts is not None and len(parts) == int(values["num_paragraphs"])


def capital_words(text: str, values: Values) -> bool:
    count = sum(word.isupper() for word in text.split())
    return compared(count, values["capital_relation"], int(values["capital_frequency"]))


def sentences(text: str) -> int:
    """Sentences by their ends; a last one without an end counts."""
    ends = [*SENTENCE.finditer(text)]
    rest = text[ends[-1].end() :] if ends else text
    return len(ends) + bool(WORD.search(rest))


CHECKS: Mapping[str, Callable[[str, Values], bool]] = {
    "keywords:existence": lambda text, of: all(one.lower() in text.lower() for one in of["keywords"]),
    "keywords:frequency": lambda text, of: compared(
        text.lower().count(of["keyword"].lower()), of["relation"], int(of["frequency"])
    ),
    "keywords:forbidden_words": lambda text, of: not any(occurrences(text, one) for one in of["forbidden_words"]),
    "keywords:letter_frequency": letter_count,
    "language:response_language": lambda text, of: language_is(text, of["language"]),
    "length_constraints:number_sentences": lambda text, of: compared(
        sentences(text), of["relation"], int(of["num_sentences"])
    ),
    "length_constraints:number_paragraphs": paragraphs,
    "length_constraints:number_words": lambda text, of: compared(
        count_words(text), of["relation"], int(of["num_words"])
    ),
    "length_constraints:nth_paragraph_first_word": first_word,
    "detectable_content:number_placeholders": lambda text, of: (
        len(PLACEHOLDER.findall(text)) >= int(of["num_placeholders"])
    ),
    "detectable_content:postscript": postscript,
    "detectable_format:number_bullet_lists": lambda text, of: len(BULLET.findall(text)) == int(of["num_bullets"]),
    "detectable_format:constrained_response": lambda text, of: any(one in text for one in CONSTRAINED),
    "detectable_format:number_highlighted_sections": lambda text, of: (
        sum(bool(one.strip("* ")) for one in HIGHLIGHT.findall(text)) >= int(of["num_highlights"])
    ),
    "detectable_format:multiple_sections": sections,
    "detectable_format:json_format": lambda text, of: is_json(text),
    "detectable_format:title": lambda text, of: any(one.strip("<> ") for one in TITLE.findall(text)),
    "combination:two_responses": two_responses,
    "combination:repeat_prompt": lambda text, of: (
        text.strip().lower().startswith(str(of["prompt_to_repeat"]).strip().lower())
    ),
    "startend:end_checker": lambda text, of: (
        text.strip().strip('"').lower().endswith(str(of["end_phrase"]).strip().lower())
    ),
    "startend:quotation": lambda text, of: (
        len(bare := text.strip()) > 1 and bare.startswith('"') and bare.endswith('"')
    ),
    "change_case:capital_word_frequency": capital_words,
    "change_case:english_capital": lambda text, of: in_case(text, True),
    "change_case:english_lowercase": lambda text, of: in_case(text, False),
    "punctuation:no_comma": lambda text, of: "," not in text,
}


def read(row: Row, place: str) -> Item:
    """{"key", "prompt", "instruction_id_list", "kwargs": [one object for each instruction]}."""
    names, values = [str(one) for one in row["instruction_id_list"]], list(row["kwargs"])
    if len(names) != len(values) or not names:
        raise ValueError("instruction_id_list and kwargs need as many members, one or more")
    if unknown := [one for one in names if one not in CHECKS]:
        raise ValueError(f"the instruction {unknown[0]!r} is not known")
    bare = [{key: value for key, value in (one or {}).items() if value is not None} for one in values]
    key = str(row.get("key", place))
    return Item(key, key, str(row["prompt"]), (), (), {"names": names, "values": bare})


def followed(item: Item, output: str) -> list[bool]:
    """Whether each instruction of an item is followed; an empty reply follows none."""
    text = output[:MOST_CHARS].rpartition("</think>")[2].strip()
    names: Sequence[str] = item.fields["names"]
    if not text:
        return [False] * len(names)
    return [CHECKS[name](text, values) for name, values in zip(names, item.fields["values"], strict=True)]


def grade(item: Item, output: str) -> Verdict:
    """Whether all instructions are followed. What is extracted names those that are not."""
    if not output.strip():
        return NOTHING
    kept = followed(item, output)
    broken = [name for name, one in zip(item.fields["names"], kept, strict=True) if not one]
    return Verdict(f"broken: {', '.join(broken)}" if broken else "all followed", float(not broken))


IFEVAL = Task(
    "ifeval", "dialogue", read, grade, {"plain": Style(lambda item: item.question, lambda item: "")}, same_answer=None
)  # fmt: skip
TASKS = (IFEVAL,)
