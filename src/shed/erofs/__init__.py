"""The EROFS on-disk format: structures, writer, reader, checker.

Pure: it knows files and bytes, nothing of OCI.  Source of the format: Linux `fs/erofs/erofs_fs.h` and
https://docs.kernel.org/filesystems/erofs.html.
"""
