"""Which modules get faults, which tests must notice them, and how large a share."""

from dataclasses import dataclass
from pathlib import Path

PACKAGES = {
    "contract": "tests/contract",
    "pipelines": "tests/pipelines",
    "training": "tests/training",
    "evals": "tests/evals",
    "reports": "tests/reports",
    "plugins/gristmill_airflow": "tests/plugins",
}
"""Folder of modules -> folder of their tests: `pipelines/dedup/links.py` is tested by `tests/pipelines/dedup/test_links.py`."""

TRAINING = (
    "loss",
    "ppo",
    "reward",
    "scalar",
    "judge",
    "rankings",
    "sft",
    "reading",
    "order",
    "drawing",
    "blanks",
    "examples",
    "rows",
    "jinja",
    "checkpoint",
    "checkpoint_files",
    "rollout",
)

ALSO = {
    "contract/accelerators.py": ("tests/training/test_estimate.py",),
    "contract/chat.py": (
        "tests/pipelines/test_tokenizer.py",
        "tests/training/chat/test_template.py",
        "tests/training/chat/test_jinja.py",
    ),
    "contract/confinement.py": ("tests/contract/test_guard.py",),
    "contract/fertility.py": ("tests/reports/test_fertility.py",),
    "contract/facts.py": ("tests/contract/test_plan.py",),
    "contract/job.py": ("tests/training/engine/test_job.py",),
    "contract/kinds.py": ("tests/contract/test_manifest.py",),
    "contract/conversation.py": ("tests/contract/test_examples.py",),
    "contract/mistakes.py": ("tests/contract/test_recipe.py", "tests/contract/test_deployment.py"),
    "contract/documents.py": ("tests/pipelines/spark/test_documents.py",),
    "evals/tasks/task.py": ("tests/evals/tasks/test_table.py", "tests/evals/tasks/test_prompts.py"),
    "evals/tasks/numbers.py": ("tests/evals/tasks/test_answers.py",),
    "pipelines/vocabulary/encoding.py": ("tests/pipelines/vocabulary/test_bytebpe.py", "tests/pipelines/test_pack.py"),
    "pipelines/vocabulary/fertility.py": ("tests/pipelines/test_tokenizer.py",),
    "contract/trace.py": ("tests/pipelines/test_pack.py",),
    "contract/plan.py": ("tests/contract/test_deployment.py",),
    "contract/settings/base.py": (
        "tests/contract/test_settings.py",
        "tests/contract/test_recipe.py",
        "tests/contract/test_deployment.py",
    ),
    "contract/settings/filter.py": ("tests/pipelines/rules/test_decide.py",),
    "contract/settings/corpus.py": ("tests/contract/test_settings.py", "tests/contract/test_recipe.py"),
    "contract/settings/examples.py": ("tests/contract/test_settings.py", "tests/contract/test_recipe.py"),
    "contract/settings/run.py": ("tests/contract/test_recipe.py",),
    "contract/settings/spark.py": ("tests/contract/test_settings.py",),
    "contract/settings/training.py": ("tests/contract/test_settings.py", "tests/contract/test_recipe.py"),
    "contract/sources.py": ("tests/contract/test_plan.py",),
    "pipelines/examples/sieve.py": ("tests/pipelines/test_instructions.py", "tests/pipelines/test_preferences.py"),
    "pipelines/sources/columns.py": (
        "tests/pipelines/sources/test_layouts.py",
        "tests/pipelines/sources/test_files.py",
    ),
    "pipelines/spark/dealing.py": ("tests/pipelines/test_mix.py", "tests/pipelines/test_curate.py"),
    "pipelines/spark/components.py": ("tests/pipelines/test_dedup_fuzzy.py",),
    "pipelines/dedup/repeats.py": ("tests/pipelines/test_dedup_substring.py",),
    "pipelines/spark/session.py": ("tests/pipelines/spark/test_exchange.py", "tests/pipelines/spark/test_job.py"),
    "pipelines/html/maintext.py": ("tests/pipelines/html/test_patches.py",),
    "pipelines/html/treewalk.py": ("tests/pipelines/html/test_patches.py",),
    "pipelines/rules/badwords.py": ("tests/pipelines/rules/test_bloom.py", "tests/pipelines/rules/test_measure.py"),
    "pipelines/text/counting.py": ("tests/pipelines/text/test_characters.py", "tests/pipelines/rules/test_measure.py"),
    "pipelines/pii/emails.py": ("tests/pipelines/pii/test_mask.py",),
    "pipelines/pii/latin.py": ("tests/pipelines/pii/test_mask.py",),
    "pipelines/urls/listfile.py": ("tests/pipelines/urls/test_filter.py",),
    "pipelines/text/fasttext_model.py": ("tests/pipelines/html/test_prefilter.py", "tests/pipelines/test_langid.py"),
    "pipelines/text/languages.py": ("tests/pipelines/rules/test_quality.py",),
    "pipelines/text/folding.py": ("tests/pipelines/text/test_hashing.py",),
    "pipelines/pii/phones.py": ("tests/pipelines/pii/test_mask.py",),
    "pipelines/warc/record.py": ("tests/pipelines/warc/test_pages.py",),
    "pipelines/warc/recordsearch.py": (
        "tests/pipelines/warc/test_recordstream.py",
        "tests/pipelines/warc/test_pages.py",
    ),
    "pipelines/warc/recordstream.py": ("tests/pipelines/warc/test_pages.py",),
    "pipelines/text/recurrence.py": (
        "tests/pipelines/text/test_characters.py",
        "tests/pipelines/rules/test_repetition.py",
    ),
    "pipelines/text/stopwords.py": ("tests/pipelines/rules/test_quality.py", "tests/pipelines/rules/test_decide.py"),
    "pipelines/dedup/stream.py": ("tests/pipelines/dedup/test_substring.py",),
    "pipelines/dedup/suffixes.py": ("tests/pipelines/dedup/test_substring.py",),
    "pipelines/text/words.py": ("tests/pipelines/text/test_characters.py", "tests/pipelines/rules/test_quality.py"),
    "plugins/gristmill_airflow/assets.py": ("tests/plugins/test_graph.py",),
    "plugins/gristmill_airflow/launch.py": ("tests/plugins/test_stage.py",),
    "plugins/gristmill_airflow/plugin.py": ("tests/plugins/test_graph.py",),
    "reports/indexes.py": ("tests/reports/test_search.py", "tests/reports/test_page.py"),
    "reports/cockpit/download.py": (
        "tests/reports/cockpit/pages/test_models.py",
        "tests/reports/cockpit/pages/test_training.py",
    ),
    "reports/cockpit/pages/pages.py": ("tests/reports/cockpit/pages/test_pages.py",),
    "reports/cockpit/visitor.py": ("tests/reports/cockpit/test_local.py", "tests/reports/cockpit/test_page.py"),
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
        "training/engine/checkpoint.py",
        "training/engine/checkpoint_files.py",
        "pipelines/dedup/duplicates.py",
        "contract/cuts.py",
        "contract/documents.py",
        "pipelines/spark/documents.py",
    ),
    bar=0.95,
    share=0.2,
)
OBJECTIVES = Group("objective functions", ("training/loss.py",), bar=0.95, share=0.1)


def groups(root: Path) -> list[Group]:
    """Every module once: the two groups of the higher bar, and all others."""
    strict = {*PROTECTS_DATA.modules, *OBJECTIVES.modules}
    found = [file.relative_to(root).as_posix() for folder in PACKAGES for file in sorted((root / folder).rglob("*.py"))]
    wanted = [one for one in found if not one.startswith("training/") or Path(one).stem in TRAINING]
    others = tuple(one for one in wanted if one not in strict and Path(one).name not in ("__init__.py",))
    return [PROTECTS_DATA, OBJECTIVES, Group("everything else", others, bar=0.85, share=0.7)]


def area(module: str, root: Path) -> list[str]:
    """The test files of a module's own area, the quickest first. Raises FileNotFoundError where there are none."""
    package = next(folder for folder in PACKAGES if module.startswith(f"{folder}/"))
    below, _, name = f"{PACKAGES[package]}{module.removeprefix(package)}".rpartition("/")
    mirrored = f"{below}/test_{name.removesuffix('.py').strip('_')}.py"
    files = [*([mirrored] if (root / mirrored).exists() else []), *ALSO.get(module, ())]
    if not files:
        raise FileNotFoundError(f"{module}: {mirrored} does not exist and ALSO names no other test")
    return files
