"""What comes in with a request: its body, inflated and fitted to a model, and its query."""

from __future__ import annotations

import zlib
from typing import Any, TypeVar

from flask import request
from pydantic import BaseModel, TypeAdapter, ValidationError

from chassis.parking import IS_WHOLE
from wire import errors

T = TypeVar("T")
MAX_BYTES = 1024 * 1024  # of a body, unless a service says otherwise


def read_body(max_inflated_bytes: int) -> bytes:
    """Read the request's body, inflating gzip up to a cap. Raises as `read_raw_body` and `inflate`."""
    content, is_gzip = read_raw_body()
    return inflate(content, max_inflated_bytes) if is_gzip else content


def read_model(adapter: TypeAdapter[T]) -> T:
    """Read the request's body as a model; an empty one is `{}`.

    Raises:
        BadRequest: it is not JSON.
        Unprocessable: it does not fit.
        TooLarge, UnsupportedMedia: see `read_body`.
    """
    content = read_body(MAX_BYTES)
    try:
        return adapter.validate_json(content or b"{}")
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)
        if first[0]["type"] == "json_invalid":
            raise errors.BadRequest(f"the body is not JSON: {first[0]['msg']}", code="bad_syntax") from None
        raise errors.Unprocessable(_sentence(first), fields=_members(first)) from None


def read_raw_body() -> tuple[bytes, bool]:
    """Read the request's body as it came; tell whether it is gzip.

    Raises:
        UnsupportedMedia: another content encoding.
    """
    environ = request.environ
    content = environ["wsgi.input"].read() if IS_WHOLE in environ else request.get_data(cache=False)
    encoding = environ.get("HTTP_CONTENT_ENCODING", "identity").strip().lower()
    if encoding in ("", "identity"):
        return content, False
    if encoding != "gzip":
        raise errors.UnsupportedMedia(f"content encoding {encoding[:40]!r}; gzip and identity are known")
    return content, True


def inflate(content: bytes, max_inflated_bytes: int) -> bytes:
    """Inflate a gzip body.

    Raises:
        TooLarge: more than the cap; inflation stops there.
        BadRequest: it is not gzip, or cut off.
    """
    inflater = zlib.decompressobj(wbits=31)
    try:
        inflated = inflater.decompress(content, max_inflated_bytes + 1)
    except zlib.error:
        raise errors.BadRequest("the body says gzip but is not", code="bad_encoding") from None
    if len(inflated) > max_inflated_bytes:
        raise errors.TooLarge(f"body inflates to more than {max_inflated_bytes} bytes")
    if not inflater.eof:
        raise errors.BadRequest("the gzip body is cut off", code="bad_encoding")
    return inflated


def read_query(model: type[BaseModel], lists: set[str]) -> BaseModel:
    """Read the request's query as a model; `lists` names the parameters that may come several times.

    Raises:
        BadRequest: it does not fit.
    """
    raw = {key: request.args.getlist(key) if key in lists else request.args[key] for key in request.args}
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)
        raise errors.BadRequest(_sentence(first), fields=_members(first)) from None


def _sentence(found: list[Any]) -> str:
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'body'}: {errors.in_words(e)}" for e in found[:5])


def _members(found: list[Any]) -> list[str]:
    return [".".join(map(str, e["loc"])) for e in found[:20]]
