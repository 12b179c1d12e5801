"""The documentation as a site: it builds without a warning, and every link leads somewhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import markdown  # type: ignore[import-untyped]
import pytest

ROOT = Path(__file__).parents[2]
DECISIONS = ROOT / "docs/decisions"


def build(folder: Path, config: Path) -> subprocess.CompletedProcess[str]:
    """Build the site of a configuration into a folder, as `make docs` does."""
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--config-file",
        str(config),
        "--site-dir",
        str(folder),
    ]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONWARNINGS": "ignore"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


class Page(HTMLParser):
    """What one HTML page refers to, what it loads, and which anchors it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note links, anchors, and whatever a browser fetches by itself."""
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if values.get(name)}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag == "link" and values.get("rel") not in ("canonical", "prev", "next"):
            self.loads.append(values["href"])
        self.loads += [values["src"]] if "src" in values else []


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the built site."""
    folder = tmp_path_factory.mktemp("docs") / "site"
    done = build(folder, ROOT / "mkdocs.yml")
    assert done.returncode == 0, f"`make docs` fails:\n{done.stdout}{done.stderr}"
    return folder


def test_every_link_and_anchor_of_the_site_leads_somewhere(site: Path) -> None:
    """Read from the pages as a browser would, and nothing that a page needs is fetched from elsewhere."""
    pages = {path: Page(path.read_text()) for path in site.rglob("*.html") if path.name != "404.html"}
    assert len(pages) > 50
    broken = []
    for path, page in pages.items():
        for link in page.links + page.loads:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if link in page.loads:
                    broken.append(f"{path.relative_to(site)}: loads {link}")
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.exists() or (parts.fragment and unquote(parts.fragment) not in pages[target].anchors):
                broken.append(f"{path.relative_to(site)}: {link}")
    assert not broken, "\n".join(broken)


def test_a_page_says_in_html_what_it_says_in_markdown(site: Path) -> None:
    """A list, a table or a fence that the site's dialect does not see as one would be a heap of text."""
    for path in site.rglob("*.html"):
        for paragraph in re.findall(r"<p>(.*?)</p>", path.read_text(), re.DOTALL):
            assert not re.search(r"^(- |\* |\d+\. |\||```|!!!)", paragraph, re.MULTILINE), (
                f"{path.name}: {paragraph[:200]}"
            )


def test_the_build_refuses_what_it_should(tmp_path: Path) -> None:
    """A page outside the navigation, a link and an anchor to nothing each end it."""
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    (tmp_path / "docs/unlisted.md").write_text(
        "# Nobody lists me\n\n[page](missing.md) [part](index.md#missing-part)\n"
    )
    done = build(tmp_path / "site", tmp_path / "mkdocs.yml")
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert all(word in said for word in ("unlisted.md", "missing.md", "missing-part")), said


def _slug(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("*", "").strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def _markdown_files() -> list[Path]:
    names = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in names.splitlines() if (ROOT / name).exists()]


@pytest.mark.parametrize("file", _markdown_files(), ids=lambda file: str(file.relative_to(ROOT)))
def test_links_lead_somewhere_on_a_forge_too(file: Path) -> None:
    """By GitHub's anchors, which differ from the site's, and those of README and the like to files, too."""
    page = Page(markdown.markdown(file.read_text(), extensions=["fenced_code", "tables"]))
    for link in page.links + page.loads:
        parts = urlsplit(link)
        if parts.scheme:
            continue
        target = (file.parent / parts.path).resolve() if parts.path else file
        assert target.exists(), f"{link}: there is no {target}"
        if file.is_relative_to(ROOT / "docs"):
            assert target.is_relative_to(ROOT / "docs"), f"{link} leaves docs/, which the site cannot"
        if parts.fragment:
            text = re.sub(r"^```.*?^```", "", target.read_text(), flags=re.DOTALL | re.MULTILINE)
            anchors = {_slug(heading) for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}
            assert parts.fragment in anchors, f"{link}: {target.name} has no such heading"


def test_the_index_of_decisions_has_each_of_them_once() -> None:
    """Under its number, with one line of what was decided."""
    rows = re.findall(r"^\| \[(\d{4})\]\((\S+\.md)\) \| (.+) \|$", (DECISIONS / "README.md").read_text(), re.MULTILINE)
    assert sorted(name for _, name, _ in rows) == sorted(path.name for path in DECISIONS.glob("0*.md"))
    assert all(name.startswith(number) for number, name, _ in rows)
