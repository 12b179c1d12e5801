"""A shed of one's own for as long as a block lasts."""

from shed import Client

with Client().create() as shed:
    print(shed.exec(["uname", "-sr"], check=True).text, end="")
