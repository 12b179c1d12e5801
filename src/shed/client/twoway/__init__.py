"""A folder of this machine and one of a shed, kept alike: what changes on either side is carried to the other."""
