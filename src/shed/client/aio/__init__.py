"""The Python SDK for asyncio, and the requests that it is made of.  `shed.client.sync` is generated from this."""
