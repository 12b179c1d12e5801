"""Whatever a registry answers, in heads, challenges, errors and documents: what we want, or one error of ours, short
and visible.

`SHED_FUZZ_SECONDS` asks for a longer, random run.  Answers come over real connections; names are not looked up, and
only this machine is connected to.
"""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from shed.errors import ShedError
from shed.images.annotations import SIZE_KEYS
from shed.images.pull import _boot, _labels, _wanted
from shed.images.remote import find_remote
from shed.oci import media
from shed.oci.content import BytesSource
from shed.oci.descriptor import Platform
from shed.oci.digest import Digest, digest_bytes
from shed.oci.registry.auth import parse_challenges
from shed.oci.registry.client import RemoteManifest, Repository
from shed.oci.registry.credentials import Credentials
from shed.oci.registry.download import Memory
from shed.oci.registry.reference import Reference, parse_reference
from shed.oci.registry.transport import _retry_after
from support.fuzz import SECONDS, repeat
from support.registries.scripted_registry import Handler, Registry

log = logging.getLogger(__name__)
EXAMPLES = 40
"""Answers in a run; a longer one is several such runs."""
SLOWEST = 5.0
"""Seconds of a processor that one answer may take."""
LONGEST = 1000
"""Characters of an error."""
DATA = b"blob" * 100
DIGEST = digest_bytes(DATA)
ZERO = f"sha256:{'0' * 64}"

odd_text = st.one_of(
    st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=60),
    st.text('\x1b\x9b[31m \t,="\\', max_size=40),
)
numbers = st.sampled_from(
    ["0", "1", "-1", "400", "401", "1e3", "\xb2", "9" * 30, "9" * 5000, str(2**63), "4,4", "0x10", "", " 400"]
)
places = st.one_of(
    st.sampled_from(
        ["/v2/x", "//", "http://HERE/x", "https://HERE/", "http://[::1", "http://:80", "http://a b/", "ftp://a", "x",
         "?", "#", "http://HERE:1/", "http://HERE/\xff", "http://me:pw@HERE/x",
         "http://\x1b[31m/", "http://[fe80::1%25eth0]/", "http://0/",
         "http://HERE/" + "x" * 30000]
    ),
    odd_text,
)  # fmt: skip
challenges = st.one_of(
    st.builds('Bearer realm="http://HERE/token{}",service="{}",scope="{}"'.format, odd_text, odd_text, odd_text),
    st.builds(
        "{} realm={}".format, st.sampled_from(["Basic", "Bearer", "Negotiate", ",", ""]), st.one_of(places, odd_text)
    ),
    odd_text,
)
headers = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["Content-Length", "Retry-After", "OCI-Chunk-Min-Length", "Range"]), numbers),
        st.tuples(st.just("Location"), places),
        st.tuples(st.just("WWW-Authenticate"), challenges),
        st.tuples(st.just("Content-Range"), st.builds("bytes {}-{}/{}".format, numbers, numbers, numbers)),
        st.tuples(st.just("Range"), st.builds("0-{}".format, numbers)),
        st.tuples(
            st.sampled_from(["Transfer-Encoding", "Connection", "Content-Encoding"]),
            st.sampled_from(["chunked", "gzip", "close", "x"]),
        ),
        st.tuples(
            st.sampled_from(["Docker-Content-Digest", "Content-Type"]),
            st.one_of(st.just(ZERO), st.just(DIGEST), odd_text),
        ),
        st.tuples(st.sampled_from(["X", " ", "X Y", ":", "X\x1b"]), odd_text),
    ),
    max_size=6,
)
statuses = st.sampled_from(
    [
        "200",
        "201",
        "202",
        "204",
        "206",
        "301",
        "302",
        "307",
        "400",
        "401",
        "403",
        "404",
        "416",
        "429",
        "500",
        "100",
        "999",
        "0",
        "x",
        "-1",
    ]
)
words = st.one_of(odd_text, st.text(max_size=30), st.just("x" * 5000), st.none(), st.integers(), st.just({"a": []}))
bodies = st.one_of(
    st.just(DATA),
    st.binary(max_size=100),
    st.builds(lambda text, code: json.dumps({"errors": [{"message": text, "code": code}]}).encode(), words, words),
    st.builds(
        lambda token, life: json.dumps({"token": token, "expires_in": life}).encode(),
        st.one_of(words, st.just("good")),
        st.one_of(st.sampled_from([10**400, -1, 0, 1.5, True, float("inf"), float("nan")]), words),
    ),
    st.just(b"[" * 50_000),
    st.just(b'{"errors": ' + b"9" * 5000 + b"}"),
    st.builds(lambda data: b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data), st.binary(max_size=50)),
    st.sampled_from([b"-1\r\n", b"ffffffffffffffff\r\nx", b"g\r\n", b"1;" + b"x" * 70_000]),
)
answers = st.lists(st.tuples(statuses, headers, bodies), min_size=1, max_size=4)
Answers = list[tuple[str, list[tuple[str, str]], bytes]]


CALLS: dict[str, Callable[[Repository], object]] = {
    "get_manifest": lambda repository: repository.get_manifest("v1"),
    "head_manifest": lambda repository: repository.head_manifest("v1"),
    "put_manifest": lambda repository: repository.put_manifest("v1", b"{}", media.MANIFEST),
    "has_blob": lambda repository: repository.has_blob(DIGEST),
    "fetch_blob": lambda repository: repository.fetch_blob(DIGEST, Memory(), size=len(DATA)),
    "fetch_blob, unknown": lambda repository: repository.fetch_blob(DIGEST, Memory()),
    "upload_blob": lambda repository: repository.upload_blob(DIGEST, BytesSource(DATA)),
    "mount_blob": lambda repository: repository.mount_blob(DIGEST, "you/app"),
}


@contextlib.contextmanager
def promised() -> Iterator[None]:
    """Let nothing but errors of ours out, and look at what they say; it takes no time to find out."""
    before = time.process_time()
    try:
        yield
    except ShedError as error:
        said = f"{error.message}{error.hint or ''}"
        assert said.isprintable(), ascii(said)
        assert len(said) <= LONGEST, said
    assert time.process_time() - before < SLOWEST


def lasting(run: Callable[[], None], tried: list[int]) -> None:
    """Do one run, or as many as there is time for."""
    repeat(run)
    log.info("%s tried", tried[0])
    print(f"{tried[0]} tried")  # noqa: T201


def fuzz(
    strategy: st.SearchStrategy[Any], examples: int = EXAMPLES
) -> Callable[[Callable[[Any], None]], Callable[[], None]]:
    """Return a decorator for what is done with each example."""
    how = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=not SECONDS,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    return lambda test: how(given(strategy)(test))


@pytest.fixture
def _no_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no name resolved, and no address that is not this machine's."""
    resolve = socket.getaddrinfo

    def only_here(host: str, *args: Any, **kwargs: Any) -> Any:
        if host != "127.0.0.1":
            raise socket.gaierror(socket.EAI_NONAME, "not here")
        return resolve(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", only_here)


@pytest.mark.usefixtures("_no_names")
@pytest.mark.parametrize("call", CALLS)
def test_answers(registry: Registry, call: str) -> None:
    """Each call gets up to four answers, and then none."""
    script: Answers = []
    tried = [0]

    def fault(handler: Handler) -> bool:
        handler.close_connection = True
        if script:
            status, fields, body = script.pop(0)
            lines = [f"HTTP/1.1 {status} Odd", *(f"{name}: {value}" for name, value in fields), "", ""]
            raw = "\r\n".join(lines).replace("HERE", registry.address).encode("latin-1", "replace") + body
            with contextlib.suppress(OSError):
                handler.wfile.write(raw)
        return True

    registry.fault = lambda seen: fault  # type: ignore[method-assign]
    reference = parse_reference(f"{registry.address}/me/app:v1")

    @fuzz(answers)
    def run(value: Answers) -> None:
        tried[0] += 1
        script[:] = value
        with (
            Repository(reference, push=True, waits=(), credentials=Credentials("me", "s3cret")) as repository,
            promised(),
        ):
            CALLS[call](repository)

    lasting(run, tried)


def test_challenges_and_times() -> None:
    """By themselves, and quickly."""
    tried = [0]

    @fuzz(
        st.one_of(
            challenges,
            odd_text.map(lambda text: text * 200),
            st.text(' ,="\\ab', max_size=300).map(lambda text: text * 20),
        ),
        400,
    )
    def run(text: str) -> None:
        tried[0] += 1
        with promised():
            parse_challenges(text)
            _retry_after({"Retry-After": text})

    lasting(run, tried)


class Documents:
    """A registry of documents, as far as `find_remote` asks: a double that gives whatever has the digest."""

    def __init__(self, index: bytes, *others: bytes) -> None:
        self.reference: Reference = parse_reference("registry.example/me/app:v1")
        self._index = index
        self._known = {digest_bytes(data): data for data in others}

    def get_manifest(self, target: str) -> RemoteManifest:
        """Return a document, or the one that the tag means."""
        data = self._known.get(Digest(target), self._index)
        return RemoteManifest(data, "", digest_bytes(data))

    def read_blob(self, digest: Digest, size: int) -> bytes:
        """Return a document, whatever its `size`."""
        return self._known.get(digest, b"{}")


CONFIG: dict[str, Any] = {
    "os": "linux", "architecture": Platform.of_host().architecture, "config": {"User": "shed"},
    "rootfs": {"type": "layers", "diff_ids": [ZERO]},
}  # fmt: skip
MANIFEST: dict[str, Any] = {
    "schemaVersion": 2,
    "mediaType": media.MANIFEST,
    "config": {"mediaType": media.CONFIG, "digest": ZERO, "size": 0},
    "layers": [{"mediaType": media.LAYER_GZIP, "digest": ZERO, "size": 5}],
    "annotations": {"io.shed.schema-version": "1"}
    | dict.fromkeys(SIZE_KEYS, ZERO)
    | dict.fromkeys(SIZE_KEYS.values(), "5"),
}
INDEX: dict[str, Any] = {
    "schemaVersion": 2,
    "mediaType": media.INDEX,
    "manifests": [
        {
            "mediaType": media.MANIFEST,
            "digest": ZERO,
            "size": 0,
            "platform": {"os": "linux", "architecture": CONFIG["architecture"]},
        },
        {
            "mediaType": media.MANIFEST,
            "digest": ZERO,
            "size": 0,
            "platform": {"os": "unknown", "architecture": "unknown"},
        },
    ],
}
odd_values = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=20), odd_text,
    st.just("\x1b[31m" * 3000), st.just([]), st.just({}),
    st.sampled_from([ZERO, DIGEST, media.INDEX, media.MANIFEST, 1 << 50, 10**400, "2", "sha512:00"]),
    st.just([{}] * 200),
)  # fmt: skip
changes = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 1000), st.integers(0, 3), odd_values), min_size=1, max_size=4
)


def nodes(value: Any) -> list[tuple[Any, Any]]:
    """Return every place in a document: what holds it, and its key there."""
    items = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    return [place for key, child in items for place in ((value, key), *nodes(child))]


def changed(document: dict[str, Any], number: int, wanted: list[tuple[int, int, int, Any]]) -> dict[str, Any]:
    """Return the document with the changes that are meant for it: values replaced, removed, or doubled."""
    document = copy.deepcopy(document)
    for which, place, how, value in wanted:
        if which == number and (all_places := nodes(document)):
            holder, key = all_places[place % len(all_places)]
            if how == 0:
                del holder[key]
            elif how == 1 and isinstance(holder, list):
                holder.append(holder[key])
            else:
                holder[key] = copy.deepcopy(value)
    return document


def with_child(document: dict[str, Any], child: bytes) -> dict[str, Any]:
    """Point every descriptor of the document that is still as it was at `child`."""
    for holder, key in nodes(document):
        if key == "digest" and holder[key] == ZERO and holder.get("size") == 0:
            holder["digest"], holder["size"] = digest_bytes(child), len(child)
    return document


def test_documents() -> None:
    """Index, manifest and config with odd values anywhere; digests and sizes are right where they can be, so that all
    of it is read.
    """
    tried = [0]

    @fuzz(changes, 600)
    def run(wanted: list[tuple[int, int, int, Any]]) -> None:
        tried[0] += 1
        config = json.dumps(changed(CONFIG, 0, wanted)).encode()
        manifest = json.dumps(with_child(changed(MANIFEST, 1, wanted), config)).encode()
        index = json.dumps(with_child(changed(INDEX, 2, wanted), manifest)).encode()
        registry = Documents(index, manifest, config)
        with promised():
            chosen = find_remote(registry, None)  # type: ignore[arg-type]
            boot = _boot(chosen, registry.reference, with_layers=True)
            assert set(_wanted(chosen, boot, with_layers=True)) <= set(_labels(chosen, boot))

    lasting(run, tried)


def test_bytes_of_documents() -> None:
    """With bits flipped, bytes cut, or another document altogether."""
    tried = [0]
    manifest = json.dumps(MANIFEST).encode()

    @fuzz(
        st.tuples(
            st.integers(0, len(manifest) - 1),
            st.binary(max_size=8),
            st.booleans(),
            st.one_of(st.none(), st.binary(max_size=60)),
        ),
        300,
    )
    def run(value: tuple[int, bytes, bool, bytes | None]) -> None:
        tried[0] += 1
        at, piece, cut, other = value
        data = manifest[:at] + piece + (b"" if cut else manifest[at + len(piece) :]) if other is None else other
        with promised():
            find_remote(Documents(data), None)  # type: ignore[arg-type]

    lasting(run, tried)
