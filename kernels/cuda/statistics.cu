// Statistics of each channel, reading every element once: mean, sum of squared distances from it (m2), extrema.
//
// x: (outer, channels, inner) in C order: NHWC is (N*H*W, C, 1), NCHW is (N, C, H*W), a flat array (1, 1, n). A channel
// has n = outer * inner elements, counted through outer and then inner. The CPU twin is kernels/cpu/statistics.py.
//
//   kernel                          grid                     block     for
//   statistics_u1_planar            (channels, slices)       256       uint8, inner > 1 or one channel
//   statistics_u1_pixels2, 3, 4     (1, slices)              256       uint8, inner == 1, so many channels
//   statistics_u1_columns           (channels / 32, slices)  (32, 8)   uint8, inner == 1, any number of channels
//   statistics_u1_finish            (channels)               32        what the slices left -> results
//   statistics_f4_lanes             (any)                    256       float32; quick for channels apart or few
//   statistics_f4_columns           (channels / 32, any)     (32, 8)   float32, inner == 1, many channels
//   statistics_f4_join              (channels, nodes / 1024) 32..1024  nodes -> nodes / 1024, the last one -> results
//
// Results: mean, variance = m2 / over (NaN if over is 0; m2 itself if it is 1), small, large: (channels,).
//
// Bytes: integer sums, exact in any order. A thread reads 16 bytes at once and sums them four at a time; each block
// ("slice") leaves a (sum, sum of squares, smallest, largest) for each channel.
//
// float32: the tree of gpucompute/fusion/tree.py, fixed by n alone, so no atomics and the same bits for any launch. A
// tile of 256 elements is folded by halving, tiles are joined in adjacent pairs; the 32 tiles of a strip by one warp,
// which leaves a node of 5 words (mean, m2, sum, smallest, largest); nodes likewise. An element that is missing in the
// last tile is -0.0, which added to anything changes nothing. Extrema are those of integers that are ordered as the
// floats are, with -0 below +0; a NaN, which lies beyond the infinities, makes both NaN.
//
// Static shared memory only: at most 16 kB (statistics_f4_columns). Compile with --fmad=false.
//
// Sources: Harris, "Optimizing parallel reduction in CUDA", 2007; Chan, Golub and LeVeque, "Updating formulae and a
// pairwise algorithm for computing sample variances", 1979.

#define GC_WARP 32
#define GC_EVERY 0xffffffffu
#define GC_THREADS 256
#define GC_CHUNK 16384  // pixels that a block takes at once: 64 for each thread, whose sums so fit in 32 bits
#define GC_TILE 256
#define GC_STRIP (GC_TILE * GC_WARP)
#define GC_WORDS 5  // of a node

typedef unsigned char u1;
typedef unsigned int u4;
typedef unsigned long long u8;
typedef long long i8;

// ------------------------------------------------------------------------------------------------ bytes

struct Bytes {
    u4 sum, squares;
    u4 small_even, small_odd, large_even, large_odd;  // of bytes 0 and 2, and of bytes 1 and 3, as halves of a word
};

__device__ __forceinline__ void clear(Bytes &s) {
    s.sum = s.squares = 0;
    s.small_even = s.small_odd = 0xffffffffu;
    s.large_even = s.large_odd = 0;
}

// Take in four bytes of one channel.
__device__ __forceinline__ void take(Bytes &s, u4 word) {
    s.sum = __dp4a(word, 0x01010101u, s.sum);
    s.squares = __dp4a(word, word, s.squares);
    s.small_odd = __vminu2(s.small_odd, word);  // the upper byte of a half decides; the lower one is dropped later
    s.large_odd = __vmaxu2(s.large_odd, word);
    const u4 even = word & 0x00ff00ffu;
    s.small_even = __vminu2(s.small_even, even);
    s.large_even = __vmaxu2(s.large_even, even);
}

__device__ __forceinline__ void take_one(Bytes &s, u4 value) {
    s.sum += value;
    s.squares += value * value;
    s.small_even = __vminu2(s.small_even, value * 0x10001u);
    s.large_even = __vmaxu2(s.large_even, value * 0x10001u);
}

// Four bytes of channel c out of 4 * CH bytes of interleaved channels.
template <int CH>
__device__ __forceinline__ u4 gather(const u4 *w, int c) {
    if (CH == 1) return w[0];
    if (CH == 2) return __byte_perm(w[0], w[CH > 1], c ? 0x7531 : 0x6420);
    if (CH == 3) {
        const u4 three = __byte_perm(w[0], w[CH > 1], c == 0 ? 0x0630 : c == 1 ? 0x0741 : 0x0052);
        return __byte_perm(three, w[CH > 2 ? 2 : 0], c == 0 ? 0x5210 : c == 1 ? 0x6210 : 0x7410);
    }
    const u4 low = __byte_perm(w[0], w[CH > 1], c | (c + 4) << 4);
    return __byte_perm(low, __byte_perm(w[CH > 2 ? 2 : 0], w[CH > 3 ? 3 : 0], c | (c + 4) << 4), 0x5410);
}

__device__ __forceinline__ u8 smaller(u8 a, u8 b) { return a < b ? a : b; }
__device__ __forceinline__ u8 larger(u8 a, u8 b) { return a > b ? a : b; }

// v: (sum, sum of squares, smallest, largest)
__device__ __forceinline__ void join_bytes(u8 *v, u8 sum, u8 squares, u8 small, u8 large) {
    v[0] += sum;
    v[1] += squares;
    v[2] = smaller(v[2], small);
    v[3] = larger(v[3], large);
}

__device__ __forceinline__ void join_warp(u8 *v) {
    for (int h = GC_WARP / 2; h; h /= 2) {
        const u8 sum = __shfl_down_sync(GC_EVERY, v[0], h), squares = __shfl_down_sync(GC_EVERY, v[1], h);
        const u8 small = __shfl_down_sync(GC_EVERY, v[2], h), large = __shfl_down_sync(GC_EVERY, v[3], h);
        join_bytes(v, sum, squares, small, large);
    }
}

// x: (outer, groups, inner) pixels of CH bytes -> partial: (groups * CH, slices, 4); blockIdx is (group, slice).
template <int CH>
__device__ __forceinline__ void scan(const u1 *x, u8 *partial, i8 outer, i8 groups, i8 inner) {
    Bytes s[CH];
    u8 sum[CH], squares[CH];
    for (int c = 0; c < CH; ++c) {
        clear(s[c]);
        sum[c] = squares[c] = 0;
    }
    const i8 chunks = (inner + GC_CHUNK - 1) / GC_CHUNK;
    for (i8 item = blockIdx.y; item < outer * chunks; item += gridDim.y) {
        const i8 run = item / chunks, first = (item - run * chunks) * GC_CHUNK;
        const int pixels = inner - first < GC_CHUNK ? (int)(inner - first) : GC_CHUNK;
        const u1 *p = x + ((run * groups + blockIdx.x) * inner + first) * CH;
        int head = 0;  // pixels before the first that begins at a multiple of 16 bytes
        while (head < 16 && ((u8)(p + head * CH) & 15)) ++head;
        if (head == 16 || head > pixels) head = pixels;  // 16: pixels of 2 or 4 bytes that never do
        const int cells = (pixels - head) / 16;  // of 16 pixels
        for (int cell = threadIdx.x; cell < cells; cell += GC_THREADS) {
            const uint4 *v = (const uint4 *)(p + head * CH) + cell * CH;
            u4 w[4 * CH];
#pragma unroll
            for (int i = 0; i < CH; ++i) {
                const uint4 four = v[i];
                w[4 * i] = four.x, w[4 * i + 1] = four.y, w[4 * i + 2] = four.z, w[4 * i + 3] = four.w;
            }
#pragma unroll
            for (int c = 0; c < CH; ++c)
                for (int q = 0; q < 4; ++q) take(s[c], gather<CH>(w + q * CH, c));
        }
        for (int i = threadIdx.x; i < pixels - 16 * cells; i += GC_THREADS) {
            const int at = i < head ? i : i + 16 * cells;
            for (int c = 0; c < CH; ++c) take_one(s[c], p[at * CH + c]);
        }
        for (int c = 0; c < CH; ++c) {
            sum[c] += s[c].sum;
            squares[c] += s[c].squares;
            s[c].sum = s[c].squares = 0;
        }
    }
    __shared__ u8 warps[GC_THREADS / GC_WARP][CH][4];
    for (int c = 0; c < CH; ++c) {
        const u4 odd_small = __vminu2(s[c].small_odd >> 8 & 0x00ff00ffu, s[c].small_even);
        const u4 odd_large = __vmaxu2(s[c].large_odd >> 8 & 0x00ff00ffu, s[c].large_even);
        u8 v[4] = {sum[c], squares[c], smaller(odd_small & 0xffff, odd_small >> 16),
                   larger(odd_large & 0xffff, odd_large >> 16)};
        join_warp(v);
        if (threadIdx.x % GC_WARP == 0)
            for (int f = 0; f < 4; ++f) warps[threadIdx.x / GC_WARP][c][f] = v[f];
    }
    __syncthreads();
    if (threadIdx.x < CH) {
        u8 v[4] = {0, 0, 255, 0};
        for (int w = 0; w < GC_THREADS / GC_WARP; ++w) {
            const u8 *of = warps[w][threadIdx.x];
            join_bytes(v, of[0], of[1], of[2], of[3]);
        }
        u8 *to = partial + (((u8)blockIdx.x * CH + threadIdx.x) * gridDim.y + blockIdx.y) * 4;
        for (int f = 0; f < 4; ++f) to[f] = v[f];
    }
}

extern "C" __global__ void __launch_bounds__(GC_THREADS)
statistics_u1_planar(const u1 *__restrict__ x, u8 *__restrict__ partial, i8 outer, i8 channels, i8 inner) {
    scan<1>(x, partial, outer, channels, inner);
}

extern "C" __global__ void __launch_bounds__(GC_THREADS)
statistics_u1_pixels2(const u1 *__restrict__ x, u8 *__restrict__ partial, i8 n) {
    scan<2>(x, partial, 1, 1, n);
}

extern "C" __global__ void __launch_bounds__(GC_THREADS)
statistics_u1_pixels3(const u1 *__restrict__ x, u8 *__restrict__ partial, i8 n) {
    scan<3>(x, partial, 1, 1, n);
}

extern "C" __global__ void __launch_bounds__(GC_THREADS)
statistics_u1_pixels4(const u1 *__restrict__ x, u8 *__restrict__ partial, i8 n) {
    scan<4>(x, partial, 1, 1, n);
}

// x: (n, channels) -> partial: (channels, slices, 4)
extern "C" __global__ void __launch_bounds__(GC_THREADS)
statistics_u1_columns(const u1 *__restrict__ x, u8 *__restrict__ partial, i8 n, i8 channels) {
    const i8 column = (i8)blockIdx.x * GC_WARP + threadIdx.x;
    u8 v[4] = {0, 0, 255, 0};
    if (column < channels) {
#pragma unroll 8
        for (i8 row = (i8)blockIdx.y * blockDim.y + threadIdx.y; row < n; row += (i8)gridDim.y * blockDim.y) {
            const u4 value = x[row * channels + column];
            join_bytes(v, value, value * value, value, value);
        }
    }
    __shared__ u8 rows[GC_THREADS / GC_WARP][4][GC_WARP];
    for (int f = 0; f < 4; ++f) rows[threadIdx.y][f][threadIdx.x] = v[f];
    __syncthreads();
    if (threadIdx.y == 0 && column < channels) {
        for (int r = 1; r < GC_THREADS / GC_WARP; ++r) {
            const int t = threadIdx.x;
            join_bytes(v, rows[r][0][t], rows[r][1][t], rows[r][2][t], rows[r][3][t]);
        }
        for (int f = 0; f < 4; ++f) partial[(column * gridDim.y + blockIdx.y) * 4 + f] = v[f];
    }
}

// partial: (channels, slices, 4) -> mean, variance: (channels,) float64, small, large: (channels,) uint8
extern "C" __global__ void __launch_bounds__(GC_WARP)
statistics_u1_finish(const u8 *__restrict__ partial, double *__restrict__ mean, double *__restrict__ variance,
                     u1 *__restrict__ small, u1 *__restrict__ large, i8 slices, i8 n, i8 over) {
    u8 v[4] = {0, 0, 255, 0};
    for (i8 slice = threadIdx.x; slice < slices; slice += GC_WARP) {
        const u8 *of = partial + (blockIdx.x * slices + slice) * 4;
        join_bytes(v, of[0], of[1], of[2], of[3]);
    }
    join_warp(v);
    if (threadIdx.x) return;
    // the exact integer part, then one rounding: with sum = whole * n + rest, m2 is distance - rest * rest / n
    const i8 whole = (i8)v[0] / n, rest = (i8)v[0] - whole * n;
    const i8 distance = (i8)v[1] - 2 * whole * (i8)v[0] + n * whole * whole;
    mean[blockIdx.x] = (double)v[0] / (double)n;
    const double m2 = (double)distance - (double)rest * (double)rest / (double)n;
    variance[blockIdx.x] = over ? m2 / (double)over : __longlong_as_double(0x7ff8000000000000);
    small[blockIdx.x] = (u1)v[2];
    large[blockIdx.x] = (u1)v[3];
}

// ------------------------------------------------------------------------------------------------ float32

struct Node {
    float mean, m2, sum;
    int small, large;  // keys
};

// An integer that is ordered as the floats are; its own inverse on bits.
__device__ __forceinline__ int key(int bits) { return bits ^ (bits >> 31 & 0x7fffffff); }

__device__ __forceinline__ void take_key(Node &s, float value) {
    const int k = key(__float_as_int(value));
    s.small = k < s.small ? k : s.small;
    s.large = k > s.large ? k : s.large;
}

// Join the state of the `right` elements that follow into that of `left`.
__device__ __forceinline__ void join(Node &a, const Node &b, i8 left, i8 right) {
    float share = 0.5f, weight = (float)(left / 2);
    if (left != right) {  // only at the end of a channel
        const double total = (double)(left + right);
        share = (float)((double)right / total);
        weight = (float)((double)left * (double)right / total);
    }
    const float d = b.mean - a.mean;
    a.sum += b.sum;
    a.mean += d * share;
    a.m2 = (a.m2 + b.m2) + (d * d) * weight;
    a.small = b.small < a.small ? b.small : a.small;
    a.large = b.large > a.large ? b.large : a.large;
}

// Join the nodes of the first `nodes` lanes in adjacent pairs, into lane 0. Each holds `span` elements, the last of
// them as many as are left of `count`.
__device__ __forceinline__ void join_lanes(Node &s, int nodes, i8 span, i8 count) {
    const int lane = threadIdx.x % GC_WARP;
    for (int h = 1; h < GC_WARP; h *= 2) {
        Node other;
        other.mean = __shfl_down_sync(GC_EVERY, s.mean, h);
        other.m2 = __shfl_down_sync(GC_EVERY, s.m2, h);
        other.sum = __shfl_down_sync(GC_EVERY, s.sum, h);
        other.small = __shfl_down_sync(GC_EVERY, s.small, h);
        other.large = __shfl_down_sync(GC_EVERY, s.large, h);
        const i8 rest = count - (lane + h) * span;
        if (lane % (2 * h) == 0 && lane + h < nodes) join(s, other, h * span, rest < h * span ? rest : h * span);
    }
}

__device__ __forceinline__ Node load_node(const int *words) {
    Node s;
    s.mean = __int_as_float(words[0]), s.m2 = __int_as_float(words[1]), s.sum = __int_as_float(words[2]);
    s.small = words[3], s.large = words[4];
    return s;
}

__device__ __forceinline__ void store_node(int *words, const Node &s) {
    words[0] = __float_as_int(s.mean), words[1] = __float_as_int(s.m2), words[2] = __float_as_int(s.sum);
    words[3] = s.small, words[4] = s.large;
}

// The sum of a tile whose element lane + 32 * k is v[k]; every lane gets the same bits.
__device__ __forceinline__ float fold(const float *v) {
    float sum = ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
    for (int h = GC_WARP / 2; h; h /= 2) sum += __shfl_xor_sync(GC_EVERY, sum, h);
    return sum;
}

// Read elements lane + 32 * k of the tile whose first is element `in` of run `run`. With four bytes to each lane a load
// is one full line; 16 would need three more shuffles in each fold for the six loads that they spare, on the same pipe.
__device__ __forceinline__ void read(float *v, const float *x, i8 run, i8 in, int count, i8 stride, i8 inner, i8 step) {
    const int lane = threadIdx.x % GC_WARP;
    if (count == GC_TILE && in + GC_TILE <= inner) {
        const float *p = x + run * stride + (in + lane) * step;
#pragma unroll
        for (int k = 0; k < 8; ++k) v[k] = p[k * GC_WARP * step];
        return;
    }
#pragma unroll
    for (int k = 0; k < 8; ++k) {
        const int i = lane + GC_WARP * k;
        i8 r = run, at = in + i;
        if (at >= inner) {  // a tile crosses one end of a run, or runs are shorter than a tile
            const u4 over = inner >= GC_TILE ? 1 : (u4)at / (u4)inner;
            r += over, at -= over * inner;
        }
        v[k] = i < count ? x[r * stride + at * step] : -0.0f;
    }
}

// -> nodes: (channels, strips, 5). A warp takes a strip of a channel; neighbouring warps take neighbouring channels of
// interleaved ones, whose lines they share.
extern "C" __global__ void __launch_bounds__(GC_THREADS, 4)
statistics_f4_lanes(const float *__restrict__ x, int *__restrict__ nodes, i8 outer, i8 channels, i8 inner) {
    const int lane = threadIdx.x % GC_WARP;
    const bool interleaved = inner == 1;
    const i8 n = outer * inner, strips = (n + GC_STRIP - 1) / GC_STRIP, warps = (i8)gridDim.x * (GC_THREADS / GC_WARP);
    const i8 length = interleaved ? n : inner, stride = channels * inner, step = interleaved ? channels : 1;
    for (i8 item = (i8)blockIdx.x * (GC_THREADS / GC_WARP) + threadIdx.x / GC_WARP; item < strips * channels;
         item += warps) {
        const i8 channel = interleaved ? item % channels : item / strips;
        const i8 strip = interleaved ? item / channels : item % strips;
        const i8 rest = n - strip * GC_STRIP;
        const int count = rest < GC_STRIP ? (int)rest : GC_STRIP, tiles = (count + GC_TILE - 1) / GC_TILE;
        const float *p = x + channel * inner;
        i8 run = strip * GC_STRIP / length, in = strip * GC_STRIP - run * length;
        Node s = {0, 0, 0, 0x7fffffff, -0x7fffffff - 1};
        float next[8], v[8];
        read(next, p, run, in, count < GC_TILE ? count : GC_TILE, stride, length, step);
        for (int t = 0; t < tiles; ++t) {
            const int here = count - t * GC_TILE < GC_TILE ? count - t * GC_TILE : GC_TILE;
#pragma unroll
            for (int k = 0; k < 8; ++k) v[k] = next[k];
            in += GC_TILE;
            if (in >= length) {
                const i8 over = length >= GC_TILE ? 1 : (u4)in / (u4)length;
                run += over, in -= over * length;
            }
            if (t + 1 < tiles) {  // asked for before this tile is worked on
                const int after = count - (t + 1) * GC_TILE;
                read(next, p, run, in, after < GC_TILE ? after : GC_TILE, stride, length, step);
            }
            const float sum = fold(v), mean = sum / (float)here;
#pragma unroll
            for (int k = 0; k < 8; ++k) {
                const bool present = lane + GC_WARP * k < here;
                if (present) take_key(s, v[k]);
                const float d = v[k] - mean;
                v[k] = present ? d * d : -0.0f;
            }
            const float m2 = fold(v);
            if (lane == t) s.mean = mean, s.m2 = m2, s.sum = sum;
        }
        for (int h = GC_WARP / 2; h; h /= 2) {
            const int small = __shfl_xor_sync(GC_EVERY, s.small, h), large = __shfl_xor_sync(GC_EVERY, s.large, h);
            s.small = small < s.small ? small : s.small;
            s.large = large > s.large ? large : s.large;
        }
        join_lanes(s, tiles, GC_TILE, count);
        if (lane == 0) store_node(nodes + (channel * strips + strip) * GC_WORDS, s);
    }
}

// As fold, for a tile in which thread (column, y) holds rows y + 8 * k of its column.
__device__ __forceinline__ float fold_rows(float *v, float (*rows)[GC_WARP + 1]) {
#pragma unroll
    for (int h = 16; h; h /= 2)
        for (int k = 0; k < h; ++k) v[k] += v[k + h];
    const int t = threadIdx.x;
    __syncthreads();  // the last fold's readers
    rows[threadIdx.y][t] = v[0];
    __syncthreads();
    const float left = (rows[0][t] + rows[4][t]) + (rows[2][t] + rows[6][t]);
    return left + ((rows[1][t] + rows[5][t]) + (rows[3][t] + rows[7][t]));
}

// x: (n, channels) -> nodes: (channels, strips, 5); a block takes a strip of 32 columns.
extern "C" __global__ void __launch_bounds__(GC_THREADS, 3)
statistics_f4_columns(const float *__restrict__ x, int *__restrict__ nodes, i8 n, i8 channels) {
    __shared__ float rows[GC_THREADS / GC_WARP][GC_WARP + 1];
    __shared__ float states[3][GC_WARP][GC_WARP + 1];  // of each tile and column
    __shared__ int keys[2][GC_THREADS / GC_WARP][GC_WARP];
    const i8 column = (i8)blockIdx.x * GC_WARP + threadIdx.x, strips = (n + GC_STRIP - 1) / GC_STRIP;
    const bool inside = column < channels;
    for (i8 strip = blockIdx.y; strip < strips; strip += gridDim.y) {
        const i8 first = strip * GC_STRIP;
        const int count = n - first < GC_STRIP ? (int)(n - first) : GC_STRIP, tiles = (count + GC_TILE - 1) / GC_TILE;
        Node s = {0, 0, 0, 0x7fffffff, -0x7fffffff - 1};
        for (int t = 0; t < tiles; ++t) {
            const int here = count - t * GC_TILE < GC_TILE ? count - t * GC_TILE : GC_TILE;
            const float *p = x + (first + t * GC_TILE + threadIdx.y) * channels + column;
            float v[32], w[32];
#pragma unroll
            for (int k = 0; k < 32; ++k) {
                const bool present = inside && (int)threadIdx.y + 8 * k < here;
                w[k] = v[k] = present ? p[8 * k * channels] : -0.0f;
                if (present) take_key(s, v[k]);
            }
            const float sum = fold_rows(w, rows), mean = sum / (float)here;
#pragma unroll
            for (int k = 0; k < 32; ++k) {
                const float d = v[k] - mean;
                v[k] = (int)threadIdx.y + 8 * k < here ? d * d : -0.0f;
            }
            const float m2 = fold_rows(v, rows);
            if (threadIdx.y == 0)
                states[0][t][threadIdx.x] = mean, states[1][t][threadIdx.x] = m2, states[2][t][threadIdx.x] = sum;
        }
        keys[0][threadIdx.y][threadIdx.x] = s.small, keys[1][threadIdx.y][threadIdx.x] = s.large;
        __syncthreads();
        // a warp joins the tiles of a column; the next strip's first barrier comes before its first store to `states`
        for (int c = threadIdx.y; c < GC_WARP; c += GC_THREADS / GC_WARP) {
            const int tile = (int)threadIdx.x < tiles ? threadIdx.x : 0, row = threadIdx.x % (GC_THREADS / GC_WARP);
            s.mean = states[0][tile][c], s.m2 = states[1][tile][c], s.sum = states[2][tile][c];
            s.small = keys[0][row][c], s.large = keys[1][row][c];
            for (int h = GC_THREADS / GC_WARP / 2; h; h /= 2) {
                const int small = __shfl_xor_sync(GC_EVERY, s.small, h), large = __shfl_xor_sync(GC_EVERY, s.large, h);
                s.small = small < s.small ? small : s.small;
                s.large = large > s.large ? large : s.large;
            }
            join_lanes(s, tiles, GC_TILE, count);
            const i8 of = (i8)blockIdx.x * GC_WARP + c;
            if (threadIdx.x == 0 && of < channels) store_node(nodes + (of * strips + strip) * GC_WORDS, s);
        }
    }
}

// nodes: (channels, count, 5), each of `span` elements -> joined: (channels, gridDim.y, 5), each of 1024 of them; with
// one block to a channel, the results instead. block: 32 where count <= 32, else 1024.
extern "C" __global__ void __launch_bounds__(1024)
statistics_f4_join(const int *__restrict__ nodes, int *__restrict__ joined, float *__restrict__ mean,
                   float *__restrict__ variance, float *__restrict__ small, float *__restrict__ large, i8 count,
                   i8 span, i8 n, i8 over) {
    __shared__ int warps[GC_WARP][GC_WORDS];
    const int warp = threadIdx.x / GC_WARP, lane = threadIdx.x % GC_WARP;
    const i8 first = (i8)blockIdx.y * 1024, mine = first + warp * GC_WARP + lane;
    const i8 left = count - first - warp * GC_WARP, groups = (count - first + GC_WARP - 1) / GC_WARP;
    Node s = {0, 0, 0, 0, 0};
    if (mine < count) s = load_node(nodes + (blockIdx.x * count + mine) * GC_WORDS);
    if (left > 0) join_lanes(s, left < GC_WARP ? (int)left : GC_WARP, span, n - (first + warp * GC_WARP) * span);
    if (blockDim.x > GC_WARP) {
        if (lane == 0) store_node(warps[warp], s);
        __syncthreads();
        if (warp) return;
        s = load_node(warps[lane]);
        join_lanes(s, groups < GC_WARP ? (int)groups : GC_WARP, span * GC_WARP, n - first * span);
    }
    if (threadIdx.x) return;
    if (gridDim.y > 1) {
        store_node(joined + ((i8)blockIdx.x * gridDim.y + blockIdx.y) * GC_WORDS, s);
        return;
    }
    const float nan = __int_as_float(0x7fc00000), average = s.sum / (float)n;
    const bool any = s.small < key(0xff800000) || s.large > 0x7f800000;
    mean[blockIdx.x] = average == average ? average : nan;
    variance[blockIdx.x] = over && s.m2 == s.m2 ? s.m2 / (float)over : nan;
    small[blockIdx.x] = any ? nan : __int_as_float(key(s.small));
    large[blockIdx.x] = any ? nan : __int_as_float(key(s.large));
}
