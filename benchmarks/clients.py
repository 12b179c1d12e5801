"""Real clients of package registries by the relay, beside QEMU's user network: `apt-get`, `pip` and `npm`.

The guest has two cards and a Debian root; before each command its routes and its name service are those of one card.
The registries are the real ones, ``deb.debian.org``, ``pypi.org`` and ``registry.npmjs.org``, as this machine reaches
them: by the names that it resolves and with the authorities that it trusts.  ``SHED_BENCH_RUNS`` is how often each is
done, 3 times without it; ``SHED_BENCH_PARTS`` which ones, such as ``apt,pip``.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
import time

from benchmarks.harness import show
from benchmarks.material import clients_disk
from benchmarks.twocards import RELAY_DNS, USER_DNS, USER_HOST, Program, measure
from benchmarks.world import world
from shed.egress.orders import Orders
from shed.egress.rules.addresses import private
from shed.egress.rules.policy import Profile
from shed.egress.rules.profiles import BUILT_IN

_RUNS = int(os.environ.get("SHED_BENCH_RUNS", "3"))
_PARTS = os.environ.get("SHED_BENCH_PARTS", "apt,pip,npm").split(",")
_COMMANDS = {
    "apt": "rm -rf /var/lib/apt/lists/*; apt-get -qq -o Acquire::Languages=none update",
    "pip": "rm -rf /tmp/pip; python3 -m pip -q download --no-cache-dir --no-deps -d /tmp/pip Django==5.1.4",
    "npm": "rm -rf /app/node_modules; npm ci --silent --cache /tmp/npm-$(date +%N) --ignore-scripts --prefix /app",
}
_TITLES = {"apt": "apt-get update (trixie)", "pip": "pip download Django", "npm": "npm ci of express"}
_HOSTS = ("deb.debian.org", "pypi.org", "files.pythonhosted.org", "registry.npmjs.org")
_AUTHORITIES = "authorities.pem"
_INIT = f"""
for m in $($b cat late); do $b insmod $m; done 2>/dev/null
$b mkdir /root; until $b mount -t ext4 /dev/vdb /root; do $b sleep 0.1; done
$b mount -t proc proc /root/proc; $b mount -t devtmpfs dev /root/dev; $b mount -t tmpfs tmp /root/tmp
$b cp /{_AUTHORITIES} /client.py $b /root/tmp
$b date -s @$($b cat /now) >/dev/null
$b chroot /root /usr/bin/python3 /tmp/client.py
"""
_CLIENT = """
import os, pathlib, subprocess, time
RUNS, COMMANDS, WAYS = {words}
pem = "/tmp/{authorities}"
os.environ |= dict(
    PATH="/usr/sbin:/usr/bin:/sbin:/bin", HOME="/tmp", PIP_CERT=pem, NODE_EXTRA_CA_CERTS=pem, SSL_CERT_FILE=pem,
    DEBIAN_FRONTEND="noninteractive", npm_config_progress="false",  # whose lines would run into ours
)
def go_by(way):
    router, device, names = WAYS[way]
    subprocess.run(["/tmp/busybox", "ip", "route", "replace", "default", "via", router, "dev", device], check=True)
    pathlib.Path("/etc/resolv.conf").write_text(f"nameserver {{names}}\\n")
pathlib.Path("/etc/apt/sources.list").write_text("deb http://deb.debian.org/debian trixie main\\n")
pathlib.Path("/app").mkdir()
go_by("user")
subprocess.run("cd /app && npm install --package-lock-only --silent express@4.21.2", shell=True, check=True)
for name, command in COMMANDS.items():
    go_by("user")
    subprocess.run(command, shell=True, check=True)  # it has read what it needs of the disk
    for _ in range(RUNS):
        for way in WAYS:
            go_by(way)
            print("BENCH begin", name, way, 0, flush=True)
            start = time.perf_counter()
            subprocess.run(command, shell=True, check=True)
            print("BENCH end", name, way, time.perf_counter() - start, flush=True)
"""


def main() -> None:
    """Compare what each client takes."""
    ways = {"relay": (RELAY_DNS, "eth0", RELAY_DNS), "user": (USER_HOST, "eth1", USER_DNS)}
    commands = {name: words for name, words in _COMMANDS.items() if name in _PARTS}
    files = {
        "client.py": _CLIENT.format(words=(_RUNS, commands, ways), authorities=_AUTHORITIES),
        _AUTHORITIES: "".join(ssl.DER_cert_to_PEM_cert(one) for one in _authorities()),
        "now": str(int(time.time())),
    }
    orders = Orders((BUILT_IN["internet"], *_behind_the_host()))
    with world() as data:
        found = measure(data, orders, Program(_INIT, files, clients_disk()), len(commands) * _RUNS)
    for name in commands:
        show(_TITLES[name], "relay", "user network", found.compared(name))
        print(f"  the relay's processor: {found.load(name):.1%}", flush=True)


def _authorities() -> list[bytes]:
    """Return the certificates that this machine trusts."""
    context = ssl.create_default_context()
    return context.get_ca_certs(binary_form=True)


def _behind_the_host() -> list[Profile]:
    """Return a profile that opens the registries' addresses, if some of them are in a private network here."""
    found = {ipaddress.ip_address(answer[4][0]) for host in _HOSTS for answer in socket.getaddrinfo(host, 443)}
    rules = [{"allow": f"{address}/{address.max_prefixlen}"} for address in sorted(found, key=str) if private(address)]
    return [Profile.parse("mirror", {"rules": rules})] if rules else []
