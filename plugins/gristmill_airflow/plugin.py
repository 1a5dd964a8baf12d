"""The plugin that Airflow loads at start. It registers the DAGs' timetables and partition mapper, the listener that
writes notes, and the cockpit's pages."""

from airflow.plugins_manager import AirflowPlugin

from gristmill_airflow import cockpit, note
from gristmill_airflow.timetable import CrawlAssetTimetable, CrawlKeyMapper, CrawlPollTimetable


class GristmillPlugin(AirflowPlugin):
    name = "gristmill"
    timetables = [CrawlPollTimetable, CrawlAssetTimetable]  # noqa: RUF012 (Airflow's own interface)
    partition_mappers = [CrawlKeyMapper]  # noqa: RUF012
    listeners = [note]  # noqa: RUF012
    fastapi_apps = [{"name": "Gristmill", "app": cockpit.Cockpit(), "url_prefix": cockpit.PREFIX}]  # noqa: RUF012
    external_views = cockpit.VIEWS
