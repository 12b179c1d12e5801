"""Several sheds at once, by asyncio: each does its part, and all are gone at the end."""

import asyncio

from shed import AsyncClient


async def square(client: AsyncClient, number: int) -> int:
    async with await client.create(memory_mb=256) as shed:
        result = await shed.exec(f"echo $(( {number} * {number} ))", check=True)
        return int(result.stdout)


async def main() -> None:
    client = AsyncClient()
    print(await asyncio.gather(*(square(client, number) for number in (2, 3))))
    print("sheds of ours left:", sum(shed.name.startswith("sdk-") for shed in await client.list()))


asyncio.run(main())
