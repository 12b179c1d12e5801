"""The boot kit: kernel, initrd and runtime, made from pinned Debian packages when an image is published."""
