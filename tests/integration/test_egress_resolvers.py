"""Real resolvers in a shed: each finds names, is told of missing ones, and does not wait for what is never answered."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.servers.netlab import Lab, lab

pytestmark = pytest.mark.root
PUBLIC = "93.184.216.34"
MUSL = """
#include <netdb.h>
#include <stdio.h>
#include <arpa/inet.h>
int main(int argc, char **argv) {
    struct addrinfo *found, hints = {.ai_socktype = SOCK_STREAM};
    int error = getaddrinfo(argv[1], "80", &hints, &found);
    if (error) { printf("%s\\n", gai_strerror(error)); return 0; }
    char text[64];
    inet_ntop(AF_INET, &((struct sockaddr_in *)found->ai_addr)->sin_addr, text, sizeof text);
    printf("%s %d\\n", text, found->ai_next == 0);
}
"""
NODE = """
const dns = require("dns").promises;
(async () => {
    const name = process.argv[1];
    for (const ask of [() => dns.lookup(name, {all: true}), () => dns.resolve4(name), () => dns.resolve6(name)]) {
        try { console.log(JSON.stringify(await ask())); } catch (error) { console.log(error.code); }
    }
})();
"""
JAVA = """
import java.net.InetAddress;
public class Find {
    public static void main(String[] words) throws Exception {
        try { System.out.println(InetAddress.getByName(words[0]).getHostAddress()); }
        catch (java.net.UnknownHostException error) { System.out.println("unknown"); }
    }
}
"""


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab whose shed may reach all names, of which there is one."""
    with lab(tmp_path_factory.mktemp("lab")) as made:
        made.names({"www.example.com": [PUBLIC]})
        made.rule({"allow": "*"})
        yield made


def made_up(text: str) -> bool:
    """Say whether a text begins with an address of those that are made up."""
    return text.startswith(("198.18.", "198.19."))


def test_glibc(net: Lab) -> None:
    """Both families at once, with EDNS and without; a name by its made-up address."""
    for options in ("", "options edns0 single-request"):
        words = f"echo '{options}' >> /etc/resolv.conf; getent ahosts www.example.com; getent hosts missing.example.com"
        found = net.run("sh", "-c", words)
        assert made_up(found.stdout), found
        assert found.returncode == 2
    address = net.run("getent", "ahostsv4", "www.example.com").stdout.split()[0]
    assert net.run("getent", "hosts", address).stdout.split()[1] == "www.example.com"


@pytest.mark.skipif(not shutil.which("musl-gcc"), reason="needs musl")
def test_musl(net: Lab, tmp_path: Path) -> None:
    """It takes any failure of one family for a failure of both."""
    (tmp_path / "find.c").write_text(MUSL)
    made = net.run("musl-gcc", "-static", "-o", str(tmp_path / "find"), str(tmp_path / "find.c"))
    assert made.returncode == 0, made.stderr
    found = net.run(str(tmp_path / "find"), "www.example.com").stdout
    assert made_up(found), found
    assert found.endswith(" 1\n")
    assert "not" in net.run(str(tmp_path / "find"), "missing.example.com").stdout


@pytest.mark.skipif(not shutil.which("node"), reason="needs Node")
def test_node(net: Lab) -> None:
    """By the C library and by c-ares, which asks name servers itself."""
    found, four, six = net.run("node", "-e", NODE, "www.example.com").stdout.splitlines()
    assert '"family":4}]' in found
    assert made_up(four[2:])
    assert six == "ENODATA"
    assert net.run("node", "-e", NODE, "missing.example.com").stdout.split() == ["ENOTFOUND"] * 3


@pytest.mark.skipif(not shutil.which("javac"), reason="needs a JDK")
def test_java(net: Lab, tmp_path: Path) -> None:
    """It asks the C library."""
    (tmp_path / "Find.java").write_text(JAVA)
    found = net.run("java", str(tmp_path / "Find.java"), "www.example.com")
    assert made_up(found.stdout), found
    assert net.run("java", str(tmp_path / "Find.java"), "missing.example.com").stdout == "unknown\n"
