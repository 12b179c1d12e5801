"""The server's JSON as the objects of the contract, `shed.api`."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from shed.errors import UnavailableError

T = TypeVar("T")


def typed(value: object, kind: type[T]) -> T:
    """Return `value` as an object of `kind`; members that this version does not know are left out.

    Raises `UnavailableError` for what does not fit.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise UnavailableError(
            f"the server answers what this client does not understand: {error}",
            hint="compare the versions: shed version",
        ) from None
