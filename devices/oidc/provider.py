"""The OpenID Connect provider: its discovery document and keys, the authorization code flow with PKCE.

Knows the protocol, but neither people nor roles. Authlib and joserfc (the extra `oidc`) check tokens; they are imported
when the first person comes. Sources: OpenID Connect Core 1.0 s. 3.1, Discovery 1.0 s. 4, RFC 7636, RFC 9207.
"""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_plus, urlencode, urlsplit

import orjson
import urllib3

from wire.errors import Unauthorized, Unavailable

DISCOVERY = "/.well-known/openid-configuration"
ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")
MAX_ANSWER_BYTES = 512 * 1024
TIMEOUT = urllib3.Timeout(connect=2.0, read=5.0)
FRESH_S = 3_600.0  # discovery and keys are read again after this, keys also when a token names an unknown one
ANEW_S = 10.0  # but no more often than this
LEEWAY_S = 60  # by how much the provider's clock may differ
# Signed with a key that only the provider has: `none` is no signature, and HS* would be one by the client's secret.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
LOOPBACK = ("127.0.0.1", "::1", "localhost")
OK = 200
Claims = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Client:
    """What this installation is to the provider."""

    issuer: str
    client_id: str
    client_secret: str  # empty: a public client, which PKCE alone protects
    redirect_url: str
    scopes: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """One log-in that was begun: what the provider's answer must fit."""

    state: str
    nonce: str
    verifier: str


class Provider:
    """An OpenID Connect provider. Thread-safe."""

    def __init__(self, client: Client, now_s: Callable[[], float] = time.time) -> None:
        self._client = client
        self._now_s = now_s
        self._http = urllib3.PoolManager(maxsize=4, timeout=TIMEOUT, retries=False)
        self._lock = threading.Lock()  # guards what is remembered
        self._remembered: dict[str, tuple[float, Claims]] = {}  # url -> when, document

    def begin(self, attempt: Attempt) -> str:
        """Give the address to send a browser to.

        Raises:
            Unavailable: the provider does not answer, or not as one.
        """
        from authlib.oauth2.rfc7636 import create_s256_code_challenge

        asked = {
            "response_type": "code",
            "client_id": self._client.client_id,
            "redirect_uri": self._client.redirect_url,
            "scope": self._client.scopes,
            "state": attempt.state,
            "nonce": attempt.nonce,
            "code_challenge": create_s256_code_challenge(attempt.verifier),
            "code_challenge_method": "S256",
        }
        return _with_query(self._metadata()["authorization_endpoint"], asked)

    def redeem(self, code: str, issuer: str | None, attempt: Attempt) -> Claims:
        """Exchange a code for what the provider says of the person: claims of the ID token, and of userinfo.

        Args:
            code: from the redirect.
            issuer: `iss` of the redirect (RFC 9207), if there is one.
            attempt: the log-in that it must belong to.

        Raises:
            Unauthorized: the code, or the token it gave, is not good.
            Unavailable: the provider does not answer.
        """
        metadata = self._metadata()
        is_told = metadata.get("authorization_response_iss_parameter_supported") is True
        if (issuer is None and is_told) or (issuer is not None and issuer != self._client.issuer):
            raise _refused("the answer is of another provider (iss)")
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._client.redirect_url,
            "code_verifier": attempt.verifier,
        }
        tokens = self._post_for_tokens(metadata, form)
        claims = self._check(tokens, attempt.nonce)
        if "userinfo_endpoint" in metadata and isinstance(tokens.get("access_token"), str):
            more = self._get(metadata["userinfo_endpoint"], {"Authorization": f"Bearer {tokens['access_token']}"})
            if more.get("sub") != claims["sub"]:  # Core s. 5.3.2: it may be somebody else's
                raise _refused("userinfo is about somebody else (sub)")
            claims = more | claims
        return claims

    def leave(self, back_url: str) -> str | None:
        """Give the address at which a browser logs out there too (RP-Initiated Logout 1.0), if it has one."""
        endpoint = self._metadata().get("end_session_endpoint")
        if not isinstance(endpoint, str):
            return None
        asked = {"client_id": self._client.client_id, "post_logout_redirect_uri": back_url}
        return _with_query(_checked_url(endpoint), asked)

    def _check(self, tokens: Claims, nonce: str) -> Claims:
        """Check an ID token (Core s. 3.1.3.7): signature, issuer, audience, times, nonce, hash of the access token."""
        from authlib.oidc.core import CodeIDToken
        from joserfc import jwt
        from joserfc.errors import JoseError

        raw, client = tokens.get("id_token"), self._client
        if not isinstance(raw, str):
            raise _refused("no ID token came with it")
        options = {
            "iss": {"value": client.issuer},
            "aud": {"value": client.client_id},
        }
        params = {"nonce": nonce, "client_id": client.client_id, "access_token": tokens.get("access_token")}
        try:
            token = jwt.decode(raw, self._keys_for(raw), algorithms=ALGORITHMS)
            found = CodeIDToken(token.claims, token.header, options, params)
            found.validate(now=int(self._now_s()), leeway=LEEWAY_S)
        except (JoseError, ValueError, TypeError) as error:
            raise _refused(f"its ID token is not good: {_say(error)}") from None
        if not isinstance(found["sub"], str) or not found["sub"]:
            raise _refused("its ID token names nobody (sub)")
        return dict(found)

    def _keys_for(self, raw: str) -> Any:
        """Give the provider's keys; read anew when the token names one that is not known (they change now and then)."""
        from joserfc import jws
        from joserfc.errors import JoseError
        from joserfc.jwk import Key, KeySet

        kid = jws.extract_compact(raw.encode()).headers().get("kid")
        url = self._metadata()["jwks_uri"]
        document = self._remember(url)
        if kid is not None and kid not in {key.get("kid") for key in document.get("keys", ())}:
            document = self._remember(url, ANEW_S)
        keys: list[Key] = []
        for each in document.get("keys", ()):
            with suppress(
                JoseError, ValueError, TypeError, KeyError
            ):  # what is not understood is passed over (RFC 7517 s. 5)
                keys += KeySet.import_key_set({"keys": [each]}).keys if _may_sign(each) else ()
        return KeySet(keys)

    def _metadata(self) -> Claims:
        issuer = self._client.issuer
        found = self._remember(issuer.rstrip("/") + DISCOVERY)
        if found.get("issuer") != issuer:  # Discovery s. 4.3
            raise _unavailable(f"its discovery document is of the issuer {str(found.get('issuer'))[:200]!r}")
        for name in ENDPOINTS:
            _checked_url(found.get(name))
        return found

    def _remember(self, url: str, fresh_s: float = FRESH_S) -> Claims:
        with self._lock:
            read_s, document = self._remembered.get(url, (0.0, {}))
        if document and self._now_s() - read_s < fresh_s:
            return document
        document = self._get(url)
        with self._lock:
            self._remembered[url] = (self._now_s(), document)
        return document

    def _post_for_tokens(self, metadata: Claims, form: dict[str, str]) -> Claims:
        client, headers = self._client, {"Content-Type": "application/x-www-form-urlencoded"}
        ways = metadata.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        if client.client_secret and "client_secret_basic" in ways:
            pair = f"{quote_plus(client.client_id)}:{quote_plus(client.client_secret)}"  # RFC 6749 s. 2.3.1
            headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        else:
            form |= {"client_id": client.client_id}
            form |= {"client_secret": client.client_secret} if client.client_secret else {}
        status, answer = self._send("POST", metadata["token_endpoint"], headers, urlencode(form))
        if status != OK:
            raise _refused(f"it did not take the code ({str(answer.get('error', status))[:80]})")
        return answer

    def _get(self, url: Any, headers: Mapping[str, str] | None = None) -> Claims:
        status, answer = self._send("GET", _checked_url(url), headers or {}, None)
        if status != OK:
            raise _unavailable(f"{url} answered {status}")
        return answer

    def _send(self, method: str, url: str, headers: Mapping[str, str], body: str | None) -> tuple[int, Claims]:
        asked = {"Accept": "application/json"} | dict(headers)
        try:
            answer = self._http.request(method, url, body=body, headers=asked, redirect=False, preload_content=False)
            content = answer.read(MAX_ANSWER_BYTES)
            answer.release_conn()
        except urllib3.exceptions.HTTPError as error:
            raise _unavailable(f"{url} does not answer ({type(error).__name__})") from None
        try:
            parsed = orjson.loads(content)
        except orjson.JSONDecodeError:
            parsed = None
        if answer.status == OK and not isinstance(parsed, dict):
            raise _unavailable(f"{url} answered something else than a JSON object")
        return answer.status, parsed if isinstance(parsed, dict) else {}


def _checked_url(url: Any) -> str:
    """Take an address of the provider; codes and tokens go over TLS only, or stay on this machine."""
    parts = urlsplit(url) if isinstance(url, str) else None
    if parts is None or not parts.hostname:
        raise _unavailable("its discovery document lacks an endpoint")
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
        raise _unavailable(f"{parts.hostname} is not asked without TLS")
    return str(url)


def _with_query(url: str, asked: Mapping[str, str]) -> str:
    return f"{url}{'&' if urlsplit(url).query else '?'}{urlencode(asked)}"


def _may_sign(key: Any) -> bool:
    return isinstance(key, dict) and key.get("use", "sig") == "sig"


def _say(error: Exception) -> str:
    code, about = getattr(error, "error", ""), getattr(error, "description", "")
    return ": ".join(str(part)[:120] for part in (code, about) if part) or type(error).__name__


def _refused(why: str) -> Unauthorized:
    return Unauthorized(f"the log-in by the provider was refused: {why}", code="oidc_refused")


def _unavailable(why: str) -> Unavailable:
    return Unavailable(f"the OpenID Connect provider cannot be asked: {why}", code="oidc_unavailable", retry_after_s=5)
