"""The Python SDK without asyncio.  All but `driver` and `process` is generated from `shed.client.aio`."""
