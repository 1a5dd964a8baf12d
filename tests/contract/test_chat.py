"""Special tokens by role: written, read back, and put into the template of exported models."""

import pytest
from jinja2 import Template

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
    said = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    made = Template(jinja_template(OTHER))
    assert made.render(messages=said) == "[\u4eba] \"'Hi<|assistant|>Ho</s>"
    assert made.render(messages=said[:1], add_generation_prompt=True) == "[\u4eba] \"'Hi<|assistant|>"
