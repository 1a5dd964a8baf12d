"""Prints the table of docs/filters.md from the rules themselves: `python -m docs.filters`. Between its marks the file holds exactly this."""

from contract.settings.corpus import C4, MC4, Bloom, Filter
from pipelines.rules.decide import rules_for

BEGIN, END = "<!-- rules -->", "<!-- end of rules -->"


def render() -> str:
    """Every rule with its default threshold, in the order in which they are asked, as Markdown."""
    everything = Filter(c4=C4(enabled=True), mc4=MC4(enabled=True), bloom=Bloom(enabled=True))
    on = {rule.group for rule in rules_for(Filter(), "en")}
    lines = ["| rule set | on by default | drops when | reason |", "|---|---|---|---|"]
    for rule in rules_for(everything, "en"):
        default = "yes" if rule.group in on else "no"
        lines.append(f"| {rule.group} | {default} | {rule.score} {rule.side} {rule.limit:g} | {rule.reason.value} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(render(), end="")
