from __future__ import annotations

VIEWER = {"Authorization": "Bearer viewer-token"}


def test_document_tells_of_all_services(client):
    document = client.get("/openapi.json").json

    assert document["openapi"] == "3.1.0"
    assert "post" in document["paths"]["/v1/devices"]
    assert "get" in document["paths"]["/v1/query/range"]
    assert "get" in document["paths"]["/v1/feed"]
    assert document["components"]["schemas"]["NewDevice"]["required"] == ["id"]


def test_pages_are_not_in_the_document(client):
    assert not [path for path in client.get("/openapi.json").json["paths"] if not path.startswith("/v1/")]


def test_schemas_of_one_name_are_kept_apart(client):
    schemas = client.get("/openapi.json").json["components"]["schemas"]

    assert schemas["Row"]["type"] == "object"
    assert schemas["devices_Row"] == {"type": "string"}


def test_every_reference_of_the_document_leads_somewhere(client):
    document = client.get("/openapi.json").json

    def references(part):
        if isinstance(part, dict):
            yield from ([part["$ref"]] if isinstance(part.get("$ref"), str) else [])
            for each in part.values():
                yield from references(each)
        elif isinstance(part, list):
            for each in part:
                yield from references(each)

    found = set(references(document))
    assert found
    assert {name.rpartition("/")[2] for name in found} <= set(document["components"]["schemas"])


def test_absent_service_is_left_out_until_it_answers(client, platform):
    platform.away.add("devices")

    document = client.get("/openapi.json").json

    assert "/v1/devices" not in document["paths"]
    assert "/v1/query/latest" in document["paths"]


def test_page_shows_operations_with_their_members(client):
    page = client.get("/docs", headers=VIEWER).text

    for text in ("/v1/query/aggregate", "group_by", "Register a device", "required", "/v1/feed"):
        assert text in page
