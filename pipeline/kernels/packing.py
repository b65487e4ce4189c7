"""Rows of Postgres' binary COPY: squeeze out what a null or a short text leaves unused."""

from pipeline.kernels.jit import kernel
from schemas.blocks import Array


@kernel
def squeeze(rows: Array, length_at: Array, out: Array) -> int:
    """Copy rows (n, w) of bytes into `out` without the unused tail of each field.

    A row is an int16 count and fields of a big-endian int32 length, which stands at `length_at`,
    and room for the bytes; a negative length is null and has none. Returns the bytes written.
    """
    n = 0
    for i in range(rows.shape[0]):
        row = rows[i]
        out[n] = row[0]
        out[n + 1] = row[1]
        n += 2
        for j in range(length_at.shape[0]):
            place = length_at[j]
            used = 0
            if row[place] < 128:
                used = row[place + 2] * 256 + row[place + 3]
            for b in range(4 + used):
                out[n + b] = row[place + b]
            n += 4 + used
    return n
