"""What Airflow loads at start: the timetables and the partition mapper that DAGs of this project use, and who writes notes of runs."""

from airflow.plugins_manager import AirflowPlugin

from gristmill_airflow import note
from gristmill_airflow.timetable import CrawlAssetTimetable, CrawlKeyMapper, CrawlPollTimetable


class GristmillPlugin(AirflowPlugin):
    name = "gristmill"
    timetables = [CrawlPollTimetable, CrawlAssetTimetable]  # noqa: RUF012 (Airflow's own interface)
    partition_mappers = [CrawlKeyMapper]  # noqa: RUF012
    listeners = [note]  # noqa: RUF012
