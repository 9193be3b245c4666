// Kernels as people write them, in several styles, without a bug: the checks must find nothing. test_ordinary.py.
#include <cooperative_groups.h>
#include <cooperative_groups/reduce.h>
#include <cooperative_groups/scan.h>
#include <cuda_fp16.h>

namespace cg = cooperative_groups;

// ---- reductions and scans

#define BLOCK 128
#define REDUCE(a, b) ((a) + (b))

// As PyCUDA's ReductionKernel lays it out: a grid-stride loop, a tree in shared memory, the last warp by itself.
extern "C" __global__ void pycuda_reduce(float *out, const float *x, unsigned n) {
  __shared__ float sdata[BLOCK];
  unsigned tid = threadIdx.x;
  float acc = 0;
  for (unsigned i = blockIdx.x * BLOCK + tid; i < n; i += gridDim.x * BLOCK) acc = REDUCE(acc, x[i]);
  sdata[tid] = acc;
  __syncthreads();
#if (BLOCK >= 128)
  if (tid < 64) sdata[tid] = REDUCE(sdata[tid], sdata[tid + 64]);
  __syncthreads();
#endif
  if (tid < 32) {
    volatile float *smem = sdata;
    float v = REDUCE(smem[tid], smem[tid + 32]);
    __syncwarp();
    for (int half = 16; half; half /= 2) {
      smem[tid] = v;
      __syncwarp();
      v = REDUCE(v, smem[tid ^ half]);
      __syncwarp();
    }
    if (tid == 0) out[blockIdx.x] = v;
  }
}

// Hillis & Steele 1986, two buffers in dynamic shared memory.
extern "C" __global__ void hillis_steele_scan(int *out, const int *x, int n) {
  extern __shared__ int temp[];
  int t = threadIdx.x, from = 1, to = 0;
  temp[t] = t < n ? x[t] : 0;
  __syncthreads();
  for (int offset = 1; offset < blockDim.x; offset *= 2) {
    to = 1 - to, from = 1 - to;
    temp[to * blockDim.x + t] = temp[from * blockDim.x + t] + (t >= offset ? temp[from * blockDim.x + t - offset] : 0);
    __syncthreads();
  }
  if (t < n) out[t] = temp[to * blockDim.x + t];
}

// Blelloch 1990, up and down the tree, with padding against bank conflicts: GPU Gems 3, chapter 39.
#define AT(i) ((i) + ((i) >> 5))
extern "C" __global__ void blelloch_scan(int *out, const int *x, int n) {
  extern __shared__ int temp[];
  int t = threadIdx.x, offset = 1;
  temp[AT(2 * t)] = x[2 * t];
  temp[AT(2 * t + 1)] = x[2 * t + 1];
  for (int d = n >> 1; d > 0; d >>= 1, offset *= 2) {
    __syncthreads();
    if (t < d) temp[AT(offset * (2 * t + 2) - 1)] += temp[AT(offset * (2 * t + 1) - 1)];
  }
  if (t == 0) temp[AT(n - 1)] = 0;
  for (int d = 1; d < n; d *= 2) {
    offset >>= 1;
    __syncthreads();
    if (t < d) {
      int a = AT(offset * (2 * t + 1) - 1), b = AT(offset * (2 * t + 2) - 1), left = temp[a];
      temp[a] = temp[b];
      temp[b] += left;
    }
  }
  __syncthreads();
  out[2 * t] = temp[AT(2 * t)];
  out[2 * t + 1] = temp[AT(2 * t + 1)];
}

// As CUB's BlockScan: scans of warps by shuffles, then a scan of their totals.
template <typename T, int THREADS> struct BlockScan {
  struct TempStorage {
    T totals[THREADS / 32];
  };
  TempStorage &temp;
  __device__ __forceinline__ BlockScan(TempStorage &t) : temp(t) {}
  __device__ __forceinline__ T warp(T v) {
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int d = 1; d < 32; d <<= 1) {
      T left = __shfl_up_sync(0xffffffffu, v, d);
      if (lane >= d) v += left;
    }
    return v;
  }
  __device__ __forceinline__ T inclusive(T v) {
    int lane = threadIdx.x % 32, w = threadIdx.x / 32;
    v = warp(v);
    if (lane == 31) temp.totals[w] = v;
    __syncthreads();
    for (int i = 0; i < w; i++) v += temp.totals[i];
    return v;
  }
};
template <typename T, int THREADS>
__global__ void __launch_bounds__(THREADS) cub_scan(T *__restrict__ out, const T *__restrict__ x, int n) {
  typedef BlockScan<T, THREADS> Scan;
  __shared__ typename Scan::TempStorage temp;
  int i = blockIdx.x * THREADS + threadIdx.x;
  T v = Scan(temp).inclusive(i < n ? x[i] : T(0));
  if (i < n) out[i] = v;
}

// Decoupled look-back (Merrill & Garland 2016): blocks wait for those before them, in the order of a ticket.
extern "C" __global__ void lookback_scan(int *out, const int *x, volatile int *prefix, volatile int *flag, int *ticket) {
  __shared__ int tile, before;
  if (threadIdx.x == 0) tile = atomicAdd(ticket, 1);
  __syncthreads();
  int i = tile * blockDim.x + threadIdx.x, total = __syncthreads_count(x[i]);
  if (threadIdx.x == 0) {
    if (tile) {
      while (flag[tile - 1] == 0) {
      }
      __threadfence();
    }
    before = tile ? prefix[tile - 1] : 0;
    prefix[tile] = before + total;
    __threadfence();
    flag[tile] = 1;
  }
  __syncthreads();
  out[i] = before + x[i];
}

// The last block sums up: threadFenceReduction in NVIDIA's samples.
__device__ unsigned blocks_done = 0;
extern "C" __global__ void last_block_sum(const float *x, float *part, float *out, int n) {
  __shared__ float s[64];
  __shared__ bool is_last;
  int t = threadIdx.x, i = blockIdx.x * 64 + t;
  s[t] = i < n ? x[i] : 0;
  for (int half = 32; half; half /= 2) {
    __syncthreads();
    if (t < half) s[t] += s[t + half];
  }
  if (t == 0) {
    part[blockIdx.x] = s[0];
    __threadfence();
    is_last = atomicInc(&blocks_done, gridDim.x - 1) == gridDim.x - 1;
  }
  __syncthreads();
  if (!is_last) return;
  float sum = 0;
  for (int b = t; b < gridDim.x; b += 64) sum += __ldcg(&part[b]);
  s[t] = sum;
  __syncthreads();
  if (t == 0) {
    for (int j = 1; j < 64; j++) sum += s[j];
    *out = sum;
  }
}

// ---- tiles

template <int TILE> __global__ void matmul(const float *a, const float *b, float *c, int n, int k, int m) {
  __shared__ float left[TILE][TILE], right[TILE][TILE + 1];
  int tx = threadIdx.x, ty = threadIdx.y, row = blockIdx.y * TILE + ty, col = blockIdx.x * TILE + tx;
  float sum = 0;
  for (int at = 0; at < k; at += TILE) {
    left[ty][tx] = row < n && at + tx < k ? a[row * k + at + tx] : 0.f;
    right[ty][tx] = col < m && at + ty < k ? b[(at + ty) * m + col] : 0.f;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < TILE; ++i) sum += left[ty][i] * right[i][tx];
    __syncthreads();
  }
  if (row < n && col < m) c[row * m + col] = sum;
}

__constant__ float weight[5] = {0.0625f, 0.25f, 0.375f, 0.25f, 0.0625f};
extern "C" __global__ void stencil(const float *in, float *out, int n) {  // with a halo
  __shared__ float s[64 + 4];
  int t = threadIdx.x, i = blockIdx.x * 64 + t;
  s[t + 2] = i < n ? in[i] : 0;
  if (t < 2) {
    s[t] = i >= 2 ? in[i - 2] : 0;
    s[t + 66] = i + 64 < n ? in[i + 64] : 0;
  }
  __syncthreads();
  if (i >= n) return;
  float sum = 0;
  for (int j = 0; j < 5; j++) sum += weight[j] * s[t + j];
  out[i] = sum;
}

extern "C" __global__ void heat(const float *in, float *out, int h, int w) {  // two dimensions, from global memory
  int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
  if (x < 1 || y < 1 || x >= w - 1 || y >= h - 1) return;
  const float *p = in + y * w + x;
  out[y * w + x] = p[0] + 0.25f * (p[-1] + p[1] + p[-w] + p[w] - 4 * p[0]);
}

// ---- atomics

extern "C" __global__ void warp_histogram(const unsigned char *x, unsigned *bins, int n) {  // a copy for each warp
  __shared__ unsigned part[4][16];
  int t = threadIdx.x, w = t / 32;
  for (int i = t; i < 4 * 16; i += blockDim.x) (&part[0][0])[i] = 0;
  __syncthreads();
  for (int i = blockIdx.x * blockDim.x + t; i < n; i += gridDim.x * blockDim.x) atomicAdd_block(&part[w][x[i] / 16], 1u);
  __syncthreads();
  if (t < 16) atomicAdd(&bins[t], part[0][t] + part[1][t] + part[2][t] + part[3][t]);
}

__device__ __forceinline__ int aggregated_increment(int *counter) {
  cg::coalesced_group active = cg::coalesced_threads();
  int first = 0;
  if (active.thread_rank() == 0) first = atomicAdd(counter, (int)active.size());
  return active.shfl(first, 0) + active.thread_rank();
}
extern "C" __global__ void count_positive(const int *x, int *count, int *rank, int n) {  // warp-aggregated
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n && x[i] > 0) rank[i] = aggregated_increment(count) >= 0;
}

extern "C" __global__ void locked_sum(int *lock, long long *total, const int *x) {  // one thread of a block at a time
  if (threadIdx.x == 0) {
    while (atomicCAS(lock, 0, 1) != 0) __nanosleep(20);
    __threadfence();
    *total = *total + x[blockIdx.x];
    __threadfence();
    atomicExch(lock, 0);
  }
}

// ---- warps and groups

extern "C" __global__ void softmax_rows(const float *x, float *out, int rows, int cols) {  // a warp for each row
  int row = blockIdx.x * blockDim.y + threadIdx.y, lane = threadIdx.x;
  if (row >= rows) return;
  float most = -INFINITY, sum = 0;
  for (int c = lane; c < cols; c += 32) most = fmaxf(most, x[row * cols + c]);
  for (int d = 16; d; d >>= 1) most = fmaxf(most, __shfl_xor_sync(~0u, most, d));
  for (int c = lane; c < cols; c += 32) sum += expf(x[row * cols + c] - most);
  for (int d = 16; d; d >>= 1) sum += __shfl_xor_sync(~0u, sum, d);
  for (int c = lane; c < cols; c += 32) out[row * cols + c] = expf(x[row * cols + c] - most) / sum;
}

extern "C" __global__ void tiles_of_eight(const int *x, int *sums, int *scans) {
  cg::thread_block block = cg::this_thread_block();
  cg::thread_block_tile<8> tile = cg::tiled_partition<8>(block);
  int i = block.thread_rank(), v = x[i];
  int sum = cg::reduce(tile, v, cg::plus<int>());
  scans[i] = cg::inclusive_scan(tile, v);
  if (tile.thread_rank() == 0) sums[i / 8] = sum;
  block.sync();
}

extern "C" __global__ void half_warp_sum(const float *x, float *out) {  // the lanes at the end read lanes that are not there
  if (threadIdx.x < 8) {
    float v = x[threadIdx.x];
    for (int d = 4; d; d /= 2) v += __shfl_down_sync(0xffu, v, d);
    if (threadIdx.x == 0) *out = v;
  }
}

extern "C" __global__ void warp_transpose(const int *x, int *out) {  // through shared memory, __syncwarp only
  __shared__ int s[2][32][33];
  int lane = threadIdx.x, w = threadIdx.y;
  for (int r = 0; r < 32; r++) s[w][r][lane] = x[(w * 32 + r) * 32 + lane];
  __syncwarp();
  for (int r = 0; r < 32; r++) out[(w * 32 + r) * 32 + lane] = s[w][lane][r];
}

extern "C" __global__ void bitonic_sort(int *x) {
  __shared__ int s[128];
  unsigned t = threadIdx.x;
  s[t] = x[t];
  for (unsigned k = 2; k <= 128; k *= 2)
    for (unsigned j = k / 2; j; j /= 2) {
      __syncthreads();
      unsigned other = t ^ j;
      if (other > t && ((t & k) == 0) == (s[t] > s[other])) {
        int swap = s[t];
        s[t] = s[other];
        s[other] = swap;
      }
    }
  __syncthreads();
  x[t] = s[t];
}

// ---- narrow types and vectors

extern "C" __global__ void half2_axpy(__half2 *y, const __half2 *x, float a, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = __hfma2(__float2half2_rn(a), x[i], y[i]);
}

extern "C" __global__ void grey(const uchar4 *__restrict__ pixels, unsigned char *out, int n) {  // neighbours write bytes
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  uchar4 p = __ldg(&pixels[i]);
  out[i] = (19595 * p.x + 38470 * p.y + 7471 * p.z + 32768) >> 16;
}

// ---- the programming guide's loops of atomicCAS, whose first guess is a plain read; a maximum that may leave early;
// and a read within the loop

__device__ double guide_add(double *address, double val) {
  unsigned long long int *address_as_ull = (unsigned long long int *)address;
  unsigned long long int old = *address_as_ull, assumed;
  do {
    assumed = old;
    old = atomicCAS(address_as_ull, assumed, __double_as_longlong(val + __longlong_as_double(assumed)));
  } while (assumed != old);
  return __longlong_as_double(old);
}
__device__ float guide_max(float *address, float val) {
  int *address_as_int = (int *)address, old = *address_as_int, assumed;
  do {
    assumed = old;
    old = atomicCAS(address_as_int, assumed, __float_as_int(fmaxf(val, __int_as_float(assumed))));
  } while (assumed != old);
  return __int_as_float(old);
}
__device__ void early_max(float *address, float val) {
  int old = *(int *)address, assumed;
  while (__int_as_float(old) < val) {
    assumed = old;
    old = atomicCAS((int *)address, assumed, __float_as_int(val));
    if (old == assumed) break;
  }
}
__device__ void saturating_add(unsigned char *total, unsigned v) {  // four bytes in a word
  unsigned *word = (unsigned *)((size_t)total & ~(size_t)3), shift = ((size_t)total & 3) * 8, old, sum;
  do {
    old = *word;
    sum = min((old >> shift & 255) + v, 255u);
  } while (atomicCAS(word, old, (old & ~(255u << shift)) | sum << shift) != old);
}
extern "C" __global__ void guide_loops(const float *x, double *sum, float *most, unsigned char *total, int n) {
  __shared__ float block_most;
  if (threadIdx.x == 0) block_most = -1e30f;
  __syncthreads();
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) {
    guide_add(sum, x[i]);
    guide_max(most, x[i]);
    early_max(most + 1, x[i]);
    early_max(&block_most, x[i]);
    saturating_add(total + i % 4, 3);
  }
  __syncthreads();
  if (threadIdx.x == 0) guide_max(most + 2, block_most);
}
