// What CUDA C++ means, piece by piece; test_emulator.py compares with NumPy.
#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "semantics_device.cuh"

extern "C" __global__ void indices(int *out) {
  unsigned b = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  unsigned t = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  int *to = out + 8 * (b * blockDim.x * blockDim.y * blockDim.z + t);
  to[0] = threadIdx.x, to[1] = threadIdx.y, to[2] = threadIdx.z, to[3] = blockIdx.x, to[4] = blockIdx.y;
  to[5] = blockIdx.z, to[6] = blockDim.z, to[7] = gridDim.y;
}

extern "C" __global__ void shuffles(const int *x, int *out, int amount, int width) {
  int t = threadIdx.x, v = x[t];
  out[t] = __shfl_sync(0xffffffff, v, amount, width);
  out[32 + t] = __shfl_up_sync(0xffffffff, v, amount, width);
  out[64 + t] = __shfl_down_sync(0xffffffff, v, amount, width);
  out[96 + t] = __shfl_xor_sync(0xffffffff, v, amount, width);
  out[128 + t] = (int)__shfl_sync(0xffffffff, (double)v, 31 - t);
}

extern "C" __global__ void votes(const int *x, unsigned *out) {
  int t = threadIdx.x, v = x[t], same;
  unsigned half = t < 16 ? 0xffff : 0xffff0000;
  out[t] = __ballot_sync(0xffffffff, v > 0);
  out[32 + t] = __any_sync(half, v > 45) | __all_sync(half, v < 45) << 1;
  out[64 + t] = __match_any_sync(0xffffffff, v % 3);
  out[96 + t] = __match_all_sync(half, v > -1000, &same) * same;
  out[128 + t] = __reduce_add_sync(0xffffffff, v);
  out[160 + t] = __reduce_min_sync(half, v);
  out[192 + t] = __reduce_max_sync(half, (unsigned)v);
  out[224 + t] = v % 2 ? __activemask() : 0;
}

extern "C" __global__ void counting_barriers(const int *x, int *out) {
  int t = threadIdx.x;
  out[t] = __syncthreads_count(x[t] > 0);
  out[64 + t] = __syncthreads_and(x[t] > -100) + 2 * __syncthreads_and(x[t]);
  out[128 + t] = __syncthreads_or(x[t] > 100) + 2 * __syncthreads_or(x[t] == x[5]);
}

template <typename T> __device__ void all_atomics(T *out, T v) {
  atomicAdd(&out[0], v);
  atomicMin(&out[2], v);
  atomicMax(&out[3], v);
  atomicAnd(&out[4], v);
  atomicOr_block(&out[5], v);
  atomicXor_system(&out[6], v);
}
extern "C" __global__ void atomics(int *i, unsigned *u, unsigned long long *l, float *f, double *d, __half *h, const int *x) {
  int v = x[threadIdx.x];
  all_atomics(i, v);
  atomicSub(&i[1], v);
  all_atomics(u, (unsigned)v);
  atomicInc(&u[7], 10);
  atomicDec(&u[8], 7);
  atomicExch(&u[9], 5);
  all_atomics(l, (unsigned long long)v);
  atomicAdd(f, v);
  atomicAdd(d, v);
  atomicAdd(h, __int2half_rn(v));
  unsigned seen = u[10], old;  // a sum by compare and swap
  do old = seen, seen = atomicCAS(&u[10], old, old + v);
  while (seen != old);
}

extern "C" __global__ void narrow(const float *x, __half *h, __nv_bfloat16 *b, float *back, int n) {
  int i = threadIdx.x + blockIdx.x * blockDim.x;
  if (i >= n) return;
  h[i] = __float2half(x[i]);
  b[i] = __float2bfloat16(x[i]);
  back[i] = __half2float(h[i]) + __bfloat162float(b[i]);
}
extern "C" __global__ void half_arithmetic(const __half *a, const __half *b, __half *out, int n) {
  int i = threadIdx.x + blockIdx.x * blockDim.x;
  if (i >= n) return;
  out[i] = a[i] + b[i];
  out[n + i] = __hmul(a[i], b[i]);
  out[2 * n + i] = a[i] / b[i];
  out[3 * n + i] = hsqrt(__habs(a[i]));
}

extern "C" __global__ void integers(const int *x, int *out) {
  int v = x[threadIdx.x], *to = out + 8 * threadIdx.x;
  to[0] = __popc(v), to[1] = __clz(v), to[2] = __ffs(v), to[3] = (int)__brev(v), to[4] = __mulhi(v, 1 << 20);
  to[5] = (int)__byte_perm(v, 0x55667788, 0x4a21), to[6] = __dp4a(v, v, 1), to[7] = (int)__funnelshift_l(v, 77, 5);
}

extern "C" __global__ void roundings(const float *x, float *out, int *ints) {
  int t = threadIdx.x;
  float v = x[t];
  out[4 * t] = __fadd_rn(v, 1e-10f), out[4 * t + 1] = __fadd_ru(v, 1e-10f), out[4 * t + 2] = __fmul_rd(v, 0.1f);
  out[4 * t + 3] = __fmaf_rn(v, v, -v);
  ints[4 * t] = __float2int_rn(v), ints[4 * t + 1] = __float2int_rz(v * 1e9f), ints[4 * t + 2] = __float2int_rd(v);
  ints[4 * t + 3] = __float_as_int(v);
}

extern "C" __global__ void no_contraction(const float *x, float *out, int n) {
  int i = threadIdx.x + blockIdx.x * blockDim.x;
  if (i < n) out[i] = x[i] * x[i] - x[i + n];
}

__constant__ float table[4];
__device__ int total = 5;
extern "C" __global__ void variables(float *out) {
  out[threadIdx.x] = table[threadIdx.x];
  atomicAdd(&total, 1);
}

struct Window {
  float low, high;
  int steps;
};
extern "C" __global__ void by_value(Window w, float2 shift, bool flip, float *out) {
  int i = threadIdx.x;
  float v = w.low + (w.high - w.low) * i / w.steps + shift.x * shift.y;
  if (i <= w.steps) out[i] = flip ? -v : v;
}

__shared__ int at_file_scope[32];
extern __shared__ double dynamic_at_file_scope[];
extern "C" __global__ void shared_kinds(const int *x, double *out) {
  __shared__ struct {
    int values[32];
    float2 pair;
  } both;
  __shared__ union {
    float f;
    unsigned u;
  } bits, more[2];
  int t = threadIdx.x;
  both.values[t] = x[t];
  at_file_scope[t] = 2 * x[t];
  dynamic_at_file_scope[t] = 0.5 * x[t];
  if (t == 0) bits.f = 1.0f, more[1].u = 7, both.pair = make_float2(3, 4);
  __syncthreads();
  int u = 31 - t;
  out[t] = both.values[u] + at_file_scope[u] + dynamic_at_file_scope[u] + (bits.u == 0x3f800000) + more[1].u + both.pair.y;
}

namespace scaled {
template <typename T, int BY> __global__ void multiply(T *x) { x[threadIdx.x] = times<BY>(x[threadIdx.x]); }
__global__ void plain(int *x) { x[threadIdx.x] += OFFSET; }
}  // namespace scaled

__global__ void div(int *x, int by) { x[threadIdx.x] /= by; }  // libc has a div, too

extern "C" __global__ void __launch_bounds__(64) bounded(int *x) { x[threadIdx.x] = 1; }
