// Atomic functions. Fibers are never interrupted, so a plain read and write is one step; the checker is told of it.
#pragma once

#include <cstring>
#include <type_traits>

#include "half.hpp"
#include "state.hpp"

namespace gce {

template <class T> struct Same {
  typedef T type;
};
template <class T> using Given = typename Same<T>::type;  // not deduced: atomicAdd(&float, 1) is a float's

template <class T, class F> GCE_UNWATCHED inline T atomically(T *address, F next) {
  atomics_used = true;
  before_atomic((const void *)address, sizeof(T), GCE_CALLER);
  T old = *address, changed = next(old);
  if (memcmp((const void *)&old, (const void *)&changed, sizeof(T))) spins = 0;
  *address = changed;
  return old;
}

}  // namespace gce

// Each for the three scopes: of the block, of the device (no suffix) and of the system.
#define GCE_ATOMIC(NAME, NEXT)                                                                           \
  template <class T> GCE_INLINE T NAME(T *address, gce::Given<T> v) {                                    \
    return gce::atomically(address, [=](T old) { return T(NEXT); });                                     \
  }                                                                                                      \
  template <class T> GCE_INLINE T NAME##_block(T *address, gce::Given<T> v) { return NAME(address, v); } \
  template <class T> GCE_INLINE T NAME##_system(T *address, gce::Given<T> v) { return NAME(address, v); }
GCE_ATOMIC(atomicAdd, old + v)
GCE_ATOMIC(atomicSub, old - v)
GCE_ATOMIC(atomicExch, (void(old), v))
GCE_ATOMIC(atomicMin, v < old ? v : old)
GCE_ATOMIC(atomicMax, old < v ? v : old)
GCE_ATOMIC(atomicInc, old >= v ? T(0) : T(old + 1))
GCE_ATOMIC(atomicDec, old == 0 || old > v ? v : T(old - 1))
GCE_ATOMIC(atomicAnd, old &v)
GCE_ATOMIC(atomicOr, old | v)
GCE_ATOMIC(atomicXor, old ^ v)
#undef GCE_ATOMIC

template <class T> GCE_INLINE T atomicCAS(T *address, gce::Given<T> compare, gce::Given<T> v) {
  T found = gce::atomically(address, [=](T old) { return old == compare ? v : old; });
  if (GCE_CHECK && found == compare) gce::swapped();
  return found;
}
template <class T> GCE_INLINE T atomicCAS_block(T *address, gce::Given<T> compare, gce::Given<T> v) {
  return atomicCAS(address, compare, v);
}
template <class T> GCE_INLINE T atomicCAS_system(T *address, gce::Given<T> compare, gce::Given<T> v) {
  return atomicCAS(address, compare, v);
}
inline float2 atomicAdd(float2 *address, float2 v) {
  return {atomicAdd(&address->x, v.x), atomicAdd(&address->y, v.y)};
}
inline float4 atomicAdd(float4 *address, float4 v) {
  return {atomicAdd(&address->x, v.x), atomicAdd(&address->y, v.y), atomicAdd(&address->z, v.z),
          atomicAdd(&address->w, v.w)};
}

// What kernels use of <cuda/atomic>: every order is taken for the strongest.
namespace cuda {

enum thread_scope { thread_scope_system, thread_scope_device, thread_scope_block, thread_scope_thread };
enum memory_order {
  memory_order_relaxed,
  memory_order_consume,
  memory_order_acquire,
  memory_order_release,
  memory_order_acq_rel,
  memory_order_seq_cst
};
inline void atomic_thread_fence(memory_order, thread_scope = thread_scope_system) { gce::fence(); }

template <class T, thread_scope Scope = thread_scope_system> class atomic_ref {
  T *address;
  template <class F> GCE_INLINE T change(F next, memory_order order) const {
    if (order != memory_order_relaxed) gce::fence();
    return gce::atomically(address, next);
  }

 public:
  static constexpr memory_order strongest = memory_order_seq_cst;
  explicit atomic_ref(T &value) : address(&value) {}
  GCE_INLINE T load(memory_order order = strongest) const {
    return change([](T old) { return old; }, order);
  }
  GCE_INLINE void store(T v, memory_order order = strongest) const {
    change([=](T) { return v; }, order);
  }
  GCE_INLINE T exchange(T v, memory_order order = strongest) const {
    return change([=](T) { return v; }, order);
  }
  GCE_INLINE bool compare_exchange_strong(T &expected, T v, memory_order order = strongest) const {
    T compare = expected;
    expected = change([=](T old) { return old == compare ? v : old; }, order);
    return expected == compare;
  }
  GCE_INLINE bool compare_exchange_weak(T &expected, T v, memory_order order = strongest) const {
    return compare_exchange_strong(expected, v, order);
  }
#define GCE_FETCH(NAME, NEXT)                                            \
  GCE_INLINE T fetch_##NAME(T v, memory_order order = strongest) const { \
    return change([=](T old) { return T(NEXT); }, order);                \
  }
  GCE_FETCH(add, old + v)
  GCE_FETCH(sub, old - v)
  GCE_FETCH(and, old &v)
  GCE_FETCH(or, old | v)
  GCE_FETCH(xor, old ^ v)
  GCE_FETCH(min, v < old ? v : old)
  GCE_FETCH(max, old < v ? v : old)
#undef GCE_FETCH
};

namespace std = ::std;

}  // namespace cuda
