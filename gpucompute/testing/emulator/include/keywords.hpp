// The words that CUDA adds to C++. __shared__ and what follows it are rewritten before they get here (rewrite.py).
#pragma once

#include "state.hpp"

#define __global__
#define __host__
// visible: the library's users find variables by their names
#define __device__ __attribute__((visibility("default")))
#define __constant__ __attribute__((visibility("default")))
#define __managed__
#define __shared__ static
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __inline_hint__
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)
#define __maxnreg__(...)
#define __nv_pure__ __attribute__((pure))

#define threadIdx (gce::current->index)
#define blockIdx (gce::block.index)
#define blockDim (gce::block.size)
#define gridDim (gce::block.grid)
#define warpSize 32

#undef assert
#define assert(condition) \
  ((condition) ? (void)0 : gce::fail("%s:%d: assertion failed: %s", __FILE__, __LINE__, #condition))

inline void __trap() { gce::fail("__trap"); }
inline void __brkpt() { gce::fail("__brkpt"); }
inline void __nanosleep(unsigned) { gce::yield(); }
#if !defined(__clang__)
#define __builtin_assume(condition) ((void)0)
#define __builtin_assume_aligned(pointer, ...) (pointer)
#endif
#define __assume(condition) ((void)0)

// Loads and stores with hints for the caches.
template <class T> GCE_INLINE T __ldg(const T *p) { return *p; }
template <class T> GCE_INLINE T __ldca(const T *p) { return *p; }
template <class T> GCE_INLINE T __ldcs(const T *p) { return *p; }
template <class T> GCE_INLINE T __ldlu(const T *p) { return *p; }
template <class T> GCE_INLINE T __ldcg(const T *p) { return *p; }
template <class T> GCE_INLINE T __ldcv(const T *p) { return *p; }
template <class T> GCE_INLINE void __stwb(T *p, T v) { *p = v; }
template <class T> GCE_INLINE void __stcg(T *p, T v) { *p = v; }
template <class T> GCE_INLINE void __stcs(T *p, T v) { *p = v; }
template <class T> GCE_INLINE void __stwt(T *p, T v) { *p = v; }
