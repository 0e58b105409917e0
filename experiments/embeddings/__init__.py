"""Encoders without decoders."""
