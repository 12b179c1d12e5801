"""``/api/images``: the images of this server's store."""

from __future__ import annotations

import asyncio
from functools import partial

from shed.api import endpoints
from shed.api import images as api
from shed.api.base import NoBody, Nothing, WorkParams
from shed.progress import Progress
from shed.server.app import Server, route
from shed.server.call import Call, Work, answer
from shed.threads import in_long_thread, stoppable


async def index(server: Server, call: Call[Nothing, NoBody]) -> api.ImageList:
    """List all images.

    A shed whose record cannot be read becomes a warning, as nobody knows which image it needs.
    """
    found, warnings = await asyncio.to_thread(server.images.list_all)
    return api.ImageList(images=[answer(api.Image, image) for image in found], warnings=warnings)


async def inspect(server: Server, call: Call[api.ImageParams, NoBody]) -> api.ImageDetails:
    """Show one image."""
    return answer(api.ImageDetails, await asyncio.to_thread(server.images.inspect, call.params.image))


async def history(server: Server, call: Call[api.ImageParams, NoBody]) -> api.History:
    """Show the steps that made an image."""
    steps = await asyncio.to_thread(server.images.history, call.params.image)
    return api.History(steps=[answer(api.Step, step) for step in steps])


async def remove(server: Server, call: Call[api.ImageParams, NoBody]) -> api.RemovedImage:
    """Remove the names of one image."""
    return answer(api.RemovedImage, await asyncio.to_thread(server.images.remove, call.params.image))


async def tag(server: Server, call: Call[Nothing, api.TagImage]) -> api.TaggedImage:
    """Give an image another name."""
    digest = await asyncio.to_thread(server.images.tag, call.body.image, call.body.name)
    return api.TaggedImage(name=call.body.name, digest=digest)


async def trust(server: Server, call: Call[Nothing, api.TrustImage]) -> api.TrustedImage:
    """Let the kernel and the initrd that an image brings boot here from now on."""
    image = call.body.image
    return api.TrustedImage(digests=[*await asyncio.to_thread(server.images.trust, image, f"shed image trust {image}")])


async def prune(server: Server, call: Call[Nothing, api.PruneImages]) -> api.PrunedImages:
    """Remove what nobody needs, or only say what that is."""
    plan = await in_long_thread(server.images.prune, dry_run=call.body.dry_run)
    return answer(api.PrunedImages, plan.to_wire())


async def verify(server: Server, call: Call[WorkParams, api.VerifyImage]) -> Work[api.Verification]:
    """Read an image again and say what is wrong with it."""
    wanted = call.body

    async def work(progress: Progress) -> api.Verification:
        verify_image = partial(server.images.verify, wanted.image, deep=wanted.deep, progress=progress)
        return answer(api.Verification, await stoppable(lambda stop: verify_image(stop=stop), long=True))

    return Work(work)


async def push(server: Server, call: Call[WorkParams, api.PushImage]) -> Work[api.Pushed]:
    """Push an image to a registry."""
    wanted = call.body

    async def work(progress: Progress) -> api.Pushed:
        push_image = partial(
            server.images.push, wanted.image, wanted.destination, insecure=wanted.insecure, progress=progress
        )
        return answer(api.Pushed, await stoppable(lambda stop: push_image(stop=stop), long=True))

    return Work(work)


async def pull(server: Server, call: Call[WorkParams, api.PullImage]) -> Work[api.Pulled]:
    """Pull an image from a registry, as long as its client waits for it."""
    wanted = call.body

    async def work(progress: Progress) -> api.Pulled:
        pull_image = partial(
            server.images.pull,
            wanted.image,
            tag=wanted.tag,
            platform=wanted.platform,
            with_layers=wanted.with_layers,
            insecure=wanted.insecure,
            trust_kernel=wanted.trust_kernel,
            progress=progress,
        )
        return answer(api.Pulled, await stoppable(lambda stop: pull_image(stop=stop), progress.abandoned, long=True))

    return Work(work)


ROUTES = (
    route(endpoints.LIST_IMAGES, index),
    route(endpoints.INSPECT_IMAGE, inspect),
    route(endpoints.IMAGE_HISTORY, history),
    route(endpoints.REMOVE_IMAGE, remove),
    route(endpoints.TAG_IMAGE, tag),
    route(endpoints.TRUST_IMAGE, trust),
    route(endpoints.VERIFY_IMAGE, verify),
    route(endpoints.PUSH_IMAGE, push),
    route(endpoints.PULL_IMAGE, pull),
    route(endpoints.PRUNE_IMAGES, prune),
)
