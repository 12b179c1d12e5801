"""`shed ssh-key`: whose keys a server lets in by SSH, beside those that its configuration lists."""

from __future__ import annotations

import sys
from pathlib import Path

from shed.cli.app import Command, dispatch
from shed.cli.connection import client
from shed.cli.options import Options
from shed.cli.output import done
from shed.cli.parsing import Parser
from shed.client.identity import default_identity, own_key
from shed.errors import DataError, NotFoundError, UsageError
from shed.sshkeys import PublicKey
from shed.terminal.output import age, emit, note, say, table

COMMANDS = {
    "list": Command("shed.cli.ssh_key:list_keys", "list the keys"),
    "add": Command("shed.cli.ssh_key:add", "let a key in"),
    "remove": Command("shed.cli.ssh_key:remove", "let a key in no more"),
}


def main(words: list[str], options: Options) -> int:
    """Run a command about keys."""
    about = "Keys that a server lets in by SSH.  `shed ssh-config` adds your own, ~/.shed/id_ed25519."
    return dispatch(COMMANDS, words, options, prefix="ssh-key ", about=about)


def list_keys(words: list[str], options: Options) -> int:
    """List the keys."""
    about = (
        "List the keys that were let in by SSH.  Those of ssh.authorized_keys in the server's configuration are "
        "not shown."
    )
    Parser("ssh-key list", about).parse(words, options)
    keys = client(options).ssh_keys()
    if options.json:
        emit(keys)
    elif keys or not sys.stdout.isatty():
        rows = [
            [str(key.get("fingerprint")), str(key.get("comment") or "-"), age(str(key.get("added_at", "")))]
            for key in keys
        ]
        say(table(["FINGERPRINT", "COMMENT", "ADDED"], rows), end="")
    else:
        note("no keys; let your own in: shed ssh-config --install")
    return 0


def add(words: list[str], options: Options) -> int:
    """Let a key in."""
    parser = Parser(
        "ssh-key add",
        "Have the server let in a public key by SSH: whoever has the private one can enter every shed.",
        examples=[
            "shed ssh-key add",
            "shed ssh-key add ~/.ssh/id_ed25519.pub",
            "shed ssh-key add 'ssh-ed25519 AAAA... me@laptop'",
        ],
    )
    parser.add_argument(
        "key",
        metavar="KEY",
        nargs="?",
        help="a file that holds one public key, or its line (default: ~/.shed/id_ed25519.pub)",
    )
    wanted = parser.parse(words, options).key
    key = own_key(default_identity()) if wanted is None else _key(wanted)
    fingerprint = client(options).add_ssh_key(f"{key} {key.comment}")
    done(options, "ssh-key add", fingerprint, f"{fingerprint} is let in", comment=key.comment)
    return 0


def remove(words: list[str], options: Options) -> int:
    """Let a key in no more."""
    parser = Parser(
        "ssh-key remove", "Have the server let in a key no more, from the next connection on; those that are open stay."
    )
    parser.add_argument("key", metavar="FINGERPRINT", help="as `shed ssh-key list` shows it, or the key's comment")
    wanted = parser.parse(words, options).key
    server = client(options)
    found = [
        str(key["fingerprint"]) for key in server.ssh_keys() if wanted in (key.get("fingerprint"), key.get("comment"))
    ]
    if len(found) != 1:
        many = f"{len(found)} keys are called {wanted!r}" if found else f"the server lets in no key {wanted!r}"
        raise NotFoundError(many, code="SSH_KEY_NOT_FOUND", hint="name it by its fingerprint: shed ssh-key list")
    server.remove_ssh_key(found[0])
    done(options, "ssh-key remove", found[0], f"{found[0]} is let in no more")
    return 0


def _key(wanted: str) -> PublicKey:
    if " " in wanted.strip():
        text, what = wanted, "the argument"
    else:
        try:
            text, what = Path(wanted).expanduser().read_text(encoding="utf-8", errors="replace"), wanted
        except OSError as error:
            raise UsageError(f"cannot read {wanted}: {error.strerror}", hint="name the file of a public key") from None
    try:
        return PublicKey.parse(text)
    except DataError:
        raise UsageError(
            f"{what} is not a public key", code="INVALID_SSH_KEY", hint="it should read: ssh-ed25519 AAAA…"
        ) from None
