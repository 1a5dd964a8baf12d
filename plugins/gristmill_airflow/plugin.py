"""What Airflow loads at start: the timetables and the partition mapper of our DAGs, and the listener that writes the notes of runs."""

from airflow.plugins_manager import AirflowPlugin

from gristmill_airflow import note
from gristmill_airflow.timetable import CrawlAssetTimetable, CrawlKeyMapper, CrawlPollTimetable


class GristmillPlugin(AirflowPlugin):
    name = "gristmill"
    timetables = [CrawlPollTimetable, CrawlAssetTimetable]  # noqa: RUF012 (Airflow's own interface)
    partition_mappers = [CrawlKeyMapper]  # noqa: RUF012
    listeners = [note]  # noqa: RUF012
