"""Finds the answer in what a model wrote: a number, a letter, yes or no, a boxed expression.

Where an answer is announced (`####`, a box, `the answer is`, `答案是`), the last announcement counts, since models
correct themselves. Only an output without any is searched as a whole. What is found is None for a refusal, and where
two answers are given as one. All patterns are linear, and no output is ever evaluated.
"""

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction

from evals.tasks import numbers
from evals.tasks.task import LETTERS, cut_tail

MOST_TRIED = 8  # announcements, bold texts and boxes of one output, the last ones
SEGMENT_CHARS = 400  # of what follows an announcement
HASHES = re.compile(r"####")
ANNOUNCED = re.compile(
    r"\b(?:answer|result|total|solution)\b(?: to (?:the|this) (?:question|problem))?(?:\*\*)?"
    r"(?: ?[:=]| (?:is|was|would be|should be|must be|will be|comes to|equals|becomes)\b(?: therefore)?)",
    re.IGNORECASE,
)
FIRMLY = re.compile(
    r"\b(?:final|correct|right|best|my) (?:answer|result|option|choice)\b(?: (?:is|was|would be|should be)\b)?",
    re.IGNORECASE,
)
ANNOUNCED_ZH = re.compile(
    "(?:答案|结果|正确选项|正确的选项|答)(?:应该?是|选择|应为|应选|就是|为|是|选|等于|[:：])[:：]?"
    "|故选|所以选|因此选|应选|应该选|我选"
)
SENTENCE_END = re.compile(r"\n\s|[。！？；]|[!?;](?![0-9])|\.(?=\s|\Z|\*)|\n(?=\S)")
LEADING = " \t\r\n:：=*_`~#\"'“”‘’「」"
REFUSAL = re.compile(
    r"(?:i'm |i am )?(?:very )?sorry\b|i (?:can(?:no|')t|can not|am unable|'m unable|won't|will not)\b"
    r"|i (?:do not|don't) know\b"
    r"|as an ai\b|unfortunately, i\b|抱歉|对不起|很抱歉|我无法|我不能|我不知道|作为一个?(?:人工智能|ai)",
    re.IGNORECASE,
)
BOX = re.compile(r"\\(?:boxed|fbox)\s?\{|\\boxed (?=[0-9A-Za-z])")
BOLD = re.compile(r"\*\*([^*\n]{1,200})\*\*")
WRAPPED = re.compile(r"\\(?:text|textbf|mathbf|mathrm|mbox|textrm)\s?\{([^{}]{0,200})\}")


def refuses(text: str) -> bool:
    """Whether a text opens with a refusal to answer."""
    return REFUSAL.match(text.strip(LEADING)) is not None


def boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{...}` whose braces balance, or of `\boxed 5`; None if there is none."""
    for match in reversed([*BOX.finditer(text)][-MOST_TRIED:]):
        if not match[0].endswith("{"):
            return text[match.end() : match.end() + 1]
        inner = _balanced(text[match.end() : match.end() + 4000])
        if inner is not None:
            return inner.strip()
    return None


def _balanced(text: str) -> str | None:
    """The text up to the brace that closes one that is open; None if none does."""
    depth, escaped = 1, False
    for at, character in enumerate(text):
        if not escaped:
            depth += (character == "{") - (character == "}")
        if not depth:
            return text[:at]
        escaped = character == "\\" and not escaped
    return None


def segment(text: str, start: int) -> str:
    """What stands behind an announcement: to the end of its sentence, from the first character that says something."""
    rest = text[start : start + SEGMENT_CHARS].lstrip(LEADING)
    for opening, closing in ((r"\[", r"\]"), (r"\(", r"\)"), ("$$", "$$")):
        if rest.startswith(opening):
            inner, closed, _ = rest[len(opening) :].partition(closing)
            if closed:
                return inner.strip()
    end = SENTENCE_END.search(rest)
    return (rest[: end.start()] if end else rest).strip()


def announced(text: str) -> Iterator[str]:
    """What the text announces as its answer: behind `####`, in a box, in words; of several of a kind the last first."""
    yield from (segment(text, match.end()) for match in reversed([*HASHES.finditer(text)][-MOST_TRIED:]))
    inner = boxed(text)
    if inner is not None:
        yield inner
    places = {match.end() for pattern in (FIRMLY, ANNOUNCED, ANNOUNCED_ZH) for match in pattern.finditer(text)}
    yield from (segment(text, place) for place in sorted(places, reverse=True)[:MOST_TRIED])


# Numbers

ROUGHLY = re.compile(r"\((?:about|approximately|approx\.?|roughly|or|i\.e\.) [^()]{0,100}\)")
CHECKED = re.compile(r"(?<=[.\n] )(?:Check|Verify|Verification|To verify)[:,]|\n(?:Check|Verification):")
NOT_NUMBER = re.compile(r"(?:\b(?:not|isn't)|不是) ?\$?[0-9][0-9.,]*")


def number(output: str) -> Fraction | None:
    """The number that a text gives as its answer; None for a refusal and for a text without a number."""
    text = NOT_NUMBER.sub(" ", numbers.plain(cut_tail(output)))
    for part in announced(text):
        value = first_number(part)
        if value is not None:
            return value
    if refuses(text):
        return None
    text = ROUGHLY.sub(" ", CHECKED.split(text, maxsplit=1)[0])
    for match in reversed([*BOLD.finditer(text)][-MOST_TRIED:]):
        value = first_number(match[1])
        if value is not None:
            return value
    return next((found[-1].value for found in numbers.every(text) if found), None)


def first_number(part: str) -> Fraction | None:
    """The number of an announcement: the first, or what its last equation comes to."""
    part = _unwrapped(part)
    sides = [side for side in re.split(r"=|\\approx|≈", part) if side.strip()]
    for side in (*reversed(sides[1:]), part):
        for found in numbers.every(side):
            if found and (side is part or len(found) == 1 or not re.search(r"[0-9)] ?[-+*/×÷] ?[0-9(]", side)):
                return found[0].value
    return None


def _unwrapped(text: str) -> str:
    return WRAPPED.sub(r" \1 ", text)


# Letters

NOT = re.compile(
    r"\b(?:[Nn]ot|isn't|[Nn]either|nor|rather than|instead of)\s{1,2}(?:option |choice |答案)?\(?[A-Z]\)?(?![A-Za-z])"
    r"|\b(?:[Ee]liminat|[Ee]xclud|[Rr]ul)(?:e|es|ed|ing)(?: out)? [A-Z](?:(?:,|,? and) [A-Z])*(?![A-Za-z])"
    r"|\b[A-Z]\)? (?:is|are|was|would be|seems) (?:\w{1,12} )?(?:incorrect|wrong|false|not)\b"
    r"|(?:不是|不选|而非)\s?[A-Z]"
)
LETTER = re.compile(r"(?<![A-Za-z0-9])\(?([A-Z])\)?(?![A-Za-z0-9]|['’][a-z])")
LEADS = re.compile(
    r"(?:option|choice|answer|letter|选项|选择|选)?\s{0,2}[(\[（「“\"']?([A-Z])"
    r"(?:[)\]）.、,，:：;。」”\"'*]|\s*\Z|\s*\n| is\b| \(| because| since| as\b| -|[\u4e00-\u9fff])",
    re.IGNORECASE,
)
CHOSEN = re.compile(
    r"\b(?:option|choice|choose|chose|select|pick|go with|opt for|alternative)\s{1,2}(?:option |choice |answer )?"
    r"[(\[\"'*]{0,3}([A-Z])(?![A-Za-z0-9])"
    r"|[(\[\"'*]{0,3}\b([A-Z])[)\]\"'*]{0,3} (?:is|would be|seems|must be) (?:the )?(?:\w{1,12} )?"
    r"(?:correct|right|answer|best|true|option)"
    r"|选项?\s?[(（]?([A-Z])(?![A-Za-z])|([A-Z])\s?(?:选项)?(?:是|为)?(?:正确|对的)",
)
BOTH = re.compile(
    r"\(?([A-Z])\)?\s{0,2}(?:and|or|&|/|,|、|和|或|与|及)\s{0,2}(?:also )?(?:option )?\(?([A-Z])\)?(?![A-Za-z])"
)


def letter(output: str, choices: Sequence[str]) -> str | None:
    """The letter of the choice that a text takes; None if it takes none or two. `choices` are the texts, in order."""
    known = LETTERS[: len(choices)]
    text = _unwrapped(_ascii_letters(cut_tail(output)))
    text = NOT.sub(" ", text)
    for part in announced(text):
        found = _leading_letter(part, known)
        if found:
            return found if found in known else None
        by_text = _by_text(part, choices)
        if by_text:
            return by_text
    bare = text.strip(LEADING)
    if _two(bare[:40], known):
        return None
    if (match := LEADS.match(bare)) and (found := _meant(match, known)):
        return found
    if refuses(text):
        return None
    chosen: list[str] = [next(filter(None, match.groups())) for match in CHOSEN.finditer(text)]
    if taken := [one for one in chosen if one in known]:
        return taken[-1]
    for match in reversed([*BOLD.finditer(text)][-MOST_TRIED:]):
        found = _leading_letter(match[1], known)
        if found and found in known:
            return found
    if by_text := _by_text(text, choices):
        return by_text
    alone = {one for one in _standing_alone(text) if one in known}
    return alone.pop() if len(alone) == 1 else None


def _ascii_letters(text: str) -> str:
    """Full-width letters and brackets as ASCII writes them."""
    return text.translate({0xFF21 + at: 65 + at for at in range(26)} | {0xFF08: "(", 0xFF09: ")", 0xFF1A: ":"})


def _leading_letter(part: str, known: str) -> str | None:
    """The letter that an announcement opens with, or that is its only one; `?` for two; None for none."""
    part = part.strip(LEADING + "$")
    if _two(part[:40], known):
        return "?"
    if (match := LEADS.match(part)) and (found := _meant(match, LETTERS)):
        return found
    alone = [one for one in _standing_alone(part) if one in known]
    return alone[0] if len(set(alone)) == 1 else None


def _meant(match: re.Match[str], known: str) -> str | None:
    """The letter of a match of LEADS; a small one only behind `option`, in a bracket, or alone."""
    found, text = match[1], match.string
    named = len(match[0][: match.start(1) - match.start()].strip(" ([（「“\"'")) > 1  # option c
    bracketed = match[0][:1] in "([" or match[0].rstrip()[-1:] in ")]"
    if found.islower() and not (named or bracketed) and len(text.strip(" .)*")) > 1:
        return None
    return found.upper() if found.upper() in known else None


def _two(part: str, known: str) -> bool:
    match = BOTH.match(part.lstrip("(* "))
    both = re.match(r"(?:both|either)\b", part, re.IGNORECASE)
    return both is not None or (match is not None and match[1] != match[2] and match[1] in known and match[2] in known)


def _standing_alone(text: str) -> Iterator[str]:
    """Letters that stand alone and are no words: not the article A nor the pronoun I before a word."""
    for match in LETTER.finditer(text):
        if match[1] in "AI" and "(" not in match[0] and re.match(r"\s[a-z]", text[match.end() : match.end() + 2]):
            continue
        yield match[1]


ARTICLE = re.compile(r"\A(?:an?|the) ")


def _by_text(text: str, choices: Sequence[str]) -> str | None:
    """The letter of the only choice whose text stands in a text; of choices that contain each other the longest."""
    folded = " ".join(text.casefold().split())
    found = []
    for at, choice in enumerate(choices):
        wanted = " ".join(choice.casefold().split()).strip(" .")
        if wanted and ARTICLE.sub("", wanted) == ARTICLE.sub("", folded.strip(" .")):
            return LETTERS[at]
        letter_alone = len(wanted) == 1 and wanted.isascii() and wanted.isalpha()  # it is in many texts as a word
        if wanted and not letter_alone and _stands(wanted, folded):
            found.append((at, wanted))
    longest = [at for at, one in found if not any(one != other and one in other for _, other in found)]
    return LETTERS[longest[0]] if len(longest) == 1 else None


def _stands(wanted: str, text: str) -> bool:
    """Whether a text stands in another one as whole words, and no `not` before it."""
    at = text.find(wanted)
    while at >= 0:
        before, behind = text[at - 1 : at] if at else "", text[at + len(wanted) : at + len(wanted) + 1]
        cut_words = (before.isalnum() and wanted[0].isalnum()) or (behind.isalnum() and wanted[-1].isalnum())
        if wanted.isascii() is False or not cut_words:
            return not text[max(0, at - 8) : at].endswith(("not ", "isn't ", "不是"))
        at = text.find(wanted, at + 1)
    return False


# Yes and no, and other words


OPPOSITES = ({"yes", "no"}, {"true", "false"})


def word(output: str, known: Sequence[str]) -> str | None:
    """Which of the known words, in lower case, a text answers: what it announces, opens with, or says last."""
    text = _unwrapped(cut_tail(output))
    pattern = re.compile(
        rf"(?<![\w])({'|'.join(map(re.escape, sorted(known, key=len, reverse=True)))})(?![\w])", re.IGNORECASE
    )
    for part in announced(text):
        if match := pattern.search(part):
            return _unless_denied(part, match, known)
    bare = text.strip(LEADING)
    if match := pattern.match(bare):
        return match[1].lower()
    if refuses(text):
        return None
    found = [*pattern.finditer(text)]
    return _unless_denied(text, found[-1], known) if found else None


def _unless_denied(text: str, match: re.Match[str], known: Sequence[str]) -> str | None:
    """The word, or its opposite where `not` stands before it: of two words the other, of more that of its pair."""
    said = match[1].lower()
    if not re.search(r"\b(?:not|isn't)\s\Z", text[max(0, match.start() - 6) : match.start()], re.IGNORECASE):
        return said
    others = [one for one in known if one != said]
    return others[0] if len(others) == 1 else next((one for one in others if {one, said} in OPPOSITES), None)
