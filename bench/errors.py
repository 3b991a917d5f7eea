"""The one error that a user is meant to read."""


class InputError(Exception):
    """Bad input: one line that says what is wrong, where, and what to do about it.

    The command line prints it without a trace and exits with status 2.
    """
