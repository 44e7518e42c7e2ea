"""Verify once more, at any time later, what a run has kept in its ledger: `headwater sim verify LEDGER`."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

from simulators.http import parse_url
from simulators.ledger import Accounts, read_ledger
from simulators.platform_api import PlatformApi, read_token
from simulators.report import make_report
from simulators.tally import Tally
from simulators.verify import Verifier


async def recheck(ledger: Path, url: str, token_file: Path, ca: Path | None, deadline_s: float) -> dict[str, Any]:
    """Compare a ledger with what the platform can be queried for now; gives a report without rates and times.

    Raises:
        ValueError: not a ledger, or not a URL.
        OSError: the ledger cannot be read.
        PlatformError: the platform cannot be asked.
    """
    accounts = read_ledger(ledger)
    tls = ssl.create_default_context(cafile=str(ca)) if ca else None
    api = PlatformApi(parse_url(url, tls), read_token(token_file))
    try:
        verdict = await Verifier(api, accounts, deadline_s).verify()
    finally:
        api.close()
    return make_report(_tally(accounts), verdict, None, {"ledger": str(ledger), "url": url})


def _tally(accounts: Accounts) -> Tally:
    each = accounts.accounts
    sent = sum(len(account.sent) + account.malformed_sent for account in each)
    return Tally(sent=sent, acked=sum(len(account.acked) + account.malformed_acked for account in each))
