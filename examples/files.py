"""Files and folders go both ways."""

import tempfile
from pathlib import Path

from shed import Client

with Client().create() as shed, tempfile.TemporaryDirectory() as folder:
    here = Path(folder)
    (here / "project").mkdir()
    (here / "project/numbers.txt").write_text("3\n1\n2\n")
    shed.upload(here / "project", "/tmp/project")
    shed.exec("sort numbers.txt > sorted.txt", cwd="/tmp/project", check=True)
    shed.write_file("/tmp/project/note.txt", "made in a shed\n")
    shed.download("/tmp/project", here / "result")
    for path in sorted((here / "result").iterdir()):
        print(path.name, path.read_text().split())
    print("read back:", shed.read_file("/tmp/project/note.txt").decode().strip())
