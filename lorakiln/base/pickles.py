"""Pickles, which can run code when they are opened: told by their name and by how they begin."""

SUFFIXES = frozenset({".ckpt", ".pt", ".pth", ".bin", ".pkl", ".pickle"})
ZIP_OR_PICKLE = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
START = 9  # bytes of a file that `begins_as_pickle` looks at


def begins_as_pickle(start: bytes) -> bool:
    """Whether a file with these first bytes is a pickle or a zip archive of pickles, as torch writes them.

    A safetensors file begins with eight bytes of length, which may be any, a pickle's too; its header's "{" follows.
    """
    return start.startswith(ZIP_OR_PICKLE) and start[8:9] != b"{"
