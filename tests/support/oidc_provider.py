"""A real OpenID Connect provider on a free port: the library pyop behind Flask, and a hand on what it signs."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from flask import Flask, Response, jsonify, redirect, request
from werkzeug.serving import make_server

pytest.importorskip("pyop", reason="this environment is older than requirements-dev.lock")
from Cryptodome.PublicKey import RSA
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc import jwt
from joserfc.jwk import OctKey
from jwkest.jwk import RSAKey
from jwkest.jws import JWS
from oic.oic.message import EndSessionRequest
from pyop.authz_state import AuthorizationState
from pyop.exceptions import OAuthError
from pyop.provider import Provider
from pyop.subject_identifier import HashBasedSubjectIdentifierFactory
from pyop.userinfo import Userinfo

CLIENT, SECRET = "headwater", "client-secret-of-the-tests"
CALLBACK = "http://localhost/login/oidc/callback"
Tamper = Callable[["OidcProvider", dict[str, Any]], str]  # claims of the ID token -> another token


@lru_cache(8)
def new_key(kid: str = "k1", number: int = 0) -> RSAKey:
    # Made by OpenSSL: pycryptodome takes seconds for one, in which the log-in that waits for it gives up.
    made = rsa.generate_private_key(65537, 2048).private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return RSAKey(kid=kid, use="sig", alg="RS256", key=RSA.import_key(made))


class OidcProvider:
    """Answers on `issuer` until stopped. Whoever is `user` is logged in there."""

    def __init__(self) -> None:
        self.people: dict[str, dict[str, Any]] = {}
        self.user = ""
        self.tamper: Tamper | None = None
        self.metadata: dict[str, Any] = {}  # put over what discovery tells; None: it tells nothing of it
        self.other_keys: list[dict[str, Any]] = []  # in its set, beside the one that it signs with
        self.asked: list[str] = []
        app = Flask("provider")
        self._server = make_server("127.0.0.1", 0, app, threaded=True)
        self.issuer = f"http://127.0.0.1:{self._server.server_port}"
        self.key = new_key()
        names = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "jwks"}
        names |= {"userinfo_endpoint": "userinfo", "end_session_endpoint": "logout"}
        known = {"issuer": "https://provider"} | {name: f"{self.issuer}/{path}" for name, path in names.items()}
        known |= {"scopes_supported": ["openid", "profile", "email"], "response_types_supported": ["code"]}
        state = AuthorizationState(HashBasedSubjectIdentifierFactory("salt"))
        client = {"client_id": CLIENT, "client_secret": SECRET, "redirect_uris": [CALLBACK]}
        client |= {"response_types": ["code"], "token_endpoint_auth_method": "client_secret_basic"}
        client |= {"post_logout_redirect_uris": ["http://localhost/login"]}
        clients = {CLIENT: client}
        more = {"profile": ["preferred_username", "groups", "org"]}
        self.provider = Provider(self.key, known, state, clients, Userinfo(self.people), extra_scopes=more)
        self.provider.configuration_information["issuer"] = (
            self.issuer
        )  # it insists on https, which is not the matter here
        self._add_routes(app)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def add(self, user: str, **claims: Any) -> None:
        self.people[user] = {"sub": f"sub-of-{user}", "preferred_username": user} | claims
        self.user = user

    def sign(self, claims: dict[str, Any], key: RSAKey | None = None, **header: Any) -> str:
        return str(JWS(json.dumps(claims), alg="RS256", **header).sign_compact([key or self.key]))

    def log_in(self, url: str) -> dict[str, str]:
        """Do what a browser does there: follow the address, give the query of the way back."""
        with self._app_client() as client:
            answer = client.get(url[len(self.issuer) :])
        assert answer.status_code == 302, answer.text
        assert answer.headers["Location"].startswith(CALLBACK)
        return dict(parse_qsl(urlsplit(answer.headers["Location"]).query))

    def _app_client(self) -> Any:
        return self._app.test_client()

    def _add_routes(self, app: Flask) -> None:
        self._app = app
        provider = self.provider
        app.register_error_handler(OAuthError, lambda error: (jsonify(error=error.oauth_error), 400))
        app.before_request(lambda: self.asked.append(request.path))
        app.add_url_rule("/moved", view_func=lambda: redirect("/token", 307), methods=["POST"], endpoint="moved")

        @app.get("/.well-known/openid-configuration")
        def discovery() -> Response:
            told = provider.provider_configuration.to_dict() | self.metadata
            return jsonify({name: value for name, value in told.items() if value is not None})

        @app.get("/jwks")
        def jwks() -> Response:
            return jsonify(keys=[*provider.jwks["keys"], *self.other_keys])

        @app.get("/authorize")
        def authorize() -> Any:
            asked = provider.parse_authentication_request(request.query_string.decode())
            return redirect(provider.authorize(asked, self.user).request(asked["redirect_uri"]))

        @app.post("/token")
        def token() -> Response:
            answer = provider.handle_token_request(request.get_data(as_text=True), request.headers).to_dict()
            if self.tamper is not None:
                answer["id_token"] = self.tamper(self, _claims(answer["id_token"]))
            return jsonify(answer)

        @app.get("/userinfo")
        def userinfo() -> Response:
            return jsonify(provider.handle_userinfo_request("", request.headers).to_dict())

        @app.get("/logout")
        def logout() -> Any:
            asked = EndSessionRequest().deserialize(request.query_string.decode())
            return redirect(asked["post_logout_redirect_uri"])


def _claims(token: str) -> dict[str, Any]:
    part = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


def encode(part: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def sign_shared(claims: dict[str, Any], secret: str) -> str:
    return jwt.encode({"alg": "HS256", "kid": "k1"}, claims, OctKey.import_key(secret), algorithms=["HS256"])
