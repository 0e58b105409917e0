"""Which losses shrink codes in many dimensions."""
