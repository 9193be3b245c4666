"""Threads that take pieces of a kernel's work from a counter in memory, and wait at a word of it for more.

A job is a table of words that belongs to the caller. `lead` posts it to mailboxes, works it off together with whoever
comes, takes back what nobody has opened, and returns when no helper is left inside. What is posted is opened, or taken
back, by compare-and-exchange: once. Addresses are int64; the operations on memory are those of `launch/atomics.py`.
"""

# Words of a job: the kernel's address and arguments, the next item and the last, the items of a piece, the caller's
# scratch memory; how many mailboxes there are, and then their addresses.
KERNEL, P, Q, K, E, NEXT, END, PIECE, SCRATCH, COUNT, FIRST = range(11)
# Words of a mailbox, and its states: DISMISSED asks the helper to look for other work.
STATE, JOB, MEMORY = range(3)
ASLEEP, WATCHING, POSTED, RUNNING, DISMISSED = range(5)


def take_pieces(job, scratch):
    """Work off pieces of a job until none is left."""
    words = ptr_int64(job)
    end, piece = words[END], words[PIECE]
    while True:
        lo = add_atomic(job + 8 * NEXT, piece)
        if lo >= end:
            return
        call_kernel(words[KERNEL], lo, min(lo + piece, end), words[P], words[Q], scratch, words[K], words[E])


def lead(job):
    """Work off a job, together with the helpers at its mailboxes."""
    words = ptr_int64(job)
    for i in range(words[COUNT]):
        mail = words[FIRST + i]
        ptr_int64(mail)[JOB] = job
        store_atomic(mail + 8 * STATE, POSTED)
    take_pieces(job, words[SCRATCH])
    for i in range(words[COUNT]):
        mail = words[FIRST + i]
        if not compare_exchange(mail + 8 * STATE, POSTED, ASLEEP):  # a helper that is awake says so again
            while load_atomic(mail + 8 * STATE) == RUNNING:
                pause()


def serve(mail, patience):
    """Work off what is posted, and return when nothing came while `patience` was counted down."""
    left = patience
    while True:
        state = load_atomic(mail + 8 * STATE)
        if state == POSTED and compare_exchange(mail + 8 * STATE, POSTED, RUNNING):
            words = ptr_int64(mail)
            take_pieces(words[JOB], words[MEMORY])
            store_atomic(mail + 8 * STATE, WATCHING)
            left = patience
        elif state == ASLEEP:
            compare_exchange(mail + 8 * STATE, ASLEEP, WATCHING)
        pause()
        left -= 1
        before = DISMISSED if state == DISMISSED else WATCHING
        if (left <= 0 or state == DISMISSED) and compare_exchange(mail + 8 * STATE, before, ASLEEP):
            return
