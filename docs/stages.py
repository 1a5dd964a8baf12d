"""The text of docs/stages.md, which is made from the stage table and the settings; `python -m docs.generate` writes it."""

from pathlib import Path

from contract.recipe import DEFAULTS
from contract.stages import STAGES

PAGE = Path(__file__).with_suffix(".md")

FLOW = """
## How documents pass through

A text is written by `extract`, again by `score`, which changes it, and by `mix`, which shuffles all of them. The stages in
between only judge. They write which rows of a documents file are left, never the rows themselves:

| kind of file | what it holds | who writes it |
|---|---|---|
| `documents` | the texts, a row each | extract, score; mix without a part |
| `index` | the numbers of the rows that are left, and what the stage says of each: langid its languages | every stage that drops documents |
| `cuts` | byte ranges that are cut out of texts, by row | dedup_substring; decontaminate with `action: cut` |
| `signatures` | keys of the rows, by row | minhash_sign |
| `drops` | a row for each dropped document: reason, value, snippet | every stage that drops documents |

The first four make up a part, and have the same number in the manifest. A stage passes on the files of a part that it does not
replace: its manifest lists the documents file of an earlier stage too, so a reader needs no other manifest.
`contract.documents.read_part` reads what is left of a part, with the cuts applied. A part that loses no document keeps its
index, and one that loses all is not listed any more.
"""


def render() -> str:
    """The stage table as Markdown, and how documents pass through the stages."""
    lines = [
        "# Stages",
        "",
        "Made from [contract/stages.py](../contract/stages.py), which also makes the DAGs' edges and the fingerprints. Settings of each",
        "stage: the class of its name in [contract/settings/](../contract/settings). A new version makes results of the old one stale.",
        "",
        "| stage | version | what it does | runs on | once for each | reads | settings |",
        "|---|---|---|---|---|---|---|",
    ]
    planes = {"spark": "Spark", "gpu": "DeepSpeed", "local": "one process"}
    scopes = {"snapshot": "segment of a crawl", "corpus": "corpus"}
    for stage in STAGES.values():
        folder = "pipelines" if stage.plane == "spark" else "training"
        reads = ", ".join(stage.reads) or "crawl files"
        settings = ", ".join(type(DEFAULTS.section(stage.name)).model_fields)
        lines.append(
            f"| [{stage.name}](../{folder}/{stage.name}.py) | {stage.version} | {stage.summary} | {planes[stage.plane]} | {scopes[stage.scope]}"
            f" | {reads} | {settings} |"
        )
    return "\n".join(lines) + "\n" + FLOW
