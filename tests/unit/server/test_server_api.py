"""The API of a real server process: answers, events, streams, limits, and what it refuses."""

import contextlib
import json
import os
import signal
import socket
import struct
import time
from pathlib import Path
from typing import Any

import pytest

from shed.guest.protocol import DATA_FRAME, EXEC_REQUEST, EXIT_CODE, STDERR, STDIN_EOF, FrameDecoder, exec_frame
from support.servers.running import Running
from support.waiting import wait_until


def create(server: Running, name: str = "dev") -> dict[str, Any]:
    status, body = server.request("POST", "/api/sheds", json.dumps({"name": name}))
    assert status == 201
    shed = json.loads(body)
    assert isinstance(shed, dict)
    return shed


def test_a_shed_lives_over_http(server: Running) -> None:
    """Every route of a shed's life, and the shape of its answers."""
    assert json.loads(server.request("GET", "/api/info")[1])["backend"] == "fake"
    shed = create(server)
    assert (shed["status"], shed["cpus"], shed["memory_mb"], shed["upper_size_bytes"]) == ("running", 2, 2048, 5 << 30)
    assert set(shed["timings"]) >= {"image", "upper", "vm", "agent", "configure"}
    del shed["timings"]
    assert shed.pop("boot") == "cold"
    assert json.loads(server.request("GET", "/api/sheds")[1]) == {"sheds": [shed], "warnings": []}
    assert json.loads(server.request("GET", "/api/sheds/dev")[1]) == shed
    assert server.request("GET", "/api/sheds/dev/logs")[1].startswith(b"fake kernel: booted\n")
    assert json.loads(server.request("POST", "/api/sheds/dev/stop")[1])["status"] == "stopped"
    assert json.loads(server.request("POST", "/api/sheds/dev/start")[1])["status"] == "running"
    assert server.request("DELETE", "/api/sheds/dev")[0] == 409
    assert server.request("DELETE", "/api/sheds/dev?force=true")[0] == 200
    assert server.request("GET", "/api/sheds/dev")[0] == 404


def events(server: Running, method: str, target: str, body: str | None = None) -> list[tuple[str, dict[str, Any]]]:
    status, text = server.request(method, target, body, Accept="text/event-stream")
    assert status == 200
    found = []
    for block in text.decode().strip().split("\n\n"):
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def test_progress_comes_as_events(server: Running) -> None:
    """Phases, then the result; a failure after the first phase is an error event with its code."""
    got = events(server, "POST", "/api/sheds", '{"name": "dev"}')
    assert [name for name, _ in got] == ["progress"] * (len(got) - 1) + ["complete"]
    assert [data["phase"] for name, data in got if name == "progress"] == ["image", "upper", "vm", "agent", "configure"]
    assert got[-1][1]["name"] == "dev"
    assert got[-1][1]["timings"]["vm"] >= 0
    assert [name for name, _ in events(server, "POST", "/api/sheds/dev/stop")] == ["progress", "complete"]
    failed = events(server, "POST", "/api/sheds", '{"name": "new", "image": "nothing"}')[-1]
    assert failed == (
        "error",
        {"code": "IMAGE_NOT_FOUND", "message": "no image 'nothing'", "hint": "shed image ls", "status": 404},
    )


def test_a_failure_before_any_progress_has_its_status(quiet: Running) -> None:
    """A refused request is an HTTP error even when events were asked for."""
    status, body = quiet.request("POST", "/api/sheds", '{"name": "NOT A NAME"}', Accept="text/event-stream")
    assert (status, json.loads(body)["error"]["code"]) == (400, "INVALID_SHED_NAME")


@pytest.mark.parametrize(
    ("method", "target", "body", "status", "code"),
    [
        ("GET", "/api/nothing", None, 404, "NOT_FOUND"),
        ("PUT", "/api/sheds", None, 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/api/sheds/none", None, 404, "SHED_NOT_FOUND"),
        ("GET", "/api/sheds/..%2f..%2fetc", None, 400, "INVALID_SHED_NAME"),
        ("POST", "/api/sheds", "{", 400, "INVALID_REQUEST"),
        ("POST", "/api/sheds", "[1]", 400, "INVALID_REQUEST"),
        ("POST", "/api/sheds", "{}", 400, "INVALID_REQUEST"),
        ("POST", "/api/sheds", '{"name": "a", "cpus": "2"}', 400, "INVALID_REQUEST"),
        ("POST", "/api/sheds", '{"name": "a", "cpus": true}', 400, "INVALID_REQUEST"),
        ("POST", "/api/sheds", '{"name": "a", "image_": "x"}', 400, "INVALID_REQUEST"),
        ("POST", "/api/sheds", '{"name": "a", "upper_size_bytes": 1}', 400, "INVALID_REQUEST"),
        ("POST", "/api/sheds", '{"name": "a", "local_dir": "/proc/nowhere"}', 400, "INVALID_LOCAL_DIR"),
        (
            "POST",
            "/api/sheds",
            '{"name": "a", "local_dir": "/tmp", "local_dir_mode": "wild"}',
            400,
            "INVALID_LOCAL_DIR_MODE",
        ),
        ("POST", "/api/sheds", '{"name": "a", "local_dir_mode": "ro"}', 400, "INVALID_LOCAL_DIR_MODE"),
        ("GET", "/api/sheds/none/workspace", None, 404, "SHED_NOT_FOUND"),
        ("DELETE", "/api/sheds/none?force=maybe", None, 400, "INVALID_REQUEST"),
        ("POST", "/api/sheds/none/exec", None, 426, "UPGRADE_REQUIRED"),
        ("GET", "/api/images/inspect", None, 400, "INVALID_REQUEST"),
        ("POST", "/api/sheds", "x" * (1 << 20) + "x", 413, "BODY_TOO_LARGE"),
    ],
)
def test_a_wrong_request_is_one_json_error(
    quiet: Running, method: str, target: str, body: str | None, status: int, code: str
) -> None:
    """Status, code, a sentence, a hint; and the server goes on."""
    got, text = quiet.request(method, target, body)
    error = json.loads(text)["error"]
    assert (got, error["code"]) == (status, code)
    assert error["message"]
    assert "hint" in error or got == 413
    assert quiet.request("GET", "/api/info")[0] == 200


def test_what_is_not_http_is_refused(quiet: Running) -> None:
    """Garbage, endless heads, and half a request do not take the server down."""
    for garbage in (
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /" + b"a" * 70000,
        b"GET / HTTP/1.1\r\nHost",
    ):
        with quiet.connect() as client:
            client.sendall(garbage)
            client.shutdown(socket.SHUT_WR)
            answer = client.makefile("rb").read()
            assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 431")), garbage[:20]
    assert quiet.request("GET", "/api/info")[0] == 200


def test_a_connection_serves_many_requests(quiet: Running) -> None:
    """Keep-alive, and requests that are sent before the answers are read."""
    with quiet.connect() as client:
        client.sendall(b"GET /api/info HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3)
        reader = client.makefile("rb")
        for _ in range(3):
            assert reader.readline().startswith(b"HTTP/1.1 200")
            length = 0
            while (line := reader.readline()) != b"\r\n":
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            assert json.loads(reader.read(length))["name"] == "local"


def frames_until_exit(reader: Any) -> tuple[bytes, bytes, int]:
    decoder, outputs = FrameDecoder(), {DATA_FRAME: bytearray(), STDERR: bytearray()}
    while True:
        while frame := decoder.frame():
            if frame[0] == EXIT_CODE:
                assert reader.read1() == b""  # the exit frame is the last, and the server hangs up
                return bytes(outputs[DATA_FRAME]), bytes(outputs[STDERR]), json.loads(frame[1])["code"]
            outputs[frame[0]] += frame[1]
        data = reader.read1(65536)
        assert data
        decoder.feed(data)


def command(*words: str) -> bytes:
    return exec_frame(EXEC_REQUEST, json.dumps({"cmd": words}).encode())


def test_a_command_runs_over_an_upgraded_connection(server: Running) -> None:
    """Input, both outputs and the exit code; the request may come with the head, in one packet."""
    create(server)
    script = "cat; echo err >&2; exit 7"
    early = command("sh", "-c", script) + exec_frame(DATA_FRAME, b"in") + exec_frame(STDIN_EOF)
    client, reader = server.upgrade("POST", "/api/sheds/dev/exec", "shed-exec", early)
    with client, reader:
        assert frames_until_exit(reader) == (b"in", b"err\n", 7)


def test_a_client_may_say_more_while_it_is_told_the_end(server: Running) -> None:
    """Such as the end of input of a command that read none: one that met a closed connection could lose the exit code
    behind it.
    """
    create(server)
    client, reader = server.upgrade("POST", "/api/sheds/dev/exec", "shed-exec", command("echo", "x"))
    with client, reader:
        assert frames_until_exit(reader) == (b"x\n", b"", 0)
        assert reader.read() == b""  # the server has nothing to add
        for _ in range(10):
            client.sendall(exec_frame(STDIN_EOF))
            time.sleep(0.02)


def test_a_stopped_shed_is_started_for_a_command(server: Running) -> None:
    """Exec needs no start before it."""
    create(server)
    server.request("POST", "/api/sheds/dev/stop")
    client, reader = server.upgrade("POST", "/api/sheds/dev/exec", "shed-exec", command("echo", "up"))
    with client, reader:
        assert frames_until_exit(reader) == (b"up\n", b"", 0)


def test_large_output_is_held_back_by_a_slow_reader(server: Running) -> None:
    """The server does not collect what the client does not read; all of it arrives."""
    create(server)
    size = 64 << 20
    client, reader = server.upgrade(
        "POST", "/api/sheds/dev/exec", "shed-exec", command("head", "-c", str(size), "/dev/zero")
    )
    with client, reader:
        time.sleep(0.5)  # the slow reader: it takes nothing while the command produces
        rss = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]) * 4096
        assert rss < 100 << 20
        output, _, code = frames_until_exit(reader)
        assert (len(output), code) == (size, 0)


def test_a_client_that_leaves_ends_its_command(server: Running, tmp_path: Path) -> None:
    """The guest hears of it, and the server forgets the connection."""
    create(server)
    client, reader = server.upgrade(
        "POST", "/api/sheds/dev/exec", "shed-exec", command("sh", "-c", "echo $$; exec sleep 1000")
    )
    decoder = FrameDecoder()
    while (frame := decoder.frame()) is None:
        decoder.feed(reader.read1(65536))  # type: ignore[attr-defined]
    pid = int(frame[1])
    reader.close()
    client.close()
    wait_until(lambda: not running(pid))


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # it can go between open and read
        return False


def test_a_vm_that_dies_cuts_its_commands(server: Running) -> None:
    """The client sees a broken connection, not a proper end."""
    shed = create(server)
    client, reader = server.upgrade("POST", "/api/sheds/dev/exec", "shed-exec", command("sleep", "1000"))
    with client, reader:
        os.kill(shed["pid"], signal.SIGKILL)
        with contextlib.suppress(ConnectionResetError):
            assert reader.read() == b""
    wait_until(lambda: json.loads(server.request("GET", "/api/sheds/dev")[1])["status"] == "stopped")


def test_a_port_is_forwarded_with_half_close(server: Running) -> None:
    """What the client sends before its end comes back after it."""
    create(server)
    client, reader = server.upgrade("GET", "/api/sheds/dev/connect/7", "shed-tcp", b"early ")
    with client, reader:
        client.sendall(b"late")
        client.shutdown(socket.SHUT_WR)
        assert reader.read() == b"early late"


@pytest.mark.parametrize(
    ("port", "status", "code"),
    [("8", 502, "CONNECT_FAILED"), *((port, 400, "INVALID_PORT") for port in ("0", "65536", "x", "-1", "%EF%BC%97"))],
)
def test_a_port_that_cannot_be_reached_is_an_error(server: Running, port: str, status: int, code: str) -> None:
    """Before the connection changes its protocol."""
    create(server)
    got, body = server.request("GET", f"/api/sheds/dev/connect/{port}", Connection="Upgrade", Upgrade="shed-tcp")
    assert (got, json.loads(body)["error"]["code"]) == (status, code)


def test_a_client_that_leaves_does_not_stop_a_create(server: Running) -> None:
    """The create goes on to its end."""
    with server.connect() as client:
        client.sendall(
            b"POST /api/sheds HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\nContent-Length: 15\r\n\r\n"
            b'{"name": "dev"}'
        )
        client.recv(1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_until(lambda: json.loads(server.request("GET", "/api/sheds/dev")[1]).get("status") == "running")


def test_a_bug_is_told_by_a_number_only(server: Running, world: Any) -> None:
    """No traceback reaches the client."""
    create(server)
    record = world.instance("dev") / "vm.json"
    good = record.read_text()
    record.write_text("what the fake backend does not expect")
    status, body = server.request("GET", "/api/sheds/dev")
    record.write_text(good)
    assert status == 500
    assert b"Traceback" not in body
    assert json.loads(body)["error"]["message"].startswith("internal error ")


def test_what_the_disk_refuses_is_told_as_that(server: Running, world: Any) -> None:
    """Not as a bug: the file is named, with a next step."""
    assert server.request("GET", "/api/info")[0] == 200  # it has made its folders
    world.paths.instances.rename(world.paths.data / "moved")
    world.paths.instances.write_text("a file where a folder should be")
    status, body = server.request("POST", "/api/sheds", '{"name": "dev"}')
    error = json.loads(body)["error"]
    assert (status, error["code"]) == (507, "STORAGE")
    assert str(world.paths.instances) in error["message"]
    assert error["hint"]
    world.paths.instances.unlink()
    (world.paths.data / "moved").rename(world.paths.instances)


@pytest.mark.parametrize("target", ["logs?tail=", "connect/"])
@pytest.mark.parametrize("text", ["9" * 5000, "9" * 19, "-1", "x", "1e3", "%EF%BC%91"])
def test_a_number_that_is_none_is_the_clients_mistake(quiet: Running, target: str, text: str) -> None:
    """However many digits it has: 400, and the message is short."""
    status, body = quiet.request("GET", f"/api/sheds/dev/{target}{text}", Connection="Upgrade", Upgrade="shed-tcp")
    assert status == 400
    assert b" must be a whole number from " in body
    assert len(body) < 300
