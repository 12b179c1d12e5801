"""What a shed may have a client's SSH agent do.

A signature that logs in is good for one session with one host.  A program in the shed first shows that this host takes
part in the session: the host's own signature of it (OpenSSH's ``session-bind``).  So what is signed here can be used at
hosts that the rule names, and nowhere else, whatever the program is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from shed.server.ssh.agentwire import Binding, Commit, Login, MessageError, Request, parse
from shed.server.ssh.knownhosts import KnownHosts, is_signature, unknown
from shed.sheds.agentrule import COMMITS, AgentRule
from shed.sshkeys import fingerprint


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be done with a message."""

    request: Request | None
    """What it asks for; None: it is refused."""
    used: str = ""
    """For what the agent signs: a host as the rule names it, or `COMMITS`."""
    why: str = ""
    """Why it is refused."""
    words: tuple[str, ...] = ()
    """What the rule would have to say to allow it; nothing of it is the guest's to choose."""


class Gate:
    """Judges the messages of one connection to the agent, one after the other."""

    def __init__(self, known: KnownHosts) -> None:
        self._known = known
        self._bound: Binding | None = None

    def judge(self, message: bytes, rule: AgentRule) -> Verdict:
        """Say what to do with a message.  Blocks for a moment.  Raises `UsageError` for a known_hosts file."""
        try:
            request = parse(message)
            if rule == AgentRule():
                return _refused(rule, "it may be used for no host")
            if isinstance(request, Binding):
                self._bind(request)
            if isinstance(request, Login):
                return self._judge_login(request, rule)
        except MessageError as error:
            return Verdict(None, why=str(error))
        if isinstance(request, Commit):
            if not rule.commits:
                return _refused(rule, "it signs no commits", COMMITS)
            return Verdict(request, COMMITS)
        return Verdict(request)

    def _bind(self, binding: Binding) -> None:
        if self._bound is not None:
            raise MessageError("one connection to it is for one host")
        if not is_signature(binding.host_key, binding.session, binding.signature):
            raise MessageError("a host is named that did not sign the session")
        self._bound = binding

    def _judge_login(self, login: Login, rule: AgentRule) -> Verdict:
        bound = self._bound
        if bound is not None and (login.session != bound.session or login.host_key not in {None, bound.host_key}):
            raise MessageError("the session to log in to is another one than the host's")
        if rule.everywhere:
            return Verdict(login, "*")
        if bound is None:
            raise MessageError("the program does not say which host it logs in at, as OpenSSH does from version 8.9 on")
        there = [host for host in rule.hosts if self._known.is_key_of(host, bound.host_key)]
        for host in there:
            if host.user in {"", login.user}:
                return Verdict(login, str(host))
        if there:
            other = str(replace(there[0], user="USER"))
            return _refused(rule, f"it logs in at {there[0].name} as another user", other)
        return _refused(rule, self._unknown(bound, rule))

    def _unknown(self, bound: Binding, rule: AgentRule) -> str:
        strangers = [f" ({unknown(host)})" for host in rule.hosts if not self._known.knows(host)]
        return f"no host of the rule has the key {fingerprint(bound.host_key)}" + "".join(strangers[:1])


def _refused(rule: AgentRule, why: str, word: str = "HOST") -> Verdict:
    return Verdict(None, why=why, words=(*rule.words(), word))
