// When accesses are ordered: the clocks of the block that runs, and the fences of those that ran before.
#pragma once

#include <algorithm>
#include <unordered_map>
#include <vector>

#include "races.hpp"

namespace gce {
namespace races {

typedef uint32_t Time;

struct Fence {
  Time time;
  unsigned linear;  // the thread
};
struct History {  // of one block; times ascend
  std::vector<Time> barriers;
  std::vector<std::vector<Time>> warps;
  std::vector<Fence> fences;
};

constexpr unsigned LANES = 32;
inline Time now;
inline History history;
inline std::unordered_map<uint64_t, History> fenced_blocks;  // those that ran before, by serial
inline std::vector<Time>
    known;  // known[thread * 32 + lane]: what the lane did before then came before the thread's next
inline std::vector<Time> acquired;  // the last atomic that a thread knows of

inline Time last_barrier() { return history.barriers.empty() ? 0 : history.barriers.back(); }

void at_block(unsigned threads) {
  now++;
  history = {};
  history.warps.resize((threads + LANES - 1) / LANES);
  known.assign(threads * LANES, 0);
  acquired.assign(threads, 0);
}

void decide();  // hooks.hpp

void at_block_end() {
  decide();
  if (!history.fences.empty()) fenced_blocks[block.serial] = history;
}

void at_barrier() {
  history.barriers.push_back(++now);
  Time latest = *std::max_element(acquired.begin(), acquired.end());
  std::fill(acquired.begin(), acquired.end(), latest);
}

void at_warp(const Thread *lanes, unsigned arrived) {
  Time joined[LANES] = {}, latest = 0;
  now++;
  for (unsigned lane = 0; lane < LANES; lane++) {
    if (!(arrived >> lane & 1)) continue;
    const Time *own = &known[lanes[lane].linear() * LANES];
    for (unsigned i = 0; i < LANES; i++) joined[i] = std::max(joined[i], own[i]);
    joined[lane] = now;
    latest = std::max(latest, acquired[lanes[lane].linear()]);
  }
  for (unsigned lane = 0; lane < LANES; lane++) {
    if (!(arrived >> lane & 1)) continue;
    std::copy(joined, joined + LANES, &known[lanes[lane].linear() * LANES]);
    acquired[lanes[lane].linear()] = latest;
    history.warps[lanes[lane].warp].push_back(now);
  }
}

void at_fence() { history.fences.push_back({++now, current->linear()}); }

inline void acquire() { acquired[current->linear()] = ++now; }

inline Time first_after(const std::vector<Time> &times, Time time) {
  auto found = std::upper_bound(times.begin(), times.end(), time);
  return found == times.end() ? ~Time(0) : *found;
}

// Whether a fence made what a thread of that block did at `time` visible before `limit`.
inline bool released(const History &of, unsigned linear, Time time, Time limit) {
  Time barrier = first_after(of.barriers, time), warp = first_after(of.warps[linear / LANES], time);
  auto fence =
      std::upper_bound(of.fences.begin(), of.fences.end(), time, [](Time t, const Fence &f) { return t < f.time; });
  for (; fence != of.fences.end() && fence->time < limit; ++fence) {
    bool same_warp = fence->linear / LANES == linear / LANES;
    if (fence->linear == linear || barrier < fence->time || (same_warp && warp < fence->time)) return true;
  }
  return false;
}

// Whether what thread `linear` of block `serial` did at `time` comes before what the current thread does now.
inline bool is_before(uint64_t serial, unsigned linear, Time time) {
  if (serial != block.serial) {
    auto found = fenced_blocks.find(serial);
    return found != fenced_blocks.end() && released(found->second, linear, time, acquired[current->linear()]);
  }
  if (linear == current->linear() || last_barrier() > time) return true;
  if (linear / LANES == current->warp && known[current->linear() * LANES + linear % LANES] > time) return true;
  return released(history, linear, time, acquired[current->linear()]);
}

}  // namespace races
}  // namespace gce
