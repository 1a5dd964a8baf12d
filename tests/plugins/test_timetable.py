"""Crawls as partitions: their dates, which of them are new, and which of them a backfill covers."""

import datetime
import json
import re
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from airflow.exceptions import InvalidPartitionKeyError
from airflow.serialization.decoders import decode_timetable
from airflow.serialization.encoders import encode_timetable
from airflow.utils.types import DagRunType
from hypothesis import given
from hypothesis import strategies as st

from gristmill_airflow import timetable
from gristmill_airflow.assets import CORPUS, CRAWL, SEEN, TOLD
from gristmill_airflow.timetable import (
    CrawlAssetTimetable,
    CrawlKeyMapper,
    CrawlPollTimetable,
    key_to_date,
    known_crawls,
    new_crawls,
    partition_date,
)

UTC = datetime.UTC
KEYS = ["CC-MAIN-2023-50", "CC-MAIN-2024-10", "CC-MAIN-2024-18"]
weeks = st.dates(datetime.date(2008, 1, 7), datetime.date(2040, 1, 1)).map(lambda day: day.isocalendar())


def test_a_key_is_the_monday_of_its_week():
    assert key_to_date("CC-MAIN-2024-10") == datetime.datetime(2024, 3, 4, tzinfo=UTC)


@given(weeks)
def test_every_week_has_its_own_monday(week):
    date = key_to_date(f"NAME-{week.year}-{week.week:02d}")
    assert (date.date().isocalendar().year, date.date().isocalendar().week, date.weekday()) == (week.year, week.week, 0)


@pytest.mark.parametrize("key", ["", "CC-MAIN-2024", "CC-MAIN-2024-54", "CC-MAIN-24-10", "../x-2024-10"])
def test_other_keys_are_refused(key):
    assert CrawlKeyMapper().to_downstream("CC-MAIN-2024-10") == "CC-MAIN-2024-10"
    with pytest.raises(ValueError, match=r"a name ends in year|no ISO week"):
        key_to_date(key)
    with pytest.raises(ValueError, match=r"a name ends in year|no ISO week"):
        CrawlKeyMapper().to_downstream(key)
    with pytest.raises(InvalidPartitionKeyError):
        CrawlAssetTimetable(CORPUS).resolve_partition_date(key)


def test_the_first_poll_takes_only_the_newest_and_later_polls_all_that_is_new():
    assert new_crawls(KEYS, None) == ["CC-MAIN-2024-18"]
    assert new_crawls(KEYS, KEYS) == []
    assert new_crawls(list(reversed(KEYS)), KEYS[:1]) == KEYS[1:]
    assert new_crawls([], None) == []
    assert new_crawls(KEYS, []) == KEYS  # polled before, and it was empty then


def test_a_backfill_covers_the_known_crawls_between_its_dates(monkeypatch):
    monkeypatch.setattr(timetable, "known_crawls", lambda: KEYS)
    earliest, latest = datetime.datetime(2024, 1, 1, tzinfo=UTC), datetime.datetime(2024, 3, 4, tzinfo=UTC)
    infos = list(CrawlAssetTimetable(CORPUS).iter_partition_dagrun_infos(earliest=earliest, latest=latest))
    assert [(one.partition_key, one.partition_date, one.data_interval) for one in infos] == [
        ("CC-MAIN-2024-10", partition_date("CC-MAIN-2024-10"), None)
    ]


def test_both_dates_of_a_backfill_count(monkeypatch):
    monkeypatch.setattr(timetable, "known_crawls", lambda: KEYS)
    first, last = key_to_date(KEYS[0]), key_to_date(KEYS[-1])

    def covered(earliest, latest):
        made = CrawlAssetTimetable(CORPUS).iter_partition_dagrun_infos(earliest=earliest, latest=latest)
        return [(one.partition_key, one.run_after) for one in made]

    second = datetime.timedelta(seconds=1)
    assert covered(first, last) == [(key, key_to_date(key)) for key in KEYS]
    assert [key for key, _ in covered(first + second, last)] == KEYS[1:]
    assert [key for key, _ in covered(first, last - second)] == KEYS[:-1]


def test_a_partitions_date_is_the_same_on_every_machine_and_day():
    assert partition_date("CC-MAIN-2024-10") == datetime.datetime(2024, 3, 4, 0, 0, 0, 494240, tzinfo=UTC)


def test_a_run_is_named_after_its_crawl():
    made = [
        CrawlAssetTimetable(CORPUS).generate_run_id(
            run_type=DagRunType.BACKFILL_JOB, run_after=key_to_date(KEYS[0]), data_interval=None, **extra
        )
        for extra in ({"partition_key": KEYS[1]}, {"partition_key": KEYS[1]}, {"partition_key": None}, {})
    ]
    assert all(re.fullmatch(rf"backfill__{KEYS[1]}__\w{{8}}", one) for one in made[:2])
    assert made[0] != made[1], "it can run again"
    assert all(one.startswith("backfill__2023-12-11T00:00:00") for one in made[2:])


def test_what_the_web_ui_shows_of_the_schedule():
    assert CrawlAssetTimetable(CORPUS).summary == "Crawl"


def test_crawls_of_one_week_come_by_name():
    week = ["NEWS-2024-10", "CC-MAIN-2024-10", "BLOGS-2024-11", "WARC-2024-09"]
    assert new_crawls(week, []) == ["WARC-2024-09", "CC-MAIN-2024-10", "NEWS-2024-10", "BLOGS-2024-11"]
    assert new_crawls([*week, *week], ["NEWS-2024-10"]) == ["WARC-2024-09", "CC-MAIN-2024-10", "BLOGS-2024-11"]


def test_crawls_of_one_week_are_different_partitions_to_airflow():
    """It takes runs of one partition date for runs of one partition, whatever their keys."""
    week = datetime.datetime(2024, 3, 4, tzinfo=UTC)
    dates = {partition_date(key) for key in ("CC-MAIN-2024-10", "NEWS-2024-10", "BLOGS-2024-10")}
    assert len(dates) == 3
    assert all(week <= date < week + datetime.timedelta(seconds=1) for date in dates)
    timetable_ = CrawlAssetTimetable(CORPUS)
    assert timetable_.resolve_partition_date("NEWS-2024-10") == partition_date("NEWS-2024-10")
    assert CrawlKeyMapper().to_partition_date("NEWS-2024-10") == partition_date("NEWS-2024-10")


def test_timetables_survive_airflows_database():
    """The plugin registers them; otherwise Airflow refuses to read them back."""
    back = decode_timetable(encode_timetable(CrawlAssetTimetable(CORPUS)))
    assert isinstance(back, CrawlAssetTimetable)
    assert [key.name for key, _ in back.asset_condition.iter_assets()] == ["corpus"]
    assert isinstance(back.default_partition_mapper, CrawlKeyMapper)
    assert back.periodic
    assert back.partitioned
    poll = decode_timetable(encode_timetable(CrawlPollTimetable("0 6 * * *", timezone="UTC")))
    assert isinstance(poll, CrawlPollTimetable)
    assert poll.partitioned_at_runtime


def test_known_crawls_are_those_that_any_poll_has_seen(tables):
    from airflow.models.asset import AssetModel
    from airflow.models.asset_state_store import AssetStateStoreModel

    create_session = tables(AssetModel, AssetStateStoreModel)
    assert known_crawls() == []
    with create_session() as session:
        asset = AssetModel(name=CRAWL.name, uri=CRAWL.uri, group=CRAWL.group)
        session.add(asset)
        session.flush()
        offers = {"https://mirror.example": KEYS[::-1], "/data": ["WARC-2024-01", KEYS[0]]}
        seen = {source: {"run": "a", "offered": offered, "fresh": []} for source, offered in offers.items()}
        session.add(AssetStateStoreModel(asset_id=asset.id, key=SEEN, value=json.dumps(seen)))
        session.add(AssetStateStoreModel(asset_id=asset.id, key=TOLD, value='"another key"'))
        other = AssetModel(name=CORPUS.name, uri=CORPUS.uri, group=CORPUS.group)
        session.add(other)
        session.flush()
        session.add(AssetStateStoreModel(asset_id=other.id, key=SEEN, value='"another asset"'))
    assert known_crawls() == ["CC-MAIN-2023-50", "WARC-2024-01", "CC-MAIN-2024-10", "CC-MAIN-2024-18"]


def test_known_crawls_are_read_apart_from_what_the_caller_is_writing(monkeypatch):
    """Airflow's own session, which a thread shares, would be committed and closed under the scheduler's hands."""
    asked = []

    @contextmanager
    def create_session(scoped=True):
        asked.append(scoped)
        yield SimpleNamespace(scalars=lambda wanted: SimpleNamespace(all=list))

    monkeypatch.setattr("airflow.utils.session.create_session", create_session)
    assert known_crawls() == []
    assert asked == [False]
