"""Certificates and secrets in a real guest, with the programs of a real image."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from shed.client.sync.api import Api
from shed.oci.store import LayoutStore
from support.images.kit import copy_store
from support.registries.certificates import make_certificate
from support.servers import tlsorigin
from support.servers.netlab import Lab, lab
from support.servers.tlsorigin import PASSWORD
from support.vms.machine import Machine

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(900)]
PUBLIC = "93.184.216.34"
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
URL = "https://api.example.com"
PYTHON = """
import os, urllib.request
request = urllib.request.Request("https://api.example.com/private")
request.add_header("Authorization", "Bearer " + os.environ["API_KEY"])
print(urllib.request.urlopen(request).read().decode(), end="")
"""
SEARCH = """
import os, sys
value, found = sys.stdin.buffer.read(), set()
def look(path, what):
    try:
        with open(path, "rb") as file:
            if value in file.read(1 << 28):
                found.add(what)
    except OSError:
        pass
for process in filter(str.isdigit, os.listdir("/proc")):
    for part in ("environ", "cmdline"):
        look(f"/proc/{process}/{part}", part)
for folder, folders, files in os.walk("/"):
    folders[:] = [name for name in folders if f"{folder}/{name}" not in ("//proc", "//sys", "//dev")]
    for name in files:
        if os.path.isfile(f"{folder}/{name}"):
            look(f"{folder}/{name}", "file")
print(*sorted(found))
"""
"""Looks for what comes on standard input in all that a guest's root can read, but in memory."""


class Host:
    """A host whose administrator has added the authority by which a server of the internet is certified."""

    def __init__(self, net: Lab, machine: Machine) -> None:
        self.net, self.machine = net, machine
        self._patch = pytest.MonkeyPatch()
        for name in ("SHED_DATA_DIR", "SHED_RUNTIME_DIR", "HOME"):
            self._patch.setenv(name, machine.environment[name])
        net.start_in_host(f"exec {machine.command[0]} -m shed.server.main serve 2>&1", **machine.environment)
        net.names({name: [PUBLIC] for name in ("api.example.com", "other.example.com")})
        self.api = Api()

    def sh(self, words: str, stdin: bytes = b"") -> str:
        """Run words by the shell of dev's user; return all that was printed."""
        done = self.machine.try_shed("exec", "dev", "--", "sh", "-c", f"{words} 2>&1", stdin=stdin)
        return done.stdout.decode()

    def curl(self, target: str, *options: str, key: str = "$API_KEY") -> str:
        """Return what curl prints for a request with that key, the status last."""
        header = f'-H "Authorization: Bearer {key}"'
        return self.sh(f"curl -sS -m 60 -w ' %{{http_code}}' {header} {' '.join(options)} {target}")

    def search(self, value: str) -> str:
        """Return where root finds a value in the guest."""
        words = ("exec", "--user", "root", "dev", "--", "sh", "-c", 'exec python3 -c "$0"', SEARCH)
        return self.machine.shed(*words, stdin=value.encode()).strip()

    def end(self) -> None:
        """End all of it."""
        self.machine.end()
        self._patch.undo()


@pytest.fixture(scope="module")
def host(way: str, base_store: LayoutStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host with the shed dev, which has the secret api-key."""
    root = tmp_path_factory.mktemp("secrets")
    certificate = make_certificate(root / "certificate", "api.example.com")
    (root / "both.pem").write_bytes(certificate.chain.read_bytes() + certificate.key.read_bytes())
    repository = root / "git/work"
    subprocess.run(["git", "init", "-q", "-b", "main", repository], check=True)
    person = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    subprocess.run(["git", "-C", repository, *person, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    machine = Machine(
        root / "machine", way=way, settings=f"ssh_port: 2222\negress:\n  extra_cas: [{certificate.authority}]\n"
    )
    copy_store(base_store, machine.data / "images")
    with lab(tmp_path_factory.mktemp("lab"), guest=False) as net:
        net.start_in_internet("python3", "-u", tlsorigin.__file__, str(root), "443", str(root / "both.pem"))
        made = Host(net, machine)
        try:
            made.api.set_secret("api-key", hosts=["api.example.com"], value=PASSWORD)
            machine.shed("create", "dev", "--image", "base", "--secret", "api-key")
            yield made
        finally:
            made.end()


def test_programs_use_a_secret_that_the_guest_does_not_have(host: Host) -> None:
    """By header, by basic authorization and by query: curl, Python and git; the guest has a placeholder."""
    assert host.curl(f"{URL}/private") == "welcome\n 200"
    assert host.sh(f"curl -sS '{URL}/private?key='$API_KEY") == "welcome\n"
    assert host.sh("python3 -", stdin=PYTHON.encode()) == "welcome\n"
    cloned = host.sh(
        "cd /tmp && git clone -q https://me:$API_KEY@api.example.com/git/work && git -C work log --oneline"
    )
    assert cloned.endswith(" first\n"), cloned
    assert host.sh("echo $API_KEY").startswith("shed-secret-")


def test_the_value_is_nowhere_in_the_guest(host: Host) -> None:
    """Root looks in all files, environments and command lines; what a server sends back of it is masked."""
    assert PASSWORD not in host.curl(f"{URL}/echo")
    placeholder = host.sh("printf %s $API_KEY | tee /tmp/placeholder")
    assert host.search(placeholder) == "environ file"  # it finds what is there
    assert host.search(PASSWORD) == ""
    for log in host.machine.data.glob("logs/*"):
        assert PASSWORD.encode() not in log.read_bytes(), log


def test_a_secret_goes_to_its_hosts_alone(host: Host) -> None:
    """Another host that is opened refuses the placeholder; one that is not opened gets it as it is."""
    assert "401" in host.curl("https://other.example.com/private", "-k")
    host.api.set_secret("other-key", hosts=["other.example.com"], value="another-value-entirely")
    host.api.change_secrets("dev", give=["other-key"])
    assert "403" in host.curl("https://other.example.com/private")
    host.api.change_secrets("dev", take=["other-key"])
    host.api.remove_secret("other-key")


def test_a_changed_secret_holds_at_once(host: Host) -> None:
    """Another value, from a file that changes, with limits, taken, given again; commands keep their placeholder."""
    key = host.sh("printf %s $API_KEY")
    host.api.set_secret("api-key", value="an-old-value-that-is-refused")
    assert host.curl(f"{URL}/private").endswith(" 401")
    host.api.set_secret("api-key", value=PASSWORD)
    assert host.curl(f"{URL}/private", key=key) == "welcome\n 200"
    host.api.set_secret("api-key", hosts=["api.example.com"], methods=["GET"], paths=["/private"], value=PASSWORD)
    assert host.curl(f"{URL}/private") == "welcome\n 200"
    assert host.curl(f"{URL}/private", "-X POST").endswith(" 403")
    assert host.curl(f"{URL}/hello").endswith(" 403")
    host.api.set_secret("api-key", hosts=["api.example.com"], value=PASSWORD)
    host.api.change_secrets("dev", take=["api-key"])
    assert host.sh("echo ${API_KEY-none}") == "none\n"
    assert host.curl(f"{URL}/private", key=key).endswith(" 401")  # as it is: TLS is not opened any more
    assert host.api.change_secrets("dev", give=["api-key"]) == {
        "name": "dev", "secrets": ["api-key"], "complete": True, "problems": []
    }  # fmt: skip
    assert host.curl(f"{URL}/private") == "welcome\n 200"


def test_certificates_survive_the_images_own_tools_and_restarts(host: Host) -> None:
    """And go when they are not wanted any more: without the secret the bundle is the image's and the host's."""
    root = ("exec", "--user", "root", "dev", "--", "sh", "-c")
    ours = "cat /usr/local/share/ca-certificates/*.crt | grep -c BEGIN"
    assert host.machine.shed(*root, ours) == "2\n"
    host.machine.shed(*root, "update-ca-certificates --fresh >/dev/null 2>&1")
    assert host.curl(f"{URL}/private") == "welcome\n 200"
    before = host.machine.shed(*root, f"sort {BUNDLE} | md5sum")
    host.machine.shed("stop", "dev")
    host.machine.shed("start", "dev")
    assert host.machine.shed(*root, f"sort {BUNDLE} | md5sum") == before
    assert host.curl(f"{URL}/private") == "welcome\n 200"
    checked = "for each in /etc/ssl/certs/shed-*.pem; do openssl verify -no-CAfile -CApath /etc/ssl/certs $each; done"
    assert host.machine.shed(*root, checked).count(": OK") == 2
    host.machine.shed("secret", "take", "dev", "api-key")
    assert host.machine.shed(*root, ours) == "1\n"
    images = host.machine.shed(*root, "cat /usr/share/ca-certificates/mozilla/*.crt | grep -c BEGIN")
    assert int(host.machine.shed(*root, f"grep -c BEGIN {BUNDLE}")) == int(images) + 1
    host.machine.shed("secret", "give", "dev", "api-key")


def test_an_image_without_certificates_gets_the_hosts(host: Host) -> None:
    """They are all that it has."""
    host.machine.shed("create", "small", "--image", "busybox")
    pem = (host.machine.data.parent.parent / "certificate/ca.pem").read_text()
    assert host.machine.shed("exec", "small", "--", "cat", BUNDLE) == pem
    assert host.machine.shed("exec", "small", "--", "sh", "-c", 'cat "$NODE_EXTRA_CA_CERTS"') == pem
    assert host.machine.shed("exec", "small", "--", "sh", "-c", "echo ${SSL_CERT_FILE-none}") == "none\n"
    host.machine.shed("delete", "--force", "small")
