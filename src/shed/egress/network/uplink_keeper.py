"""Gives the network namespace of one VM a way out of its own, by slirp4netns, for as long as that VM runs.

Run as ``python -I -S uplink_keeper.py NAMESPACE PID LOCK``: the path of the namespace, the process of the VMM, and a
file that is locked meanwhile.  It prints ``ready``, ``running`` when there is another one, or why it cannot.

The kernel's filter in the namespace lets out what goes to public addresses, by TCP, UDP and ICMP.  The host's own
addresses are looked up again every few seconds.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys

CARD, UPLINK = "shed0", "up0"
GATEWAY, NAMES = "10.0.2.2", "10.0.3.3"
"""The shed's gateway and name server, and slirp4netns', which asks the host's."""
_CIDR = "10.0.3.0/24"
_NS_GET_USERNS = 0xB701
"""linux/nsfs.h."""
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_SET_PDEATHSIG = 1
_AGAIN = 5.0
"""Seconds between two looks at the host's addresses."""
_MOST_FLOWS = 4096
_ENVIRONMENT = {"PATH": "/usr/sbin:/sbin:/usr/bin:/bin", "LC_ALL": "C.UTF-8"}

NEVER = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
    "224.0.0.0/4", "240.0.0.0/4",
)  # fmt: skip
"""As in `shed.egress.rules.addresses`, which this program does not import; a test compares."""

RULES = f"""
delete table ip shed
table ip shed {{
    set never {{
        type ipv4_addr; flags interval; auto-merge
        elements = {{ {", ".join(NEVER)} }}
    }}
    set own {{
        type ipv4_addr
    }}
    chain arrive {{
        type nat hook prerouting priority dstnat
        iifname "{CARD}" ip daddr {GATEWAY} udp dport 53 dnat to {NAMES}
        iifname "{CARD}" ip daddr {GATEWAY} tcp dport 53 dnat to {NAMES}
    }}
    chain count {{
        type filter hook prerouting priority -150
        iifname "{CARD}" ct state new ct count over {_MOST_FLOWS} drop
    }}
    chain input {{
        type filter hook input priority filter; policy drop
        iifname "{CARD}" ip daddr {GATEWAY} icmp type echo-request accept
    }}
    chain forward {{
        type filter hook forward priority filter; policy drop
        iifname "{UPLINK}" oifname "{CARD}" ct state established,related accept
        iifname "{CARD}" oifname "{UPLINK}" ip daddr {NAMES} meta l4proto {{ tcp, udp }} th dport 53 accept
        ip daddr @never drop
        ip daddr @own drop
        iifname "{CARD}" oifname "{UPLINK}" accept
    }}
    chain output {{
        type filter hook output priority filter; policy drop
        oifname "{CARD}" ct state established,related accept
    }}
    chain leave {{
        type nat hook postrouting priority srcnat
        oifname "{UPLINK}" masquerade
    }}
}}
"""
"""In the syntax of nft(8).  What an established connection sends on goes through the last rules, too: an address that
the host gets later is dropped from then on.
"""


def own_addresses() -> set[str]:
    """Return the host's own IPv4 addresses, as its routes have them."""
    found, last = set(), ""
    with open("/proc/net/fib_trie") as trie:
        for line in trie:
            words = line.split()
            if words[:1] == ["|--"]:
                last = words[1]
            elif words[-2:] == ["host", "LOCAL"]:
                found.add(last)
    return found


def _enter(namespace: int) -> None:
    """Enter a network namespace, and the user namespace that it belongs to."""
    import ctypes  # noqa: PLC0415  in the children alone

    libc = ctypes.CDLL(None, use_errno=True)
    owner = fcntl.ioctl(namespace, _NS_GET_USERNS)
    for descriptor, kind in ((owner, _CLONE_NEWUSER), (namespace, _CLONE_NEWNET)):
        if libc.setns(descriptor, kind):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _inside(namespace: int, rules: str, *, forward: bool = False) -> str:
    """Have nft apply `rules` in the namespace; return why that failed, nothing when it did not."""

    def enter() -> None:
        _enter(namespace)
        if forward:
            with open("/proc/sys/net/ipv4/ip_forward", "w") as setting:
                setting.write("1")

    try:
        done = subprocess.run(
            ["nft", "-f", "-"], input=rules.encode(), capture_output=True, timeout=20, check=False, preexec_fn=enter,
            env=_ENVIRONMENT,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        return f"the namespace cannot be entered: {error}"
    return done.stderr.decode(errors="replace").strip().partition("\n")[0] if done.returncode else ""


def _own_rules(addresses: set[str]) -> str:
    elements = f"add element ip shed own {{ {', '.join(sorted(addresses))} }}\n" if addresses else ""
    return "flush set ip shed own\n" + elements


def _die_with_us() -> None:
    import ctypes  # noqa: PLC0415  in the children alone

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _start(namespace: int) -> subprocess.Popen[bytes] | str:
    """Start slirp4netns and wait until it is ready; return why it is not."""
    owner = fcntl.ioctl(namespace, _NS_GET_USERNS)
    ready, told = os.pipe()
    command = [
        "slirp4netns", "--configure", "--mtu=1500", f"--cidr={_CIDR}", "--disable-host-loopback", "--enable-seccomp",
        f"--ready-fd={told}", f"--userns-path=/proc/self/fd/{owner}", "--netns-type=path", f"/proc/self/fd/{namespace}",
        UPLINK,
    ]  # fmt: skip
    try:
        child = subprocess.Popen(
            command, pass_fds=(told, owner, namespace), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, preexec_fn=_die_with_us, env=_ENVIRONMENT,  # noqa: PLW1509  there is one thread
        )  # fmt: skip
    except OSError:
        return "the program slirp4netns is missing"
    finally:
        os.close(told)
        os.close(owner)
    with os.fdopen(ready, "rb") as stream:
        if stream.read(1):
            return child
    child.kill()
    assert child.stderr is not None
    return child.stderr.read().decode(errors="replace").strip().rpartition("\n")[2] or "slirp4netns ended"


def main(path: str, pid: str, lock: str) -> str:
    """Keep the way out until the VMM has ended; return what to say when there is none."""
    held = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return "running"
    try:
        machine = os.pidfd_open(int(pid))
        namespace = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        return f"its virtual machine has gone: {error.strerror}"
    known = own_addresses()
    if why := _inside(namespace, RULES + _own_rules(known), forward=True):
        return why
    child = _start(namespace)
    if isinstance(child, str):
        return child
    print("ready", flush=True)  # noqa: T201  whoever started this waits for it
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    import select  # noqa: PLC0415

    while child.poll() is None and not select.select([machine], [], [], _AGAIN)[0]:
        if (now := own_addresses()) != known and not _inside(namespace, _own_rules(now)):
            known = now
    child.kill()
    child.wait()
    return ""


if __name__ == "__main__":
    sys.path[:] = [entry for entry in sys.path if entry != os.path.dirname(os.path.abspath(__file__))]  # noqa: PTH100, PTH120
    print(main(*sys.argv[1:]), flush=True)  # noqa: T201
