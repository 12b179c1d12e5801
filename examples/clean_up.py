"""Whatever happens in the block, the shed is gone after it; errors carry a code for programs and a hint for people."""

from shed import Client, CommandError, NotFoundError

client = Client()
name = ""
try:
    with client.create() as shed:
        name = shed.name
        shed.exec("echo 'disk on fire' >&2; exit 42", check=True)
except CommandError as error:
    print(f"{error.code}: {error} (exit code {error.result.exit_code})")
try:
    client.get(name)
except NotFoundError as error:
    print(f"{error.code}: it has been deleted all the same")
