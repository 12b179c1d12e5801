"""The profiles that every server has."""

from __future__ import annotations

from shed.egress.rules.policy import Profile

_PACKAGES = (
    "deb.debian.org", "security.debian.org", "*.archive.ubuntu.com", "archive.ubuntu.com", "security.ubuntu.com",
    "ports.ubuntu.com", "dl-cdn.alpinelinux.org",
    "pypi.org", "files.pythonhosted.org",
    "registry.npmjs.org", "registry.yarnpkg.com", "nodejs.org",
    "crates.io", "index.crates.io", "static.crates.io", "static.rust-lang.org",
    "proxy.golang.org", "sum.golang.org", "go.dev", "dl.google.com",
    "repo.maven.apache.org", "repo1.maven.org", "plugins.gradle.org", "services.gradle.org",
    "rubygems.org", "index.rubygems.org",
)  # fmt: skip
_CONTAINERS = (
    "registry-1.docker.io", "auth.docker.io", "index.docker.io", "production.cloudflare.docker.com",
    "ghcr.io", "pkg-containers.githubusercontent.com", "quay.io", "*.quay.io", "gcr.io", "*.pkg.dev",
    "registry.k8s.io", "mcr.microsoft.com", "*.data.mcr.microsoft.com", "public.ecr.aws",
)  # fmt: skip
_GITHUB = (
    "github.com", "*.github.com", "*.githubusercontent.com", "github.githubassets.com", "ghcr.io",
)  # fmt: skip
_AGENTS = (
    "api.anthropic.com", "api.openai.com", "generativelanguage.googleapis.com", "openrouter.ai", "api.mistral.ai",
    "api.x.ai", "api.deepseek.com", "api.groq.com",
)  # fmt: skip
_EVERYTHING = [{"allow": "*"}, {"allow": "0.0.0.0/0"}, {"allow": "::/0"}]
_WEB = [80, 443]


def _names(names: tuple[str, ...], ports: list[int]) -> dict[str, object]:
    return {"rules": [{"allow": name, "ports": ports} for name in names]}


BUILT_IN: dict[str, Profile] = {
    name: Profile.parse(name, document)
    for name, document in {
        "internet": {"rules": _EVERYTHING},
        "offline": {"rules": []},
        "packages": _names(_PACKAGES, _WEB),
        "containers": _names(_CONTAINERS, _WEB),
        "github": _names(_GITHUB, [22, *_WEB]),
        "agents": _names(_AGENTS, [443]),
        "audit": {"rules": _EVERYTHING, "log": "all"},
    }.items()
}
"""By name; a server's own profiles cannot take these names."""
