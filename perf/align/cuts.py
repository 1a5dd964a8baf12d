"""Whether anything is cut from a real chat without being counted: the pairs of hh-rlhf at four limits.

What a limit took is found without the code that counts it: the tokens of prompt and replies are compared with those
without a limit. A chat that lost tokens and is neither counted as cut nor dropped is one too many, and so is one that is
counted and lost none. Both replies of a pair must follow the same tokens.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from contract.chat import SPECIAL_TOKENS
from contract.conversation import Turn
from perf.align.hh import read_hh, tokenizer_of
from perf.bars import Bars
from training.chat.template import Chat
from training.data.rankings import ranking_of
from training.reward import ranked, unfit

LIMITS = (64, 128, 256, 512)
NONE = 1 << 20
PAIRS = 2000


def run(bars: Bars, data: Path) -> None:
    pairs = read_hh(data)[:PAIRS]
    uncounted = cut = dropped = 0
    with TemporaryDirectory() as folder:
        path = Path(folder, "tokenizer.json")
        tokenizer_of(pairs).save(str(path))
        chat = Chat(path, SPECIAL_TOKENS)
        for pair in pairs:
            ranking = ranking_of([pair])
            whole = ranked(chat, ranking, NONE)
            last = [*pair.prompt, Turn("assistant", pair.chosen)]
            for limit in LIMITS:
                found = ranked(chat, ranking, limit)
                lost = found.chats != whole.chats
                why = unfit(found, "pairwise")
                fit = chat.fit_chat(last, limit)
                learned = fit.prompt + fit.replies[0]
                uncounted += lost != bool(found.cuts)
                uncounted += why is None and max(map(len, found.chats)) > limit
                uncounted += (learned != chat.encode(last, NONE)[0]) != bool(fit.cuts)
                cut, dropped = cut + (lost and why is None), dropped + (why is not None)
    print(f"of {len(LIMITS) * len(pairs):,} pairs at their limits, {cut:,} were cut and {dropped:,} left out")
    bars.exactly("truncations_uncounted", uncounted, 0)
