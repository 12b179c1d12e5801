"""One of two folders that are kept alike, and the program that keeps the one in a guest.

Both ends use it; a guest gets these files from its client, whatever its image has.
"""
