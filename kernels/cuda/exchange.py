"""How lanes and blocks of a reduction give each other values, and how an index is checked: functions for numba-cuda.

The compiler gives each copy its globals: T, the type of the values; MOVED, the type that shuffles move it as (they have
no integers below 32 bits and know signed ones only); room(), an array of 32 * 33 in shared memory; cuda; counted;
ptr_int32, ptr_int64.
"""

from __future__ import annotations


def exchange(value, distance):
    """The value of the lane `distance` further in the warp."""
    return T(cuda.shfl_down_sync(0xFFFFFFFF, MOVED(value), distance))


def from_first(value, rank):
    """The value of the lane `rank` before in the warp, which is the first of its group."""
    return T(cuda.shfl_sync(0xFFFFFFFF, MOVED(value), cuda.laneid - rank))


def turned(value):
    """For thread t of warp w, the value of thread w of warp t; all 1024 threads of the block call it."""
    values = room()  # 33 to a row, or all of a column would lie in one bank
    thread = cuda.threadIdx.x
    cuda.syncthreads()
    values[(thread & 31) * 33 + (thread >> 5)] = value
    cuda.syncthreads()
    return values[(thread >> 5) * 33 + (thread & 31)]


def from_first_of_warp(value, rank):
    """For thread t of every warp, the value of the first thread of warp t."""
    values = room()
    thread = cuda.threadIdx.x
    cuda.syncthreads()
    if rank == 0:
        values[thread >> 5] = value
    cuda.syncthreads()
    return values[thread & 31]


def last_to_come(counter, number):
    """Whether this block is the last of `number` to call it; what the others wrote before is there then.

    All threads of a block call it. `counter`: the address of an int32 that is 0, and is left so by the last block.
    CUDA C++ Programming Guide, "Memory Fence Functions".
    """
    cuda.syncthreads()
    last = 0
    if cuda.threadIdx.x == 0:
        cuda.threadfence()
        if counted(counter) == number - 1:
            ptr_int32(counter)[0] = 0
            last = 1
        cuda.threadfence()
    return cuda.syncthreads_or(last) != 0


def checked(index, length, site, record):
    """As `kernels/cpu/gather.py`; record: the address of site, index and length, and the sites before this kernel's.

    Of several threads that fail, the words may hold something of each.
    """
    i = index + length if index < 0 else index
    if i < 0 or i >= length:
        words = ptr_int64(record[0])
        words[1] = index
        words[2] = length
        words[0] = site + record[1]
        i = 0
    return i
