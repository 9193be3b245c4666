// Ordinary kernels in different styles. The .ptx files beside this one were made from it:
//     nvcc -ptx -arch=compute_75 -fmad=false kernels.cu -o kernels_75.ptx     (and compute_120)
#include <cuda_bf16.h>
#include <cuda_fp16.h>

__constant__ float weights[5] = {0.0625f, 0.25f, 0.375f, 0.25f, 0.0625f};
__device__ unsigned int finished = 0;

// y: (n,) = a * x + y
extern "C" __global__ void axpy(float a, const float *x, float *y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = a * x[i] + y[i];
}

// A sum in double precision; the last block to finish adds up what the blocks found. partial: (gridDim.x,)
extern "C" __global__ void sum(const double *x, double *partial, double *total, int n) {
    __shared__ double part[32];
    __shared__ bool last;
    double v = 0;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) v += x[i];
    for (int k = 16; k; k >>= 1) v += __shfl_down_sync(0xffffffff, v, k);
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = v;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int w = 1; w < blockDim.x / 32; w++) v += part[w];
        partial[blockIdx.x] = v;
        __threadfence();
        last = atomicInc(&finished, gridDim.x - 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (last && threadIdx.x == 0) {
        double s = 0;
        for (int b = 0; b < gridDim.x; b++) s += ((volatile double *)partial)[b];
        *total = s;
    }
}

// An inclusive scan of each block in dynamic shared memory. Hillis and Steele 1986.
extern "C" __global__ void scan(const int *x, int *y) {
    extern __shared__ int row[];
    int t = threadIdx.x, n = blockDim.x, at = 0;
    row[t] = x[blockIdx.x * n + t];
    for (int step = 1; step < n; step *= 2) {
        __syncthreads();
        int v = row[at + t] + (t >= step ? row[at + t - step] : 0);
        at = n - at;
        row[at + t] = v;
    }
    y[blockIdx.x * n + t] = row[at + t];
}

// c: (m, n) = a: (m, k) @ b: (k, n), in tiles of 16 x 16
template <int TILE> __device__ void multiply(const float *a, const float *b, float *c, int m, int k, int n) {
    __shared__ float ta[TILE][TILE + 1], tb[TILE][TILE + 1];
    int x = threadIdx.x, y = threadIdx.y, column = blockIdx.x * TILE + x, row = blockIdx.y * TILE + y;
    float sum = 0;
    for (int s = 0; s < k; s += TILE) {
        ta[y][x] = row < m && s + x < k ? a[row * k + s + x] : 0;
        tb[y][x] = s + y < k && column < n ? b[(s + y) * n + column] : 0;
        __syncthreads();
        for (int j = 0; j < TILE; j++) sum = __fmaf_rn(ta[y][j], tb[j][x], sum);
        __syncthreads();
    }
    if (row < m && column < n) c[row * n + column] = sum;
}
extern "C" __global__ void matmul(const float *a, const float *b, float *c, int m, int k, int n) {
    multiply<16>(a, b, c, m, k, n);
}

// counts: (256,), by way of one histogram per block; four bytes a load
extern "C" __global__ void histogram(const uchar4 *x, unsigned int *counts, int n) {
    __shared__ unsigned int own[256];
    for (int k = threadIdx.x; k < 256; k += blockDim.x) own[k] = 0;
    __syncthreads();
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
        uchar4 v = x[i];
        atomicAdd(&own[v.x], 1), atomicAdd(&own[v.y], 1), atomicAdd(&own[v.z], 1), atomicAdd(&own[v.w], 1);
    }
    __syncthreads();
    for (int k = threadIdx.x; k < 256; k += blockDim.x) atomicAdd(&counts[k], own[k]);
}

// y: (n,) = the smoothed x, edges repeated
extern "C" __global__ void smooth(const float *x, float *y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float s = 0;
    for (int k = 0; k < 5; k++) s += weights[k] * x[min(max(i + k - 2, 0), n - 1)];
    y[i] = s;
}

// out: (*count,), the positive ones in any order, with one atomic for each warp
extern "C" __global__ void compact(const int *x, int *out, int *count, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x, v = i < n ? x[i] : 0;
    unsigned int chosen = __ballot_sync(0xffffffff, v > 0);
    int lane = threadIdx.x % 32, base = 0;
    if (chosen && lane == __ffs(chosen) - 1) base = atomicAdd(count, __popc(chosen));
    base = __shfl_sync(0xffffffff, base, chosen ? __ffs(chosen) - 1 : 0);
    if (v > 0) out[base + __popc(chosen & ((1u << lane) - 1))] = v;
}

// Arithmetic on pairs of halves
extern "C" __global__ void halves(const __half2 *x, const __half2 *y, __half2 *z, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) z[i] = __hmax2(__hfma2(x[i], y[i], x[i]), __hmul2(y[i], __float2half2_rn(0.5f)));
}
extern "C" __global__ void brains(const __nv_bfloat16 *x, __nv_bfloat16 *y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = __float2bfloat16(__bfloat162float(x[i]) * 3.0f + 1.0f);
}

// A device function that is called, local memory with run-time indices, a switch
__device__ __noinline__ double horner(const double *c, int n, double x) {
    double s = 0;
    while (n--) s = s * x + c[n];
    return s;
}
extern "C" __global__ void polynomials(const double *x, double *y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    double c[8];
    for (int k = 0; k < 8; k++) c[(k + i) & 7] = 1.0 / (k + 1);
    double v;
    switch (i % 6) {
    case 0: v = horner(c, 8, x[i]); break;
    case 1: v = horner(c, 3, x[i]); break;
    case 2: v = sqrt(fabs(x[i])); break;
    case 3: v = rint(x[i] * 10); break;
    case 4: v = x[i] < 0 ? -x[i] / 3 : floor(x[i]); break;
    default: v = (double)(long long)(x[i] * 1e6) / 7;
    }
    y[i] = v;
}

// A random walk in 64-bit integers: xorshift, high products, remainders
extern "C" __global__ void scramble(unsigned long long *x, int n, int rounds) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    unsigned long long v = x[i];
    for (int r = 0; r < rounds; r++) {
        v ^= v << 13, v ^= v >> 7, v ^= v << 17;
        v += __umul64hi(v, 0x9E3779B97F4A7C15ull) % 1000003;
        v ^= (unsigned long long)__brev((unsigned int)v) << 32 | __byte_perm((unsigned int)v, (unsigned int)(v >> 32), 0x5274);
    }
    x[i] = v;
}
