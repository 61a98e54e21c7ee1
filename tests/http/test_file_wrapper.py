"""`wsgi.file_wrapper`: in which blocks a file is read."""

import io
import os

import pytest

from wsgi_timeout.http.file_wrapper import FileWrapper

SIZE = 600_000


def test_a_file_is_read_in_large_blocks(tmp_path):
    """A file on a disk is read in blocks as large as bodies travel, whatever was asked for."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * SIZE)
    with path.open("rb") as file:
        assert [len(block) for block in FileWrapper(file, 8192)] == [262_144, 262_144, SIZE - 524_288]


def test_bytes_in_memory_are_read_in_large_blocks():
    """So are bytes in memory; a larger block that is asked for is kept."""
    assert [len(block) for block in FileWrapper(io.BytesIO(b"x" * SIZE))][:1] == [262_144]
    assert [len(block) for block in FileWrapper(io.BytesIO(b"x" * SIZE), 500_000)][:1] == [500_000]


def test_a_pipe_is_read_as_asked():
    """Of a pipe no larger block is waited for: what is there must not be held back."""
    read, write = os.pipe()
    with os.fdopen(read, "rb") as file:
        os.write(write, b"x" * 20)
        assert next(iter(FileWrapper(file, 10))) == b"x" * 10
        os.close(write)


@pytest.mark.parametrize("close", [True, False])
def test_its_file_is_closed_with_it(close):
    """`close` is the file's, where it has one; what merely has `read` is read as asked."""

    class Odd:
        def __init__(self):
            self.blocks, self.closed = [b"ab", b""], False

        def read(self, size):
            assert size == 8192
            return self.blocks.pop(0)

    if close:
        Odd.close = lambda self: setattr(self, "closed", True)
    odd = Odd()
    wrapper = FileWrapper(odd)
    assert list(wrapper) == [b"ab"]
    if close:
        wrapper.close()
    assert odd.closed is close
