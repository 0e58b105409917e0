"""Codes on a simplex, whose digits gather at its vertices."""
