"""Control requests, the checked configure request, JSON, users, environment."""

import json
import subprocess
from pathlib import Path

import pytest

from shed.guest import main, protocol, users, wirejson
from shed.guest.configure import identity, network
from shed.guest.configure.profile import keep_path
from shed.guest.configure.request import Request
from shed.guest.users import command_environment, starting_folders
from shed.version import VERSION
from support.guests.agent import Host, run


def test_health(host: Host) -> None:
    """What it says of itself."""
    answer = host.control(op="health")
    assert answer["ok"] is True
    assert answer["state"] == "ready"
    assert answer["sessions"] == 0


def test_sync(host: Host) -> None:
    """Answers when all is written."""
    assert host.control(op="sync") == {"ok": True}


def test_several_requests_on_one_stream(host: Host) -> None:
    """In turn; frames that are no requests are skipped."""
    stream = host.open(protocol.PORT_CONTROL)
    for _ in range(3):
        stream.send(
            protocol.exec_frame(0x55, b"?") + protocol.exec_frame(protocol.CONTROL_REQUEST, b'{"op": "health"}')
        )
        assert stream.frame()[0] == protocol.CONTROL_RESPONSE
    stream.end()
    assert stream.read() == b""


@pytest.mark.parametrize(("request_bytes", "code"), [
    (b"", "INVALID_REQUEST"), (b"[]", "INVALID_REQUEST"), (b'{"op": "dance"}', "UNKNOWN_OPERATION"),
    (b"{}", "UNKNOWN_OPERATION"), (b'{"op": "clock", "adjust": "noon"}', "INVALID_REQUEST"),
    (b'{"op": "clock", "adjust": 1e12}', "INVALID_REQUEST"), (b'{"op": "configure"}', "NOT_CONFIGURABLE"),
    (b'{"op": "rehearse"}', "NOT_CONFIGURABLE"), (b"\xff", "INVALID_REQUEST"),
])  # fmt: skip
def test_bad_requests(host: Host, request_bytes: bytes, code: str) -> None:
    """Each has an answer with a code and a sentence."""
    stream = host.open(protocol.PORT_CONTROL)
    stream.send(protocol.exec_frame(protocol.CONTROL_REQUEST, request_bytes))
    answer = json.loads(stream.frame()[1])
    assert (answer["ok"], answer["code"]) == (False, code)
    assert answer["error"]
    assert run(host, "true").exit == {"code": 0}


FULL = {
    "name": "demo", "network": {"address": "10.0.2.15/24", "gateway": "10.0.2.2", "dns": "10.0.2.3"},
    "mounts": [{"tag": "ws", "target": "/workspace", "readonly": True}], "entropy": "AAAA", "init": "agent",
    "env": {"A": "b"}, "new": 1,
}  # fmt: skip


def test_configure_request() -> None:
    """Every member arrives; the host name defaults to the name; unknown members are for newer agents."""
    request = Request(dict(FULL))
    assert (request.name, request.hostname, request.init, request.user, request.workspace) == (
        "demo",
        "demo",
        "agent",
        "shed",
        "/workspace",
    )
    assert request.network is not None
    assert (request.network.address, request.network.prefix, request.network.gateway) == ("10.0.2.15", 24, "10.0.2.2")
    assert [(mount.tag, mount.target, mount.readonly) for mount in request.mounts] == [("ws", "/workspace", True)]
    assert (request.entropy, request.env) == (b"\0\0\0", {"A": "b"})
    assert Request({"name": "x"}).network is None


@pytest.mark.parametrize("change", [
    {"name": ""}, {"name": None}, {"name": 3}, {"init": "runit"}, {"workspace": "here"}, {"env": {"A": 1}},
    {"folder": "here"}, {"image_user": 5},
    {"env": []}, {"mounts": {}}, {"mounts": [{"tag": "x", "target": "/"}]}, {"mounts": [{"tag": "x"}]},
    {"mounts": [{"tag": "a,b", "target": "/w"}]}, {"network": {"address": "10.0.2.15"}},
    {"network": {"address": "10.0.2.15/99"}}, {"entropy": "A"}, {"hostname": "a\0b"},
])  # fmt: skip
def test_configure_request_that_is_wrong(change: dict[str, object]) -> None:
    """Refused before anything is touched, and the member is named."""
    with pytest.raises(ValueError, match=next(iter(change))):
        Request({**FULL, **change})


@pytest.mark.parametrize("value", [None, True, 0, -1.5, 1e300, "", 'é"\\\n\u2028', [], {}, {"a": [{"b": None}, []]}])
def test_json_round_trip(value: object) -> None:
    """The same as the `json` module, both ways."""
    assert wirejson.loads(json.dumps(value).encode()) == value
    assert json.loads(wirejson.dumps(value)) == value


@pytest.mark.parametrize("text", [b"", b"{", b"[1,]", b"x", b"1 2", b"\xff", b'"\n"', b"[" * 100_000])
def test_json_that_is_none(text: bytes) -> None:
    """Always a ValueError."""
    with pytest.raises(ValueError, match=r"."):
        wirejson.loads(text)


@pytest.fixture
def image(tmp_path: Path) -> str:
    """The users of an image."""
    (tmp_path / "etc/environment.d").mkdir(parents=True)
    (tmp_path / "etc/passwd").write_text(
        "# comment\nroot:x:0:0:root:/root:/bin/bash\nshed:x:1000:1000::/home/shed:/bin/bash\n"
        "bad:x:no:1::/:\nnohome:x:7:7:::\n"
    )
    (tmp_path / "etc/group").write_text("root:x:0:\nsudo:x:27:other,shed\nshed:x:1000:\ndocker:x:999:shed\nbroken\n")
    return str(tmp_path)


def test_users_of_the_image(image: str) -> None:
    """Names, numbers, groups, and entries that make no sense."""
    shed = users.find_user("shed", root=image)
    assert (shed.uid, shed.gid, shed.home, shed.login_shell, shed.groups) == (
        1000,
        1000,
        "/home/shed",
        "/bin/bash",
        [1000, 27, 999],
    )
    assert users.find_user("1000", root=image).name == "shed"
    assert users.find_user("nohome", root=image).home == "/"
    assert users.find_user("1000:5", root=image).groups == [5]
    assert users.find_user("shed:docker", root=image).groups == [999]
    nameless = users.find_user("4242", root=image)
    assert (nameless.uid, nameless.gid, nameless.groups) == (4242, 0, [0])  # as in a container
    for unknown in ("bad", "nobody-here", "shed:group", ""):
        with pytest.raises(users.UnknownUserError):
            users.find_user(unknown, root=image)


def test_an_image_without_users(tmp_path: Path) -> None:
    """Root always exists."""
    user, problem = users.default_user("", "shed", root=str(tmp_path))
    assert not problem
    assert (user.name, user.uid, user.home, user.login_shell) == ("root", 0, "/root", "/bin/sh")


def test_environment_d(image: str) -> None:
    """Files in order of their names, later winning; quotes go; comments and nonsense are skipped."""
    folder = Path(image, "etc/environment.d")
    (folder / "20.conf").write_text("A=second\nQ='in quotes'\n")
    (folder / "10.conf").write_text('# no\nA=first\nB="b"\nnonsense\n=x\n')
    (folder / "30.txt").write_text("A=not read\n")
    user = users.find_user("shed", root=image)
    env = command_environment(user, {"HOME": "/leak", "C": "image"}, {"D": "asked"}, root=image)
    assert (env["A"], env["B"], env["C"], env["D"], env["Q"]) == ("second", "b", "image", "asked", "in quotes")
    assert (env["HOME"], env["USER"], env["SHELL"]) == ("/home/shed", "shed", "/bin/bash")
    assert "nonsense" not in env


def test_starting_folders(image: str) -> None:
    """Where asked, or the best there is."""
    user = users.find_user("shed", root=image)
    assert starting_folders("", ["/go", "/workspace"], user) == ["/go", "/workspace", "/home/shed", "/"]
    assert starting_folders("/there", ["/go", "/workspace"], user) == ["/there"]


@pytest.mark.parametrize(
    ("of_image", "found"),
    [("", "shed"), ("shed", "shed"), ("root", "root"), ("0", "root"), ("1000:docker", "shed"), ("4242", "4242")],
)
def test_whom_commands_run_as(image: str, of_image: str, found: str) -> None:
    """The image's user; where it names none, shed or root."""
    user, problem = users.default_user(of_image, "shed", root=image)
    assert (user.name, problem) == (found, "")
    assert users.default_user("", "not-here", root=image)[0].name == "root"


@pytest.mark.parametrize("of_image", ["nobody-here", "shed:nobodies"])
def test_an_image_that_names_a_user_it_has_not(image: str, of_image: str) -> None:
    """Nothing runs as somebody else instead, and the reason names the user."""
    user, problem = users.default_user(of_image, "shed", root=image)
    assert user.name == "root"
    assert repr(of_image.rpartition(":")[2]) in problem


def test_the_path_of_the_image_in_login_shells(tmp_path: Path) -> None:
    """A file of profile.d sets it, first of all; an image with the usual PATH, or without profile.d, gets none."""
    file = tmp_path / "etc/profile.d/00-shed-image.sh"
    odd = "/opt/it's here/bin:/usr/bin:/bin"
    keep_path({"PATH": odd}, str(tmp_path))
    file.parent.mkdir(parents=True)
    keep_path({"PATH": "/usr/sbin:/usr/bin"}, str(tmp_path))
    assert not file.exists()
    keep_path({"PATH": odd}, str(tmp_path))
    done = subprocess.run(
        ["sh", "-c", f'PATH=/; . {file}; printf %s "$PATH"'], capture_output=True, text=True, check=True
    )
    assert done.stdout == odd


def test_hosts_file() -> None:
    """The name is added once, an earlier one goes, the rest stays."""
    hosts = identity.hosts_with("127.0.0.1 localhost\n10.1.1.1 db", "one")
    assert hosts == "127.0.0.1 localhost\n10.1.1.1 db\n127.0.1.1\tone\n"
    assert identity.hosts_with(hosts, "two") == hosts.replace("one", "two")
    assert "localhost" in identity.hosts_with("", "one")


def test_resolv_conf_replaces_a_dangling_link(tmp_path: Path) -> None:
    """As images with systemd-resolved have it."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
    network.write_resolv_conf(str(tmp_path), Request(dict(FULL)).network)
    assert (tmp_path / "etc/resolv.conf").read_text().endswith("nameserver 10.0.2.3\n")
    assert not (tmp_path / "etc/resolv.conf").is_symlink()


def test_the_network_card_is_found_by_its_driver(tmp_path: Path) -> None:
    """Whatever it is called at the moment."""
    for name, driver in (("lo", None), ("dummy0", "dummy"), ("enp0s1", "virtio_net")):
        (tmp_path / name / "device").mkdir(parents=True)
        if driver:
            (tmp_path / name / "device/driver").symlink_to(f"/sys/bus/virtio/drivers/{driver}")
    assert network.find_card(str(tmp_path)) == "enp0s1"


def test_the_agent_says_the_version_of_the_project() -> None:
    """One version everywhere."""
    assert main.AGENT_VERSION == VERSION
