"""What readers of the tables rely on: one reason one name, what is scored holds what is a document, a snippet of known length."""

from contract.schema import DOCUMENTS, DROPS, PAGES, SCORED, SNIPPET_CHARS, Drop
from contract.scores import SCORES


def test_reasons_are_named_as_they_are_written() -> None:
    assert {reason.name.lower(): reason.value for reason in Drop} == {reason.value: reason.value for reason in Drop}
    assert f"{Drop.NEAR_DUPLICATE}" == "near_duplicate"


def test_a_scored_document_is_a_document_and_its_scores() -> None:
    assert SCORED.names == [*DOCUMENTS.names, "bytes", *SCORES]
    assert {name: str(SCORED.field(name).type) for name in SCORES} == dict.fromkeys(SCORES, "double")


def test_a_dropped_page_can_be_found_again() -> None:
    assert {"id", "url"} <= {*PAGES.names} & {*DOCUMENTS.names} & {*DROPS.names}
    assert SNIPPET_CHARS == 200
