"""Run a script: its words, its environment, its exit code, its two outputs."""

from shed import Client

SCRIPT = """
echo "hello $WHO from $(hostname)"
echo "this is an error" >&2
exit 3
"""

with Client().create() as shed:
    result = shed.exec(SCRIPT, env={"WHO": "world"}, cwd="/tmp")
    print("exit code:", result.exit_code)
    print("stdout:", result.text.strip())
    print("stderr:", result.stderr.decode().strip())
