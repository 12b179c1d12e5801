"""What is read of a Containerfile: the images that it names, and no other word."""

import pytest

from shed.images.builders.containerfile import read_names
from shed.oci.descriptor import Platform

ALL = r"""# syntax=docker/dockerfile:1
# FROM comment
ARG BASE=full
ARG TAG
ARG OTHER=${BASE}-slim
FROM --platform=$BUILDPLATFORM ${BASE} AS One
ARG BASE=not-before-a-from
RUN --mount=type=cache,target=/c --mount=type=bind,from=tools,target=/t echo FROM nobody
FROM $OTHER
COPY --chown=1:1 --from=one /a /b
COPY --from=0 /a /b
copy --from=data:latest /a \
    # a comment within
    /b
from reg.example/x:${TAG:-v1} as two
COPY <<-'EOF' /Dockerfile
	FROM heredoc
	EOF
RUN <<A cat <<B
FROM heredoc
A
COPY --from=heredoc / /
B
FROM two
FROM "quoted"
FROM ${NOTHING:+x}last
"""


def test_all_images_are_read() -> None:
    """As they are written and with arguments put in; not stages, not comments, not here-documents."""
    names = read_names(ALL, {"TAG": "v9"})
    assert [(one.written, one.name) for one in names.images] == [
        ("${BASE}", "full"),
        ("tools", "tools"),
        ("$OTHER", "full-slim"),
        ("0", "0"),
        ("data:latest", "data:latest"),
        ("reg.example/x:${TAG:-v1}", "reg.example/x:v9"),
        ('"quoted"', "quoted"),
        ("${NOTHING:+x}last", "last"),
    ]
    assert names.stages == {"one", "two"}


@pytest.mark.parametrize(
    ("text", "arguments", "names"),
    [
        ("FROM full", {}, ["full"]),
        ("ARG B\nFROM $B", {"B": "full"}, ["full"]),
        ("ARG B=x\nFROM ${B}", {"B": "full"}, ["full"]),
        ("FROM ${B:-full}", {"B": "never declared"}, ["full"]),
        ("ARG B=\nFROM ${B:-full}", {}, ["full"]),
        ("ARG B=y\nFROM x${B:+full}", {}, ["xfull"]),
        ("ARG A=fu B='ll'\nFROM $A$B", {}, ["full"]),
        ("# escape=`\nFROM `\n  full", {}, ["full"]),
        ("FROM full \\\n\\\n AS x\nFROM x", {}, ["full"]),
        ("FROM base AS base\nFROM base", {}, ["base"]),
        ("from\tfull\tas\tx\nCOPY\t--from=x\t/ /", {}, ["full"]),
        ("RUN cat <<EOF\nFROM never-ends", {}, ["never-ends"]),
        ("RUN echo $((1 << 4))\nFROM a\n4\nRUN x=$((1<<B))\nFROM b\nB", {}, ["a", "b"]),
        ("RUN bash -c 'cat <<< word'; cat <<<word\nFROM a\nword", {}, ["a"]),
        ('RUN echo "a <<EOF b"\nFROM a\nEOF', {}, ["a"]),
        ("RUN 3<<-'E' cat\nFROM a\n\tE\nFROM b", {}, ["b"]),
        ("COPY \\\n\n --from=a / /\nADD --chown=1 --from=b / /", {}, ["a", "b"]),
        ('COPY --fr\\om="oci:/a:b" / /\nRUN --mount=type=bind,"from=c",target=/c x', {}, ["oci:/a:b", "c"]),
        ("RUN docker run --mount=type=bind,from=a x\nCOPY x --from=b /", {}, []),
        ("ONBUILD COPY --from=a / /\nONBUILD ONBUILD RUN --mount=FROM=b x", {}, ["a", "b"]),
        ("FROM\nFROM a b c\nARG\nCOPY --from=\n\\", {}, []),
        ("FROM x-${TARGETOS}-${BUILDARCH}", {}, [f"x-linux-{Platform.of_host().architecture}"]),
        ("", {}, []),
    ],
)
def test_one_file(text: str, arguments: dict[str, str], names: list[str]) -> None:
    """Arguments, continuations, the escape directive, and what is no Containerfile."""
    assert [one.name for one in read_names(text, arguments).images] == names


def test_lines_of_here_documents() -> None:
    """A builder that knows none takes them for instructions."""
    text = "RUN <<EOF\nCOPY --from=a / /\nEOF\nFROM b"
    assert [one.name for one in read_names(text, {}).images] == ["b"]
    assert [one.name for one in read_names(text, {}, within=True).images] == ["a", "b"]
