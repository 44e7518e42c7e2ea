from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from dashboard_api.browser import STATIC, asset_finder

TEMPLATES = sorted((STATIC.parent / "templates").glob("*.html"))
SCRIPTS = sorted((STATIC / "js").glob("*.js"))
VIEWER = {"Authorization": "Bearer viewer-token"}


@pytest.mark.parametrize("path", ["/login", "/", "/v1/session", "/static/css/app.css", "/nope", "/livez"])
def test_every_answer_carries_the_headers(client, path):
    headers = client.get(path).headers

    policy = headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"


def test_pages_and_answers_are_not_cached_but_versioned_files_are(client):
    assert client.get("/v1/session", headers=VIEWER).headers["Cache-Control"] == "no-store"
    assert client.get("/", headers=VIEWER).headers["Cache-Control"] == "no-store"
    assert "immutable" in client.get(asset_finder(STATIC)("css/app.css")).headers["Cache-Control"]
    assert "no-cache" in client.get("/static/js/format.js").headers["Cache-Control"]


def test_unchanged_file_is_answered_with_304(client):
    etag = client.get("/static/js/format.js").headers["ETag"]

    assert client.get("/static/js/format.js", headers={"If-None-Match": etag}).status_code == 304


@pytest.mark.parametrize("name", ["../config.py", "..%2fconfig.py", "%2e%2e/config.py", "nope.css", "", "js"])
def test_nothing_outside_the_static_folder_is_served(client, name):
    assert client.get(f"/static/{name}").status_code == 404


@pytest.mark.parametrize(
    ("name", "kind"), [("css/app.css", "text/css"), ("js/feed.js", "text/javascript"), ("mark.svg", "image/svg+xml")]
)
def test_files_have_their_media_type(client, name, kind):
    assert client.get(f"/static/{name}").mimetype == kind


def test_unknown_address_is_a_page_for_people_and_a_problem_for_programs(client):
    assert client.get("/nope", headers={"Accept": "text/html"}).mimetype == "text/html"
    assert client.get("/nope").mimetype == "application/problem+json"
    assert client.get("/v1/nope", headers={"Accept": "text/html"}).mimetype == "application/problem+json"


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_template_has_nothing_inline_and_nothing_from_elsewhere(path: Path):
    text = path.read_text()

    assert not re.search(r"\sstyle=|\son[a-z]+=|<style|javascript:", text)
    assert not re.search(r"<script(?![^>]*\ssrc=)", text)
    assert not re.search(r"""(?:src|href)=["'](?:https?:)?//""", text)
    assert "|safe" not in text.replace(" ", "")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_script_writes_text_never_markup(path: Path):
    text = path.read_text()

    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|https?://", text)


def test_vendored_files_are_those_of_the_lock():
    import hashlib

    lock = json.loads((STATIC / "vendor/vendor.lock.json").read_text())
    locked = {name: digest for package in lock["packages"] for name, digest in package["files"].items()}
    present = {
        str(path.relative_to(STATIC / "vendor")): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (STATIC / "vendor").rglob("*")
        if path.is_file() and path.name != "vendor.lock.json"
    }

    assert present == locked
    assert all(package["licence"] and package["version"] for package in lock["packages"])
