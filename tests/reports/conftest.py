"""Reports are made of what the stages commit."""

from tests.pipelines.conftest import (  # noqa: F401 - fixtures
    commit_documents,
    make_corpus,
    make_document,
    rows_of,
    scored_run,
    without_spark,
)
