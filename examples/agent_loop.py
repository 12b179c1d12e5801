"""An agent's loop: commands from elsewhere run one after the other in a shed of their own, each with a time limit."""

from shed import Client, CommandTimeoutError

IDEAS = ["echo 'print me' > idea.txt", "cat idea.txt", "cat missing.txt", "sleep 600", "echo still here"]

with Client().create() as shed:
    for idea in IDEAS:
        try:
            result = shed.exec(idea, cwd="/tmp", timeout=5)
        except CommandTimeoutError as error:
            print(f"$ {idea}\n  given up: {error}")
            continue
        outcome = result.text if result.ok else f"exit code {result.exit_code}: {result.stderr.decode()}"
        print(f"$ {idea}\n  {outcome.strip()}")
