"""A file as a block device, for as long as it is mounted. Standard library only (keeper)."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from moorage.agent.sandbox.mounting import NODEV, NOSUID, RDONLY, MountError, mount

_GET_FREE, _CONFIGURE = 0x4C82, 0x4C0A
_READ_ONLY, _AUTOCLEAR = 1, 4
_INFO = struct.Struct("QQQQQIIII64s64s32sQQ")
"""`loop_info64`."""
_CONFIG = struct.Struct(f"II{_INFO.size}s64x")
"""`loop_config`."""
_TRIES = 20


def mount_image(path: str, offset: int, target: str) -> None:
    """Mount the squashfs image that begins at that byte of a file, read-only. MountError."""
    try:
        device, held = _attach(path, offset)
    except OSError as error:
        raise MountError(f"{path} cannot be mounted: {error.strerror}") from error
    try:
        mount(device, target, "squashfs", RDONLY | NOSUID | NODEV, name=path)
    finally:
        os.close(held)  # the mount holds it now; without one the device goes free


def _attach(path: str, offset: int) -> tuple[str, int]:
    """A free device with the file in it, and a descriptor that keeps it. OSError."""
    flags = _READ_ONLY | _AUTOCLEAR
    info = _INFO.pack(0, 0, 0, offset, 0, 0, 0, 0, flags, b"", b"", b"", 0, 0)
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for last in range(_TRIES - 1, -1, -1):
            device = f"/dev/loop{fcntl.ioctl(control, _GET_FREE)}"
            held = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.ioctl(held, _CONFIGURE, _CONFIG.pack(file, 0, info))
            except OSError as error:
                os.close(held)
                if error.errno != errno.EBUSY or not last:  # somebody was faster
                    raise
            else:
                return device, held
        raise AssertionError
    finally:
        os.close(control)
        os.close(file)
