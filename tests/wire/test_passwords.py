from __future__ import annotations

import secrets

import pytest

from wire.passwords import is_guessable

USUAL = """1234567890 0987654321 12345678910 123456789a 1111111111 password123 Password1! P@ssw0rd123 passw0rd2026 password!!!
qwertyuiop qwerty12345 Qwerty123! 1q2w3e4r5t q1w2e3r4t5 1qaz2wsx3edc qazwsxedcrfv zaq12wsxcde3 asdfghjkl1 abcdefghij
iloveyou123 administrator Administrator1 admin12345 adminadmin welcome2026 Welcome123! letmein2026 changeme123 Changeme!!!
football123 superman123 princess2010 sunshine99! baseball2020 trustno1trustno1 dragon12345 monkey12345 michael1990
headwater1 headwater2026 Summer2026! winter2025! aaaaaaaaaa abababababab testtesttest test123456 secret12345
secretpassword mypassword1 passwordpassword operator123 raspberry1 mosquitto1 2026-11-23-1 tenant-admin"""
GOOD = ["a long enough secret", "correct battery staple", "canary-word-of-a-person", "Tr0ub4dor&3x", "mein Fahrrad ist rot",
        "пароль для меня", "ein-zwei-polizei", "river6lamp", "xK9!mQ2#vL", "second password"]  # fmt: skip


@pytest.mark.parametrize("password", USUAL.split())
def test_usual_password_is_refused(password: str) -> None:
    assert len(password) < 10 or is_guessable(password)


@pytest.mark.parametrize("password", GOOD)
def test_other_password_is_taken(password: str) -> None:
    assert not is_guessable(password)


def test_random_ones_are_taken() -> None:
    assert not any(is_guessable(secrets.token_urlsafe(12)) for _ in range(2_000))
