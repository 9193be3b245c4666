// One bug in each kernel, on the line that says BUG. test_checker.py runs them; the checks must find every one.

// ---- out of bounds and misaligned

extern "C" __global__ void oob_global(float *x, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i <= n) x[i] = 1;  // BUG oob_global
}
extern "C" __global__ void oob_before(const int *x, int *out) {
  int i = threadIdx.x;
  out[i] = x[i] - x[i - 1];  // BUG oob_before
}
extern "C" __global__ void oob_shared(float *x) {
  __shared__ float s[64];
  s[threadIdx.x + 1] = x[threadIdx.x];  // BUG oob_shared
  __syncthreads();
  x[threadIdx.x] = s[threadIdx.x];
}
extern "C" __global__ void oob_tile(float *x) {
  __shared__ float other[8], tile[8][8], more[64];
  int t = threadIdx.x;
  other[t % 8] = more[t] = 0;
  tile[t / 8][t % 8 + 1] = x[t];  // BUG oob_tile
}
extern "C" __global__ void oob_dynamic(float *x) {
  extern __shared__ float s[];
  s[threadIdx.x + 1] = x[threadIdx.x];  // BUG oob_dynamic
  __syncthreads();
  x[threadIdx.x] = s[threadIdx.x];
}
extern "C" __global__ void null_pointer(const float *x, float *out) {
  out[threadIdx.x] = x[threadIdx.x];  // BUG null_pointer
}
extern "C" __global__ void oob_atomic(int *count, const int *bin) {
  atomicAdd(&count[bin[threadIdx.x]], 1);  // BUG oob_atomic
}
extern "C" __global__ void misaligned(const float *x, float4 *out) {
  out[0] = *(const float4 *)(x + 1);  // BUG misaligned
}
extern "C" __global__ void misaligned_parts(const float *x, float *out) {
  float2 pair = *(const float2 *)(x + 1);  // BUG misaligned_parts
  out[0] = pair.x + pair.y;
}
__device__ float neighbour_before[64], scratch[2][24], neighbour_after[64];
extern "C" __global__ void oob_variable(const float *x) {
  neighbour_before[threadIdx.x] = neighbour_after[threadIdx.x] = 0;
  scratch[1][threadIdx.x] = x[threadIdx.x];  // BUG oob_variable
}
namespace weights {
static __constant__ const double weight[] = {1, 2, 3};
}
extern "C" __global__ void oob_constant(float *x) {
  x[threadIdx.x] = weights::weight[threadIdx.x % 4];  // BUG oob_constant
}
extern "C" __global__ void oob_variable_far(float *x, int n) {
  scratch[0][n] = x[0];  // BUG oob_variable_far
}
extern "C" __global__ void oob_local(float *x, int n) {
  float own[8];
  for (int i = 0; i < n; i++) own[i] = x[i];
  x[threadIdx.x] = own[threadIdx.x % 8];
}  // BUG oob_local

// ---- races, and what is read before it is written

extern "C" __global__ void race_forward(float *x) {
  __shared__ float s[64];
  int t = threadIdx.x;
  s[t] = x[t];  // BUG race_forward
  x[t] = s[63 - t];
}
extern "C" __global__ void race_previous(float *x) {  // right if threads come in ascending order
  __shared__ float s[64];
  int t = threadIdx.x;
  s[t] = x[t];
  x[t] = t ? s[t - 1] : 0;  // BUG race_previous
}
extern "C" __global__ void race_reuse(const float *x, float *out) {
  __shared__ float s[64];
  int t = threadIdx.x;
  s[t] = x[t];
  __syncthreads();
  float v = s[(t + 1) & 63];  // BUG race_reuse
  s[t] = 2 * v;
  __syncthreads();
  out[t] = s[t];
}
extern "C" __global__ void race_global(int *counts, const int *x, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) counts[x[i]] += 1;  // BUG race_global
}
extern "C" __global__ void race_blocks(int *out) {
  if (threadIdx.x == 0) out[0] = blockIdx.x;  // BUG race_blocks
}
extern "C" __global__ void race_bytes(unsigned char *x) {
  int t = threadIdx.x;
  unsigned char next = x[(t + 1) % 64];
  x[t] = next + 1;  // BUG race_bytes
}
extern "C" __global__ void race_warp(const float *x, float *out) {  // warp-synchronous, as it was written before Volta
  __shared__ volatile float s[32];
  int t = threadIdx.x;
  s[t] = x[t];  // BUG race_warp
  if (t < 16) s[t] += s[t + 16];
  if (t < 8) s[t] += s[t + 8];
  if (t == 0) out[0] = s[0];
}
extern "C" __global__ void race_plain_and_atomic(int *count, int *seen) {
  atomicAdd(count, 1);  // BUG race_plain_and_atomic
  seen[threadIdx.x] = *count;
}
extern "C" __global__ void race_read_and_swap(int *lock, int *seen) {  // what is read is not what is compared
  int old = *lock;  // BUG race_read_and_swap
  seen[threadIdx.x] = old;
  atomicCAS(lock, (int)threadIdx.x + 100, 0);
  atomicAdd(lock, 1);
}
__device__ unsigned finished;
extern "C" __global__ void race_no_fence(float *part, float *out, unsigned blocks) {
  if (threadIdx.x == 0) {
    part[blockIdx.x] = blockIdx.x + 1;
    // __threadfence() is missing here
    if (atomicInc(&finished, blocks - 1) == blocks - 1)
      for (unsigned b = 0; b < blocks; b++) *out += part[b];  // BUG race_no_fence
  }
}
__device__ int counter;
extern "C" __global__ void race_variable(int *out) {
  counter++;  // BUG race_variable
  __syncthreads();
  out[threadIdx.x] = counter;
}
extern "C" __global__ void uninitialised(float *x) {
  __shared__ float s[64];
  int t = threadIdx.x;
  if (t < 32) s[t] = x[t];
  __syncthreads();
  x[t] = s[t];  // BUG uninitialised
}
extern "C" __global__ void uninitialised_dynamic(int *count) {
  extern __shared__ int bins[];
  atomicAdd(&bins[threadIdx.x % 8], 1);  // BUG uninitialised_dynamic
  __syncthreads();
  if (threadIdx.x < 8) count[threadIdx.x] = bins[threadIdx.x];
}

// ---- barriers

extern "C" __global__ void divergent(float *x) {
  if (threadIdx.x < 32) __syncthreads();  // BUG divergent
  x[threadIdx.x] = 1;
}
extern "C" __global__ void divergent_late(float *x) {  // those that miss it come first
  if (threadIdx.x >= 32) __syncthreads();  // BUG divergent_late
  x[threadIdx.x] = 1;
}
extern "C" __global__ void two_barriers(float *x) {
  if (threadIdx.x < 32)
    __syncthreads();
  else
    __syncthreads();  // BUG two_barriers
  x[threadIdx.x] = 1;
}
extern "C" __global__ void unequal_loops(const float *x, float *out, int n) {
  __shared__ float s[64];
  for (int i = threadIdx.x; i < n; i += 64) {
    s[threadIdx.x] = x[i];
    __syncthreads();  // BUG unequal_loops
    out[i] = s[threadIdx.x];
  }
}
extern "C" __global__ void early_exit(float *x, int n) {
  if (threadIdx.x >= n) return;
  __syncthreads();  // BUG early_exit
  x[threadIdx.x] = 1;
}
extern "C" __global__ void different_votes(int *out) {
  int t = threadIdx.x;
  out[t] = t < 32 ? __syncthreads_or(t) : __syncthreads_and(t);  // BUG different_votes
}

// ---- warps

extern "C" __global__ void shuffle_partial(float *x) {
  float v = x[threadIdx.x];
  if (threadIdx.x < 16) v += __shfl_down_sync(0xffffffffu, v, 8);  // BUG shuffle_partial
  x[threadIdx.x] = v;
  __syncthreads();
}
extern "C" __global__ void shuffle_inactive(int *x) {
  if (threadIdx.x < 16) x[threadIdx.x] = __shfl_sync(0xffffu, x[threadIdx.x], 20);  // BUG shuffle_inactive
}
extern "C" __global__ void shuffle_missing(int *x) {  // the value of a lane that is not there gets into the result
  if (threadIdx.x < 8) x[threadIdx.x] = __shfl_down_sync(0xffu, x[threadIdx.x], 4);
}
extern "C" __global__ void foreign_mask(int *x) {
  if (threadIdx.x < 16) x[threadIdx.x] = __ballot_sync(0xffff0000u, 1);  // BUG foreign_mask
}
extern "C" __global__ void different_functions(int *x) {
  int t = threadIdx.x;
  if (t < 16)
    x[t] = __any_sync(0xffffffffu, t);
  else
    x[t] = __shfl_sync(0xffffffffu, t, 0);  // BUG different_functions
}

// ---- others

extern "C" __global__ void asserts(const int *x) {
  assert(x[threadIdx.x] < 10);  // BUG asserts
}
extern "C" __global__ void divides(int *x, int by) {
  x[threadIdx.x] /= by;  // BUG divides
}
extern "C" __global__ void inline_ptx(int *x) {
  asm volatile("mul.lo.s32 %0, %1, %1;\n\t"  // BUG inline_ptx
               : "=r"(x[0])
               : "r"(x[1]));
}
extern "C" __global__ void spins(int *flag) {
  if (threadIdx.x == 0)
    while (atomicAdd(flag, 0) == 0) {
    }
}
