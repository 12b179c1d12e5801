"""What `shed` and `shed-server` print: lines, tables, machine output, progress."""
