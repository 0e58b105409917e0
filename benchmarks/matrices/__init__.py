"""Entropic transport with an explicit cost matrix, beside other libraries."""
