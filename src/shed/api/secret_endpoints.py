"""The rows about secrets of the table of endpoints."""

from __future__ import annotations

from shed.api import secrets
from shed.api.access import Right
from shed.api.base import Nothing
from shed.api.endpoint import delete, get, post
from shed.api.sheds import ShedParams

LIST_SECRETS = get("list_secrets", "/api/secrets", Right.READ, Nothing, secrets.SecretList, "List the secrets")
SET_SECRET = post(
    "set_secret",
    "/api/secrets/{secret}",
    Right.ADMIN,
    secrets.SecretParams,
    secrets.SetSecret,
    secrets.Secret,
    "Keep a secret, or give one another value, at once",
)
REMOVE_SECRET = delete(
    "remove_secret",
    "/api/secrets/{secret}",
    Right.ADMIN,
    secrets.RemoveSecretParams,
    secrets.RemovedSecret,
    "Remove a secret",
)
CHANGE_SHED_SECRETS = post(
    "change_shed_secrets",
    "/api/sheds/{name}/secrets",
    Right.ADMIN,
    ShedParams,
    secrets.ChangeShedSecrets,
    secrets.ShedSecrets,
    "Give a shed secrets, or take some from it, at once",
)
