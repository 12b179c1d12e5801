"""Builders of ordinary OCI images: one file for each, behind one small interface."""
