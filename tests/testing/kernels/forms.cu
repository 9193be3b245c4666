// Declarations in all the forms that people write; test_emulator.py compiles them and adds up.
/* not a kernel: __global__ void nothing(int *x) {} and "__shared__ float s[3];" */
#if 0
__global__ void hidden(int *x) { undefined(x); }
#endif
#define KERNEL(NAME, OP) \
  extern "C" __global__ void NAME(int *x) { __shared__ int made_by_macro[32]; \
    made_by_macro[threadIdx.x] = x[threadIdx.x]; __syncthreads(); x[threadIdx.x] = made_by_macro[31 - threadIdx.x] OP 2; }

KERNEL(index, +)
KERNEL(twice, *)

constexpr int N = 16;
template <class A, class B> struct Two {
  A a;
  B b;
};
struct WithConstructor {
  int v;
  __device__ WithConstructor() {}
};

extern "C" {
__device__ __noinline__ int in_device_function(int v) {
  __shared__ int total;
  if (threadIdx.x == 0) total = 0;
  __syncthreads();
  atomicAdd(&total, v);
  __syncthreads();
  return total;
}

__launch_bounds__(64, 2) __global__ void first_form(int *x) {
  alignas(16) __shared__ int a[N];
  __shared__ __align__(16) float b[2][N + (N > 4 ? 1 : 0)], c;
  volatile __shared__ int d;
  static __shared__ Two<int, float> e[N], *f;
  __shared__ WithConstructor g[2];
  int t = threadIdx.x;
  if (t < N) a[t] = t, b[1][t] = t, e[t].b = t;
  if (t == 0) c = 1, d = 2, f = &e[3], g[1].v = 4;
  __syncthreads();
  auto sum = [=](int i) { return a[i] + (int)b[1][i] + (int)e[i].b + (int)c + d + (int)f->b + g[1].v; };
  x[t] = sum(t % N) + in_device_function(1);
}
}

__global__ __launch_bounds__(64) static void second_form(const int n, int *__restrict__ x, unsigned, float = 0) {
  extern __shared__ __align__(16) unsigned char raw[];
  int *ints = reinterpret_cast<int *>(raw);
  ints[threadIdx.x] = n;
  __syncthreads();
  x[threadIdx.x] = ints[(threadIdx.x + 1) % blockDim.x] + sizeof(ints[0]);
}

namespace {
namespace inner {
template <typename T> static __global__ void third_form(T *x) {
  extern __shared__ T typed[][2];
  typed[threadIdx.x][1] = x[threadIdx.x];
  __syncthreads();
  x[threadIdx.x] = typed[0][1] + typed[threadIdx.x][1];
}
}  // namespace inner
}  // namespace
template __global__ void inner::third_form<short>(short *);
