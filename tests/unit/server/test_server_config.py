"""server.yaml: what it may say, and that nothing in it is silently ignored."""

from pathlib import Path

import pytest

from shed.config import server
from shed.config.server import ConfigError, Settings, load_settings, parse_settings
from shed.errors import UsageError
from shed.sizes import format_size, parse_size

FILE = Path("server.yaml")
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKObfD+RHrGTI4UO/Qhf4C9pLu53wpRelKSDml/iZCis a@b"
"""A public key."""


def test_a_whole_file() -> None:
    """Every key."""
    text = """
    name: builder
    bind_address: 127.0.0.1
    http_port: 8080
    default_image: other
    log_level: debug
    qemu:
      default_cpus: 4
      default_memory_mb: 4096
      upper_size_default: 20G
      start_timeout: 2m
      stop_timeout: 500ms
    """
    assert parse_settings(text, FILE) == Settings(
        "builder", "127.0.0.1", 8080, "other", "debug", 4, 4096, 20 << 30, 120, 0.5
    )


def test_who_may_come_in_by_ssh() -> None:
    """A list of keys, with options too, or a file; then any address will do."""
    listed = parse_settings(
        f"ssh: {{bind_address: 0.0.0.0, authorized_keys: ['{KEY}', 'no-pty,from=\"10.0.0.0/8\" {KEY}']}}", FILE
    )
    assert (listed.ssh_bind_address, listed.ssh_authorized_keys) == (
        "0.0.0.0",
        (KEY, f'no-pty,from="10.0.0.0/8" {KEY}'),
    )
    file = parse_settings("ssh_port: 0\nssh: {bind_address: '::', authorized_keys: /etc/keys}", FILE)
    assert (file.ssh_port, file.ssh_bind_address, file.ssh_authorized_keys) == (0, "::", Path("/etc/keys"))


def test_what_sheds_are_told() -> None:
    """Variables of their commands, and authorities; nothing that cannot be one."""
    text = "guest: {environment: {PIP_INDEX_URL: 'https://m/simple'}}\negress: {extra_cas: [/etc/ca.pem]}"
    settings = parse_settings(text, FILE)
    assert settings.guest_environment == {"PIP_INDEX_URL": "https://m/simple"}
    assert settings.egress_extra_cas == (Path("/etc/ca.pem"),)
    for wrong in ("guest: {environment: {A-B: x}}", "guest: {environment: {A: 1}}", "guest: {environment: [A]}",
                  "egress: {extra_cas: ca.pem}", "egress: {extra_cas: [ca.pem]}"):  # fmt: skip
        with pytest.raises(ConfigError):
            parse_settings(wrong, FILE)


@pytest.mark.parametrize("text", ["", "# nothing\n", "qemu:\n"])
def test_an_empty_file_is_the_defaults(text: str) -> None:
    """So is no file."""
    assert parse_settings(text, FILE) == Settings()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("http_prot: 1", "did you mean 'http_port'?"),
        ("default_cpus: 1", "did you mean 'qemu.default_cpus'?"),
        ("qemu: {default_cpu: 1}", "default_cpus"),
        ("zzz: 1", "known keys are"),
        ("1: 2", "known keys are"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(text: str, says: str) -> None:
    """A typing mistake is not a setting."""
    with pytest.raises(ConfigError, match="unknown key") as caught:
        parse_settings(text, FILE)
    assert says in str(caught.value.hint)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("ssh_port: 65536", "ssh_port"),
        ("ssh: {bind_address: example.com}", "ssh.bind_address"),
        ("ssh: {bind_address: 0.0.0.0}", "ssh.authorized_keys"),
        ("ssh: {bind_address: '::'}", "ssh.authorized_keys"),
        ("ssh: {authorized_keys: []}", "ssh.authorized_keys"),
        ("ssh: {authorized_keys: relative/file}", "ssh.authorized_keys"),
        ("ssh: {authorized_keys: [ssh-ed25519 AAAA]}", "ssh.authorized_keys"),
        (f"ssh: {{authorized_keys: [ssh-rsa {KEY.split()[1]}]}}", "ssh.authorized_keys"),
        ("http_port: 0", "http_port"),
        ("http_port: true", "http_port"),
        ("http_port: '80'", "http_port"),
        ("name: ''", "name"),
        ("log_level: loud", "log_level"),
        ("qemu: {upper_size_default: 200G}", "qemu.upper_size_default"),
        ("qemu: {upper_size_default: big}", "qemu.upper_size_default"),
        ("qemu: {start_timeout: soon}", "qemu.start_timeout"),
        ("qemu: {start_timeout: 0}", "qemu.start_timeout"),
        ("qemu: {start_timeout: true}", "qemu.start_timeout"),
        ("qemu: [1]", "qemu"),
        ("[1]", "the file"),
        ("name: a\nname: b", "name is there twice"),
        ("qemu: {default_cpus: 1, stop_timeout: 1s, default_cpus: 2}", "default_cpus is there twice"),
        ("? [a]\n: 1", "YAML"),
        ("a: [", "YAML"),
        ("!!python/object/apply:os.system ['true']", "YAML"),
    ],
)
def test_a_wrong_value_names_file_and_key(text: str, key: str) -> None:
    """One line, with a hint."""
    with pytest.raises(ConfigError) as caught:
        parse_settings(text, FILE)
    assert str(FILE) in caught.value.message
    assert key in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_the_first_file_found_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order; a named one before all; none is fine."""
    places = [tmp_path / "a.yaml", tmp_path / "b.yaml"]
    monkeypatch.setattr(server, "search_paths", lambda: places)
    assert load_settings() == Settings()
    places[1].write_text("name: b")
    assert load_settings().name == "b"
    places[0].write_text("name: a")
    assert load_settings().name == "a"
    assert load_settings(places[1]).name == "b"
    places[0].unlink()
    places[0].symlink_to("gone")
    with pytest.raises(ConfigError, match="cannot read"):  # not the next one: somebody meant this one
        load_settings()


def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    """Not the defaults instead."""
    with pytest.raises(ConfigError, match="cannot read"):
        load_settings(tmp_path / "none.yaml")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot read"):
        load_settings(tmp_path / "binary")


@pytest.mark.parametrize(
    ("text", "size"),
    [("5G", 5 << 30), ("512M", 512 << 20), ("1.5GiB", 3 << 29), ("1024", 1024), ("2 tb", 2 << 40), ("1k", 1024)],
)
def test_sizes_are_parsed(text: str, size: int) -> None:
    """Units of 1024."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "-1G", "1X", "1e9", "１G", "nan"])
def test_what_is_no_size_is_refused(text: str) -> None:
    """With a hint."""
    with pytest.raises(UsageError, match="not a size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 bytes"), (1023, "1023 bytes"), (1 << 30, "1 GiB"), (3 << 29, "1.5 GiB")]
)
def test_sizes_are_shown(size: int, text: str) -> None:
    """The largest unit that fits."""
    assert format_size(size) == text
