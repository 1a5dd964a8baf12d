"""Variants of a recipe, each trained with several seeds on as many tokens, and which of them is better.

In: a recipe and its variants. Out: a comparison of their models on held-out text, with intervals.

Name the variants in the recipe, or as an override: `ablate.variants={base: [], strict: [filter.min_words=100]}`. What
variants share is computed once. The log of the task `ablate` has the table.
"""

from airflow.sdk import DAG

from contract.ablation import TRAINED
from gristmill_airflow.graph import common, connect, mapped, resolve, stages, variants
from gristmill_airflow.params import stage_params

with DAG(
    dag_id="ablate",
    dag_display_name="Ablate",
    description="Which variant of a recipe is better, or that nobody can tell",
    schedule=None,
    params=stage_params(),
    is_paused_upon_creation=False,
    **common("spark", "gpu"),
    doc_md=__doc__,
):
    found = variants(resolve())
    operators = mapped(TRAINED, found)
    connect(operators, first=found)
    operators["probe"] >> stages(["ablate"], ablate={"recipe": found["comparison"]})["ablate"]
