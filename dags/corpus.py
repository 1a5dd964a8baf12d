"""One crawl to packed training sequences, and to examples for chat models: the Spark plane.

In: the pages of a crawl, and the sources of `curate`. Out: the asset `corpus`, which is tokens in rows of equal length,
a tokenizer, and the instructions, preferences and prompts that `align` reads. Dropped documents are kept with their
reasons.

The first stages run once for each segment of the crawl, so that each segment fails, retries and is cleared by itself;
the rest run over the whole corpus. Finished tasks are skipped.

A backfill covers the crawls that `crawl_refresh` has seen. Before the first backfill, switch that DAG on or trigger it
once.
"""

from airflow.sdk import DAG, task_group

from contract.stages import STAGES, stages_of
from gristmill_airflow.assets import CORPUS, CRAWL
from gristmill_airflow.graph import common, connect, publish_last, resolve, segments, stages
from gristmill_airflow.params import stage_params
from gristmill_airflow.timetable import CrawlAssetTimetable

PER_SEGMENT = [name for name in stages_of("corpus") if STAGES[name].scope == "snapshot"]
WHOLE_CORPUS = [name for name in stages_of("corpus") if STAGES[name].scope == "corpus"]

with DAG(
    dag_id="corpus",
    dag_display_name="1 Corpus",
    description="A crawl's pages to packed training sequences",
    schedule=CrawlAssetTimetable(CRAWL),
    params=stage_params(),
    is_paused_upon_creation=False,
    **common("spark"),
    doc_md=__doc__,
):
    found = segments(resolve())
    operators = {}

    @task_group(group_id="segment")
    def per_segment(partition):
        shown = {"partition": partition, "map_index_template": "{{ task.partition }}"}
        operators.update(stages(PER_SEGMENT, **dict.fromkeys(PER_SEGMENT, shown)))

    per_segment.expand(partition=found)
    operators.update(stages(WHOLE_CORPUS))
    connect(operators, first=found)
    [operators["pack"], operators["prompts"]] >> publish_last(CORPUS, "pack")
