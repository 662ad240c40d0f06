"""The error that is shown to a person as one line, without a traceback."""

from __future__ import annotations

import errno
from typing import TypeVar

E = TypeVar("E", bound="UserError")
# What the file system says of a path that somebody chose: the same again would end the same way.
_OF_THE_PATH = frozenset(
    {
        errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.EROFS,
        errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP, errno.EEXIST,
    }
)  # fmt: skip


class UserError(Exception):
    """Something outside the code is wrong: a config, a file, a device count.

    The message names the key, file or record at fault and the way out.

    Attributes:
      status: exit status of a program that ends with it: 2 for what its user gave it; 1 in
        subclasses, and by ``caused_by``, for what failed and may go well another time.
    """

    status = 2


def caused_by(problem: E, cause: OSError) -> E:
    """``problem`` with the status for an error of the file system: 2 where the path is wrong or
    not ours, 1 for a full or broken disk, a mount that is gone, too many open files."""
    problem.status = 2 if cause.errno in _OF_THE_PATH else 1
    return problem
