# SPDX-License-Identifier: MIT
"""A file whose close(), or all of it, takes as long as this says: one regular file served over /dev/fuse, without a library. Needs root to
mount."""
import contextlib
import ctypes
import os
import struct
import tempfile
import threading

from nicdtest.root import lacking

LIBC = ctypes.CDLL(None, use_errno=True)
MNT_DETACH = 2
GETATTR, OPEN, READ, RELEASE, FLUSH, INIT = 3, 14, 15, 18, 25, 26
EIO, ENOSYS = 5, 38


class SlowFile:
    """`flushing` counts the closes that wait now; let_go() ends them, and all to come. After freeze() nothing at all is answered, and `seen`
    has the operations that somebody waits for. The kernel may remember no attributes: whoever wants to know them must ask."""

    def __init__(self):
        handle, self.path = tempfile.mkstemp(prefix="nicd-fuse-")
        os.close(handle)
        self.dev = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        self.held, self.hold, self.flushing = [], True, 0
        self.frozen, self.seen = False, []
        self.lock = threading.Lock()
        options = f"fd={self.dev},rootmode=100644,user_id={os.getuid()},group_id={os.getgid()},allow_other"
        if LIBC.mount(b"nicd-test", self.path.encode(), b"fuse", 0, options.encode()) < 0:
            error = OSError(ctypes.get_errno(), "mount")
            os.close(self.dev)
            os.unlink(self.path)
            raise error
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _reply(self, unique, body=b"", error=0):
        with contextlib.suppress(OSError):
            os.write(self.dev, struct.pack("<IiQ", 16 + len(body), -error, unique) + body)

    def _serve(self):
        attr = struct.pack("<6Q10I", 1, 4096, 8, 0, 0, 0, 0, 0, 0, 0o100644, 1, os.getuid(), os.getgid(), 0, 4096, 0)
        while True:
            try:
                request = os.read(self.dev, 1 << 18)
            except OSError:
                return
            _, opcode, unique = struct.unpack_from("<IIQ", request)
            with self.lock:
                if self.frozen:
                    self.seen.append(opcode)
                    self.held.append((unique, opcode))
                    self.flushing += opcode == FLUSH
                    continue
            if opcode == INIT:
                self._reply(unique, struct.pack("<IIIIHHIIHH8I", 7, 31, 65536, 0, 16, 12, 65536, 1, 0, 0, *[0] * 8))
            elif opcode == GETATTR:
                self._reply(unique, struct.pack("<QII", 0, 0, 0) + attr)
            elif opcode == OPEN:
                self._reply(unique, struct.pack("<QII", 1, 0, 0))
            elif opcode == FLUSH:
                with self.lock:
                    if self.hold:
                        self.held.append((unique, FLUSH))
                        self.flushing += 1
                        continue
                self._reply(unique)
            elif opcode == RELEASE:
                self._reply(unique)
            else:
                self._reply(unique, error=ENOSYS)

    def let_go(self):
        with self.lock:
            held, self.held, self.hold, self.frozen = self.held, [], False, False
        for unique, opcode in held:
            self._reply(unique, error=0 if opcode in (FLUSH, RELEASE) else EIO)

    def freeze(self):
        with self.lock:
            self.frozen, self.seen = True, []

    def close(self):
        self.let_go()
        LIBC.umount2(self.path.encode(), MNT_DETACH)
        os.close(self.dev)
        os.unlink(self.path)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


def slow_file_new():
    """One, or the end of the test."""
    try:
        return SlowFile()
    except OSError as error:
        lacking("FUSE file", error)
