"""Who writes the root file system: pinned writers behind one interface.  What they write goes through the same gate."""
