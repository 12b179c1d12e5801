"""The EROFS on-disk format: one file for each structure, and the writer, the reader, the checker and the verifier.

Pure: it knows files and bytes, nothing of OCI.  Source of the format: Linux `fs/erofs/erofs_fs.h` and
https://docs.kernel.org/filesystems/erofs.html.
"""
