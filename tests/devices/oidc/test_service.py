"""Log-in by a real provider on this machine (pyop), asked by the registry as in operation."""

from __future__ import annotations

import base64
import hmac
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from jwkest.jwk import RSAKey

from chassis.tokens import hash_token
from devices.enrolment.seal import Seal
from devices.oidc.config import OidcSettings
from devices.oidc.provider import ANEW_S, LEEWAY_S, Attempt, Client, Provider
from devices.oidc.service import ATTEMPT_S
from devices.oidc.service import SignOn as Verbs
from devices.people.guessing import CHECKS_OF_ADDRESS, FREE_OF_ADDRESS
from tests.devices.running import Caller, Service
from tests.support.oidc_provider import CALLBACK, CLIENT, SECRET, OidcProvider, encode, new_key, sign_shared
from wire.errors import BadRequest, HeadwaterError, Unauthorized
from wire.people import OidcBegin, OidcFinish


@pytest.fixture
def provider():
    started = OidcProvider()
    started.add("ada", groups=["staff", "iot-ops"])
    yield started
    started.stop()


@dataclass
class SignOn:
    service: Service
    provider: OidcProvider

    def begin(self, **asked: Any) -> dict[str, Any]:
        answer = self.service.internal("POST", "/internal/oidc:begin", asked)
        assert answer.status_code == 200, answer.json
        return answer.json

    def finish(self, begun: dict[str, Any], back: dict[str, str], **more: str) -> Any:
        given = {"attempt": begun["attempt"], "remote_ip": "127.0.0.7"} | back | more
        return self.service.internal("POST", "/internal/oidc:finish", given)

    def enter(self, **asked: Any) -> Any:
        begun = self.begin(**asked)
        return self.finish(begun, self.provider.log_in(begun["url"]))

    def me(self, answer: Any) -> Any:
        assert answer.status_code == 200, answer.json
        return Caller(self.service.app, answer.json["token"])("GET", "/v1/me")

    def actions(self) -> list[str]:
        return [item["action"] for item in self.service.admin("GET", "/v1/audit").json["items"]]


@pytest.fixture
def start(sqlite_config, provider):
    started = []

    def run(**settings: Any) -> SignOn:
        given = {
            "oidc_issuer": provider.issuer, "oidc_client_id": CLIENT, "oidc_client_secret": SECRET,
            "oidc_redirect_url": CALLBACK, "registry_key": "k" * 43, "oidc_accounts": "anybody",
        }  # fmt: skip
        started.append(Service(sqlite_config.model_copy(update=given | settings)))
        return SignOn(started[-1], provider)

    yield run
    for each in started:
        each.stop()


def test_person_of_the_provider_gets_an_account_and_a_session(start) -> None:
    sign_on = start()

    answer = sign_on.enter(next="/devices")

    assert answer.json["next"] == "/devices"
    assert sign_on.me(answer).json | {"name": "ada", "role": "viewer", "tenant": "default"} == sign_on.me(answer).json
    assert sign_on.service.admin("GET", "/v1/operators").json["items"][0]["by_provider"] is True
    assert sign_on.actions()[:2] == ["operator.login", "operator.create"]
    assert sign_on.enter().json["name"] == "ada"
    assert len(sign_on.service.admin("GET", "/v1/operators").json["items"]) == 1


def test_account_follows_the_subject_and_not_the_name(start, provider) -> None:
    sign_on = start()
    sign_on.enter()
    provider.add("eve", preferred_username="ada")

    refused = sign_on.enter()

    assert (refused.status_code, refused.json["code"]) == (409, "oidc_name_taken")
    provider.add("ada", preferred_username="ada.lovelace")
    assert sign_on.enter().json["name"] == "ada"


def test_account_with_a_password_is_not_taken_over_by_its_name(start, provider) -> None:
    sign_on = start()
    person = {"name": "root", "role": "admin", "password": "a long password"}
    sign_on.service.admin("POST", "/v1/operators", person)
    provider.add("root")

    assert sign_on.enter().json["code"] == "oidc_name_taken"


@pytest.mark.parametrize("password", ["!", "", "\0"])
def test_account_of_the_provider_has_no_password(start, password) -> None:
    sign_on = start()
    sign_on.enter()

    answer = sign_on.service.internal("POST", "/internal/operators:login", {"name": "ada", "password": password})

    assert (answer.status_code, answer.json["code"]) == (401, "login_failed")


def test_uninvited_get_no_account(start) -> None:
    sign_on = start(oidc_accounts="invited")

    refused = sign_on.enter()

    assert (refused.status_code, refused.json["code"]) == (403, "oidc_not_invited")
    assert sign_on.service.admin("GET", "/v1/operators").json["items"] == []


def test_invitation_makes_the_account_once(start, provider) -> None:
    sign_on = start(oidc_accounts="invited")
    invited = sign_on.service.admin("POST", "/v1/invitations", {"name": "ops", "role": "operator"}).json

    answer = sign_on.enter(invitation=invited["token"])

    assert (answer.json["name"], answer.json["role"]) == ("ops", "operator")
    provider.add("eve")
    again = sign_on.enter(invitation=invited["token"])
    assert (again.status_code, again.json["code"]) == (404, "invitation_not_found")


def test_groups_give_the_highest_role_at_each_log_in(start, provider) -> None:
    sign_on = start(oidc_roles="viewer=staff,operator=iot-ops,admin=iot-admins")
    first = sign_on.enter()
    assert sign_on.me(first).json["role"] == "operator"

    provider.add("ada", groups=["staff"])
    second = sign_on.enter()

    assert sign_on.me(second).json["role"] == "viewer"
    assert sign_on.me(first).json["role"] == "viewer"  # at once, in the older session too
    assert "operator.update" in sign_on.actions()


def test_who_lost_all_groups_loses_their_sessions(start, provider) -> None:
    sign_on = start(oidc_roles="viewer=staff")
    first = sign_on.enter()
    provider.add("ada", groups=["others"])

    refused = sign_on.enter()

    assert (refused.status_code, refused.json["code"]) == (403, "oidc_no_role")
    assert sign_on.me(first).status_code == 401


def test_claim_names_the_tenant(start, provider) -> None:
    sign_on = start(oidc_tenant_claim="org", oidc_roles="platform=staff")
    sign_on.service.admin("POST", "/v1/tenants", {"id": "acme"})
    provider.add("ada", groups=["staff"], org="acme")

    answer = sign_on.me(sign_on.enter()).json

    assert (answer["tenant"], answer["role"]) == ("acme", "admin")  # those of the platform are of the tenant default
    for org, code in (("nobody", "oidc_no_tenant"), ("default", "oidc_no_tenant"), (None, "oidc_no_tenant")):
        provider.add("ada", groups=["staff"], org=org)
        assert sign_on.enter().json["code"] == code
    sign_on.service.admin("POST", "/v1/tenants/acme:suspend")
    provider.add("ada", groups=["staff"], org="acme")
    assert sign_on.enter().status_code == 403


def test_code_is_good_once(start) -> None:
    sign_on = start()
    begun = sign_on.begin()
    back = sign_on.provider.log_in(begun["url"])

    assert sign_on.finish(begun, back).status_code == 200
    again = sign_on.finish(begun, back)

    assert (again.status_code, again.json["code"]) == (401, "oidc_refused")


def test_code_of_another_log_in_is_refused_by_its_verifier(start) -> None:
    sign_on = start()
    theirs, mine = sign_on.begin(), sign_on.begin()
    stolen = sign_on.provider.log_in(theirs["url"])["code"]

    refused = sign_on.finish(mine, sign_on.provider.log_in(mine["url"]), code=stolen)

    assert (refused.status_code, refused.json["code"]) == (401, "oidc_refused")


def test_answer_to_another_browser_is_refused(start) -> None:
    sign_on = start()
    mine, theirs = sign_on.begin(), sign_on.begin()
    back = sign_on.provider.log_in(mine["url"])

    answers = [
        sign_on.finish(theirs, back),
        sign_on.finish(mine, back, state="wrong"),
        sign_on.finish(mine, back, attempt=""),
        sign_on.finish(mine, back, attempt=f"{mine['attempt'][:-6]}AAAAA="),
        sign_on.finish(mine, back, iss="https://elsewhere.example"),
    ]

    assert [(each.status_code, each.json["code"]) for each in answers] == [(400, "oidc_state")] * 4 + [
        (401, "oidc_refused")
    ]
    assert "/token" not in sign_on.provider.asked  # nothing of it reached the provider


def test_address_that_fails_often_has_to_wait(start) -> None:
    sign_on = start()
    begun, back = sign_on.begin(), {"state": "guessed", "code": "guessed"}

    answers = [sign_on.finish(begun, back).status_code for _ in range(FREE_OF_ADDRESS + 2)]

    assert (answers[0], answers[-1]) == (400, 429)
    elsewhere = sign_on.finish(begun, sign_on.provider.log_in(begun["url"]), remote_ip="127.0.0.8")
    assert elsewhere.status_code == 200


def test_provider_that_is_away_costs_nobody_a_wait(start, provider) -> None:
    provider.metadata = {"token_endpoint": "http://127.0.0.1:9/token"}
    sign_on = start()
    begun = sign_on.begin()
    back = provider.log_in(begun["url"])

    answers = {sign_on.finish(begun, back).json["code"] for _ in range(FREE_OF_ADDRESS + 2)}

    assert answers == {"oidc_unavailable"}


def test_log_ins_at_once_are_bounded_for_an_address() -> None:
    inside, go = threading.Semaphore(0), threading.Event()

    class Slow:
        def begin(self, attempt):
            return attempt.state

        def redeem(self, code, issuer, attempt):
            inside.release()
            assert go.wait(10)
            raise Unauthorized("no")

    verbs = Verbs(OidcSettings(), Slow(), None, Seal("k"))

    def finish(remote_ip: str) -> str:
        begun = verbs.begin(OidcBegin())
        try:
            verbs.finish(OidcFinish(attempt=begun.attempt, state=begun.url, code="c", remote_ip=remote_ip))
        except HeadwaterError as error:
            return error.code
        return ""

    with ThreadPoolExecutor(CHECKS_OF_ADDRESS + 1) as pool:
        waiting = [pool.submit(finish, "192.0.2.1") for _ in range(CHECKS_OF_ADDRESS)]
        assert all(inside.acquire(timeout=10) for _ in waiting)
        refused = finish("192.0.2.1")
        other = pool.submit(finish, "192.0.2.2")
        assert inside.acquire(timeout=10)
        go.set()

    assert (refused, other.result()) == ("login_back_off", "unauthorized")
    assert {each.result() for each in waiting} == {"unauthorized"}


def test_attempt_is_over_after_ten_minutes(sqlite_config, start) -> None:
    class Nobody:
        def begin(self, attempt):
            return attempt.state

    now = [0]
    verbs = Verbs(OidcSettings(), Nobody(), None, Seal("k"), lambda: now[0])
    begun = verbs.begin(OidcBegin())
    now[0] = ATTEMPT_S * 10**9

    with pytest.raises(BadRequest, match="too long ago"):
        verbs.finish(OidcFinish(attempt=begun.attempt, state=begun.url, code="c"))


def other(**claims: Any):
    return lambda provider, signed: provider.sign(signed | claims)


def timed(**seconds: int):
    """Put times at so many seconds from now."""
    return lambda provider, signed: provider.sign(signed | {key: int(time.time()) + s for key, s in seconds.items()})


def without(name: str):
    return lambda provider, signed: provider.sign({key: value for key, value in signed.items() if key != name})


def unsigned(provider, signed) -> str:
    return f"{encode({'alg': 'none', 'typ': 'JWT'})}.{encode(signed)}."


def signed_with_the_secret(provider, signed) -> str:
    return sign_shared(signed, SECRET)


def signed_with_the_public_key(provider, signed) -> str:
    """Confuse the algorithms: the public key as if it were a shared secret."""
    pem = provider.key.key.public_key().export_key()
    head = f"{encode({'alg': 'HS256', 'kid': 'k1'})}.{encode(signed)}"
    digest = base64.urlsafe_b64encode(hmac.digest(pem, head.encode(), "sha256")).rstrip(b"=").decode()
    return f"{head}.{digest}"


FORGED = {
    "wrong issuer": other(iss="https://elsewhere.example"),
    "no issuer": without("iss"),
    "empty issuer": other(iss=""),
    "null issuer": other(iss=None),
    "wrong audience": other(aud="another-client"),
    "no audience": without("aud"),
    "audience of nobody": other(aud=[]),
    "empty audience": other(aud=""),
    "null audience": other(aud=None),
    "wrong audience, in our name": other(aud="another-client", azp=CLIENT),
    "further audience without azp": other(aud=[CLIENT, "another-client"]),
    "made for another party": other(aud=[CLIENT, "another-client"], azp="another-client"),
    "wrong nonce": other(nonce="of-another-log-in"),
    "no nonce": without("nonce"),
    "no expiry": without("exp"),
    "no subject": without("sub"),
    "empty subject": other(sub=""),
    "expired": timed(exp=-LEEWAY_S - 60),
    "from the future": timed(iat=LEEWAY_S + 600),
    "not yet valid": timed(nbf=LEEWAY_S + 600),
    "another access token": other(at_hash="AAAAAAAAAAAAAAAAAAAAAA"),
    "alg none": unsigned,
    "alg HS256 with the client's secret": signed_with_the_secret,
    "alg HS256 with the public key": signed_with_the_public_key,
    "another key of the same name": lambda provider, signed: provider.sign(signed, new_key(number=1)),
    "an unknown key": lambda provider, signed: provider.sign(signed, new_key("k9")),
    "cut off": lambda provider, signed: provider.sign(signed)[:-20],
    "not a token": lambda provider, signed: "x",
    "somebody else than userinfo says": other(sub="sub-of-eve"),
}


def test_forged_tokens_are_refused(start, provider) -> None:
    sign_on, found = start(), {}
    for name, tamper in FORGED.items():
        provider.tamper = tamper
        answer = sign_on.enter()
        found[name] = (answer.status_code, answer.json.get("code"))

    assert found == dict.fromkeys(FORGED, (401, "oidc_refused"))
    assert sign_on.service.admin("GET", "/v1/operators").json["items"] == []


def test_token_that_names_nobody_is_refused_without_userinfo_too(start, provider) -> None:
    provider.metadata = {"userinfo_endpoint": None}
    sign_on = start()
    nameless = sign_on.enter().json["code"]
    provider.tamper = other(sub="")

    assert (nameless, sign_on.enter().json["code"]) == ("oidc_no_name", "oidc_refused")


def test_key_for_something_else_than_signing_signs_nobody_in(start, provider) -> None:
    sign_on, other_key = start(), new_key("k8", 2)
    provider.other_keys = [other_key.serialize() | {"use": "enc"}]
    provider.tamper = lambda provider, signed: provider.sign(signed, other_key)

    assert sign_on.enter().json["code"] == "oidc_refused"


def test_keys_that_are_not_understood_or_for_something_else_hinder_nobody(start, provider) -> None:
    odd = [{"kty": "EC", "crv": "X9", "x": "AA", "y": "AA", "kid": "k9"}, {"kty": "AKP"}, {"kty": ["RSA"]}, {}, 5]
    provider.other_keys = [new_key("k8", 2).serialize() | {"use": "enc"}, *odd]
    nameless = RSAKey(key=provider.key.key)  # a token that names no key is checked with the only one there is
    provider.tamper = lambda provider, signed: provider.sign(signed, nameless)

    assert start().enter().status_code == 200


def test_answer_that_should_name_its_provider_has_to(start, provider) -> None:
    provider.metadata = {"authorization_response_iss_parameter_supported": True}
    sign_on = start()
    begun = sign_on.begin()
    back = provider.log_in(begun["url"])

    assert sign_on.finish(begun, back).json["code"] == "oidc_refused"
    assert "/token" not in provider.asked
    assert sign_on.finish(begun, back, iss=provider.issuer).status_code == 200


def test_code_does_not_follow_a_redirect(start, provider) -> None:
    provider.metadata = {"token_endpoint": f"{provider.issuer}/moved"}
    sign_on = start()

    assert sign_on.enter().json["code"] == "oidc_refused"
    assert "/token" not in provider.asked


def test_clock_may_differ_by_a_minute(start, provider) -> None:
    sign_on = start()
    for claims in ({"exp": 50 - LEEWAY_S}, {"iat": LEEWAY_S - 10, "nbf": LEEWAY_S - 10}):
        provider.tamper = timed(**claims)
        assert sign_on.enter().status_code == 200


def test_new_key_of_the_provider_is_learned(provider) -> None:
    later = [0.0]
    asks = Provider(Client(provider.issuer, CLIENT, SECRET, CALLBACK, "openid profile"), lambda: time.time() + later[0])
    attempt = Attempt("state", "nonce", "v" * 43)
    asks.redeem(provider.log_in(asks.begin(attempt))["code"], None, attempt)
    provider.key = provider.provider.signing_key = new_key("k2")
    with pytest.raises(Unauthorized):  # keys are read anew every ten seconds at most, whatever tokens name
        asks.redeem(provider.log_in(asks.begin(attempt))["code"], None, attempt)

    later[0] = ANEW_S

    claims = asks.redeem(provider.log_in(asks.begin(attempt))["code"], None, attempt)
    assert claims["groups"] == ["staff", "iot-ops"]


def test_provider_of_another_name_is_not_trusted(start, provider) -> None:
    sign_on = start()
    provider.metadata = {"issuer": "https://elsewhere.example"}

    answer = sign_on.service.internal("POST", "/internal/oidc:begin", {})

    assert (answer.status_code, answer.json["code"]) == (503, "oidc_unavailable")


def test_provider_without_tls_elsewhere_is_not_asked(start, provider) -> None:
    sign_on = start()
    provider.metadata = {"token_endpoint": "http://provider.example/token"}

    assert sign_on.service.internal("POST", "/internal/oidc:begin", {}).json["code"] == "oidc_unavailable"


def test_provider_that_is_away_is_told_as_such(start, provider) -> None:
    sign_on = start(oidc_issuer="http://127.0.0.1:9")

    answer = sign_on.service.internal("POST", "/internal/oidc:begin", {})

    assert (answer.status_code, answer.json["code"]) == (503, "oidc_unavailable")
    assert answer.headers["Retry-After"]


def test_refusal_of_the_provider_is_told(start) -> None:
    sign_on = start()
    begun = sign_on.begin()
    back = sign_on.provider.log_in(begun["url"])

    answer = sign_on.finish(begun, {"state": back["state"], "error": "access_denied<script>"})

    assert (answer.status_code, answer.json["code"]) == (401, "oidc_refused")
    assert "<" not in answer.json["detail"]


def test_session_is_new_at_each_log_in(start) -> None:
    sign_on = start()
    tokens = {sign_on.enter().json["token"] for _ in range(2)}

    assert len(tokens) == 2
    sign_on.service.internal("POST", "/internal/operators:logout", {"sha256": hash_token(tokens.pop())})
    assert "operator.logout" in sign_on.actions()


def test_log_out_at_the_provider_comes_back_here(start, provider) -> None:
    sign_on = start()

    url = sign_on.service.internal("GET", "/internal/oidc:leave").json["url"]

    assert url.startswith(f"{provider.issuer}/logout?client_id={CLIENT}")
    assert "post_logout_redirect_uri=http%3A%2F%2Flocalhost%2Flogin" in url


def test_without_a_provider_there_is_no_log_in_by_one(sqlite_config) -> None:
    service = Service(sqlite_config)
    try:
        assert service.internal("POST", "/internal/oidc:begin", {}).status_code == 404
    finally:
        service.stop()
