"""Makes the Debian package: ``build_deb.py OUTPUT_FOLDER``, run by ``make deb`` with the project's own Python.

The package is a virtual environment in ``/usr/lib/shed``, whose interpreter is whatever ``python3`` the host has:
beside shed itself it holds the libraries of the lock file for each of `PYTHONS`.  Wheels are downloaded once, to
``.cache/wheels``, and checked against the lock; with them there, nothing is fetched.  The same sources give the same
bytes, dated ``SOURCE_DATE_EPOCH``.
"""

from __future__ import annotations

import email.utils
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import zipfile
from pathlib import Path

from shed.server.service.systemd import UNIT, Scope
from shed.server.service.unit import Unit
from shed.version import VERSION

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
PYTHONS = ("3.11", "3.12", "3.13")
"""Debian 12, Ubuntu 24.04, Debian 13."""
TOO_NEW = "3.14"
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
HOME = "usr/lib/shed"
MAINTAINER = "shed maintainers <maintainers@shed.invalid>"
SCRIPT = """\
#!/{home}/bin/python3 -I
import sys
from shed.{module}.main import main
sys.exit(main())
"""


def main() -> int:
    """Build the package and print where it is; return an exit status."""
    if len(sys.argv) != 2:
        sys.stderr.write("usage: build_deb.py OUTPUT_FOLDER\n")
        return 2
    output = Path(sys.argv[1])
    output.mkdir(parents=True, exist_ok=True)
    os.umask(0o022)
    with tempfile.TemporaryDirectory(prefix="shed-deb-") as folder:
        tree = Path(folder) / "tree"
        environment(tree / HOME)
        system(tree)
        metadata(tree)
        package = output / f"shed-server_{debian_version()}_amd64.deb"
        run("dpkg-deb", "--root-owner-group", "-Zxz", "--build", tree, package)
    print(package)
    return 0


def environment(home: Path) -> None:
    """Make the virtual environment `home`."""
    (home / "bin").mkdir(parents=True)
    (home / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    (home / "bin/python3").symlink_to("/usr/bin/python3")
    for name, module in (("shed", "cli"), ("shed-server", "server")):
        script = home / "bin" / name
        script.write_text(SCRIPT.format(home=HOME, module=module))
        script.chmod(0o755)
    with tempfile.TemporaryDirectory(prefix="shed-wheel-") as wheels:
        run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", wheels, cwd=ROOT)
        unpack(Path(wheels), home / "lib/shed")
    for python in PYTHONS:
        site = home / f"lib/python{python}/site-packages"
        unpack(wheelhouse(python), site)
        for part in (home / "lib/shed").iterdir():
            (site / part.name).symlink_to(f"../../shed/{part.name}")
    for library in home.rglob("*.so"):
        library.chmod(0o644)
        run("strip", "--strip-unneeded", library)


def unpack(wheels: Path, target: Path) -> None:
    """Put what is in all wheels of a folder into `target`."""
    for path in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(path) as wheel:
            if any(name.split("/")[0].endswith(".data") for name in wheel.namelist()):
                sys.exit(f"{path.name} has files for other places than a library's; it needs an installer")
            for entry in wheel.infolist():
                Path(wheel.extract(entry, target)).chmod(0o755 if entry.external_attr >> 16 & 0o111 else 0o644)


def wheelhouse(python: str) -> Path:
    """Return a folder with the wheels of the lock file for `python`, downloading them when they are not there."""
    folder = ROOT / ".cache/wheels" / f"{python}-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:16]}"
    if not folder.exists():
        new = folder.with_suffix(".new")
        shutil.rmtree(new, ignore_errors=True)
        target = ["--only-binary=:all:", f"--python-version={python}", *(f"--platform={name}" for name in PLATFORMS)]
        locked = ["--no-deps", "--require-hashes", f"--requirement={LOCK}", f"--dest={new}"]
        run(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", *target, *locked)
        new.rename(folder)
    return folder


def system(tree: Path) -> None:
    """Put what the rest of the system sees into `tree`: commands, unit, configuration, documentation."""
    (tree / "usr/bin").mkdir(parents=True)
    for name in ("shed", "shed-server"):
        (tree / "usr/bin" / name).symlink_to(f"../lib/shed/bin/{name}")
    units = tree / "usr/lib/systemd/system"
    units.mkdir(parents=True)
    (units / UNIT).write_text(Unit(Scope.SYSTEM, ["/usr/bin/shed-server", "serve"]).text())
    (tree / "etc/shed").mkdir(parents=True)
    shutil.copy(ROOT / "packaging/deb/server.yaml", tree / "etc/shed/server.yaml")
    shared = tree / "usr/share/shed-server"
    shared.mkdir(parents=True)
    shutil.copy(ROOT / "packaging/deb/apparmor", shared / "apparmor")
    docs = tree / "usr/share/doc/shed-server"
    docs.mkdir(parents=True)
    for folder in ("reference", "upgrades"):
        if (ROOT / "docs" / folder).exists():
            shutil.copytree(ROOT / "docs" / folder, docs / folder)
    shutil.copy(ROOT / "packaging/deb/copyright", docs / "copyright")
    (docs / "changelog.gz").write_bytes(gzip.compress(changelog().encode(), mtime=0))
    overrides = tree / "usr/share/lintian/overrides"
    overrides.mkdir(parents=True)
    shutil.copy(ROOT / "packaging/deb/lintian-overrides", overrides / "shed-server")


def changelog() -> str:
    """Return this version's part of the change log, as Debian writes one."""
    (changes,) = re.findall(
        rf"^## {re.escape(VERSION)}\n(.*?)(?=^## |\Z)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE | re.DOTALL
    )
    paragraphs = re.split(r"\n(?=- )|\n\n", changes.strip())
    lines = "\n".join(
        textwrap.fill(" ".join(text.split()), 78, initial_indent="  ", subsequent_indent="    ") for text in paragraphs
    )
    date = email.utils.formatdate(int(os.environ["SOURCE_DATE_EPOCH"]))
    return f"shed-server ({debian_version()}) unstable; urgency=medium\n\n{lines}\n\n -- {MAINTAINER}  {date}\n"


def metadata(tree: Path) -> None:
    """Put what dpkg reads into `tree`."""
    size = sum(path.lstat().st_size for path in tree.rglob("*") if path.is_file() and not path.is_symlink())
    control = tree / "DEBIAN"
    control.mkdir()
    fields = {
        "version": debian_version(),
        "installed": size >> 10,
        "oldest": PYTHONS[0],
        "too_new": TOO_NEW,
        "maintainer": MAINTAINER,
    }
    (control / "control").write_text((ROOT / "packaging/deb/control").read_text().format(**fields))
    (control / "conffiles").write_text("/etc/shed/server.yaml\n")
    sums = [
        f"{hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()}  {path.relative_to(tree)}\n"
        for path in contents(tree)
    ]
    (control / "md5sums").write_text("".join(sums))
    for name in ("postinst", "prerm", "postrm"):
        shutil.copy(ROOT / "packaging/deb" / name, control / name)
        (control / name).chmod(0o755)


def contents(tree: Path) -> list[Path]:
    """Return the files of the package, but its configuration, sorted."""
    return sorted(path for path in (tree / "usr").rglob("*") if path.is_file() and not path.is_symlink())


def debian_version() -> str:
    """Return the version as Debian sorts it: a development build comes before its release."""
    return VERSION.replace(".dev", "~dev")


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a command, which must succeed, and return what it prints."""
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{command[0]} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
