// Shared memory. rewrite.py turns `__shared__ float a[64];` into
//   typedef float a_t[64]; static gce::Shared<a_t> a_s; static a_t &a = a_s.slot.value; a_s.enter("a");
// Blocks run one after the other, so one copy serves them all; it is poisoned when a block begins.
//
// Under the checker, variables beside the kernels get room around them too: `__device__ int n[4];` becomes
//   __device__ int n_i[4]; static gce::Variable<decltype(n_i)> n_v; static decltype(n_i) &n = n_v.slot.value; ...
// n_i keeps what n holds before the first launch.
#pragma once

#include <type_traits>

#include "state.hpp"

namespace gce {

// Bytes on either side that belong to nothing. Those of variables cost no memory; shared ones want to share the cache.
constexpr size_t RED_ZONE = 1024, VARIABLE_ZONE = 64 << 10;

template <class T, size_t ZONE> struct Guarded {
  union alignas(128) Slot {  // a union: CUDA runs no constructors on these variables
    constexpr Slot() : nothing() {}
    char nothing;
    T value;
  };
  char before[ZONE] = {};
  Slot slot;
  char after[ZONE] = {};

  constexpr Guarded() {}
};

template <class T> struct Shared : Guarded<T, RED_ZONE> {
  using Guarded<T, RED_ZONE>::slot;
  bool known = false;

  GCE_UNWATCHED void enter(const char *name) {
    if (__builtin_expect(!known, 0)) {
      known = true;
      declare_shared((void *)&slot.value, sizeof(T), sizeof(std::remove_all_extents_t<T>), alignof(T), name);
    }
  }
};

// `extern __shared__ float a[];` is a pointer to dynamic_shared.
template <class T> GCE_INLINE void enter_dynamic(const char *name) {
  if (GCE_CHECK) declare_dynamic(sizeof(std::remove_all_extents_t<T>), name);
}

struct EnterAtLoad {  // for variables at file scope
  template <class T> EnterAtLoad(Shared<T> &variable, const char *name) { variable.enter(name); }
};

template <class T> using Variable = Guarded<std::remove_const_t<T>, VARIABLE_ZONE>;

struct DeclareAtLoad {
  template <class T> GCE_UNWATCHED DeclareAtLoad(T &variable, const void *initial, const char *name) {
    auto &value = variable.slot.value;
    typedef std::remove_all_extents_t<std::remove_reference_t<decltype(value)>> Element;
    declare_variable((void *)&value, initial, sizeof value, sizeof(Element), alignof(Element), name);
  }
};

}  // namespace gce
