"""What of Airflow is used that its authors' interface, `airflow.sdk`, does not offer: each name, and what we rely on in it.

A new version of Airflow that moves or changes one fails here by name, and not in the middle of a run.
"""

import ast
import importlib
import inspect
from pathlib import Path

import pytest

from gristmill_airflow import alerts, note

ROOT = Path(__file__).parents[2]
PUBLIC = ("airflow.sdk", "airflow.sdk.exceptions")

RELIED_ON: dict[str, dict[str, list[str] | None]] = {
    "airflow.__main__.main": {"": []},
    "airflow.api.common.trigger_dag.trigger_dag": {
        "": [
            "dag_id",
            "triggered_by",
            "run_type",
            "triggering_user_name",
            "run_after",
            "run_id",
            "conf",
            "logical_date",
            "replace_microseconds",
            "note",
            "partition_key",
            "session",
        ]
    },
    "airflow.api_fastapi.app.get_auth_manager": {"": []},
    "airflow.api_fastapi.auth.managers.models.resource_details.DagAccessEntity": {"RUN": None},
    "airflow.api_fastapi.auth.managers.models.resource_details.DagDetails": {"": ["id", "team_name"]},
    "airflow.api_fastapi.core_api.security.bearer_scheme": {},
    "airflow.api_fastapi.core_api.security.get_user": {"": ["request", "_oauth_token", "bearer_credentials"]},
    "airflow.cli.commands.standalone_command": {"SubCommand.__init__": ["self", "parent", "name", "command", "env"]},
    "airflow.exceptions.AirflowTimetableInvalid": {"args": None},
    "airflow.exceptions.InvalidPartitionKeyError": {"args": None},
    "airflow.providers.standard.triggers.temporal.DateTimeTrigger": {"": ["moment", "target_time", "end_from_trigger"]},
    "airflow.timetables.base.TimeRestriction": {"": ["earliest", "latest", "catchup"]},
    "airflow.executors.local_executor.LocalExecutor": {
        "serve_logs": None,
        "is_local": None,
        "get_task_log": ["self", "ti", "try_number"],
    },
    "airflow.listeners.hookimpl": {},
    "airflow.models.asset.AssetEvent": {
        "asset_id": None,
        "source_dag_id": None,
        "source_run_id": None,
        "extra": None,
        "timestamp": None,
    },
    "airflow.models.asset.AssetModel": {"id": None, "name": None, "uri": None},
    "airflow.models.asset_state_store.AssetStateStoreModel": {"asset_id": None, "key": None, "value": None},
    "airflow.models.dag.DagModel": {"get_team_name": ["dag_id", "session"]},
    "airflow.models.dagrun.DagRun": {
        "dag_id": None,
        "run_id": None,
        "note": None,
        "state": None,
        "start_date": None,
        "deadlines": None,
    },
    "airflow.exceptions.DagRunAlreadyExists": {"": ["dag_run"]},
    "airflow.models.dagrun.DagRunNote": {"dag_run_id": None, "content": None},
    "airflow.models.log.Log": {"": ["event", "task_instance", "owner", "owner_display_name", "extra", "kwargs"]},
    "airflow.models.taskinstance.TaskInstance": {
        "dag_id": None,
        "run_id": None,
        "task_id": None,
        "state": None,
        "map_index": None,
        "pool": None,
        "try_number": None,
        "dag_run": None,
    },
    "airflow.models.pool.Pool": {"slots_stats": ["lock_rows", "session"]},
    "airflow.models.xcom.XComModel": {
        "dag_id": None,
        "run_id": None,
        "task_id": None,
        "key": None,
        "value": None,
        "timestamp": None,
    },
    "airflow.utils.log.log_reader.TaskLogReader": {"read_log_chunks": ["self", "ti", "try_number", "metadata"]},
    "airflow.partition_mappers.identity.IdentityMapper": {
        "to_downstream": ["self", "key"],
        "to_partition_date": ["self", "downstream_key"],
    },
    "airflow.plugins_manager.AirflowPlugin": {
        "name": None,
        "timetables": None,
        "partition_mappers": None,
        "listeners": None,
        "fastapi_apps": None,
        "external_views": None,
        "react_apps": None,
        "operator_extra_links": None,
    },
    "airflow.providers.standard.operators.empty.EmptyOperator": {"": None},
    "airflow.providers.standard.operators.hitl.ApprovalOperator": {
        "APPROVE": None,
        "REJECT": None,
        "": ["ignore_downstream_trigger_rules", "fail_on_reject", "kwargs"],
    },
    "airflow.providers.standard.operators.hitl.HITLOperator": {
        "template_fields": None,
        "": [
            "subject",
            "options",
            "body",
            "defaults",
            "multiple",
            "params",
            "notifiers",
            "assigned_users",
            "response_timeout",
            "kwargs",
        ],
        "execute_complete": ["self", "context", "event"],
    },
    "airflow.sdk.log.mask_secret": {"": ["secret", "name"]},
    "airflow.serialization.decoders.decode_asset_like": {"": ["var"]},
    "airflow.serialization.encoders.ensure_serialized_asset": {"": ["obj"]},
    "airflow.timetables.base.DagRunInfo": {"": ["run_after", "data_interval", "partition_date", "partition_key"]},
    "airflow.timetables.simple.PartitionedAssetTimetable": {
        "": ["assets", "partition_mapper_config", "default_partition_mapper"],
        "periodic": None,
        "summary": None,
        "serialize": ["self"],
        "deserialize": ["data"],
        "_decode_partition_date": ["self", "partition_key"],
        "iter_partition_dagrun_infos": ["self", "earliest", "latest"],
        "generate_run_id": ["self", "run_type", "data_interval", "run_after", "extra"],
    },
    "airflow.timetables.trigger.CronTriggerTimetable": {
        "": ["cron", "timezone", "interval", "run_immediately"],
        "partitioned_at_runtime": None,
    },
    "airflow.triggers.base.BaseTrigger": {"": ["kwargs"], "serialize": ["self"], "run": ["self"]},
    "airflow.triggers.base.TriggerEvent": {"": ["payload"]},
    "airflow.utils.session.create_session": {"": ["scoped"]},
    "airflow.utils.types.DagRunTriggeredByType": {"UI": None},
    "airflow.utils.strings.get_random_string": {"": ["length", "choices"]},
}
"""Name -> its attributes that we set, override or call, each with its parameters where it is called; `` is the name itself."""


def imported(file: Path) -> set[str]:
    """Every name that a file imports from Airflow, wherever in it, with its module."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "airflow":
            found |= {f"{node.module}.{one.name}" for one in node.names}
        elif isinstance(node, ast.Import):
            found |= {one.name for one in node.names if one.name.partition(".")[0] == "airflow"}
    return found


def used() -> set[str]:
    files = [file for folder in ("plugins", "dags", "demo") for file in (ROOT / folder).rglob("*.py")]
    return {name for file in files for name in imported(file)}


def look_up(name: str) -> object:
    """The object of a dotted name: a module, or an attribute of one."""
    module, _, last = name.rpartition(".")
    found = importlib.import_module(module)
    return getattr(found, last) if hasattr(found, last) else importlib.import_module(name)


def test_nothing_else_of_airflow_is_used():
    assert {name for name in used() if name.rpartition(".")[0] not in PUBLIC} == set(RELIED_ON)


def test_what_airflow_sdk_offers_is_taken_from_there():
    import airflow.sdk

    names = {name.rpartition(".")[2] for name in used() if name.rpartition(".")[0] == "airflow.sdk"}
    assert names <= {*airflow.sdk.__all__, "timezone"}, "timezone is a module of it"
    same = {
        name
        for name in RELIED_ON
        if getattr(airflow.sdk, name.rpartition(".")[2], None) is look_up(name)  # others only share its name
    }
    assert same == set()


@pytest.mark.parametrize("name", RELIED_ON)
def test_what_we_rely_on_is_there(name):
    for attribute, parameters in RELIED_ON[name].items():
        found = look_up(name)
        for part in filter(None, attribute.split(".")):
            found = getattr(found, part)
        if parameters is not None:
            assert list(inspect.signature(found).parameters) == parameters, attribute


def test_the_listeners_are_called_as_airflow_specifies():
    from airflow.listeners.spec import asset, dagrun

    ours = inspect.signature(note.on_asset_event_emitted).parameters
    assert list(ours) == list(inspect.signature(asset.on_asset_event_emitted).parameters) == ["asset_event"]
    for listener, name in (
        (note, "on_dag_run_running"),
        (note, "on_dag_run_success"),
        (note, "on_dag_run_failed"),
        (alerts, "on_dag_run_running"),
    ):
        ours = inspect.signature(getattr(listener, name)).parameters
        assert list(ours) == list(inspect.signature(getattr(dagrun, name)).parameters) == ["dag_run", "msg"]
