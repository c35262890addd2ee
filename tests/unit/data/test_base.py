"""Whose fault it is that data cannot be provided."""

from __future__ import annotations

import errno

import pytest

from moorage.data.base import NotHere, SourceError, of_the_node


@pytest.mark.parametrize(
    "error",
    [
        NotHere("/data does not exist"),
        OSError(errno.ENOSPC, "No space left on device"),
        FileNotFoundError(errno.ENOENT, "No such file or directory"),
        PermissionError(errno.EACCES, "Permission denied"),
    ],
)
def test_what_another_node_may_have(error: Exception) -> None:
    told = SourceError("a file cannot be written")
    told.__cause__ = error
    assert of_the_node(error)
    assert of_the_node(told)


@pytest.mark.parametrize(
    "error",
    [
        SourceError("the registry refuses this password"),
        OSError(errno.ENAMETOOLONG, "File name too long"),
        ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"),
        OSError("it has no number"),
        ValueError(),
    ],
)
def test_what_is_the_same_everywhere(error: Exception) -> None:
    told = SourceError("the image cannot be had")
    told.__cause__ = error
    assert not of_the_node(error)
    assert not of_the_node(told)
