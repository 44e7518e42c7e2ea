from __future__ import annotations

import pytest

from chassis.wsgi import App


def test_route_is_matched_and_never_written_out() -> None:
    app = App("test", static_folder=None)
    app.add_url_rule("/things/<name>", "thing", lambda name: name)

    assert app.test_client().get("/things/one").text == "one"
    with pytest.raises(NotImplementedError, match="/things/<name>"):
        next(app.url_map.iter_rules()).build({"name": "one"})
