"""The one exception that a user is meant to see."""


class UserError(Exception):
    """A mistake or a lack that the user can mend; the message is one line that names it and the remedy."""
