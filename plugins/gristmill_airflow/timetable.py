"""Timetables: `crawl_refresh` runs by the clock, the other DAGs once per crawl when their upstream asset arrives.

A crawl is a partition: its name is the key, and a backfill selects it by the Monday of its week.
"""

import datetime
import json
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

from airflow.exceptions import InvalidPartitionKeyError
from airflow.partition_mappers.identity import IdentityMapper
from airflow.sdk import Asset
from airflow.serialization.encoders import ensure_serialized_asset
from airflow.timetables.base import DagRunInfo
from airflow.timetables.simple import PartitionedAssetTimetable
from airflow.timetables.trigger import CronTriggerTimetable
from airflow.utils.strings import get_random_string
from pendulum import UTC, DateTime

from contract.errors import GristmillError
from contract.sources import snapshot_date
from gristmill_airflow.assets import CRAWL, SEEN


def key_to_date(key: str) -> DateTime:
    """The Monday of a crawl's week, midnight UTC: CC-MAIN-2024-10 -> 2024-03-04. Raises ValueError for other names."""
    try:
        day = snapshot_date(key)
    except GristmillError as error:
        raise ValueError(str(error)) from error
    return DateTime(day.year, day.month, day.day, tzinfo=UTC)


def partition_date(key: str) -> DateTime:
    """`key_to_date` plus a fraction of a second that depends on the key.

    Airflow takes runs of the same date for runs of the same partition. Without the fraction, a backfill would run only
    one of the crawls that several sources made in a week.
    """
    return key_to_date(key).add(microseconds=zlib.crc32(key.encode()) % 1_000_000)


def known_crawls() -> list[str]:
    """Every crawl that `crawl_refresh` has ever seen, oldest first.

    Reads Airflow's database, so only the scheduler, API server and CLI can call it.
    """
    from airflow.models.asset import AssetModel
    from airflow.models.asset_state_store import AssetStateStoreModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    wanted = (
        select(AssetStateStoreModel.value)
        .join(AssetModel, AssetModel.id == AssetStateStoreModel.asset_id)
        .where(AssetModel.name == CRAWL.name, AssetStateStoreModel.key == SEEN)
    )
    with create_session(scoped=False) as session:
        stored = session.scalars(wanted).all()
    keys = {key for value in stored for poll in json.loads(value).values() for key in poll["offered"]}
    return sorted(keys, key=lambda key: (key_to_date(key), key))


class CrawlPollTimetable(CronTriggerTimetable):
    """Runs by the clock; the run itself finds its partitions."""

    partitioned_at_runtime = True


class CrawlKeyMapper(IdentityMapper):
    """Keeps the key, which must be a crawl's name, and derives the run's date from it."""

    def to_downstream(self, key: str) -> str:
        key_to_date(key)
        return key

    def to_partition_date(self, downstream_key: str) -> DateTime:
        return partition_date(downstream_key)


class CrawlAssetTimetable(PartitionedAssetTimetable):
    """Runs once for every crawl that arrives at the asset; a backfill covers the known crawls between two dates."""

    periodic = True  # allows backfills, from the command line and the UI

    def __init__(self, asset: Asset | Any) -> None:
        """`asset` may also be in Airflow's serialized form, when the timetable is read back from the database."""
        super().__init__(assets=ensure_serialized_asset(asset), default_partition_mapper=CrawlKeyMapper())

    @property
    def summary(self) -> str:
        return "Crawl"

    def serialize(self) -> dict[str, Any]:
        return {"asset_condition": super().serialize()["asset_condition"]}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> "CrawlAssetTimetable":
        from airflow.serialization.decoders import decode_asset_like

        return cls(decode_asset_like(data["asset_condition"]))

    def _decode_partition_date(self, partition_key: str) -> DateTime:
        try:
            return partition_date(partition_key)
        except ValueError as error:
            raise InvalidPartitionKeyError(str(error)) from error

    def iter_partition_dagrun_infos(
        self, *, earliest: datetime.datetime, latest: datetime.datetime
    ) -> Iterator[DagRunInfo]:
        for key in known_crawls():
            date = key_to_date(key)
            if earliest <= date <= latest:
                yield DagRunInfo(
                    run_after=date, data_interval=None, partition_date=partition_date(key), partition_key=key
                )

    def generate_run_id(self, *, run_type: Any, run_after: DateTime, data_interval: Any, **extra: Any) -> str:
        """`backfill__CC-MAIN-2024-10__x1Y2z3`: people look for the crawl; the suffix lets it run again."""
        made: str = run_type.generate_run_id(
            suffix=f"{extra.get('partition_key') or run_after.isoformat()}__{get_random_string()}"
        )
        return made


def new_crawls(offered: Iterable[str], seen: Iterable[str] | None) -> list[str]:
    """The crawls of those `offered` by a source that should run, oldest first.

    `seen` holds the crawls that an earlier poll of the source saw, or is None at the first poll. The first poll takes
    only the newest crawl; older ones are left to a backfill.
    """
    known = [] if seen is None else list(seen)
    fresh = sorted(set(offered) - set(known), key=lambda key: (key_to_date(key), key))
    return fresh[-1:] if seen is None else fresh
