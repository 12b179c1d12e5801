"""The SSH front: people, editors and their tools reach a shed as ``ssh -p 2222 NAME@host``.

asyncssh speaks the protocol; here is what it shall mean.  Everything but `front` and `hostkey` imports it, and is
imported by the first connection: a server nobody connects to does not pay for it.
"""
