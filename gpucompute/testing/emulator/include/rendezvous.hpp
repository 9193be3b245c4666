// Where lanes of a warp meet: __syncwarp, shuffles, votes, matches, reductions and active masks.
#pragma once

#include "scheduler.hpp"

namespace gce {

constexpr uint64_t NOBODY = 0xbadbadbadbadbadbull;  // what a shuffle gives that reads a lane that is not there

template <class F> inline void each_lane(unsigned mask, F act) {
  for (; mask; mask &= mask - 1) act((unsigned)__builtin_ctz(mask));
}

// A fold of 32-bit values over the lanes that have arrived.
inline uint64_t folded(Op op, const Thread *lanes, unsigned arrived) {
  uint32_t total = (uint32_t)lanes[__builtin_ctz(arrived)].value;
  each_lane(arrived & (arrived - 1), [&](unsigned lane) {
    uint32_t value = (uint32_t)lanes[lane].value;
    switch (op) {
      case Op::add: total += value; break;
      case Op::min_signed: total = (uint32_t)std::min((int32_t)total, (int32_t)value); break;
      case Op::max_signed: total = (uint32_t)std::max((int32_t)total, (int32_t)value); break;
      case Op::min_unsigned: total = std::min(total, value); break;
      case Op::max_unsigned: total = std::max(total, value); break;
      case Op::bit_and: total &= value; break;
      case Op::bit_or: total |= value; break;
      default: total ^= value; break;
    }
  });
  return total;
}

inline uint64_t shuffled(Thread &reader, const Thread *lanes, unsigned arrived) {
  unsigned lane = reader.source & (WARP - 1);
  if (arrived >> lane & 1) return lanes[lane].value;
  current = &reader;
  if (reader.source < WARP)
    stop("warp", reader.place, "the shuffle reads lane %u, which does not take part in it", lane);
  // up and down: the lanes at the end read what is not there, and usually drop it
  races::note_missing_lane(reader.place, lane);
  return NOBODY ^ poison;
}

inline void finish_group(const Group &group, Thread *lanes) {
  Thread *before = current;
  uint64_t together = 0;
  if (group.op == Op::ballot)
    each_lane(group.arrived, [&](unsigned lane) { together |= (uint64_t)(lanes[lane].value != 0) << lane; });
  else if (group.op == Op::match_all) {
    together = group.arrived;
    each_lane(group.arrived, [&](unsigned lane) {
      if (lanes[lane].value != lanes[__builtin_ctz(group.arrived)].value) together = 0;
    });
  } else if (group.op >= Op::add)
    together = folded(group.op, lanes, group.arrived);
  each_lane(group.arrived, [&](unsigned lane) {
    Thread &thread = lanes[lane];
    if (group.op == Op::shuffle) {
      thread.result = shuffled(thread, lanes, group.arrived);
    } else if (group.op == Op::match_any) {
      thread.result = 0;
      each_lane(group.arrived,
                [&](unsigned other) { thread.result |= (uint64_t)(lanes[other].value == thread.value) << other; });
    } else {
      thread.result = together;
    }
  });
  current = before;
}

// Lets those groups go on of which all lanes have arrived that have not ended.
void release_warp(Warp &warp, unsigned index) {
  Thread *lanes = &threads[index * WARP];
  for (unsigned i = 0; i < warp.waiting;) {
    Group group = warp.groups[i];
    if (group.mask & warp.live & ~group.arrived) {
      i++;
      continue;
    }
    warp.groups[i] = warp.groups[--warp.waiting];
    spins = 0;
    finish_group(group, lanes);
    races::at_warp(lanes, group.arrived);
    if (settings.order == 1)  // the last lane first
      for (unsigned lane = WARP; lane-- > 0;) {
        if (group.arrived >> lane & 1) make_ready(&lanes[lane]);
      }
    else
      each_lane(group.arrived, [&](unsigned lane) { make_ready(&lanes[lane]); });
  }
}

uint64_t warp_op(Op op, unsigned mask, uint64_t value, unsigned source, Place place) {
  watching = false;
  Thread *thread = current;
  Warp &warp = warps[thread->warp];
  thread->place = place;
  if (!(mask >> thread->lane & 1)) stop("warp", place, "lane %u is not in its own mask 0x%08x", thread->lane, mask);
  Group *group = warp.groups, *end = group + warp.waiting;
  while (group != end && group->mask != mask) group++;
  if (group == end) {
    *group = {mask, 0, op};
    warp.waiting++;
  } else if (group->op != op) {
    stop("warp", place, "the lanes of mask 0x%08x wait at different warp functions: this one, and one at line %d", mask,
         threads[thread->warp * WARP + __builtin_ctz(group->arrived)].place.line);
  }
  group->arrived |= 1u << thread->lane;
  thread->value = value;
  thread->source = (uint8_t)source;
  thread->wait = Wait::warp;
  release_warp(warp, thread->warp);
  schedule(thread);
  return thread->result;
}

// Lanes are taken to be converged as far as they can be: all that reach the same place while no other can run.
unsigned active_mask(Place place) {
  watching = false;
  current->place = place;
  current->wait = Wait::active;
  Thread *thread = current;
  schedule(thread);
  return (unsigned)thread->result;
}

bool resolve_active_masks() {
  bool any = false;
  for (unsigned w = 0; w < warps.size(); w++) {
    Thread *lanes = &threads[w * WARP];
    unsigned left = 0;
    each_lane(warps[w].live, [&](unsigned lane) { left |= unsigned(lanes[lane].wait == Wait::active) << lane; });
    while (left) {
      unsigned mask = 0;
      Place place = lanes[__builtin_ctz(left)].place;
      each_lane(left, [&](unsigned lane) { mask |= (unsigned)same(lanes[lane].place, place) << lane; });
      left &= ~mask;
      each_lane(mask, [&](unsigned lane) {
        lanes[lane].result = mask;
        make_ready(&lanes[lane]);
      });
      any = true;
    }
  }
  return any;
}

// No thread can go on. Tells it for a warp function if there is one, since a barrier may only wait for that.
[[noreturn]] void deadlock() {
  for (unsigned w = 0; w < warps.size(); w++)
    if (warps[w].waiting) {
      const Group &group = warps[w].groups[0];
      Thread *lanes = &threads[w * WARP];
      current = &lanes[__builtin_ctz(group.arrived)];
      unsigned missing = group.mask & warps[w].live & ~group.arrived;
      const Thread &other = lanes[__builtin_ctz(missing)];
      bool elsewhere = other.wait == Wait::barrier;
      stop("warp", current->place,
           "it waits here for the lanes of mask 0x%08x, and lane %d never comes: it waits at %s of line %d", group.mask,
           __builtin_ctz(missing), elsewhere ? "__syncthreads" : "a warp function", other.place.line);
    }
  current = at_barrier;
  stop("barrier", at_barrier->place, "deadlock: %u threads wait here for ever", waiting);
}

}  // namespace gce
