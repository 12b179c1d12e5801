"""The jail around a VMM: what one gets of the host, and the program that puts it there and becomes it.

`plan` says what a VMM gets, on the server's side.  `launcher` is the program: it starts the keeper (`keeper`), makes
the namespaces and the empty root (`room`), and stays until the VMM has what it gets later (`attendant`).
"""
