"""Where blobs are kept: one contract for the disk and for S3, the latter with a server that speaks it."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import urllib3
from minio import Minio

from compose import ports
from ingest.media.blobs import Arrivals, Blobs, DiskBlobs
from ingest.media.s3 import PART_BYTES, S3Blobs
from tests.ingest.media.conftest import Studio
from tests.support.pictures import picture, size_of
from tests.support.tied import tied
from tests.support.waiting import wait_until
from wire.errors import NotFound, Unavailable

CONTENT = os.urandom(100_000)
ABSENT = "0" * 64


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    """The URL of a bucket in a server of the tests' own."""
    port = ports.pick()
    server = subprocess.Popen(
        tied(sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until(lambda: _answers(port), 30, what="the S3 server answers")
        client = Minio(f"127.0.0.1:{port}", "key", "secret", secure=False, region="us-east-1")
        client.make_bucket("media")
        yield f"s3://media/of/cameras?endpoint=http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def _answers(port: int) -> bool:
    try:
        return urllib3.request("GET", f"http://127.0.0.1:{port}/", retries=False).status < 500
    except urllib3.exceptions.HTTPError:
        return False


@pytest.fixture(params=["disk", "s3"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    if request.param == "disk":
        return DiskBlobs(tmp_path)
    return S3Blobs(request.getfixturevalue("s3_url"), "key", "secret")


def keep(blobs: Blobs, folder: Path, content: bytes) -> str:
    with Arrivals(folder, 0).take([content[:70_000], content[70_000:]], len(content)) as arrived:
        blobs.keep(arrived)
        return arrived.sha256


def test_blob_is_given_back_whole_and_in_parts(blobs: Blobs, tmp_path: Path) -> None:
    name = keep(blobs, tmp_path, CONTENT)

    assert b"".join(blobs.read(name, 0, len(CONTENT))) == CONTENT
    assert b"".join(blobs.read(name, 99_990, 10)) == CONTENT[-10:]
    assert b"".join(blobs.read(name, 5, 1)) == CONTENT[5:6]


def test_blob_that_comes_again_stays(blobs: Blobs, tmp_path: Path) -> None:
    names = {keep(blobs, tmp_path, CONTENT) for _ in range(2)}

    assert len(names) == 1
    assert b"".join(blobs.read(names.pop(), 0, 3)) == CONTENT[:3]


def test_what_stands_in_s3_already_is_sent_anew(s3_url: str, tmp_path: Path) -> None:
    content = b"mine" + os.urandom(8)
    name = hashlib.sha256(content).hexdigest()
    client = Minio(s3_url.rpartition("//")[2], "key", "secret", secure=False, region="us-east-1")
    client.put_object("media", f"of/cameras/{name[:2]}/{name}", io.BytesIO(bytes(12)), 12)

    blobs = S3Blobs(s3_url, "key", "secret")
    keep(blobs, tmp_path, content)

    assert b"".join(blobs.read(name, 0, 12)) == content


def test_folders_of_the_disk_are_durable_before_the_first_blob(tmp_path: Path) -> None:
    DiskBlobs(tmp_path)

    assert len(list((tmp_path / "blobs").iterdir())) == 256


def test_large_blob_goes_in_parts(blobs: Blobs, tmp_path: Path) -> None:
    content = os.urandom(PART_BYTES + 1_000)

    name = keep(blobs, tmp_path, content)

    assert b"".join(blobs.read(name, PART_BYTES - 5, 10)) == content[PART_BYTES - 5 : PART_BYTES + 5]


def test_removed_blob_is_gone_and_may_be_removed_again(blobs: Blobs, tmp_path: Path) -> None:
    name = keep(blobs, tmp_path, b"to go" + os.urandom(9))

    for _ in range(2):
        blobs.remove(name)

    with pytest.raises(NotFound):
        b"".join(blobs.read(name, 0, 1))


def test_absent_blob_is_told_before_anything_is_sent(blobs: Blobs) -> None:
    with pytest.raises(NotFound):
        blobs.read(ABSENT, 0, 1)


def test_service_keeps_media_in_s3(studio_of: Callable[..., Studio], s3_url: str) -> None:
    studio = studio_of(media_url=s3_url, media_access_key="key", media_secret_key="secret")
    content = picture("PNG", 800, 600)

    made = studio.post(content).json
    answer = studio.get(made["path"], Range="bytes=1-3")

    assert (answer.status_code, answer.data) == (206, b"PNG")
    assert size_of(studio.get(made["thumbnail"]).data) == ("JPEG", (320, 240))
    assert not (studio.folder / "media/blobs").exists()


def test_store_that_is_away_is_503_and_nothing_is_acknowledged(studio_of: Callable[..., Studio]) -> None:
    studio = studio_of(media_url=f"s3://media?endpoint=http://127.0.0.1:{ports.pick()}")

    answer = studio.post(b"x")

    assert (answer.status_code, answer.json["code"]) == (503, "media_unavailable")
    assert int(answer.headers["Retry-After"]) > 0
    assert studio.items() == studio.readings() == []


def test_bucket_that_is_not_there_is_told(s3_url: str, tmp_path: Path) -> None:
    blobs = S3Blobs(s3_url.replace("s3://media/", "s3://nowhere/"), "key", "secret")

    with pytest.raises(Unavailable, match="NoSuchBucket"):
        keep(blobs, tmp_path, b"x")


@pytest.mark.parametrize(
    "url", ["s3://", "s3:///x", "s3://b?endpoint=ftp://h", "s3://b?endpoint=http://h/p", "s3://b?x=1"]
)
def test_odd_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="of the media"):
        S3Blobs(url, "", "")
