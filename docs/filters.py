"""The table of docs/filters.md, which is made from the rules themselves; `python -m docs.generate` writes it."""

from pathlib import Path

from contract.settings.filter import RULES, Filter

PAGE = Path(__file__).with_suffix(".md")
BEGIN, END = "<!-- rules -->\n", "<!-- end of rules -->\n"


def table() -> str:
    """Every rule with its default threshold, in the order of evaluation, as Markdown."""
    on = {rule.rule_set for rule in Filter().rules()}
    lines = [
        "| rule set | on | drops when | setting of `filter` | reason | measured on | source |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {rule.rule_set} | {'yes' if rule.rule_set in on else 'no'} | {rule.score} {rule.comparison} {rule.limit:g} "
        f"| {rule.setting} | {rule.reason} | {rule.measured_on} | {rule.source} |"
        for rule in RULES
    ]
    return "\n".join(lines) + "\n"


def page(text: str) -> str:
    """The text of docs/filters.md with the table between its marks made anew."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    return f"{before}{begin}{table()}{end}{after}"
