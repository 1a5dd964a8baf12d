"""The plugin that Airflow loads at start: timetables and partition mapper of the DAGs, and the listener for notes."""

from airflow.plugins_manager import AirflowPlugin

from gristmill_airflow import note
from gristmill_airflow.timetable import CrawlAssetTimetable, CrawlKeyMapper, CrawlPollTimetable


class GristmillPlugin(AirflowPlugin):
    name = "gristmill"
    timetables = [CrawlPollTimetable, CrawlAssetTimetable]  # noqa: RUF012 (Airflow's own interface)
    partition_mappers = [CrawlKeyMapper]  # noqa: RUF012
    listeners = [note]  # noqa: RUF012
