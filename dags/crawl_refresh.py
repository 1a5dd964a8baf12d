"""Asks the recipe's source for new crawls, and starts the DAG `corpus` for each.

The first poll starts it for the newest crawl only; the older ones are known from then on, and a backfill of `corpus` runs them, with the
recipe, overrides and source of the poll. The schedule polls with what you last told this DAG when you triggered it.
"""

from airflow.sdk import DAG

from gristmill_airflow.graph import RETRIES, poll
from gristmill_airflow.params import poll_params
from gristmill_airflow.timetable import CrawlPollTimetable

with DAG(
    dag_id="crawl_refresh",
    description="New crawls of the recipe's source, one partition each",
    schedule=CrawlPollTimetable("0 6 * * *", timezone="UTC"),
    catchup=False,
    max_active_runs=1,
    params=poll_params(),
    default_args=RETRIES,
    tags=["gristmill"],
    doc_md=__doc__,
):
    poll()
