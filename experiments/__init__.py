"""The papers' experiments: a folder each, and the frame that they share. README.md lists the commands."""
