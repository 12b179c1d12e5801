"""URLs of repositories, the rule that each needs, and what goes wrong when there is no git to clone them."""

from __future__ import annotations

import pytest

from shed.api.making import CreateShed
from shed.config import git
from shed.egress.rules.policy import Profile
from shed.errors import NotFoundError, ShedError, UsageError
from shed.execstream import Output
from shed.progress import Event, Progress, WarningEvent
from shed.sheds import clone, metadata, repository
from shed.sheds.create import plan
from shed.sheds.repository import Repository
from support.servers.world import World, create

BASE = "https://github.com"
SHA = "0123456789abcdef0123456789abcdef01234567"
REPO = "https://git.example.com/me/work"


@pytest.mark.parametrize(
    ("text", "url", "ref", "place", "origin"),
    [
        (f"{REPO}.git", f"{REPO}.git", "", "git.example.com:443", "git.example.com"),
        ("https://Git.Example.com:8443/a%20b#v1.0", "https://Git.Example.com:8443/a%20b", "v1.0",
         "git.example.com:8443", "git.example.com:8443"),
        ("me/work#feature/x", "https://github.com/me/work", "feature/x", "github.com:443", "github.com"),
        ("gitlab.com/group/sub/work", "https://gitlab.com/group/sub/work", "", "gitlab.com:443", "gitlab.com"),
        (f"git@github.com:me/work.git#{SHA}", "git@github.com:me/work.git", SHA, "github.com:22", "github.com"),
        ("ssh://git@git.example.com:2222/me/work", "ssh://git@git.example.com:2222/me/work", "",
         "git.example.com:2222", "git.example.com:2222"),
        ("https://10.1.2.3/work", "https://10.1.2.3/work", "", "10.1.2.3:443", "10.1.2.3"),
        ("https://[2001:db8::1]/work", "https://[2001:db8::1]/work", "", "[2001:db8::1]:443", "[2001:db8::1]"),
    ],
)  # fmt: skip
def test_urls(text: str, url: str, ref: str, place: str, origin: str) -> None:
    """What is cloned, and which host and port that is; the rule for these can be made of what a record keeps."""
    found = Repository.parse(text, BASE)
    assert (found.url, found.ref, found.place, found.origin) == (url, ref, place, origin)
    assert found.is_commit == (ref == SHA)
    (rule,) = repository.profile(place).rules
    assert (rule.allow, rule.ports) == (True, frozenset({found.port}))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("https://me:tops3cret@git.example.com/work", "a user or a password in it"),
        ("https://tops3cret@git.example.com/work", "a user or a password in it"),
        ("https://tops3cret@", "a user or a password in it"),
        ("ssh://me:tops3cret@git.example.com/work", "a user or a password in it"),
        ("me:tops3cret@git.example.com:work", "a user or a password in it"),
        ("HTTPS://me:tops3cret@git.example.com/work", "a user or a password in it"),
        ("https://git.example.com\\@tops3cret/work", "not the URL"),
        ("https://git.example.com/work?token=tops3cret", "not the URL"),
        ("https://git.example.com/a%0ahost=tops3cret", "not the URL"),
        ("http://me:tops3cret@git.example.com/work", "nobody vouches"),
        ("git://git.example.com/work", "nobody vouches"),
        ("file:///home/me/tops3cret", "the server's machine"),
        ("/home/me/work", "the server's machine"),
        ("../work", "the server's machine"),
        ("ext::sh -c 'echo tops3cret'", "not the URL"),
        ("--upload-pack=tops3cret", "not the URL"),
        ("-oProxyCommand=x:y", "not the URL"),
        ("-o:y", "not the name of a host"),
        ("git@-oProxyCommand=tops3cret:y", "not the URL"),
        ("git@github.com:--upload-pack=tops3cret", "not the URL"),
        ("https://0x7f.1/work", "reads like one"),
        ("https://git.example.com:0/work", "not a port"),
        ("https://git.example.com", "not the URL"),
        (f"{REPO}#--upload-pack=tops3cret", "behind #"),
        (f"{REPO}#a..b", "behind #"),
        (f"{REPO}#a b", "behind #"),
        (f"{REPO}#a\nb", "behind #"),
        ("https://git.example.com/" + "a" * 3000, "not the URL"),
        ("", "not the URL"),
    ],
)
def test_what_cannot_be_cloned(text: str, says: str) -> None:
    """One error with a way out, which tells nothing of what may be a password."""
    with pytest.raises(UsageError, match=says) as caught:
        Repository.parse(text, BASE)
    assert caught.value.code == "INVALID_REPO_URL"
    assert caught.value.next_step
    assert "tops3cret" not in f"{caught.value}{caught.value.next_step}"


@pytest.mark.parametrize(
    ("rules", "opened"),
    [
        ([], False),
        ([{"allow": "*"}], True),
        ([{"allow": "git.example.com", "ports": [443]}], True),
        ([{"allow": "git.example.com", "ports": [22]}], False),
        ([{"allow": "git.example.com", "paths": ["/me/*"]}], True),
        ([{"deny": "git.example.com"}], True),
        ([{"allow": "other.example.com"}], False),
    ],
)
def test_a_rule_is_added_only_where_none_speaks_of_the_host(rules: list[dict[str, object]], opened: bool) -> None:
    """What allows it narrowly stays narrow, and what denies it wins."""
    profile = Profile.parse("mine", {"rules": rules})
    assert Repository.parse(REPO, BASE).is_opened_by([profile]) is opened


@pytest.mark.parametrize("place", ["git.example.com", "git.example.com:x", ":443", "a b:443", "*:443:", "x:123456"])
def test_a_damaged_place(place: str) -> None:
    """What a record cannot have is told."""
    with pytest.raises(UsageError):
        repository.profile(place)


async def test_a_shed_without_git_is_there_all_the_same(world: World) -> None:
    """A clone that fails is warned of, in the answer, and as an event; the shed runs, and its host is open to it."""
    told: list[Event] = []
    async with world.manager() as manager:
        request = CreateShed(name="dev", image="base", egress=["offline"], repo=REPO, depth=0)
        assert manager.setup.opens_more(request)
        made = await manager.create(request, Progress(told.append))
        assert [each.split(":")[0] for each in made["failed"]] == ["the repository was not cloned"]
        assert [event.message for event in told if isinstance(event, WarningEvent)][-1:] == made["failed"]
        assert (made["status"], made["repo"], made["repo_hosts"]) == ("running", REPO, ["git.example.com:443"])
        assert "clone" in made["timings"]
        record = metadata.load(world.instance("dev"))
        assert manager.egress.rules(record) == ["repository: allow git.example.com ports 443"]
        assert record.repo_depth == 0
        with pytest.raises(NotFoundError):  # there is something in the workspace, so no clone, but no project
            await manager.setup.provision("dev", Progress(), again=False, limit=None)
        await manager.changes.set_profiles("dev", ["offline"])
        assert manager.egress.rules(metadata.load(world.instance("dev"))) == []


@pytest.mark.parametrize(
    ("code", "said", "url", "says"),
    [
        (90, "", REPO, "the image has no git; the images base, extensions and full have it"),
        (91, "", REPO, "/workspace of the image is not empty"),
        (128, "Cloning\nfatal: could not read Username for 'x'\n", REPO, "shed secret set NAME --host git.example"),
        (128, "fatal: unable to access 'x': error: 403\r\n", REPO, "shed secret set NAME --host git.example"),
        (128, "fatal: unable to access\x1b[2J\n", REPO, r"git ended with 128: fatal: unable to access\x1b[2J"),
        (1, "Receiving 1%\rReceiving 2%", REPO, "git ended with 1: Receiving 2%"),
        (128, "git@x: Permission denied (publickey).\nfatal: no\n", "git@x.example:a", "--ssh-agent x.example"),
        (128, "Host key verification failed.\r\nfatal: no\n", "git@x.example:a", "git.extra_known_hosts"),
    ],
)  # fmt: skip
def test_why_a_clone_failed(code: int, said: str, url: str, says: str) -> None:
    """What git said last, as printable text, and the way out where it is known."""
    heard = clone._Heard(Progress())
    heard.hear(Output(said.encode(), error=True)) if said else None
    assert says in clone._why(code, None, heard, Repository.parse(url, BASE), "/workspace")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"repo": REPO, "local_dir": "/tmp"}, "leave out one of the two"),
        ({"repo": REPO, "depth": -1}, "choose 1 or more"),
        ({"depth": 1}, "name it with --repo"),
    ],
)
async def test_what_a_repository_does_not_go_with(world: World, options: dict[str, object], says: str) -> None:
    """One error with a next step, and no shed."""
    async with world.manager() as manager:
        with pytest.raises(ShedError) as caught:
            await create(manager, "dev", **options)
        assert says in caught.value.next_step
        assert manager.catalog.list()[0] == []


async def test_a_repository_and_a_snapshot(world: World) -> None:
    """A snapshot has a workspace already."""
    async with world.manager() as manager:
        await create(manager, "dev")
        await manager.snapshots.create("dev", "before", "", Progress())
        with pytest.raises(UsageError, match="has a workspace already"):
            await create(manager, "two", from_snapshot="before", repo=REPO)


def test_a_repository_that_is_allowed_opens_nothing(world: World) -> None:
    """Whoever may make sheds may clone what their profiles allow anyway."""
    request = CreateShed(name="dev", repo=REPO)
    assert plan(request, world.settings).record.repo_hosts is None


async def test_dotfiles_and_a_repository(world: World) -> None:
    """Each host is opened, once; what fails of the one does not keep the other from being tried."""
    async with world.manager() as manager:
        told = ["git.example.com:443", "[2001:db8::1]:22"]
        dotfiles = "ssh://git@[2001:db8::1]/dots"
        made = await create(manager, "dev", egress=["offline"], repo=REPO, dotfiles=dotfiles, timezone="Asia/Tokyo")
        assert [each.split(":")[0] for each in made["failed"]] == [
            "the repository was not cloned",
            "the dotfiles were not cloned",
        ]
        assert made["repo_hosts"] == told
        assert manager.setup.opens_more(CreateShed(name="dev", dotfiles=dotfiles))
        assert metadata.load(world.instance("dev")).timezone == "Asia/Tokyo"
        made = await create(manager, "two", egress=["offline"], repo=REPO, dotfiles=f"{REPO}#other")
        assert made["repo_hosts"] == told[:1]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("git.example.com ssh-ed25519", r"\[1\] must be a host"),
        ("git.example.com ssh-dss AAAAB3NzaC1kc3M=", r"\[1\] must be a host"),
        ("git.example.com ssh-ed25519 AAAA!", r"\[1\] has no key"),
        ("git.example.com ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAA", r"\[1\] has no key"),
        ("git.example.com\nssh-ed25519 AAAA", r"\[1\] must be a line"),
    ],
)
def test_known_hosts(line: str, says: str) -> None:
    """The number of a bad line is told; the built-in ones are good."""
    assert git.known_hosts(list(git.FORGES)) == git.FORGES
    with pytest.raises(ValueError, match=says):
        git.known_hosts([git.FORGES[0], line])


@pytest.mark.parametrize("url", ["github.com", "http://github.com", "https://me:pw@github.com", 3, ""])
def test_base_url(url: object) -> None:
    """It is a host, and no password is in it."""
    assert git.base_url("https://git.example.com/") == "https://git.example.com"
    with pytest.raises(ValueError, match=r"must be|does not belong"):
        git.base_url(url)
