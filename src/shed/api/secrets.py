"""Secrets: values that the relay puts into requests of sheds, which see a placeholder instead."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from shed.api.base import Answer, Body, Params, Warnings, says
from shed.api.sheds import ShedName

MOST_SECRETS = 64
"""Of one shed."""
SecretName = Annotated[str, says("The name of the secret.", pattern="^[a-z][a-z0-9-]*$", minLength=1, maxLength=63)]
SecretNames = Annotated[list[SecretName], Meta(max_length=MOST_SECRETS)]
_HOSTS = "Names of the hosts that it is for, or `*.name` for subdomains."
_HEADER = "The header that has the value in each request, as `Name: text with {}`; null: where the placeholder is."
_METHODS = "The methods of the requests that may be made to its hosts; null: all."
_PATHS = "The paths of these requests; `*` stands for any characters; null: all."
_VARIABLE = "The environment variable that has the placeholder in a shed."


class Secret(Answer, kw_only=True, frozen=True):
    """A secret, without its value."""

    name: SecretName = ""
    variable: Annotated[str, says(_VARIABLE)] = ""
    hosts: Annotated[list[str], says(_HOSTS)] = []
    header: Annotated[str | None, says(_HEADER)] = None
    methods: Annotated[list[str] | None, says(_METHODS)] = None
    paths: Annotated[list[str] | None, says(_PATHS)] = None
    source: Annotated[
        str, says("Where its value comes from: `value` (it is kept), `from_file`, `from_env` or `from_command`.")
    ] = ""
    sheds: Annotated[list[str], says("Names of the sheds that have it.")] = []


class SecretList(Answer, kw_only=True, frozen=True):
    """All secrets."""

    secrets: Annotated[list[Secret], says("By name.")] = []
    warnings: Warnings = []


class SecretParams(Params, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One secret."""

    secret: SecretName


class RemoveSecretParams(SecretParams, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A secret to remove."""

    force: Annotated[bool, says("Also when sheds have it: it is taken from them.")] = False


class SetSecret(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A secret to keep: exactly one of `value`, `from_file`, `from_env` and `from_command`.

    Without `hosts`, only where the value of an existing one comes from is changed.
    """

    hosts: Annotated[list[str] | None, says(_HOSTS)] = None
    variable: Annotated[str | None, says(f"{_VARIABLE}  Absent: its name in upper case, with `_`.")] = None
    header: Annotated[str | None, says(_HEADER)] = None
    methods: Annotated[list[str] | None, says(_METHODS)] = None
    paths: Annotated[list[str] | None, says(_PATHS)] = None
    value: Annotated[str | None, says("The value: one line of ASCII.", secret=True)] = None
    from_file: Annotated[str | None, says("Absolute path of a file on the server's machine that holds it.")] = None
    from_env: Annotated[str | None, says("Name of an environment variable of the server that holds it.")] = None
    from_command: Annotated[str | None, says("Command that the server runs, by `/bin/sh`, to print it.")] = None


class RemovedSecret(Answer, kw_only=True, frozen=True):
    """A secret that is gone."""

    name: SecretName = ""


class ChangeShedSecrets(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What to change of the secrets that a shed has."""

    give: Annotated[SecretNames, says("Names of secrets that it is to have, too.")] = []
    take: Annotated[SecretNames, says("Names of secrets that it is to have no more.")] = []


class ShedSecrets(Answer, kw_only=True, frozen=True):
    """The secrets of one shed."""

    name: ShedName = ""
    secrets: Annotated[list[str], says("Their names.")] = []
    complete: Annotated[
        bool, says("False when its guest could not be told: commands there know of the change after its next start.")
    ] = True
    problems: Annotated[list[str], says("A sentence for each one whose value cannot be had.")] = []
