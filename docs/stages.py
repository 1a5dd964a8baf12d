"""Makes the text of docs/stages.md from the stage table and the settings; `python -m docs.generate` writes it."""

from pathlib import Path

from contract.recipe import DEFAULTS
from contract.settings.filter import DropsIf
from contract.stages import STAGES

PAGE = Path(__file__).with_suffix(".md")

FLOW = """
## How documents pass through

Texts are large, so few stages write them: `extract`; `score`, which changes them; `curate`, which reads the sources beside the
crawl; and `mix`, which shuffles them. The stages in between only decide. They write which rows of a documents file are left, never the rows themselves:

| kind of file | what it holds | who writes it |
|---|---|---|
| `documents` | the texts, one in each row | extract, score, curate; mix, whose files belong to no part |
| `index` | the numbers of the rows that are left, and what the stage adds to each, such as langid the language | every stage that drops documents, but for curate |
| `cuts` | byte ranges that are cut out of texts, by row | dedup_substring; decontaminate with `action: cut` |
| `signatures` | keys of the rows, by row | minhash_sign, curate |
| `drops` | a row for each dropped document: reason, value, snippet | every stage that drops documents |

The first four kinds make up a part; the files of one part have the same number in the manifest. If a stage does not replace a
file of a part, its manifest lists the file of the earlier stage, so a reader needs only one manifest.
`contract.documents.read_part` reads the rows that are left of a part, and applies the cuts. If a part loses no document, its
index stays as it is; if it loses all, the manifest no longer lists it.
"""


def render() -> str:
    """The stage table as Markdown, and how documents pass through the stages."""
    lines = [
        "# Stages",
        "",
        "Made from [contract/stages.py](../contract/stages.py), which also defines the DAGs' edges and the fingerprints. The settings of a",
        "stage are the class of its name in [contract/settings/](../contract/settings). A new version makes old results stale.",
        "",
        "| stage | version | what it does | runs on | once for each | reads | settings |",
        "|---|---|---|---|---|---|---|",
    ]
    planes = {"spark": "Spark", "gpu": "DeepSpeed", "local": "one process"}
    scopes = {"snapshot": "segment of a crawl", "corpus": "corpus", "model": "model and benchmark"}
    for stage in STAGES.values():
        folder = "pipelines" if stage.plane == "spark" else "training"
        reads = ", ".join(stage.reads) or {"snapshot": "crawl files", "corpus": "files of the sources"}[stage.scope]
        fields = type(DEFAULTS.section(stage.name)).model_fields.items()
        # docs/filters.md has the thresholds of the rules
        own = [name for name, field in fields if not any(isinstance(one, DropsIf) for one in field.metadata)]
        settings = ", ".join(own)
        lines.append(
            f"| [{stage.name}](../{folder}/{stage.name}.py) | {stage.version} | {stage.summary} | {planes[stage.plane]} | {scopes[stage.scope]}"
            f" | {reads} | {settings} |"
        )
    return "\n".join(lines) + "\n" + FLOW
