// Pillow's resize of a ragged batch of images in two launches; crop, flip, padding, table and layout are in the second.
//
// Each axis of an image has a table: for each output position the first input position, and weights in units of 2**-22
// (gpucompute/image/coefficients.py), so that crops and flips are choices of rows of it. The first kernel weighs along
// one axis, rounds to bytes and leaves each pixel as one word of scratch; the second weighs along the other, looks the
// bytes up and stores them. Everything is an integer, so the bits are those of kernels/cpu/resample.py.
//
//   pixels: bytes; images: one `Image` for each image and up to four of its channels; axes: the tables, int32
//   resample_first                     pixels, images, axes -> scratch: words, byte c of which is channel c
//   resample_last1, last2, last4       scratch, images, axes, table: (C, 256) or null -> out, of 1, 2 or 4 bytes
//   grid (images, tiles), where an image is any number of tiles of 32 columns and 32 rows; block (32, 8)
//
// Offsets are from `pixels`, in bytes, and from `scratch`, `axes`, `table` and `out`, in elements; with a null pointer
// they are addresses. No shared memory. A thread makes one pixel of four rows. In the first pass along x it reads the
// bytes under its taps as aligned words, C words for each four taps, of the four rows at once.
//
// `resample_float`, at the end, is for float32.
//
// Source: Pillow 13, src/libImaging/Resample.c.

#define GC_COLUMNS 32  // of a tile, a lane each
#define GC_ROWS 32
#define GC_LINES 8  // rows of a block
#define GC_EACH (GC_ROWS / GC_LINES)  // rows of a tile for each thread
#define GC_BITS 22
#define GC_HALF (1 << (GC_BITS - 1))

typedef unsigned char u1;
typedef unsigned short u2;
typedef unsigned int u4;
typedef long long i8;

struct Axis {
    int first, weights;  // of `axes`: (count,), and (count, taps rounded up to a multiple of 4), those beyond taps 0
    int taps, count;
    int start, stop;    // input positions from the first to beyond the last that weigh something
    int before, total;  // output positions of padding before, and in all
};

struct Image {
    i8 source, end;        // of the image's first byte, and beyond its last
    i8 pitch, pixel;       // bytes from row to row and from pixel to pixel
    i8 scratch, out;       // of the first element
    i8 row, column, plane;  // elements of out from row to row, from pixel to pixel, from channel to channel
    i8 table;               // of the first channel's entries
    Axis y, x;
    int channels;          // 1 to 4
    int rows_first;        // whether the first kernel weighs along y
    int grey;              // whether three channels become one
    u4 fill;               // byte c is the padding of channel c
};

__device__ __forceinline__ int least(int a, int b) { return a < b ? a : b; }

__device__ __forceinline__ int byte_of(const u4 *words, int i) { return words[i / 4] >> (8 * (i % 4)) & 255; }

__device__ __forceinline__ u4 rounded(int sum) {
    sum >>= GC_BITS;
    return sum < 0 ? 0 : sum > 255 ? 255 : sum;
}

template <int C>
__device__ __forceinline__ u4 packed(const int *sums) {
    u4 word = 0;
    for (int c = 0; c < C; ++c) word |= rounded(sums[c]) << (8 * c);
    return word;
}

// Add four pixels, of C bytes in C words.
template <int C>
__device__ __forceinline__ void add_bytes(int *sums, const u4 *w, int4 k) {
#pragma unroll
    for (int c = 0; c < C; ++c)
        sums[c] += k.x * byte_of(w, c) + k.y * byte_of(w, C + c) + k.z * byte_of(w, 2 * C + c) +
                   k.w * byte_of(w, 3 * C + c);
}

// Add four pixels, of a word each.
template <int C>
__device__ __forceinline__ void add_words(int *sums, const u4 *w, int4 k) {
#pragma unroll
    for (int c = 0; c < C; ++c)
        sums[c] += k.x * byte_of(w, c) + k.y * byte_of(w, 4 + c) + k.z * byte_of(w, 8 + c) + k.w * byte_of(w, 12 + c);
}

// Weigh a pixel along x in GC_EACH rows at once, so that as many loads are on their way. p: its first tap in each row.
template <int C>
__device__ __forceinline__ void weigh_across(const u1 *const *p, const u1 *begin, const u1 *end, i8 pixel,
                                             const int4 *weights, int groups, u4 *words) {
    int sums[GC_EACH][C], beside[GC_EACH];
    const u4 *from[GC_EACH];
#pragma unroll
    for (int r = 0; r < GC_EACH; ++r) {
        for (int c = 0; c < C; ++c) sums[r][c] = GC_HALF;
        beside[r] = (int)((i8)p[r] & 3);
        from[r] = (const u4 *)(p[r] - beside[r]);
    }
    // the words under the taps must lie in the image; of the rows the first begins first and the last ends last
    if (pixel == C && (const u1 *)from[0] >= begin && (const u1 *)(from[GC_EACH - 1] + groups * C + 1) <= end) {
        u4 low[GC_EACH];
#pragma unroll
        for (int r = 0; r < GC_EACH; ++r) low[r] = *from[r];
#pragma unroll 1
        for (int g = 0; g < groups; ++g) {
            const int4 k = weights[g];
#pragma unroll
            for (int r = 0; r < GC_EACH; ++r) {
                u4 w[C];
#pragma unroll
                for (int i = 0; i < C; ++i) {
                    const u4 high = *++from[r];
                    w[i] = __funnelshift_r(low[r], high, 8 * beside[r]);
                    low[r] = high;
                }
                add_bytes<C>(sums[r], w, k);
            }
        }
    } else {
        const int *k = (const int *)weights;
#pragma unroll 1
        for (int j = 0; j < 4 * groups; ++j)
            if (k[j])  // those that pad a row may lie beyond the image
#pragma unroll
                for (int r = 0; r < GC_EACH; ++r)
                    for (int c = 0; c < C; ++c) sums[r][c] += k[j] * p[r][j * pixel + c];
    }
#pragma unroll
    for (int r = 0; r < GC_EACH; ++r) words[r] = packed<C>(sums[r]);
}

template <int C>
__device__ __forceinline__ void first_pass(const u1 *pixels, const Image &image, const int *axes, u4 *scratch) {
    const Axis &y = image.y, &x = image.x;
    const u1 *begin = pixels + image.source, *end = pixels + image.end;
    const bool down = image.rows_first;
    const int rows = down ? y.count : y.stop - y.start, columns = down ? x.stop - x.start : x.count;
    const int wide = (columns + GC_COLUMNS - 1) / GC_COLUMNS, tiles = wide * ((rows + GC_ROWS - 1) / GC_ROWS);
    const int groups = ((down ? y.taps : x.taps) + 3) / 4;
    u4 *to = scratch + image.scratch;
#pragma unroll 1
    for (int tile = blockIdx.y; tile < tiles; tile += gridDim.y) {
        const int column = tile % wide * GC_COLUMNS + threadIdx.x, top = tile / wide * GC_ROWS + threadIdx.y;
        if (column >= columns) continue;
        if (down) {
            const u1 *from = begin + (x.start + column) * image.pixel;
#pragma unroll 1
            for (int row = top; row < least(top - threadIdx.y + GC_ROWS, rows); row += GC_LINES) {
                const int first = axes[y.first + row];
                const int4 *weights = (const int4 *)(axes + y.weights) + (i8)row * groups;
                int sums[C];
                for (int c = 0; c < C; ++c) sums[c] = GC_HALF;
#pragma unroll 1
                for (int g = 0; g < groups; ++g) {
                    u4 w[4];
#pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        const u1 *p = from + least(first + 4 * g + i, y.stop - 1) * image.pitch;
                        w[i] = 0;
                        for (int c = 0; c < C; ++c) w[i] |= p[c] << (8 * c);
                    }
                    add_words<C>(sums, w, weights[g]);
                }
                to[(i8)row * columns + column] = packed<C>(sums);
            }
        } else if (top < rows) {
            const u1 *from = begin + axes[x.first + column] * image.pixel, *p[GC_EACH];
            u4 words[GC_EACH];
#pragma unroll
            for (int r = 0; r < GC_EACH; ++r)
                p[r] = from + (y.start + least(top + r * GC_LINES, rows - 1)) * image.pitch;
            const int4 *weights = (const int4 *)(axes + x.weights) + (i8)column * groups;
            weigh_across<C>(p, begin, end, image.pixel, weights, groups, words);
#pragma unroll
            for (int r = 0; r < GC_EACH; ++r)
                if (top + r * GC_LINES < rows) to[(i8)(top + r * GC_LINES) * columns + column] = words[r];
        }
    }
}

extern "C" __global__ void __launch_bounds__(GC_COLUMNS * GC_LINES, 4)
resample_first(const u1 *__restrict__ pixels, const Image *__restrict__ images, const int *__restrict__ axes,
               u4 *__restrict__ scratch) {
    const Image image = images[blockIdx.x];
    if (image.channels == 3) first_pass<3>(pixels, image, axes, scratch);
    else if (image.channels == 1) first_pass<1>(pixels, image, axes, scratch);
    else if (image.channels == 4) first_pass<4>(pixels, image, axes, scratch);
    else first_pass<2>(pixels, image, axes, scratch);
}

// Weigh words that are `step` apart; those from `room` on have no weight.
template <int C>
__device__ __forceinline__ u4 weigh_words(const u4 *p, int step, int groups, int room, const int4 *weights) {
    int sums[C];
    for (int c = 0; c < C; ++c) sums[c] = GC_HALF;
#pragma unroll 1
    for (int g = 0; g < groups; ++g) {
        u4 w[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) w[i] = p[(i8)least(4 * g + i, room - 1) * step];
        add_words<C>(sums, w, weights[g]);
    }
    return packed<C>(sums);
}

template <typename T, int C>
__device__ __forceinline__ void last_pass(const u4 *scratch, const Image &image, const int *axes, const T *table,
                                          T *out) {
    const Axis &y = image.y, &x = image.x;
    const bool across = image.rows_first;
    const int from_columns = across ? x.stop - x.start : x.count;
    const int wide = (x.total + GC_COLUMNS - 1) / GC_COLUMNS, tiles = wide * ((y.total + GC_ROWS - 1) / GC_ROWS);
    const int kept = image.grey ? 1 : image.channels;
    const u4 *from = scratch + image.scratch;
#pragma unroll 1
    for (int tile = blockIdx.y; tile < tiles; tile += gridDim.y) {
        const int column = tile % wide * GC_COLUMNS + threadIdx.x, top = tile / wide * GC_ROWS;
        if (column >= x.total) continue;
        const int bottom = least(top + GC_ROWS, y.total), at_x = column - x.before;
        const bool beside = at_x < 0 || at_x >= x.count;
#pragma unroll 1
        for (int row = top + threadIdx.y; row < bottom; row += GC_LINES) {
            const int at_y = row - y.before;
            u4 word = image.fill;
            if (!beside && at_y >= 0 && at_y < y.count) {
                const Axis &axis = across ? x : y;
                const int at = across ? at_x : at_y, first = axes[axis.first + at] - axis.start;
                const int groups = (axis.taps + 3) / 4, room = axis.stop - axis.start - first;
                const int4 *weights = (const int4 *)(axes + axis.weights) + (i8)at * groups;
                const u4 *p = across ? from + (i8)at_y * from_columns + first : from + (i8)first * from_columns + at_x;
                word = weigh_words<C>(p, across ? 1 : from_columns, groups, room, weights);
                if (C == 3 && image.grey)
                    word = (19595 * (word & 255) + 38470 * (word >> 8 & 255) + 7471 * (word >> 16) + (1 << 15)) >> 16;
            }
            T *to = out + image.out + row * image.row + column * image.column;
            const T *entries = table + image.table;
#pragma unroll
            for (int c = 0; c < C; ++c)
                if (c < kept) {
                    const int value = byte_of(&word, c);
                    to[c * image.plane] = table ? entries[c * 256 + value] : (T)value;
                }
        }
    }
}

template <typename T>
__device__ __forceinline__ void last(const u4 *scratch, const Image &image, const int *axes, const T *table, T *out) {
    if (image.channels == 3) last_pass<T, 3>(scratch, image, axes, table, out);
    else if (image.channels == 1) last_pass<T, 1>(scratch, image, axes, table, out);
    else last_pass<T, 4>(scratch, image, axes, table, out);
}

extern "C" __global__ void __launch_bounds__(GC_COLUMNS * GC_LINES)
resample_last1(const u4 *__restrict__ scratch, const Image *__restrict__ images, const int *__restrict__ axes,
               const u1 *__restrict__ table, u1 *__restrict__ out) {
    last<u1>(scratch, images[blockIdx.x], axes, table, out);
}

extern "C" __global__ void __launch_bounds__(GC_COLUMNS * GC_LINES)
resample_last2(const u4 *__restrict__ scratch, const Image *__restrict__ images, const int *__restrict__ axes,
               const u2 *__restrict__ table, u2 *__restrict__ out) {
    last<u2>(scratch, images[blockIdx.x], axes, table, out);
}

extern "C" __global__ void __launch_bounds__(GC_COLUMNS * GC_LINES)
resample_last4(const u4 *__restrict__ scratch, const Image *__restrict__ images, const int *__restrict__ axes,
               const u4 *__restrict__ table, u4 *__restrict__ out) {
    last<u4>(scratch, images[blockIdx.x], axes, table, out);
}

// float32: each launch weighs along one axis, in doubles added in the order of the taps, and stores floats.
//
//   resample_float     pixels, jobs, places, weights, scratch, out; grid (jobs, any), block any
//
// A job sees its image as (outer, n, inner), weighs along n and leaves (outer, count, inner) in C order.

struct Job {
    i8 source, target;         // of the first element, in bytes from their memory; with a null pointer addresses
    i8 pitch, inner;           // elements from one of `outer` to the next, and from one of n to the next
    i8 places, weights;        // of the tables: (count, 2), first position and taps, and (count, taps); < 0: a copy
    int outer, count, taps;
    int before;                // positions of n that the memory lacks
    int of_scratch, to_scratch;
};

extern "C" __global__ void
resample_float(const float *__restrict__ pixels, const Job *__restrict__ jobs, const int *__restrict__ places,
               const double *__restrict__ weights, float *scratch, float *__restrict__ out) {
    const Job job = jobs[blockIdx.x];
    const float *from = (const float *)((i8)(job.of_scratch ? scratch : pixels) + job.source);
    float *to = (float *)((i8)(job.to_scratch ? scratch : out) + job.target);
    const i8 total = job.outer * job.count * job.inner, step = (i8)gridDim.y * blockDim.x;
    for (i8 i = (i8)blockIdx.y * blockDim.x + threadIdx.x; i < total; i += step) {
        const i8 above = i / job.inner, at = above % job.count;
        const int first = places[job.places + 2 * at] - job.before, taps = places[job.places + 2 * at + 1];
        const float *p = from + above / job.count * job.pitch + first * job.inner + i % job.inner;
        float value = *p;
        if (job.weights >= 0) {
            const double *k = weights + job.weights + at * job.taps;
            double sum = 0;
            for (int j = 0; j < taps; ++j) sum += p[j * job.inner] * k[j];
            value = (float)sum;
        }
        to[i] = value;
    }
}
