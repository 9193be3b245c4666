// <cooperative_groups.h>: blocks, tiles of a warp, coalesced lanes, and their reductions and scans.
// A grid cannot wait for itself here: its blocks run one after the other.
#pragma once

#include "atomics.hpp"
#include "integers.hpp"
#include "warp.hpp"

namespace cooperative_groups {

template <class T> struct plus {
  T operator()(T a, T b) const { return a + b; }
};
template <class T> struct less {
  T operator()(T a, T b) const { return b < a ? b : a; }
};
template <class T> struct greater {
  T operator()(T a, T b) const { return a < b ? b : a; }
};

struct thread_block {
  static unsigned thread_rank() { return gce::current->linear(); }
  static unsigned num_threads() { return gce::block.count; }
  static unsigned size() { return num_threads(); }
  static uint3 group_index() { return gce::block.index; }
  static uint3 thread_index() { return gce::current->index; }
  static dim3 group_dim() { return gce::block.size; }
  static dim3 dim_threads() { return gce::block.size; }
  static void sync(GCE_CALL_SITE) { gce::barrier(gce::Vote::none, 0, GCE_PLACE); }
};
inline thread_block this_thread_block() { return {}; }

struct grid_group {
  static unsigned long long num_blocks() {
    return (unsigned long long)gce::block.grid.x * gce::block.grid.y * gce::block.grid.z;
  }
  static unsigned long long block_rank() {
    uint3 i = gce::block.index;
    return ((unsigned long long)i.z * gce::block.grid.y + i.y) * gce::block.grid.x + i.x;
  }
  static unsigned long long thread_rank() { return block_rank() * gce::block.count + gce::current->linear(); }
  static unsigned long long num_threads() { return num_blocks() * gce::block.count; }
  static unsigned long long size() { return num_threads(); }
  static dim3 group_dim() { return gce::block.grid; }
  static bool is_valid() { return num_blocks() == 1; }
  static void sync(GCE_CALL_SITE) {
    if (num_blocks() > 1)
      gce::fail("%s:%d: grid.sync() with more than one block is not emulated; launch one block, or split the kernel",
                GCE_PASS);
    gce::barrier(gce::Vote::none, 0, GCE_PLACE);
  }
};
inline grid_group this_grid() { return {}; }

// Lanes of one warp, named by a mask; ranks count the lanes of the mask.
struct lanes {
  unsigned mask;

  unsigned thread_rank() const { return __popc(mask & ((1u << gce::current->lane) - 1)); }
  unsigned num_threads() const { return __popc(mask); }
  unsigned size() const { return num_threads(); }
  void sync(GCE_CALL_SITE) const { __syncwarp(mask, GCE_PASS); }
  int any(int x, GCE_CALL_SITE) const { return __any_sync(mask, x, GCE_PASS); }
  int all(int x, GCE_CALL_SITE) const { return __all_sync(mask, x, GCE_PASS); }
  unsigned ballot(int x, GCE_CALL_SITE) const { return packed(__ballot_sync(mask, x, GCE_PASS)); }
  template <class T> unsigned match_any(T v, GCE_CALL_SITE) const {
    return packed(__match_any_sync(mask, v, GCE_PASS));
  }
  template <class T> T shfl(T v, int rank, GCE_CALL_SITE) const {
    return gce::shuffle(mask, v, lane_of((unsigned)rank % num_threads()), GCE_PLACE);
  }
  template <class T> T shfl_up(T v, unsigned delta, GCE_CALL_SITE) const {
    unsigned rank = thread_rank();
    return gce::shuffle(mask, v, lane_of(rank < delta ? rank : rank - delta), GCE_PLACE);
  }
  template <class T> T shfl_down(T v, unsigned delta, GCE_CALL_SITE) const {
    unsigned rank = thread_rank();
    return gce::shuffle(mask, v, lane_of(rank + delta < num_threads() ? rank + delta : rank), GCE_PLACE);
  }
  template <class T> T shfl_xor(T v, unsigned bits, GCE_CALL_SITE) const {
    unsigned rank = thread_rank() ^ bits;
    return gce::shuffle(mask, v, lane_of(rank < num_threads() ? rank : thread_rank()), GCE_PLACE);
  }

 private:
  unsigned lane_of(unsigned rank) const {
    unsigned rest = mask;
    while (rank--) rest &= rest - 1;
    return (unsigned)__builtin_ctz(rest);
  }
  unsigned packed(unsigned bits) const {
    unsigned result = 0, rank = 0;
    for (unsigned rest = mask; rest; rest &= rest - 1, rank++) result |= (bits >> __builtin_ctz(rest) & 1) << rank;
    return result;
  }
};

typedef lanes coalesced_group;
inline coalesced_group coalesced_threads(GCE_CALL_SITE) { return {gce::active_mask(GCE_PLACE)}; }

template <unsigned SIZE, class Parent = void> struct thread_block_tile : lanes {
  static_assert(SIZE <= 32 && (SIZE & (SIZE - 1)) == 0, "tiles of 1, 2, 4, 8, 16 or 32 threads are emulated");
  thread_block_tile() : lanes{own_mask()} {}
  template <class Other> thread_block_tile(const thread_block_tile<SIZE, Other> &) : thread_block_tile() {}
  static constexpr unsigned num_threads() { return SIZE; }
  static constexpr unsigned size() { return SIZE; }
  static unsigned meta_group_rank() { return gce::current->linear() / SIZE; }
  static unsigned meta_group_size() { return (gce::block.count + SIZE - 1) / SIZE; }

 private:
  static unsigned own_mask() {
    return (SIZE == 32 ? ~0u : (1u << SIZE % 32) - 1) << (gce::current->lane & ~(SIZE - 1));
  }
};
template <unsigned SIZE, class Parent> thread_block_tile<SIZE, Parent> tiled_partition(const Parent &) { return {}; }

template <class Group> void sync(const Group &group, GCE_CALL_SITE) { group.sync(GCE_PASS); }

// Every lane gets the result, combined in the order of the ranks.
template <class Group, class T, class F> T reduce(const Group &group, T v, F combine, GCE_CALL_SITE) {
  T total = group.shfl(v, 0, GCE_PASS);
  for (unsigned rank = 1; rank < group.num_threads(); rank++)
    total = combine(total, group.shfl(v, (int)rank, GCE_PASS));
  return total;
}
template <class Group, class T, class F> T inclusive_scan(const Group &group, T v, F combine, GCE_CALL_SITE) {
  for (unsigned delta = 1; delta < group.num_threads(); delta *= 2) {
    T left = group.shfl_up(v, delta, GCE_PASS);
    if (group.thread_rank() >= delta) v = combine(left, v);
  }
  return v;
}
template <class Group, class T> T inclusive_scan(const Group &group, T v, GCE_CALL_SITE) {
  return inclusive_scan(group, v, plus<T>(), GCE_PASS);
}
template <class Group, class T> T exclusive_scan(const Group &group, T v, GCE_CALL_SITE) {
  T total = group.shfl_up(inclusive_scan(group, v, plus<T>(), GCE_PASS), 1, GCE_PASS);
  return group.thread_rank() ? total : T(0);
}

}  // namespace cooperative_groups
