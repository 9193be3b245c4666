// Who has touched which bytes when, and whether two accesses are ordered.
//
// Time is a count of synchronisations. Within a block an access comes before another if a barrier lies between, or, in
// one warp, a chain of __syncwarp, shuffles and votes (vector clocks of 32 lanes; the cells are those of FastTrack,
// Flanagan & Freund 2009, with two readers). Anywhere else it does if its thread, or one that came after it
// within its block, went through a fence, and the later thread then through an atomic: it is not asked on which
// address, so flags, tickets and locks of any make count as order.
//
// A plain read that races with atomics is none if it is where a loop of atomicCAS gets its first guess from ("Atomic
// Functions" in the CUDA C++ programming guide): a stale guess makes the swap fail, and nothing else. Such a read is
// known by what follows: the same thread's atomicCAS on these bytes, with the value that was read. That is asked of the
// place in the code, so that a thread may leave before its atomicCAS, as a maximum does that is reached already.
#pragma once

#include "findings.hpp"
#include "memory.hpp"

namespace gce {

bool atomics_used;
unsigned spins;

namespace races {

#if !GCE_CHECK
inline void at_launch() {}
inline void at_block(unsigned) {}
inline void at_block_end() {}
inline void at_barrier() {}
inline void at_warp(const Thread *, unsigned) {}
inline void at_fence() {}
inline void at_atomic(const void *, size_t, const void *) {}
inline void forget_own_read() {}
inline void settle() {}
inline void warn_of_early_exit(Place) {}
inline void note_missing_lane(Place, unsigned) {}
#else
void at_launch();
void at_block(unsigned threads);
void at_block_end();
void at_barrier();
void at_warp(const Thread *lanes, unsigned arrived);
void at_fence();
void at_atomic(const void *address, size_t bytes, const void *code);
void forget_own_read();
void settle();  // at the end of a launch

inline void warn_of_early_exit(Place place) {
  report(false, "early exit", place,
         "some threads have ended before this barrier; GPUs allow it, CUDA does not promise it");
}
inline void note_missing_lane(Place place, unsigned lane) {
  report(false, "missing lane", place, format("the shuffle reads lane %u, which does not take part in it", lane));
}
#endif

}  // namespace races
}  // namespace gce
