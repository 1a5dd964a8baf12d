"""Chat templates that a recipe names: their text, and whether it is Jinja, told before anything runs."""

import json
from typing import Any

from contract.chat import TEMPLATES
from contract.errors import InputError
from contract.store import split_uri

MOST_BYTES = 1 << 20
"""Of the file of a template: the longest published ones have some 30 KB."""


def read_template(name: str, key: str = "sft.chat_template") -> str:
    """The text of a well-known template, or of the one in a file: Jinja, or JSON with the key `chat_template`.

    Raises InputError, which begins with the recipe's key, if a file holds none that can be used.
    """
    if name in TEMPLATES:
        return TEMPLATES[name]
    where = f"{key}: {name}"
    store, path = split_uri(name)
    try:
        with store.open_input(path) as stream:
            data = stream.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise InputError(f"{where}: has more than {MOST_BYTES:,} bytes, so it is no chat template")
        text = _of_json(json.loads(data), where) if path.endswith(".json") else data.decode()
    except FileNotFoundError:
        raise InputError(f"{where}: no such file; name a Jinja file, or one of {', '.join(TEMPLATES)}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: is neither Jinja nor JSON with a key chat_template ({error})") from error
    if "strftime_now" in text:
        raise InputError(
            f"{where}: asks for the date (strftime_now), so every day would train on other tokens; copy the template, "
            "and write a date in its place"
        )
    if wrong := syntax_error(text):
        raise InputError(f"{where}: is no Jinja template ({wrong})")
    return text


def _of_json(described: Any, where: str) -> str:
    """The template of a tokenizer_config.json; of several, which have names, that of the name `default`."""
    found = described.get("chat_template") if isinstance(described, dict) else None
    if isinstance(found, list):
        named = [one for one in found if isinstance(one, dict) and one.get("name") == "default"]
        found = named[0].get("template") if named else None
    if not isinstance(found, str):
        raise InputError(f"{where}: holds no text at the key chat_template; name a file that does, or a .jinja")
    return found


def syntax_error(text: str) -> str:
    """What is wrong with a template's syntax, as transformers reads it; empty if nothing is. Nothing is rendered."""
    from jinja2 import TemplateSyntaxError, nodes
    from jinja2.ext import Extension
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """The tag around what an assistant says."""

        tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

        def parse(self, parser: Parser) -> list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    try:
        ImmutableSandboxedEnvironment(extensions=[Generation, "jinja2.ext.loopcontrols"]).parse(text)
    except TemplateSyntaxError as error:
        return f"line {error.lineno}: {error.message}"
    except RecursionError:
        return "it is nested too deep"
    return ""
