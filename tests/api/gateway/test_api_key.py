"""API keys: random, recognisable, checked before anything is looked up, and kept only as a hash."""

from __future__ import annotations

import re

from isotoken.api.gateway.api_key import digest_of, hint_of, is_well_formed, new_key_id, new_secret


def test_keys_are_random_and_recognisable() -> None:
    secrets = {new_secret() for _ in range(1000)}
    assert len(secrets) == 1000
    assert all(re.fullmatch(r"itk_[0-9A-Za-z]{49}", secret) for secret in secrets)
    assert all(is_well_formed(secret) for secret in secrets)


def test_every_digit_of_the_random_part_is_drawn() -> None:
    """256 bits: in a thousand keys each place has shown many digits, but the first, which 2**256 hardly reaches."""
    secrets = [new_secret() for _ in range(1000)]
    for place in range(5, 47):
        assert len({secret[place] for secret in secrets}) > 50


def test_a_typing_error_is_found_without_a_look_up() -> None:
    secret = new_secret()
    for i in range(4, len(secret)):
        wrong = secret[:i] + ("x" if secret[i] != "x" else "y") + secret[i + 1 :]
        assert not is_well_formed(wrong)
    for odd in ("", "itk_", secret + "0", secret[:-1], secret.replace("itk_", "sk-"), " " + secret, secret + "\n"):
        assert not is_well_formed(odd)


def test_nothing_that_is_kept_gives_the_key_away() -> None:
    secret = new_secret()
    assert len(digest_of(secret)) == 64
    assert digest_of(secret) != digest_of(new_secret())
    assert secret.startswith(hint_of(secret).removesuffix("..."))
    assert len(hint_of(secret)) == len("itk_1234...")
    assert new_key_id() != new_key_id()
