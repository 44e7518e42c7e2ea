"""`headwater token` and `headwater operator`: who may read and command the platform."""

from __future__ import annotations

import argparse
import getpass
import re
import secrets
import sys
import warnings
from typing import Any

from compose import tables
from compose.client import add_group, connect, finish, path
from compose.folder import StartError
from wire.devices import ROLES

TOKEN_COLUMNS = ("id", "name", "role", "scope", "devices", "created", "expires", "last_used")
OPERATOR_COLUMNS = ("name", "role", "must_change", "last_login", "created")
INVITATION_COLUMNS = ("name", "role", "created", "expires")
PERMISSION = re.compile(r"(\*|[a-z-]+):(\*|[a-z]+)")  # else it is a query
HOUR_S = 3_600
PASSWORD_BYTES = 12


def configure(commands: Any) -> None:
    """Add the commands."""
    _add_tokens(commands)
    _add_operators(commands)
    _add_invitations(commands)


def _add_tokens(commands: Any) -> None:
    actions = add_group(commands, "token", "make, list and revoke operator API tokens")
    create = actions.add_parser("create", help="make a token; it is shown once")
    create.add_argument("--name", required=True, metavar="N", help="name in the audit log")
    create.add_argument("--role", required=True, choices=ROLES)
    create.add_argument("--expires", metavar="TIME", help="RFC 3339, e.g. 2027-01-01T00:00:00Z (default: never)")
    create.add_argument("--scope", action="append", default=[], metavar="AREA:VERB|QUERY",
                        help="only this, such as devices:read, *:read or query:*, which may be repeated; or only the "
                        "devices that a query finds, such as 'type=pump and group=north'")  # fmt: skip
    finish(create, _create_token)
    finish(actions.add_parser("list", help="list tokens"), _list_tokens)
    revoke = actions.add_parser("revoke", help="revoke a token")
    revoke.add_argument("id", help="id or name")
    finish(revoke, _revoke_token)


def _add_operators(commands: Any) -> None:
    actions = add_group(commands, "operator", "add, list and delete people who may log in; set passwords")
    finish(actions.add_parser("list", help="list operators"), _list_operators)
    add = actions.add_parser("add", help="add a person who may log in")
    add.add_argument("name")
    add.add_argument("--role", required=True, choices=ROLES)
    password = actions.add_parser("password", help="set a new password")
    password.add_argument("name")
    for parser in (add, password):
        source = parser.add_mutually_exclusive_group()
        source.add_argument(
            "--password-stdin", action="store_true", help="read the password from standard input (default: make one)"
        )
        parser.add_argument("--must-change", action="store_true", help="they choose another at the next log-in")
        source.add_argument("--ask", action="store_true", help="ask for the password at the terminal")
    finish(add, _add_operator)
    finish(password, _set_password)
    delete = actions.add_parser("delete", help="delete an operator; their sessions end")
    delete.add_argument("name")
    finish(delete, _delete_operator)


def _add_invitations(commands: Any) -> None:
    actions = add_group(commands, "invitation", "invite people to choose a password of their own")
    create = actions.add_parser("create", help="invite somebody; the link is shown once")
    create.add_argument("name")
    create.add_argument("--role", required=True, choices=ROLES)
    create.add_argument("--hours", type=float, default=72.0, metavar="H", help="how long the link works (default 72)")
    finish(create, _invite)
    finish(actions.add_parser("list", help="list open invitations"), _list_invitations)
    revoke = actions.add_parser("revoke", help="take an invitation back")
    revoke.add_argument("name")
    finish(revoke, _revoke_invitation)


def _create_token(given: argparse.Namespace) -> int:
    queries = [each for each in given.scope if not PERMISSION.fullmatch(each)]
    if len(queries) > 1:
        raise StartError("one --scope names the devices; join queries with `and`")
    permissions = [each for each in given.scope if each not in queries]
    body: dict[str, Any] = {"name": given.name, "role": given.role, "scope": permissions}
    body |= {"devices": queries[0]} if queries else {}
    body |= {"expires": given.expires} if given.expires else {}
    made = connect(given).call("POST", path("tokens"), body)
    if given.json:
        tables.show_json(made)
    else:
        print(made["token"])
        print(f"token {made['name']} ({made['role']}), shown only this once", file=sys.stderr)
    return 0


def _list_tokens(given: argparse.Namespace) -> int:
    tables.show(connect(given).call("GET", path("tokens"))["items"], TOKEN_COLUMNS, as_json=given.json)
    return 0


def _revoke_token(given: argparse.Namespace) -> int:
    connect(given).call("DELETE", path("tokens", given.id))
    return _done(given, {"revoked": given.id})


def _list_operators(given: argparse.Namespace) -> int:
    tables.show(connect(given).call("GET", path("operators"))["items"], OPERATOR_COLUMNS, as_json=given.json)
    return 0


def _add_operator(given: argparse.Namespace) -> int:
    password, is_made = _choose_password(given)
    body = {"name": given.name, "role": given.role, "password": password, "must_change": given.must_change}
    connect(given).call("POST", path("operators"), body)
    return _done(given, {"added": given.name} | ({"password": password} if is_made else {}))


def _set_password(given: argparse.Namespace) -> int:
    password, is_made = _choose_password(given)
    connect(given).call("PATCH", path("operators", given.name), _new_password(given, password))
    return _done(given, {"changed": given.name} | ({"password": password} if is_made else {}))


def _delete_operator(given: argparse.Namespace) -> int:
    connect(given).call("DELETE", path("operators", given.name))
    return _done(given, {"deleted": given.name})


def _new_password(given: argparse.Namespace, password: str) -> dict[str, Any]:
    return {"password": password} | ({"must_change": True} if given.must_change else {})


def _invite(given: argparse.Namespace) -> int:
    body = {"name": given.name, "role": given.role, "expires_s": int(given.hours * HOUR_S)}
    peer = connect(given)
    made = peer.call("POST", path("invitations"), body)
    if given.json:
        tables.show_json(made)
    else:
        print(made["path"])
        print(f"the link for {made['name']}, behind this installation's address; shown only this once", file=sys.stderr)
    return 0


def _list_invitations(given: argparse.Namespace) -> int:
    tables.show(connect(given).call("GET", path("invitations"))["items"], INVITATION_COLUMNS, as_json=given.json)
    return 0


def _revoke_invitation(given: argparse.Namespace) -> int:
    connect(given).call("DELETE", path("invitations", given.name))
    return _done(given, {"revoked": given.name})


def _choose_password(given: argparse.Namespace) -> tuple[str, bool]:
    """Give the password, and whether it was made here and must be shown."""
    if given.password_stdin:
        return sys.stdin.readline().rstrip("\n"), False
    if given.ask:
        return _ask(f"new password of {given.name}: "), False
    return secrets.token_urlsafe(PASSWORD_BYTES), True


def _ask(question: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("error", getpass.GetPassWarning)  # it would show what is typed
        try:
            password = getpass.getpass(question)
            again = getpass.getpass("once more: ")
        except (getpass.GetPassWarning, EOFError):
            raise StartError("--ask needs a terminal; use --password-stdin") from None
    if password != again:
        raise StartError("these two differ; nothing was changed")
    return password


def _done(given: argparse.Namespace, result: dict[str, str]) -> int:
    if given.json:
        tables.show_json(result)
    else:
        print("\n".join(f"{name} {tables.clean(value)}" for name, value in result.items()))
    return 0
