"""Special tokens by role: written, read back, and put into the template of exported models."""

import json
import re

import pytest

from contract.chat import SPECIAL_TOKENS, dump_special_tokens, jinja_template, load_special_tokens
from contract.errors import DamagedError

OTHER = {**SPECIAL_TOKENS, "end_of_text": "</s>", "user": "[\u4eba] \"'"}


def test_what_is_written_is_read_back() -> None:
    assert load_special_tokens(dump_special_tokens(OTHER), "here") == OTHER


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{}", dump_special_tokens({**OTHER, "pad": "</s>"}), dump_special_tokens({**OTHER, "eos": "x"})],
)
def test_a_role_without_a_token_of_its_own_is_damage(data: bytes) -> None:
    with pytest.raises(DamagedError, match="here: does not name one token for each role"):
        load_special_tokens(data, "here")


def test_the_template_has_the_tokens_of_the_roles() -> None:
    begins, ends = (json.loads(one) for one in re.findall(r"set \w+ = ({.*?}) -%}", jinja_template(OTHER)))
    assert begins == {
        "system": "<|system|>",
        "user": "[\u4eba] \"'",
        "assistant": "<|assistant|>",
        "tool": "<|reserved_0|>",
    }
    assert ends == {"system": "", "user": "", "assistant": "</s>", "tool": ""}
