// Shared memory. rewrite.py turns `__shared__ float a[64];` into
//   typedef float a_t[64]; static gce::Shared<a_t> a_s; static a_t &a = a_s.slot.value; a_s.enter("a");
// Blocks run one after the other, so one copy serves them all; it is poisoned when a block begins.
#pragma once

#include <type_traits>

#include "state.hpp"

namespace gce {

constexpr size_t RED_ZONE = 1024;  // bytes on either side that belong to nothing

template <class T> struct Shared {
  union alignas(128) Slot {  // a union: CUDA runs no constructors on shared variables
    constexpr Slot() : nothing() {}
    char nothing;
    T value;
  };
  char before[RED_ZONE] = {};
  Slot slot;
  char after[RED_ZONE] = {};
  bool known = false;

  constexpr Shared() {}
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

}  // namespace gce
