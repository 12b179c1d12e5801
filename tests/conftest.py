"""Fixtures that every test may use."""

import signal

pytest_plugins = ["support.kit"]

# Whoever runs the tests may ignore it (nohup does), and what is ignored stays so in every program that a test starts.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
