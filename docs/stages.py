"""Prints docs/stages.md from the stage table: `python -m docs.stages > docs/stages.md`."""

from contract.stages import STAGES


def render() -> str:
    """The stage table as Markdown."""
    lines = [
        "# Stages",
        "",
        "Made from [contract/stages.py](../contract/stages.py), which also makes the DAGs' edges and the fingerprints. Settings of each",
        "stage: the class of its name in [contract/settings/](../contract/settings). A new version makes results of the old one stale.",
        "",
        "| stage | version | what it does | runs on | once for each | reads |",
        "|---|---|---|---|---|---|",
    ]
    planes = {"spark": "Spark", "gpu": "DeepSpeed", "local": "one process"}
    scopes = {"snapshot": "segment of a crawl", "corpus": "corpus"}
    for stage in STAGES.values():
        folder = "pipelines" if stage.plane == "spark" else "training"
        reads = ", ".join(stage.reads) or "crawl files"
        lines.append(
            f"| [{stage.name}](../{folder}/{stage.name}.py) | {stage.version} | {stage.summary} | {planes[stage.plane]} | {scopes[stage.scope]}"
            f" | {reads} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(render(), end="")
