"""`shed image`: the table of its commands, and those about the images in a store."""

from __future__ import annotations

import sys

from shed.cli.arguments import argument, flag
from shed.cli.command import Entry, Group, command
from shed.cli.connection import client
from shed.cli.errors import report
from shed.cli.output import confirm, done, shown, waiting
from shed.errors import ConflictError, DataError, NotFoundError
from shed.terminal.output import age, emit, note, say, table, timings
from shed.text import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shed.cli.options import Options
    from shed.client.sync.api import Api

SHORT = len("sha256:") + 12
"""Characters of a digest that are shown."""
_COMMAND_WIDTH = 60
"""Characters of a command that are shown without ``-v``."""
_IMAGE = argument("IMAGE", "name or digest of an image")
_ANY_IMAGE = argument("IMAGE", "name, reference or digest of an image")

image = Group(
    "image",
    "The images that sheds are made from.",
    {
        "ls": Entry("shed.cli.image:list_images", "list images"),
        "list": Entry("shed.cli.image:list_images", "", "ls"),
        "inspect": Entry("shed.cli.image:inspect", "show all that is known of an image"),
        "push": Entry("shed.cli.image_transfer:push", "send an image to a registry"),
        "pull": Entry("shed.cli.image_transfer:pull", "get an image from a registry"),
        "build": Entry("shed.cli.image_build:build", "make a bootable image from a Containerfile or another image"),
        "rm": Entry("shed.cli.image:remove", "remove images by name, reference or digest"),
        "delete": Entry("shed.cli.image:remove", "", "rm"),
        "prune": Entry("shed.cli.image:prune", "delete images that have no name and that nothing needs"),
        "save": Entry("shed.cli.image_transfer:save", "write images to a file"),
        "load": Entry("shed.cli.image_transfer:load", "read images from a file"),
        "verify": Entry("shed.cli.image:verify", "read an image again and check that it is undamaged"),
        "history": Entry("shed.cli.image:history", "show the commands that made the layers of an image"),
        "tag": Entry("shed.cli.image:tag", "give an image another name"),
        "trust": Entry("shed.cli.image:trust", "allow the kernel that an image brings to boot on the server"),
        "make": Entry("shed.cli.image_build:make", "make an image from Debian packages, by a recipe"),
        "bootkit": Entry("shed.cli.image_build:bootkit", "the kernel, initrd and agent that images boot with"),
    },
)


@command("image ls", flag("-q, --quiet", "print names only, or digests where there is no name"))
def list_images(args: Any, options: Options) -> int:
    """List the images in the server's store.  -v shows whole digests, references and times."""
    with shown(options) as sink:
        found = client(options).images(on_event=sink)
    if options.json:
        emit(found)
    elif args.quiet:
        say("".join(f"{_text(image, 'name') or _text(image, 'digest')}\n" for image in found), end="")
    elif found or not sys.stdout.isatty():
        more = ["REFERENCE", "UPDATED"] if options.verbose else []
        headers = ["IMAGE", "DIGEST", "SOURCE", "SIZE", "LAYERS", "IN USE", *more]
        say(table(headers, [_row(image, options)[: len(headers)] for image in found]), end="")
    else:
        note("no images yet; make one: shed image build")
    for image in found:
        if (warning := _text(image, "warning")) and not options.json:
            note(f"warning: {_text(image, 'name') or _short(image)}: {visible(warning)}")
    return 0


def _row(image: dict[str, Any], options: Options) -> list[str]:
    users = image.get("in_use")
    return [
        _text(image, "name") or "-",
        (_text(image, "digest") if options.verbose else _short(image)) or "-",
        _text(image, "source") or "-",
        _size(image) or "-",
        (_text(image, "layers") or "-") if image.get("bootable") else "not bootable",
        ", ".join(map(str, users)) if isinstance(users, list) and users else "-",
        ", ".join(image.get("references") or []) or _text(image, "source_ref") or "-",
        age(_text(image, "updated_at")),
    ]


def _short(image: dict[str, Any]) -> str:
    return _text(image, "digest")[:SHORT]


def _text(image: dict[str, Any], key: str) -> str:
    value = image.get(key)
    return value if isinstance(value, str) else ""


def _size(image: dict[str, Any]) -> str:
    from shed.sizes import format_size

    size = image.get("size_bytes")
    return format_size(size) if isinstance(size, int) else ""


@command("image inspect", _IMAGE)
def inspect(args: Any, options: Options) -> int:
    """Show all that is known of an image, as JSON."""
    emit(client(options).image(args.image))
    return 0


@command("image history", _IMAGE)
def history(args: Any, options: Options) -> int:
    """Show the steps that made an image, the last one first.  -v shows commands at full length."""
    steps = client(options).image_history(args.image)
    if options.json:
        emit(steps)
    else:
        say(table(["CREATED", "CREATED BY", "SIZE", "COMMENT"], [_step(step, options) for step in steps]), end="")
    return 0


def _step(step: dict[str, Any], options: Options) -> list[str]:
    words = " ".join(str(step["created_by"]).split())
    if not options.verbose and len(words) > _COMMAND_WIDTH:
        words = words[: _COMMAND_WIDTH - 1] + "…"
    return [age(step["created"]), words or "-", _size(step) if step["layer"] else "-", step["comment"]]


@command(
    "image tag",
    argument("IMAGE", "name or digest of an image", key="source"),
    argument("NAME", "the additional name"),
    examples=["shed image tag base stable"],
)
def tag(args: Any, options: Options) -> int:
    """Give an image another name.  If another image has that name, it loses it and stays in the store."""
    digest = client(options).tag_image(args.source, args.name)
    done(options, "tag", args.name, f"{args.name} is {digest[:SHORT]}", digest=digest)
    return 0


@command("image trust", _ANY_IMAGE, examples=["shed image trust base"])
def trust(args: Any, options: Options) -> int:
    """Allow the kernel and the initrd that an image brings to boot on the server, from now on.

    They may then boot in this image and in others.
    """
    digests = client(options).trust_image(args.image)
    done(options, "trust", args.image, f"trusted from now on: {', '.join(digests)}", digests=digests)
    return 0


@command(
    "image verify",
    _IMAGE,
    flag("--deep", "also compare every name, attribute and byte of the root file system with the layers"),
    flag("--local", "use this machine's store, in this process, without a server"),
    examples=["shed image verify base", "shed image verify base --deep"],
)
def verify(args: Any, options: Options) -> int:
    """Read an image again: compare its blobs with their digests, and check every inode of its file systems.

    The exit code is 1 when something is wrong.  The blob, or the inode and the broken rule, is named.
    """
    with shown(options) as sink:
        if args.local:
            from shed.config.paths import Paths
            from shed.images.service import Images
            from shed.progress import Progress

            images = Images(Paths().images)
            result = images.verify(args.image, deep=args.deep, progress=Progress(sink)).to_json()
        else:
            result = client(options).verify_image(args.image, deep=args.deep, on_event=sink)
    if options.json:
        emit(result)
        return 0 if result["valid"] else 1
    say(table(["CHECK", "RESULT", "WHAT"], [_check(check) for check in result["checks"]]), end="")
    if options.verbose:
        note(timings(result["timings"]).rstrip("\n"))
    if not result["valid"]:
        first = next(check for check in result["checks"] if check["status"] == "FAIL")
        hint = "build or pull the image again; sheds that were made from it may hold wrong files"
        raise DataError(f"{args.image} is damaged: {first['name']}: {first['detail']}", code="IMAGE_DAMAGED", hint=hint)
    return 0


def _check(check: dict[str, Any]) -> list[str]:
    counts = dict(check["counts"])
    size = [_size({"size_bytes": counts.pop("bytes")})] if "bytes" in counts else []
    seen = ", ".join([*(f"{number} {what}" for what, number in counts.items()), *size])
    return [check["name"], check["status"], "; ".join(filter(None, [seen, check["detail"]]))]


@command(
    "image rm",
    argument("IMAGE", "name, reference or digest of an image", key="images", count="+"),
    flag("-f, --force", "do not ask for confirmation"),
    examples=["shed image rm base", "shed image ls -q | xargs -r -n1 shed image rm"],
)
def remove(args: Any, options: Options) -> int:
    """Remove images.  On a terminal, this asks first.

    With a name, only that name is removed.  With a reference or a digest, all names of the image are removed.  `shed
    image prune` frees the space.
    """
    server = client(options)
    removed: list[dict[str, Any]] = []
    code = 0
    ask = not args.force and (options.json or (sys.stdin and sys.stdin.isatty()))  # a script may go on: the blobs stay
    for image in args.images:
        try:
            if ask and not confirm(f'Delete image "{image}"{_size_of(server, image)}?', options, force=False):
                note("Cancelled.")
                continue
            answer = server.remove_image(image)
        except (NotFoundError, ConflictError) as error:  # go on with the others
            report(error, options)
            code = error.exit_code
            continue
        removed.append({"name": image, **answer})
        if not options.json:
            _tell_removed(image, answer)
    if options.json and (removed or not code):
        status = "ok" if not code else "error"
        emit({"status": status, "action": "rm", "name": " ".join(args.images), "removed": removed})
    return code


def _size_of(server: Api, image: str) -> str:
    try:
        size = _size(server.image(image))
    except DataError:  # a damaged image can be removed too
        return ""
    return f" ({size})" if size else ""


def _tell_removed(image: str, answer: dict[str, Any]) -> None:
    say(f"removed {image}")
    others = [name for key in ("tags", "references") for name in answer.get(key) or [] if name != image]
    if others:
        note(f"with it: {', '.join(map(str, others))}")
    for warning in answer.get("warnings") or []:
        note(f"warning: {warning}")


@command(
    "image prune",
    flag("-f, --force", "do not ask for confirmation"),
    flag("--dry-run", "only say what would be deleted"),
)
def prune(args: Any, options: Options) -> int:
    """Delete the images that have no name and that no shed, snapshot or setting needs.

    Blobs that are left over from such images are deleted too.
    """
    server = client(options)
    if args.dry_run or not args.force:
        with waiting(options, "looking for what nobody needs"):
            plan = server.prune_images(dry_run=True)
        if args.dry_run and options.json:
            emit({**plan, "dry_run": True})
            return 0
        if not plan.get("deleted"):
            return _pruned(plan, options)
        if not options.json:
            _preview(plan, options)
        if args.dry_run:
            note(f"would free {_freed(plan)}")
            return 0
        if not confirm(f"Delete {_count(plan)} ({_freed(plan)})?", options, force=False):
            note("Cancelled.")
            return 0
    with waiting(options, "deleting images"):
        answer = server.prune_images()
    return _pruned(answer, options)


def _preview(plan: dict[str, Any], options: Options) -> None:
    only = [] if options.verbose else [row for row in plan["deleted"] if row.get("kind") == "image"]
    rows = [
        [str(row["kind"]), str(row["digest"])[:SHORT], _size(row), row.get("docker_ref") or "-"]
        for row in only or plan["deleted"]
    ]
    say(table(["KIND", "DIGEST", "SIZE", "REFERENCE"], rows), end="")


def _pruned(answer: dict[str, Any], options: Options) -> int:
    sentence = f"deleted {_count(answer)}, freed {_freed(answer)}" if answer.get("deleted") else "nothing to delete"
    done(options, "prune", "images", sentence, **answer)
    return 0


def _count(answer: dict[str, Any]) -> str:
    number = answer.get("images") or len(answer["deleted"])
    return f"{number} {'image' if answer.get('images') else 'blob'}{'' if number == 1 else 's'}"


def _freed(answer: dict[str, Any]) -> str:
    return _size({"size_bytes": 0, **answer})
