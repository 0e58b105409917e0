"""The one exception a user's mistake raises."""


class InputError(ValueError):
    """A wrong option, a missing file, a broken image: the message is one line that says what to change."""
