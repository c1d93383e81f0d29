"""Renders the report, one HTML file that needs no other file."""
