// Barriers, fences and what the lanes of a warp do together. Places are taken from the caller's source.
#pragma once

#include <cstring>

#include "state.hpp"

namespace gce {

template <class T> inline uint64_t to_bits(T value) {
  static_assert(sizeof(T) <= 8, "warp functions take values of up to 8 bytes");
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof value);
  return bits;
}

template <class T> inline T from_bits(uint64_t bits) {
  T value;
  memcpy((void *)&value, &bits, sizeof value);
  return value;
}

constexpr unsigned OFF = 32;  // a shuffle up or down may name a lane that is not there, if the result is dropped

template <class T> inline T shuffle(unsigned mask, T value, unsigned source, Place place) {
  return from_bits<T>(warp_op(Op::shuffle, mask, to_bits(value), source, place));
}

}  // namespace gce

inline void __syncthreads(GCE_CALL_SITE) { gce::barrier(gce::Vote::none, 0, GCE_PLACE); }
inline int __syncthreads_count(int x, GCE_CALL_SITE) { return gce::barrier(gce::Vote::count, x, GCE_PLACE); }
inline int __syncthreads_and(int x, GCE_CALL_SITE) { return gce::barrier(gce::Vote::all, x, GCE_PLACE); }
inline int __syncthreads_or(int x, GCE_CALL_SITE) { return gce::barrier(gce::Vote::any, x, GCE_PLACE); }

inline void __syncwarp(unsigned mask = ~0u, GCE_CALL_SITE) { gce::warp_op(gce::Op::sync, mask, 0, 0, GCE_PLACE); }
inline unsigned __activemask(GCE_CALL_SITE) { return gce::active_mask(GCE_PLACE); }

inline void __threadfence() { gce::fence(); }
inline void __threadfence_block() { gce::fence(); }
inline void __threadfence_system() { gce::fence(); }

template <class T> inline T __shfl_sync(unsigned mask, T v, int lane, int width = 32, GCE_CALL_SITE) {
  unsigned own = gce::current->lane;
  return gce::shuffle(mask, v, (own & ~(width - 1)) | (lane & (width - 1)), GCE_PLACE);
}
template <class T> inline T __shfl_up_sync(unsigned mask, T v, unsigned delta, int width = 32, GCE_CALL_SITE) {
  int own = gce::current->lane, from = own - (int)delta;
  return gce::shuffle(mask, v, from < (own & ~(width - 1)) ? own : from | gce::OFF, GCE_PLACE);
}
template <class T> inline T __shfl_down_sync(unsigned mask, T v, unsigned delta, int width = 32, GCE_CALL_SITE) {
  int own = gce::current->lane, from = own + (int)delta;
  return gce::shuffle(mask, v, from >= (own & ~(width - 1)) + width ? own : from | gce::OFF, GCE_PLACE);
}
template <class T> inline T __shfl_xor_sync(unsigned mask, T v, int bits, int width = 32, GCE_CALL_SITE) {
  int own = gce::current->lane, from = own ^ bits;
  return gce::shuffle(mask, v, from >= (own & ~(width - 1)) + width ? own : from, GCE_PLACE);
}

inline unsigned __ballot_sync(unsigned mask, int x, GCE_CALL_SITE) {
  return (unsigned)gce::warp_op(gce::Op::ballot, mask, x != 0, 0, GCE_PLACE);
}
inline int __any_sync(unsigned mask, int x, GCE_CALL_SITE) {
  return gce::warp_op(gce::Op::ballot, mask, x != 0, 0, GCE_PLACE) != 0;
}
inline int __all_sync(unsigned mask, int x, GCE_CALL_SITE) {
  return gce::warp_op(gce::Op::ballot, mask, x == 0, 0, GCE_PLACE) == 0;
}
inline int __uni_sync(unsigned mask, int x, GCE_CALL_SITE) {
  return gce::warp_op(gce::Op::match_all, mask, x != 0, 0, GCE_PLACE) != 0;
}
template <class T> inline unsigned __match_any_sync(unsigned mask, T v, GCE_CALL_SITE) {
  return (unsigned)gce::warp_op(gce::Op::match_any, mask, gce::to_bits(v), 0, GCE_PLACE);
}
template <class T> inline unsigned __match_all_sync(unsigned mask, T v, int *same, GCE_CALL_SITE) {
  unsigned lanes = (unsigned)gce::warp_op(gce::Op::match_all, mask, gce::to_bits(v), 0, GCE_PLACE);
  *same = lanes != 0;
  return lanes;
}

#define GCE_REDUCE(NAME, T, OP)                                                    \
  inline T __reduce_##NAME##_sync(unsigned mask, T v, GCE_CALL_SITE) {             \
    return (T)gce::warp_op(gce::Op::OP, mask, (uint64_t)(int64_t)v, 0, GCE_PLACE); \
  }
GCE_REDUCE(add, int, add)
GCE_REDUCE(add, unsigned, add)
GCE_REDUCE(min, int, min_signed)
GCE_REDUCE(min, unsigned, min_unsigned)
GCE_REDUCE(max, int, max_signed)
GCE_REDUCE(max, unsigned, max_unsigned)
GCE_REDUCE(and, unsigned, bit_and)
GCE_REDUCE(or, unsigned, bit_or)
GCE_REDUCE(xor, unsigned, bit_xor)
#undef GCE_REDUCE
