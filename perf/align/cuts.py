"""Whether anything is cut from a real chat or pair without being counted: `truncations_uncounted`.

What a limit took is found without the code that counts it: the tokens are compared with those without a limit. A chat
that lost tokens and is neither counted as cut nor dropped is one too many, and so is one that is counted and lost none.
Both replies of a pair must follow the same tokens. All of it holds in every format of chats.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from contract.conversation import Conversation, Preference
from perf.align.hh import read_hh
from perf.align.templates import FOLDERS, WHOLE, chats_of, formats, texts_of
from perf.bars import Bars
from training.chat.template import Chat
from training.data.rankings import ranking_of
from training.reward import ranked, unfit

LIMITS = (48, 128, 512)
"""Tokens to which chats are cut."""
EACH = 60  # chats of a folder
PAIRS = 400


def run(bars: Bars, data: Path) -> None:
    chats = [turns for name in FOLDERS for turns in chats_of(data / name)[:EACH]]
    pairs = read_hh(data)
    pairs = pairs[:: len(pairs) // PAIRS][:PAIRS]  # helpful and harmless ones
    found = 0
    with TemporaryDirectory() as place:
        for name, chat, _ in formats(Path(place), texts_of([*chats, *(pair.prompt for pair in pairs)])):
            of_chats = sum(uncounted(chat, turns, limit) for turns in chats for limit in LIMITS)
            of_pairs = sum(pair_uncounted(chat, pair, limit) for pair in pairs for limit in LIMITS)
            print(f"{name}: of {len(chats):,} chats {of_chats}, and of {len(pairs):,} pairs {of_pairs} lost in silence")
            found += of_chats + of_pairs
    bars.exactly("truncations_uncounted", found, 0)


def uncounted(chat: Chat, turns: Conversation, limit: int) -> bool:
    """Whether a chat lost something to a limit and no cut says so, or is longer than the limit."""
    whole, fit = chat.fit_chat(turns, WHOLE), chat.fit_chat(turns, limit)
    lost = whole.prompt + whole.replies[0] != fit.prompt + fit.replies[0]
    return len(chat.encode(turns, limit)[0]) > limit or lost != bool(fit.cuts)


def pair_uncounted(chat: Chat, pair: Preference, limit: int) -> bool:
    """Whether a pair lost something that is not counted, or is longer than the limit."""
    ranking = ranking_of([pair])
    whole, found = ranked(chat, ranking, WHOLE), ranked(chat, ranking, limit)
    if (found.chats != whole.chats) != bool(found.cuts):
        return True
    return unfit(found, "pairwise") is None and max(map(len, found.chats)) > limit
