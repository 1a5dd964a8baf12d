"""Which modules get faults, which tests must notice them, and how large a share."""

from dataclasses import dataclass
from pathlib import Path

MIRRORS = {
    "contract": "tests/contract",
    "pipelines/text": "tests/pipelines/text",
    "pipelines": "tests/pipelines",
    "training": "tests/training",
    "plugins/gristmill_airflow": "tests/plugins",
}
"""Folder of modules -> folder of their tests: `pipelines/mix.py` is tested by `tests/pipelines/test_mix.py`."""

TRAINING = ("loss", "ppo", "reward", "sft", "data", "checkpoint", "checkpoint_files", "rollout")

ALSO = {
    "contract/plan.py": ("tests/contract/test_deployment.py",),
    "contract/settings.py": ("tests/contract/test_recipe.py",),
    "contract/sources.py": ("tests/contract/test_plan.py",),
    "pipelines/components.py": ("tests/pipelines/test_dedup_fuzzy.py",),
    "pipelines/repeats.py": ("tests/pipelines/test_dedup_substring.py",),
    "pipelines/session.py": ("tests/pipelines/test_exchange.py", "tests/pipelines/test_job.py"),
    "pipelines/text/badwords.py": ("tests/pipelines/text/test_bloom.py", "tests/pipelines/text/test_scores.py"),
    "pipelines/text/counting.py": ("tests/pipelines/text/test_characters.py", "tests/pipelines/text/test_scores.py"),
    "pipelines/text/emails.py": ("tests/pipelines/text/test_pii.py",),
    "pipelines/text/listfile.py": ("tests/pipelines/text/test_url.py",),
    "pipelines/text/fasttext_model.py": ("tests/pipelines/text/test_prefilter.py", "tests/pipelines/test_langid.py"),
    "pipelines/text/languages.py": ("tests/pipelines/text/test_quality.py",),
    "pipelines/text/ngrams.py": ("tests/pipelines/text/test_hashing.py", "tests/pipelines/text/test_minhash.py"),
    "pipelines/text/phones.py": ("tests/pipelines/text/test_pii.py",),
    "pipelines/text/record.py": ("tests/pipelines/text/test_warc.py",),
    "pipelines/text/recordsearch.py": (
        "tests/pipelines/text/test_recordstream.py",
        "tests/pipelines/text/test_warc.py",
    ),
    "pipelines/text/recordstream.py": ("tests/pipelines/text/test_warc.py",),
    "pipelines/text/recurrence.py": (
        "tests/pipelines/text/test_characters.py",
        "tests/pipelines/text/test_repetition.py",
    ),
    "pipelines/text/stopwords.py": ("tests/pipelines/text/test_quality.py", "tests/pipelines/text/test_rules.py"),
    "pipelines/text/stream.py": ("tests/pipelines/text/test_substring.py",),
    "pipelines/text/suffixes.py": ("tests/pipelines/text/test_substring.py",),
    "pipelines/text/words.py": ("tests/pipelines/text/test_characters.py", "tests/pipelines/text/test_quality.py"),
    "plugins/gristmill_airflow/assets.py": ("tests/plugins/test_graph.py",),
    "plugins/gristmill_airflow/launch.py": ("tests/plugins/test_stage.py",),
    "plugins/gristmill_airflow/plugin.py": ("tests/plugins/test_graph.py",),
}
"""Tests beside, or in place of, the mirrored file."""


@dataclass(frozen=True)
class Group:
    """Modules that share a bar: the least part of their faults that the tests must notice. `share` is their part of a sample.

    The groups of the higher bar are small, and would hardly be drawn by their size.
    """

    name: str
    modules: tuple[str, ...]
    bar: float
    share: float


PROTECTS_DATA = Group(
    "what protects data",
    (
        "contract/manifest.py",
        "contract/store.py",
        "contract/plan.py",
        "contract/gc.py",
        "training/checkpoint.py",
        "training/checkpoint_files.py",
        "pipelines/survivors.py",
    ),
    bar=0.95,
    share=0.2,
)
OBJECTIVES = Group("objective functions", ("training/loss.py",), bar=0.95, share=0.1)


def groups(root: Path) -> list[Group]:
    """Every module once: the two groups of the higher bar, and all others."""
    strict = {*PROTECTS_DATA.modules, *OBJECTIVES.modules}
    found = [file.relative_to(root).as_posix() for folder in MIRRORS for file in sorted((root / folder).glob("*.py"))]
    wanted = [one for one in found if not one.startswith("training/") or Path(one).stem in TRAINING]
    others = tuple(one for one in wanted if one not in strict and Path(one).name not in ("__init__.py",))
    return [PROTECTS_DATA, OBJECTIVES, Group("everything else", others, bar=0.85, share=0.7)]


def area(module: str, root: Path) -> list[str]:
    """The test files of a module's own area, the quickest first. Raises FileNotFoundError where there are none."""
    folder, _, name = module.rpartition("/")
    mirrored = f"{MIRRORS[folder]}/test_{name.removesuffix('.py').strip('_')}.py"
    files = [*([mirrored] if (root / mirrored).exists() else []), *ALSO.get(module, ())]
    if not files:
        raise FileNotFoundError(f"{module}: {mirrored} does not exist and ALSO names no other test")
    return files
