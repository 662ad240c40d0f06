"""The error that is shown to a person as one line, without a traceback."""

from __future__ import annotations


class UserError(Exception):
    """Something outside the code is wrong: a config, a file, a device count.

    The message names the key, file or record at fault and the way out.

    Attributes:
      status: exit status of a program that ends with it: 2 for what its user gave it, 1 in
        subclasses for a run or a file that failed.
    """

    status = 2
