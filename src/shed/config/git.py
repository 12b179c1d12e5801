"""Settings of repositories: what a short name stands for, and the keys of hosts that are reached by SSH."""

from __future__ import annotations

import base64
import binascii

from shed.config import values

FORGES = (
    # As their pages show them; each has the fingerprint in its comment.
    # https://docs.github.com/authentication/keeping-your-account-and-data-secure/githubs-ssh-key-fingerprints
    # SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU
    "github.com ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl",
    # https://docs.gitlab.com/user/gitlab_com/#ssh-host-keys-fingerprints
    # SHA256:eUXGGm1YGsMAS7vkcx6JOJdOGHPem5gQp4taiCfCLB8
    "gitlab.com ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAfuCHKVTjquxvt6CM6tdG4SLp1Btn/nOeHHE5UOzRdf",
    # https://support.atlassian.com/bitbucket-cloud/docs/configure-ssh-and-two-step-verification
    # SHA256:ybgmFkzwOSotHTHLJgHO0QN8L0xErw6vd0VhFA9m3SM
    "bitbucket.org ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIazEu89wgQZ4bqs3d63QSMzYVa0MuJ2e2gKTKqu+UUO",
    # https://docs.codeberg.org/security/ssh-fingerprint
    # SHA256:mIlxA9k46MmM6qdJOdMnAQpzGxF4WIVVL+fj+wZbw0g
    "codeberg.org ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIVIC02vnjFyL+I4RHfvIGNtOgJMe769VTF1VR4EB3ZB",
)
"""Lines of known_hosts for the big forges."""
_KEY_TYPES = (
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)
_MOST_LINES, _LONGEST = 100, 4096


def base_url(value: object) -> str:
    """Return what ``OWNER/NAME`` is put behind.  Raises `ValueError`."""
    url = values.text(value)
    if not url.startswith(("https://", "ssh://")) or not url.isascii() or "?" in url or "#" in url:
        raise ValueError("must begin with https:// or ssh://, as https://github.com")
    if url.startswith("https://") and "@" in url:
        raise ValueError("a user or a password does not belong here")
    return url.rstrip("/")


def known_hosts(value: object) -> tuple[str, ...]:
    """Return lines of known_hosts.  Raises `ValueError` that names the number of a bad one, from 0."""
    if not isinstance(value, list) or len(value) > _MOST_LINES:
        raise ValueError(f"must be a list of {_MOST_LINES} lines at most, each as in a known_hosts file")
    return tuple(_line(number, line) for number, line in enumerate(value))


def _line(number: int, value: object) -> str:
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or len(value) > _LONGEST:
        raise ValueError(f"[{number}] must be a line of a known_hosts file")
    words = value.split()
    if words and words[0].startswith("@"):
        words = words[1:]
    if len(words) < 3 or words[1] not in _KEY_TYPES:
        raise ValueError(
            f"[{number}] must be a host, the type of its key, and the key: git.example.com ssh-ed25519 AAAA…"
        )
    try:
        key = base64.b64decode(words[2], validate=True)
    except (ValueError, binascii.Error):
        key = b""
    if not key[4:].startswith(words[1].encode()):
        raise ValueError(f"[{number}] has no key of the type {words[1]}")
    return " ".join(value.split())
