"""Asks the recipe's source for new crawls, and starts the DAG `corpus` for each.

In: the list of crawls at the recipe's `crawl.source`. Out: the asset `crawl`, one event for each new crawl.

The first poll starts it for the newest crawl only and records the older ones. A backfill of `corpus` runs these, with
the recipe, overrides and source of the poll. The schedule polls with the recipe and overrides of your last trigger.
"""

from airflow.sdk import DAG

from gristmill_airflow.graph import common, poll
from gristmill_airflow.params import poll_params
from gristmill_airflow.timetable import CrawlPollTimetable

with DAG(
    dag_id="crawl_refresh",
    dag_display_name="0 Crawl refresh",
    description="New crawls of the recipe's source, one partition each",
    schedule=CrawlPollTimetable("0 6 * * *", timezone="UTC"),
    catchup=False,
    max_active_runs=1,
    params=poll_params(),
    **common(),
    doc_md=__doc__,
):
    poll()
