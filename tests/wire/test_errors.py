from __future__ import annotations

from wire import errors


def every_class(root: type[errors.HeadwaterError] = errors.HeadwaterError) -> list[type[errors.HeadwaterError]]:
    return [root, *(found for child in root.__subclasses__() for found in every_class(child))]


def test_every_code_has_a_title() -> None:
    codes = {kind.code for kind in every_class()} | set(errors.REASONS)

    assert codes - set(errors.TITLES) == set()


def test_problem_document_names_code_fields_and_extras() -> None:
    error = errors.Unprocessable("nothing was taken", code="no_values", fields=["a"], quarantined=[])

    assert error.to_problem() == {
        "type": "urn:headwater:error:no_values",
        "title": "No values",
        "status": 422,
        "code": "no_values",
        "detail": "nothing was taken",
        "fields": ["a"],
        "quarantined": [],
    }
