"""Folds for reductions: a tile of elements to a state, two states to one, a state to a value.

All reductions follow one tree, fixed by the number of elements alone: tiles of 256 elements, the last one shorter; a
tile of n elements is folded by halving (with h the largest power of two below n, element i takes in element i + h;
then n is h); tiles are joined in adjacent pairs, an odd last one going up unchanged. Several columns are folded side
by side: a tile is a C-ordered (count, columns) block, and a state has a slot of 8 bytes for each field and column.
Addresses are integers; the compiler gives each copy of these functions its types through

    BUFFER, ACC, STATE     casts from an address to a pointer (elements, lanes, states)
    ACC_T, STATE_T         the value types of lanes and states
    combine(a, b)          the operation, for folds with one field
    INT64, float64         a cast to an int64 pointer, a type
    whole_tile, part_of_tile   folds of a tile of floats, ITEM bytes each, at an address (`launch/vectors.py`)

The forms called strided read rows of columns where they lie in a larger array; the rest reads compact tiles. The
folds of integers where the order cannot matter take tiles of 1024. `acc` has room for 128 rows of columns, 8
bytes each, for each field of a state.

Sources: Higham, "The accuracy of floating point summation", 1993 (pairwise sums); Chan, Golub and LeVeque, "Updating
formulae and a pairwise algorithm for computing sample variances", 1979 (``m2``).
"""

from __future__ import annotations

SLOT = 8
ROWS = 64  # lanes of the folds that may take any order


def add(a, b):
    return a + b


def multiply(a, b):
    return a * b


def larger(a, b):
    """The larger of two; a NaN wins; the first of equals."""
    return a if (a >= b or a != a) else b


def smaller(a, b):
    """The smaller of two; a NaN wins; the first of equals."""
    return a if (a <= b or a != a) else b


# One field: sum, prod, min, max


def fold_tile(buffer, count, columns, first, acc, state):
    """Fold a tile into `state`."""
    x = BUFFER(buffer)
    a = ACC(acc)
    if count == 256:
        w = 64 * columns  # two halvings in one walk
        for i in range(w):
            left = ACC_T(combine(ACC_T(x[i]), ACC_T(x[i + 2 * w])))
            a[i] = ACC_T(combine(left, ACC_T(combine(ACC_T(x[i + w]), ACC_T(x[i + 3 * w])))))
        halve(a, 64, columns)
    else:
        h = 1
        while 2 * h < count:
            h *= 2
        rest = count - h
        for i in range(rest * columns):
            a[i] = ACC_T(combine(ACC_T(x[i]), ACC_T(x[i + h * columns])))
        for i in range(rest * columns, h * columns):
            a[i] = ACC_T(x[i])
        halve(a, h, columns)
    s = STATE(state)
    for j in range(columns):
        s[j] = STATE_T(a[j])


def fold_row(buffer, count, columns, first, acc, state):
    """Fold up to 8 tiles of one column and join them: as fold_tile and fold_join, with one call for all."""
    wide_loops()
    nodes = ACC(acc)
    tiles = 0
    k = 0
    while k + 256 <= count:
        nodes[tiles] = whole_tile(buffer + k * ITEM)
        tiles += 1
        k += 256
    if k < count:
        nodes[tiles] = part_of_tile(buffer + k * ITEM, count - k)
        tiles += 1
    step = 1
    while step < tiles:
        for i in range(0, tiles - step, 2 * step):
            nodes[i] = ACC_T(combine(nodes[i], nodes[i + step]))
        step *= 2
    STATE(state)[0] = STATE_T(nodes[0])


def fold_strided(buffer, count, columns, step, acc, state):
    """As fold_tile, of rows that lie `step` elements apart."""
    x = BUFFER(buffer)
    a = ACC(acc)
    if count == 256:
        h = 64  # two halvings in one walk
        for i in range(h):
            for j in range(columns):
                left = ACC_T(combine(ACC_T(x[i * step + j]), ACC_T(x[(i + 2 * h) * step + j])))
                right = ACC_T(combine(ACC_T(x[(i + h) * step + j]), ACC_T(x[(i + 3 * h) * step + j])))
                a[i * columns + j] = ACC_T(combine(left, right))
    else:
        h = 1
        while 2 * h < count:
            h *= 2
        rest = count - h
        for i in range(rest):
            for j in range(columns):
                a[i * columns + j] = ACC_T(combine(ACC_T(x[i * step + j]), ACC_T(x[(i + h) * step + j])))
        for i in range(rest, h):
            for j in range(columns):
                a[i * columns + j] = ACC_T(x[i * step + j])
    halve(a, h, columns)
    s = STATE(state)
    for j in range(columns):
        s[j] = STATE_T(a[j])


def halve(a, rows, columns):
    """Fold `rows` rows of lanes, a power of two, into the first, in place."""
    while rows >= 4:
        w = rows // 4 * columns
        for i in range(w):
            left = ACC_T(combine(a[i], a[i + 2 * w]))
            a[i] = ACC_T(combine(left, ACC_T(combine(a[i + w], a[i + 3 * w]))))
        rows //= 4
    if rows == 2:
        for j in range(columns):
            a[j] = ACC_T(combine(a[j], a[j + columns]))


def any_order_tile(buffer, count, columns, first, acc, state):
    """Fold a tile whose order cannot matter: lanes of 64 rows, wide enough for every vector unit."""
    wide_loops()
    x = BUFFER(buffer)
    a = ACC(acc)
    w = ROWS * columns
    n = count * columns
    if n >= w:
        for i in range(w):
            a[i] = ACC_T(x[i])
        k = w
        while k + w <= n:
            for i in range(w):
                a[i] = ACC_T(combine(a[i], ACC_T(x[k + i])))
            k += w
        for i in range(n - k):
            a[i] = ACC_T(combine(a[i], ACC_T(x[k + i])))
        halve(a, ROWS, columns)
    else:
        for j in range(columns):
            a[j] = ACC_T(x[j])
        for k in range(1, count):
            for j in range(columns):
                a[j] = ACC_T(combine(a[j], ACC_T(x[k * columns + j])))
    s = STATE(state)
    for j in range(columns):
        s[j] = STATE_T(a[j])


def fold_join(left, left_count, right, right_count, columns):
    """Join the state `right` into `left`."""
    a = STATE(left)
    b = STATE(right)
    for j in range(columns):
        a[j] = STATE_T(combine(a[j], b[j]))


def fold_value(state, columns, j, count):
    """Return the result for column `j`."""
    return STATE(state)[j]


# m2 of floats: the sum of squared distances from the mean; fields: mean, m2, sum


def m2_tile(buffer, count, columns, first, acc, state):
    """Fold a tile: its mean first, then the squares, along the same tree."""
    fold_tile(buffer, count, columns, first, acc, state)
    h = m2_means(count, columns, state)
    x = BUFFER(buffer)
    a = ACC(acc)
    s = STATE(state)
    rest = min(count, 2 * h) - h
    if columns == 1:
        m = s[0]
        for i in range(rest):
            a[i] = ACC_T(square(x[i], m) + square(x[i + h], m))
        for i in range(rest, h):
            a[i] = square(x[i], m)
    else:
        m2_distances(x, a, s, rest, h, columns, columns)
    m2_squares(a, h, columns, state)


def m2_strided(buffer, count, columns, step, acc, state):
    """As m2_tile, of rows that lie `step` elements apart."""
    fold_strided(buffer, count, columns, step, acc, state)
    h = m2_means(count, columns, state)
    x = BUFFER(buffer)
    a = ACC(acc)
    s = STATE(state)
    m2_distances(x, a, s, min(count, 2 * h) - h, h, columns, step)
    m2_squares(a, h, columns, state)


def m2_distances(x, a, means, rest, h, columns, step):
    """The first halving: squares of rows `h` apart, of which `rest` have a second."""
    for i in range(rest):
        for j in range(columns):
            both = square(x[i * step + j], means[j]) + square(x[(i + h) * step + j], means[j])
            a[i * columns + j] = ACC_T(both)
    for i in range(rest, h):
        for j in range(columns):
            a[i * columns + j] = square(x[i * step + j], means[j])


def m2_means(count, columns, state):
    """Move the sums to their field and leave means; return the largest power of two below `count`, at least 1."""
    s = STATE(state)
    sums = STATE(state + 2 * columns * SLOT)
    for j in range(columns):
        sums[j] = s[j]
        s[j] = STATE_T(s[j] / STATE_T(count))
    h = 128
    while h >= count:
        h //= 2
    return max(h, 1)


def m2_squares(a, h, columns, state):
    halve(a, h, columns)
    squares = STATE(state + columns * SLOT)
    for j in range(columns):
        squares[j] = a[j]


def square(x, mean):
    d = ACC_T(x - mean)
    return ACC_T(d * d)


def m2_join(left, left_count, right, right_count, columns):
    """Chan's update."""
    mean_a = STATE(left)
    mean_b = STATE(right)
    m2_a = STATE(left + columns * SLOT)
    m2_b = STATE(right + columns * SLOT)
    sum_a = STATE(left + 2 * columns * SLOT)
    sum_b = STATE(right + 2 * columns * SLOT)
    total = float64(left_count + right_count)
    share = STATE_T(float64(right_count) / total)
    weight = STATE_T(float64(left_count) * float64(right_count) / total)
    for j in range(columns):
        d = STATE_T(mean_b[j] - mean_a[j])
        sum_a[j] = STATE_T(sum_a[j] + sum_b[j])
        mean_a[j] = STATE_T(mean_a[j] + STATE_T(d * share))
        m2_a[j] = STATE_T(STATE_T(m2_a[j] + m2_b[j]) + STATE_T(STATE_T(d * d) * weight))


def m2_value(state, columns, j, count):
    return STATE(state + columns * SLOT)[j]


# m2 of small integers, exact: fields: sum, sum of squares (int64)


def squares_tile(buffer, count, columns, first, acc, state):
    """Fold a tile of 8- or 16-bit integers; lanes of ACC_T cannot overflow in tiles of 1024."""
    wide_loops()
    x = BUFFER(buffer)
    sums = ACC(acc)
    squares = ACC(acc + 2 * ROWS * columns * SLOT)
    w = ROWS * columns
    n = count * columns
    for i in range(w):
        sums[i] = ACC_T(0)
        squares[i] = ACC_T(0)
    k = 0
    while k + w <= n:
        for i in range(w):
            v = ACC_T(x[k + i])
            sums[i] = ACC_T(sums[i] + v)
            squares[i] = ACC_T(squares[i] + ACC_T(v * v))
        k += w
    for i in range(n - k):
        v = ACC_T(x[k + i])
        sums[i] = ACC_T(sums[i] + v)
        squares[i] = ACC_T(squares[i] + ACC_T(v * v))
    halve(sums, ROWS, columns)
    halve(squares, ROWS, columns)
    s = STATE(state)
    q = STATE(state + columns * SLOT)
    for j in range(columns):
        s[j] = STATE_T(sums[j])
        q[j] = STATE_T(squares[j])


def squares_join(left, left_count, right, right_count, columns):
    a = STATE(left)
    b = STATE(right)
    for i in range(2 * columns):
        a[i] = a[i] + b[i]


def squares_value(state, columns, j, count):
    """The exact integer part, then one rounding: D - r²/n with the mean split as m + r/n."""
    s = STATE(state)[j]
    q = STATE(state + columns * SLOT)[j]
    m = s // count
    r = s - m * count
    d = q - 2 * m * s + count * m * m
    return float64(d) - float64(r) * float64(r) / float64(count)


# argmin and argmax: fields: value, index


def better(a, ia, b, ib):
    """Whether `b` takes the place of `a`: a NaN first, then `precedes`, then the lower index."""
    if b != b:
        return a == a or ib < ia
    if a != a:
        return False
    return precedes(b, a) or (b == a and ib < ia)


def greater(a, b):
    return a > b


def less(a, b):
    return a < b


def arg_tile(buffer, count, columns, first, acc, state):
    """Find the best value of each column first, then where it stands first: two walks that vectorise."""
    any_order_tile(buffer, count, columns, first, acc, state)
    x = BUFFER(buffer)
    best = STATE(state)
    index = INT64(state + columns * SLOT)
    if columns == 1:
        place = count
        for k in range(count):
            place = min(place, k if same(x[k], best[0]) else count)
        index[0] = first + place
    else:
        for j in range(columns):
            index[j] = first + count
        for k in range(count):
            for j in range(columns):
                here = first + k if same(x[k * columns + j], best[j]) else first + count
                index[j] = min(index[j], here)


def same(a, b):
    """Whether two values are equal, or both NaN."""
    return (a == b) | ((a != a) & (b != b))


def arg_join(left, left_count, right, right_count, columns):
    a = STATE(left)
    b = STATE(right)
    ia = INT64(left + columns * SLOT)
    ib = INT64(right + columns * SLOT)
    for j in range(columns):
        if better(a[j], ia[j], b[j], ib[j]):
            a[j] = b[j]
            ia[j] = ib[j]


def arg_value(state, columns, j, count):
    return INT64(state + columns * SLOT)[j]


def copy_words(source, target, count):
    """Copy `count` slots from one address to another."""
    a = INT64(source)
    b = INT64(target)
    for i in range(count):
        b[i] = a[i]
