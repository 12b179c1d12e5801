"""Who may use a server: rights, the tokens of its TCP port, and the keys of its SSH front."""

from __future__ import annotations

import enum
from typing import Annotated, Literal

from msgspec import Meta

from shed.api.base import Answer, Body, Params, Time, says
from shed.errors import UsageError
from shed.names import MAX_NAME

LONGEST_LIFETIME = 10 * 365 * 86400.0
"""Seconds that a token may be valid for; for longer it gets no end at all."""
LONGEST_KEY = 16384
"""Characters of a public key's line."""


class Right(enum.IntEnum):
    """What a caller may do; each right includes the ones before it."""

    READ = 1
    """See what there is: sheds, images, sizes."""
    USE = 2
    """Make, run and delete sheds, and see inside them."""
    ADMIN = 3
    """Everything: host folders, the image store, tokens, keys, the server."""

    @property
    def word(self) -> str:
        """How people write it."""
        return self.name.lower()

    @classmethod
    def parse(cls, word: object) -> Right:
        """Return the right that `word` names.  Raises `UsageError`."""
        for right in cls:
            if right.word == word:
                return right
        raise UsageError(f"{word!r} is not a right", hint=f"choose one of {', '.join(right.word for right in cls)}")


TokenName = Annotated[
    str, says("The name of the token.", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", minLength=1, maxLength=MAX_NAME)
]


class Token(Answer, kw_only=True, frozen=True):
    """A token, without its secret."""

    name: TokenName = ""
    right: Annotated[str, says("`read`, `use` or `admin`.")] = ""
    created_at: Time = ""
    expires_at: Annotated[str | None, says("RFC 3339; null when it has no end.")] = None


class TokenList(Answer, kw_only=True, frozen=True):
    """All tokens but the server's own."""

    tokens: Annotated[list[Token], says("By name.")] = []


class CreateToken(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A token to keep.  Its secret stays with the client, which sends the hash."""

    name: TokenName
    sha256: Annotated[str, says("SHA-256 of the secret, 64 hexadecimal digits.", pattern="^[0-9a-f]{64}$")]
    right: Annotated[Literal["read", "use", "admin"], says("What who shows it may do.")] = "use"
    expires_in: Annotated[
        Annotated[float, Meta(gt=0, le=LONGEST_LIFETIME)] | None,
        says("Seconds that it is valid for; absent: without end."),
    ] = None


class TokenParams(Params, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One token."""

    token: TokenName


class RevokedToken(Answer, kw_only=True, frozen=True):
    """A token that is nobody's any more."""

    name: TokenName = ""


class SshKey(Answer, kw_only=True, frozen=True):
    """A key that is let in by SSH."""

    fingerprint: Annotated[str, says("`SHA256:` and base64, as OpenSSH shows it.")] = ""
    key: Annotated[str, says("`TYPE BASE64`.")] = ""
    comment: Annotated[str, says("What stood behind it.")] = ""
    added_at: Time = ""


class SshKeyList(Answer, kw_only=True, frozen=True):
    """The keys that are let in beside those of the configuration."""

    keys: Annotated[list[SshKey], says("In the order in which they were added.")] = []


class AddSshKey(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A key to let in."""

    key: Annotated[str, Meta(max_length=LONGEST_KEY), says("A public key: `TYPE BASE64 [COMMENT]`.")]


class AddedSshKey(Answer, kw_only=True, frozen=True):
    """The key that is let in."""

    fingerprint: Annotated[str, says("`SHA256:` and base64.")] = ""
    added: Annotated[bool, says("False when it was let in before; the status is then 200.")] = False


class SshKeyParams(Params, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One key."""

    fingerprint: Annotated[str, says("As in the list.")]
