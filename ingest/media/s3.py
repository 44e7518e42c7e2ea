"""Blobs in an S3-compatible store, by the URL `s3://bucket/prefix?endpoint=https://host:port&region=...`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs, urlsplit

import urllib3
from minio import Minio
from minio.error import MinioException, S3Error

from ingest.media.blobs import CHUNK_BYTES, RETRY_AFTER_S, Arrived
from wire.errors import NotFound, Unavailable

AMAZON = "https://s3.amazonaws.com"
TIMEOUT_S = urllib3.Timeout(connect=3.0, read=30.0)
PART_BYTES = 8 * 1024 * 1024  # held in memory while a blob is sent
POOL = 16  # connections: as many as a service has threads
OPTIONS = {"endpoint", "region"}


class S3Blobs:
    """See `ingest.media.blobs.Blobs`. Thread-safe; asks nobody before the first blob."""

    def __init__(self, url: str, access_key: str, secret_key: str) -> None:
        """Take where it is, and who we are there; the bucket must be there.

        Raises:
            ValueError: the URL is not of that form.
        """
        where, options = urlsplit(url), parse_qs(urlsplit(url).query)
        if not where.netloc or options.keys() - OPTIONS:
            raise ValueError("the URL of the media is s3://BUCKET/PREFIX?endpoint=URL&region=NAME")
        self._bucket = where.netloc
        self._prefix = f"{where.path.strip('/')}/".lstrip("/")
        endpoint = urlsplit(options.get("endpoint", [AMAZON])[0])
        if endpoint.scheme not in ("http", "https") or not endpoint.netloc or endpoint.path.strip("/"):
            raise ValueError("the endpoint of the media is http://HOST:PORT or https://HOST:PORT")
        self._client = Minio(
            endpoint.netloc,
            access_key or None,
            secret_key or None,
            secure=endpoint.scheme == "https",
            region=options.get("region", ["us-east-1"])[0],
            http_client=urllib3.PoolManager(timeout=TIMEOUT_S, maxsize=POOL, retries=False),
        )

    def keep(self, arrived: Arrived) -> None:
        """See Blobs. A PUT that was answered is durable, as S3 promises.

        It is sent also when it is there already: who sends it could tell by the time that somebody else has it.
        """
        part = PART_BYTES if arrived.size > PART_BYTES else 0
        with _reached():
            arrived.file.seek(0)
            name = self._name(arrived.sha256)
            self._client.put_object(self._bucket, name, arrived.file, arrived.size, part_size=part)

    def read(self, sha256: str, start: int, length: int) -> Iterator[bytes]:
        """See Blobs."""
        with _reached():
            answer = self._client.get_object(self._bucket, self._name(sha256), start, length)
        return _pieces(answer)

    def remove(self, sha256: str) -> None:
        """See Blobs."""
        with _reached():
            self._client.remove_object(self._bucket, self._name(sha256))

    def _name(self, sha256: str) -> str:
        return f"{self._prefix}{sha256[:2]}/{sha256}"


def _pieces(answer: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    try:
        yield from answer.stream(CHUNK_BYTES)
    finally:
        answer.close()
        answer.release_conn()


@contextmanager
def _reached() -> Iterator[None]:
    try:
        yield
    except S3Error as error:
        if error.code == "NoSuchKey":
            raise NotFound("the blob is gone", code="media_not_found") from None
        detail = f"the store of the media refuses: {error.code}"
        raise Unavailable(detail, code="media_unavailable", retry_after_s=RETRY_AFTER_S) from error
    except (MinioException, urllib3.exceptions.HTTPError, OSError) as error:
        detail = f"the store of the media does not answer: {type(error).__name__}"
        raise Unavailable(detail, code="media_unavailable", retry_after_s=5) from error
