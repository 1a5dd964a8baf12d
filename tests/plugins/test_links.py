"""The addresses of a task's pages, and that Airflow's API server finds them on a DAG that it reads from its database."""

from types import SimpleNamespace

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.plugins_manager import get_plugin_info
from airflow.serialization.serialized_objects import DagSerialization

from contract.shipped import shipped
from gristmill_airflow.links import address, curves, decision, manifest, run, why

RUN = "manual__2026-11-22T15:00:00+00:00"
QUOTED = "manual__2026-11-22T15%3A00%3A00%2B00%3A00"


def key(dag, task, index=-1):
    return SimpleNamespace(dag_id=dag, run_id=RUN, task_id=task, map_index=index)


@pytest.mark.parametrize(
    ("ti", "found"),
    [
        (
            key("corpus", "segment.filter", 3),
            ("", "", "", f"manifest/corpus/{QUOTED}/segment.filter/3", f"pages/corpus/{QUOTED}?stage=filter"),
        ),
        (key("corpus", "pack"), ("", "", "", f"manifest/corpus/{QUOTED}/pack", "")),
        (
            key("corpus", "preferences"),
            ("", "", "", f"manifest/corpus/{QUOTED}/preferences", f"pages/corpus/{QUOTED}?stage=preferences"),
        ),
        (key("align", "ppo"), (f"training/align/{QUOTED}/ppo", "", "", f"manifest/align/{QUOTED}/ppo", "")),
        (key("align", "gate"), ("", f"training/align/{QUOTED}/gate", "", f"manifest/align/{QUOTED}/gate", "")),
        (
            key("ablate", "probe", 0),
            (f"training/ablate/{QUOTED}/probe", "", "", f"manifest/ablate/{QUOTED}/probe/0", ""),
        ),
        (
            key("ablate", "ablate"),
            ("", "", f"training/ablate/{QUOTED}/ablate", f"manifest/ablate/{QUOTED}/ablate", ""),
        ),
        (key("evaluate", "export"), ("", "", "", f"manifest/evaluate/{QUOTED}/export", "")),
    ],
)
def test_the_addresses_of_a_task(ti, found):
    made = [curves(ti), decision(ti, "gate"), decision(ti, "ablate"), manifest(ti), why(ti)]
    assert made == [f"/gristmill/{one}" if one else "" for one in found]
    assert run(ti) == f"/gristmill/run/{ti.dag_id}/{QUOTED}"


def test_addresses_stand_below_airflows_own(monkeypatch):
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://host/airflow/")
    assert address("run", "a/b", 'x?"') == "/airflow/gristmill/run/a%2Fb/x%3F%22"


@pytest.fixture(scope="module")
def stored():
    """The DAGs as the API server reads them back from the database."""
    bag = DagBag(str(shipped("dags")))
    assert bag.import_errors == {}
    return {name: DagSerialization.from_dict(DagSerialization.to_dict(dag)) for name, dag in bag.dags.items()}


@pytest.mark.parametrize(
    ("dag", "task", "index"), [("corpus", "segment.filter", 0), ("align", "ppo", -1), ("ablate", "sign", 0)]
)
def test_the_api_server_finds_them_on_stored_dags(stored, dag, task, index):
    task = "minhash_sign" if task == "sign" else task
    operator = stored[dag].get_task(task)
    ti = key(dag, task, index)
    links = {name: operator.get_extra_links(SimpleNamespace(key=ti), name) for name in operator.extra_links}
    assert links == {
        "Curves": curves(ti),
        "Gate decision": decision(ti, "gate"),
        "Comparison of variants": decision(ti, "ablate"),
        "Funnel and stages": run(ti),
        "Dropped documents": why(ti),
        "Manifest": manifest(ti),
    }


def test_other_tasks_have_no_links(stored):
    assert list(stored["align"].get_task("resolve").extra_links) == []


def test_the_plugin_registers_them():
    (plugin,) = [one for one in get_plugin_info() if one["name"] == "gristmill"]
    assert len(plugin["operator_extra_links"]) == 6
