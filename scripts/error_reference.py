"""Writes docs/reference/errors.md from the table of errors: `make reference`."""

from __future__ import annotations

from pathlib import Path

from shed.error_codes import GROUPS

PAGE = Path(__file__).resolve().parents[1] / "docs/reference/errors.md"
_HEAD = """# Errors

Made from the program by `make reference`; a test compares the two.

An error is one sentence, mostly with a hint that says what to do next. Programs get it as JSON, from the API and from
commands with `--json`:

```
{"error": {"code": "SHED_NOT_FOUND", "message": "there is no shed 'dev'", "hint": "`shed list` shows what there is"}}
```

Compare the `code`: it keeps its meaning in all versions, the sentences may change. Each code has one HTTP status and
one class of the [Python SDK](sdk.md); all classes are in `shed.errors` and come from `ShedError`, whose members are
`code`, `message`, `hint` and `http_status`. A client that meets a code of a newer server goes by the status. In a
stream of events the last event is `error`, with the same members and `status`, the HTTP status that an answer would
have had.

Exit codes of `shed`: 1, but 2 for a `UsageError` and 130 for `INTERRUPTED`. `shed exec` and `shed console` return 125
instead, because the others are the command's.
"""
_GUEST = """
## Starts that fail in the guest

The first program in a VM and the agent number their failures. A code is in the error of the create or start, and on the
console: `PANIC [SHED-INIT-06]: …`, which `shed logs NAME` shows. The class is `BackendError`, the status 500.
"""
_NUMBERED = "SHED-INIT-"
_TITLES = {
    "UsageError": "The request is wrong",
    "UnauthorizedError": "Who asks is not known",
    "ForbiddenError": "Who asks may not",
    "NotFoundError": "Something does not exist",
    "ConflictError": "The state does not allow it",
    "DataError": "Data is damaged",
    "ShedError": "Other failures",
    "BackendError": "A VM or its guest",
    "ConnectError": "A port in a shed",
    "RegistryError": "A registry",
    "UnavailableError": "Something is not available",
    "StorageError": "The disk",
}


def page() -> str:
    """Return the page."""
    parts = [_HEAD]
    for kind, title in _TITLES.items():
        rows = [
            _row(code, meaning, step, f"{status} | ")
            for name, status, _, codes in GROUPS
            for code, (meaning, step) in codes.items()
            if name == kind and not code.startswith(_NUMBERED)
        ]
        head = "| code | status | means | what to do |\n|---|---|---|---|\n"
        parts.append(f"\n## {title}: `{kind}`\n\n{head}{''.join(rows)}")
    guest = [
        _row(code, meaning, step, "")
        for *_, codes in GROUPS
        for code, (meaning, step) in codes.items()
        if code.startswith(_NUMBERED)
    ]
    parts.append(f"{_GUEST}\n| code | means | what to do |\n|---|---|---|\n{''.join(guest)}")
    return "".join(parts)


def _row(code: str, meaning: str, step: str, status: str) -> str:
    return f"| `{code}` | {status}{meaning} | {step or 'the message says more'} |\n"


if __name__ == "__main__":
    PAGE.write_text(page())
