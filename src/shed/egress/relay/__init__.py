"""The relay of one shed: it takes connections, decides, dials, and copies."""
