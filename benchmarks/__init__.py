"""Measurements: each folder answers one question; README.md lists the commands."""
