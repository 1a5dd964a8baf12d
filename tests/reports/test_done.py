"""What finished tasks say of themselves: read once, and with a sentence where a manifest cannot be read."""

from contract.manifest import Attempt, Rows
from reports import done
from reports.done import Done, Unreadable, look_up, name_of, of_run


def commit(run, stage, partition="all", **rows):
    return Attempt(run, run.task(stage, partition)).commit([], Rows(**rows))


def test_a_finished_task_is_read_once(judged, monkeypatch):
    prefix = judged.task("crawl", judged.segments[0].partition).prefix
    first = look_up(judged.store, prefix)
    assert isinstance(first, Done)
    assert (first.stage, first.rows.read, first.run) == ("crawl", 10, "one")
    assert first.said == "7 of 10 documents kept; url_filter 3; crawl files -"
    assert first.peak_bytes is not None
    assert first.peak_bytes > 10_000_000, "this process has loaded Arrow"
    monkeypatch.setattr(done, "read", None)
    assert look_up(judged.store, prefix) is first


def test_a_task_that_is_not_done_is_asked_for_again(judged):
    task = judged.task("langid", judged.segments[0].partition)
    assert look_up(judged.store, task.prefix) is None
    Attempt(judged, task).commit([], Rows(read=5, kept=5))
    found = look_up(judged.store, task.prefix)
    assert isinstance(found, Done)
    assert found.rows.kept == 5


def test_a_task_of_the_whole_corpus_that_is_done_again_is_read_again(judged):
    task = judged.task("curate")
    path = f"{task.prefix}/manifest.json"
    Attempt(judged, task).commit([], Rows(read=5, kept=5))
    assert look_up(judged.store, task.prefix) is look_up(judged.store, task.prefix)
    judged.store.delete(path)
    assert look_up(judged.store, task.prefix) is None
    Attempt(judged, task).commit([], Rows(read=9, kept=9))
    found = look_up(judged.store, task.prefix)
    assert isinstance(found, Done)
    assert found.rows.kept == 9


def test_a_damaged_manifest_is_a_sentence(judged):
    task = judged.task("langid", judged.segments[0].partition)
    judged.store.write_bytes(f"{task.prefix}/manifest.json", b"{}")
    found = look_up(judged.store, task.prefix)
    assert isinstance(found, Unreadable)
    assert "is not a manifest; delete it to run the task again" in found.why


def test_only_tasks_with_a_finished_input_are_asked_for(judged):
    found = of_run(judged)
    partition = judged.segments[0].partition
    assert {prefix.split("/")[0] for prefix in found} == {"crawl", "extract", "langid", "curate"}
    assert found[judged.task("langid", partition).prefix] is None
    assert found[judged.task("curate").prefix] is None


def test_the_name_of_a_run_is_its_folder():
    assert name_of("s3://bucket/store/runs/corpus.a/recipe.yaml#sha256=0a") == "corpus.a"
