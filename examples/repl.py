"""A process that is talked to: it keeps its state from one question to the next."""

from shed import Client

with Client().create() as shed, shed.popen(["sh"]) as shell:

    def ask(line: str) -> str:
        shell.stdin.write(f"{line}; echo\n".encode())
        answer = shell.stdout.readline().decode().strip()
        if answer:
            shell.stdout.readline()
        return answer

    ask("x=20")
    ask("x=$((x + 22))")
    print("x is", ask("echo $x"))
    shell.stdin.close()
    print("exit code:", shell.wait())
