"""Port 1026: requests about the machine itself, several in turn on one stream.

    rest        {"network"}    get ready to be saved: what comes next is configure, in a machine restored from this one
    rehearse    {}             warm up: go through a start, so that the real one is quicker; the disks are exchanged
                               afterwards
    configure   {…}            make this machine a shed (`shed.guest.configure` says what it takes), once
    equip       {"variables", "authorities", "apt"}  what configure takes of these, for commands that start from now on
    mount       {"mounts"}     mount folders of the host, as configure does
    unmount     {"target", "force", "last"}  unmount one, with force also when it is in use, and with the last one what
                               has all of them; answers {"busy"}
    health      {}             how it is
    clock       {"adjust": s}  put the wall clock forward by so many seconds, if given; answers {"now"}: seconds since
                               1970
    sync        {}             write everything to the disk
    grow        {"size"}       use the upper's disk, which has so many bytes now, to its end
    freeze      {}             have all processes and the upper stand still, to be kept as they are
    thaw        {}             have them go on; fine when they do
    fork        {…}            of a machine that stands still, make another shed: as configure, without what is mounted
    wake        {…}            of a machine that stands still, have the same shed go on: as fork
    poweroff    {}             answers, then ends everything

Every answer is {"ok": true, …} or {"ok": false, "code", "error"}.
"""

from __future__ import annotations

import os
import time

from shed.guest import protocol, state, wirejson
from shed.guest.frames import FrameReader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shed.guest.loop import Loop
    from shed.guest.mux import Stream
    from shed.guest.state import State

    Answer = dict[str, object]


_LOOKS, _BETWEEN_LOOKS = 100, 0.05
_SETTLING_LOOKS = 400
"""Each takes `_BETWEEN_LOOKS`: making host keys takes long."""
_QUIET_SECONDS, _ANSWER_SECONDS = 0.05, 0.005
"""Until what was put off is done: after an answer, as the host may have more to ask before the shed is ready; and after
the last one, which has left by then.
"""


class RefusedError(Exception):
    """The request cannot be done; `code` is for programs."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class Control:
    """Answers control requests."""

    def __init__(self, loop: Loop, shed: State) -> None:
        self._loop = loop
        self._shed = shed
        self._is_last = False
        """Whether this is the last that a host asks before a shed is ready."""
        self._operations: dict[str, Callable[[Answer], Awaitable[Answer]]] = {
            "rest": self._quiesce,
            "rehearse": self._warm_up,
            "configure": self._configure,
            "equip": self._equip,
            "mount": self._mount,
            "unmount": self._unmount,
            "health": self._health,
            "clock": self._clock,
            "sync": self._sync,
            "grow": self._grow,
            "freeze": self._freeze,
            "thaw": self._thaw,
            "fork": self._fork,
            "wake": self._wake,
            "poweroff": self._poweroff,
        }

    async def serve(self, stream: Stream) -> None:
        """Answer the requests of a stream until the host ends it."""
        frames = FrameReader(stream)
        while (frame := await frames.next()) is not None:
            if frame[0] == protocol.CONTROL_REQUEST:
                answer = await self.answer(bytes(frame[1]))
                await stream.write(protocol.exec_frame(protocol.CONTROL_RESPONSE, wirejson.dumps(answer)))
                if self._shed.must_equip:
                    self._loop.call_later(_ANSWER_SECONDS if self._is_last else _QUIET_SECONDS, self._shed.equip)

    async def answer(self, payload: bytes) -> Answer:
        """Do one request and return what to say."""
        try:
            request = wirejson.loads(payload)
            if not isinstance(request, dict):
                raise ValueError("not an object")
            operation = self._operations.get(str(request.get("op")))
            if operation is None:
                raise RefusedError("UNKNOWN_OPERATION", f"this agent knows no operation {request.get('op')!r}")
            return {"ok": True, **await operation(request)}
        except RefusedError as error:
            return {"ok": False, "code": error.code, "error": str(error)}
        except ValueError as error:
            return {"ok": False, "code": "INVALID_REQUEST", "error": f"bad request: {error}"}
        except OSError as error:
            return {"ok": False, "code": "AGENT_ERROR", "error": str(error)}

    async def _quiesce(self, request: Answer) -> Answer:
        from shed.guest.configure import StepError
        from shed.guest.configure.request import Network
        from shed.guest.configure.steps import Places
        from shed.guest.quiesce import quiesce
        from shed.guest.users import find_user

        if self._shed.phase != state.HELLO or self._shed.quiesced:
            raise RefusedError("NOT_CONFIGURABLE", f"this machine is {self._shed.phase} already")
        network = Network(request["network"]) if request.get("network") is not None else None
        try:
            self._shed.network = quiesce(self._loop, Places(), network)
            self._shed.quiesced = True
            self._shed.user = find_user("0")  # who runs what commands there are before it is a shed
        except StepError as error:
            raise RefusedError(error.code, str(error)) from None
        return {}

    async def _warm_up(self, _request: Answer) -> Answer:
        from shed.guest.configure.steps import Places
        from shed.guest.warmup import warm_up

        if self._shed.phase != state.HELLO or not self._shed.quiesced:
            raise RefusedError("NOT_CONFIGURABLE", f"this machine is {self._shed.phase}, not at rest")
        await warm_up(self._loop, Places())
        return {}

    async def _configure(self, request: Answer) -> Answer:
        from shed.guest.configure import StepError, configure

        if self._shed.phase != state.HELLO:
            raise RefusedError("NOT_CONFIGURABLE", f"this machine is {self._shed.phase} already")
        self._shed.phase = state.CONFIGURING
        try:
            return await configure(self._loop, self._shed, request)
        except StepError as error:
            self._shed.phase = state.FAILED
            self._loop.log(f"PANIC [{error.code}]: {error}")
            raise RefusedError(error.code, str(error)) from None
        except ValueError:
            self._shed.phase = state.HELLO
            raise

    async def _equip(self, request: Answer) -> Answer:
        from shed.guest.configure import apt, trust
        from shed.guest.configure.request import authorities, text, texts

        self._must_be_ready()
        self._shed.equip()  # what else was put off is not in this request
        variables = texts(request, "variables")
        apt.set_up(text(request, "apt", ""))
        outfit = {**trust.install(authorities(request)), **variables}
        self._shed.equip_later(lambda: outfit)
        return {}

    async def _mount(self, request: Answer) -> Answer:
        from shed.guest.configure import StepError
        from shed.guest.configure.mounts import mount_share
        from shed.guest.configure.request import mounts

        self._must_be_ready()
        try:
            for each in mounts(request):
                mount_share(each)
        except StepError as error:
            raise RefusedError(error.code, str(error)) from None
        return {}

    async def _unmount(self, request: Answer) -> Answer:
        from shed.guest.configure.mounts import unmount_share
        from shed.guest.configure.request import text

        self._must_be_ready()
        force, last = request.get("force") is True, request.get("last") is True
        return {"busy": not unmount_share(text(request, "target"), force=force, last=last)}

    def _must_be_ready(self) -> None:
        if self._shed.phase != state.READY:
            raise RefusedError("NOT_CONFIGURABLE", f"this machine is {self._shed.phase}")

    async def _health(self, _request: Answer) -> Answer:
        return {
            "uptime": round(time.clock_gettime(time.CLOCK_BOOTTIME), 3),
            "state": self._shed.phase,
            "sessions": len(self._shed.sessions),
            "name": self._shed.name,
            "init": self._shed.init,
        }

    async def _clock(self, request: Answer) -> Answer:
        adjust = request.get("adjust", 0)
        if adjust != 0:
            if not isinstance(adjust, (int, float)):
                raise ValueError(f"adjust: {adjust!r} is not a number")
            from shed.guest.syscalls import set_clock

            set_clock(time.time() + adjust)
            self._is_last = True
        return {"now": time.time()}

    async def _sync(self, _request: Answer) -> Answer:
        """In a child, because it can take long and others must go on."""
        from shed.guest.tasks import Event

        pid = os.fork()
        if pid == 0:
            try:
                os.sync()
            finally:
                os._exit(0)
        ended = Event()
        self._loop.on_exit(pid, lambda _status: ended.set())
        await ended.wait()
        return {}

    async def _grow(self, request: Answer) -> Answer:
        from shed.guest.syscalls import grow_ext4

        size = request.get("size")
        if not isinstance(size, int) or self._shed.upper_fd < 0:
            raise ValueError("no size, or nothing to grow")
        upper = self._shed.upper_fd
        block = os.statvfs(upper).f_bsize
        for left in range(_LOOKS, -1, -1):
            try:
                grow_ext4(upper, size // block)
                break
            except OSError:
                if not left:
                    raise
                await self._loop.sleep(_BETWEEN_LOOKS)  # the kernel may not know yet that the disk is longer
        return {}

    async def _freeze(self, _request: Answer) -> Answer:
        from shed.guest import forked  # noqa: F401  whoever goes on has it loaded
        from shed.guest.freezer import Freezer

        for left in range(_SETTLING_LOOKS, -1, -1):
            if not self._shed.unsettled:
                break
            if not left:
                raise RefusedError("NOT_FROZEN", "who this shed is is still being recorded")
            await self._loop.sleep(_BETWEEN_LOOKS)
        self._shed.equip()  # nothing may be written later
        await self._sync({})  # what is left to be written then is little
        if self._shed.phase != state.READY:
            raise RefusedError("NOT_FROZEN", f"this machine is {self._shed.phase}")
        freezer = self._shed.freezer = Freezer(self._shed.upper_fd)
        self._shed.phase = state.FROZEN
        try:
            await freezer.freeze(self._loop)
        except OSError as error:
            self._shed.go_on()
            raise RefusedError("NOT_FROZEN", str(error)) from None
        return {"wakes": True}  # agents of earlier versions do not know `wake`

    async def _thaw(self, _request: Answer) -> Answer:
        self._shed.go_on()
        return {}

    async def _fork(self, request: Answer) -> Answer:
        from shed.guest.forked import become

        return await become(self._loop, self._shed, request)

    async def _wake(self, request: Answer) -> Answer:
        from shed.guest.forked import wake

        wake(self._loop, self._shed, request)
        return {}

    async def _poweroff(self, _request: Answer) -> Answer:
        from shed.guest.poweroff import power_off

        if self._shed.phase != state.STOPPING:
            self._shed.go_on()
            self._shed.phase = state.STOPPING
            self._loop.spawn(power_off(self._loop, self._shed), name="poweroff")
        return {}
