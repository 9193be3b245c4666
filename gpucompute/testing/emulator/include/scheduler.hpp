// Runs the threads of one block: each until it ends or must wait, then the next.
#pragma once

#include <algorithm>
#include <random>
#include <vector>

#include "fibers.hpp"
#include "findings.hpp"
#include "memory.hpp"
#include "races.hpp"

namespace gce {

constexpr unsigned MOST_THREADS = 1024;  // of a block
constexpr unsigned WARP = 32;
constexpr unsigned MOST_ATOMICS = 4096;  // in a row by one thread, before others get their turn
// Atomics that change nothing, and sleeps, while nothing else happens: less than a second, either way.
constexpr unsigned MOST_SPINS = GCE_CHECK ? 1 << 22 : 1 << 26;

struct Settings {
  int order;  // of threads and blocks: 0 forward, 1 backward, 2 random
  unsigned seed;
  bool silent;  // printf does nothing
};
inline Settings settings = {0, 1, false};

struct Group {  // lanes that wait for each other under one mask
  unsigned mask, arrived;
  Op op;
};
struct Warp {
  unsigned live;     // lanes that have not ended
  unsigned waiting;  // groups in use
  Group groups[WARP];
};

// What becomes of the block that runs.
inline std::vector<Thread> threads;
inline std::vector<Warp> warps;
inline std::vector<unsigned> order;
inline unsigned next_thread, done;  // to be started, and ended
inline unsigned waiting;            // at the barrier
inline bool at_end;                 // the thread that runs has come to the kernel's end
inline Thread *fell_through;        // one that left there, and not through a return
inline Thread *at_barrier;          // the first of those that wait there
inline Vote barrier_vote;
inline int barrier_value;
inline unsigned atomics_in_a_row;
inline bool
    backward;  // at every other barrier: who came last has its stack in the cache (a tree reduction: 40% faster)
inline bool failed;
inline std::mt19937 random_bits;

inline void (*kernel_call)(void **);
inline void **kernel_arguments;

// Threads that can go on, in the order of their turns; each is in it at most once.
inline Thread *ready[MOST_THREADS];
inline unsigned ready_head, ready_tail;
inline void make_ready(Thread *thread) {
  thread->wait = Wait::nothing;
  ready[ready_tail++ % MOST_THREADS] = thread;
}

inline Thread *begin_next(void *stack) {
  Thread *thread = &threads[order[next_thread++]];
  thread->wait = Wait::nothing;
  thread->stack = stack;
  current = thread;
  atomics_in_a_row = 0;
  return thread;
}

// Leaves `from`, which waits or has ended, and lets another go on. Returns when it is the turn of `from` again.
inline void schedule(Thread *from) {
  watching = false;
  if (next_thread < block.count) {
    void *stack = take_stack();
    if (!stack) stop("memory", {}, "no memory for the stacks of %u threads", block.count);
    start(from, begin_next(stack));
  } else if (ready_head != ready_tail) {
    Thread *thread = ready[ready_head++ % MOST_THREADS];
    current = thread;
    atomics_in_a_row = 0;
    if (thread != from) resume(from, thread);
  } else {
    leave(from);  // all have ended, or none can go on: run_block decides
  }
  watching = GCE_CHECK && from;
}

inline void release_barrier() {
  races::at_barrier();
  if (settings.order == 2) std::shuffle(order.begin(), order.end(), random_bits);
  waiting = 0;
  spins = 0;
  backward = !backward;
  for (unsigned i = 0; i < block.count; i++) {
    Thread &thread = threads[order[backward ? block.count - 1 - i : i]];
    if (thread.wait != Wait::barrier) continue;
    thread.result = (uint64_t)barrier_value;
    make_ready(&thread);
  }
}

inline bool same(Place a, Place b) { return a.line == b.line && (a.file == b.file || strcmp(a.file, b.file) == 0); }

int barrier(Vote vote, int predicate, Place place) {
  watching = false;
  Thread *thread = current;
  if (fell_through)
    stop("barrier", place, "divergent barrier: it waits here, and thread (%u, %u, %u) went past without it",
         fell_through->index.x, fell_through->index.y, fell_through->index.z);
  if (!waiting) {
    at_barrier = thread;
    barrier_vote = vote;
    barrier_value = vote == Vote::all;
    if (done) races::warn_of_early_exit(place);
  } else if (vote != barrier_vote || !same(place, at_barrier->place)) {
    stop("barrier", place, "mismatched barriers: it waits here, and thread (%u, %u, %u) at the one of line %d",
         at_barrier->index.x, at_barrier->index.y, at_barrier->index.z, at_barrier->place.line);
  }
  if (vote == Vote::count) barrier_value += predicate != 0;
  if (vote == Vote::all) barrier_value &= predicate != 0;
  if (vote == Vote::any) barrier_value |= predicate != 0;
  thread->wait = Wait::barrier;
  thread->place = place;
  waiting++;
  if (waiting + done == block.count) release_barrier();
  schedule(thread);
  return (int)thread->result;
}

void release_warp(Warp &warp, unsigned index);  // rendezvous.hpp

inline void finish(Thread *thread) {
  done++;
  spins = 0;
  Warp &warp = warps[thread->warp];
  warp.live &= ~(1u << thread->lane);
  bool fell = at_end;
  at_end = false;
  if (fell) fell_through = thread;
  if (waiting) {
    if (fell)
      stop("barrier", at_barrier->place, "divergent barrier: it ends, and thread (%u, %u, %u) waits here",
           at_barrier->index.x, at_barrier->index.y, at_barrier->index.z);
    races::warn_of_early_exit(at_barrier->place);
    if (waiting + done == block.count) release_barrier();
  }
  if (warp.waiting) release_warp(warp, thread->warp);
}

void reached_end() { at_end = true; }

// The body of each fiber: one thread after the other on the same stack, so that kernels without barriers never switch.
void fiber_main() {
  void *stack = current->stack;
  for (;;) {
    watching = GCE_CHECK;
    kernel_call(kernel_arguments);
    watching = false;
    finish(current);
    if (next_thread == block.count) break;
    begin_next(stack);
  }
  free_stacks.push_back(stack);
  schedule(current);
  __builtin_unreachable();
}

void yield() {
  watching = false;
  if (++spins > MOST_SPINS)
    stop("deadlock", {}, "threads spin, waiting for a value that no other thread of the block will write");
  ready[ready_tail++ % MOST_THREADS] = current;
  schedule(current);
}

void before_atomic(const void *address, size_t bytes, const void *code) {
  races::at_atomic(address, bytes, code);
  spins++;  // the caller takes it back if the value changes
  if (++atomics_in_a_row > MOST_ATOMICS) yield(), races::forget_own_read();
}

void fence() {
  Unwatched now;
  races::at_fence();
}

bool resolve_active_masks();  // rendezvous.hpp

inline const char *what_it_waits_at(const Thread &thread) {
  return thread.wait == Wait::barrier ? "__syncthreads" : "a warp function";
}

[[noreturn]] void deadlock();  // rendezvous.hpp

inline void take_back_stacks() {
  std::vector<void *> abandoned;
  for (unsigned i = 0; i < next_thread; i++) abandoned.push_back(threads[order[i]].stack);
  abandoned.insert(abandoned.end(), free_stacks.begin(), free_stacks.end());
  std::sort(abandoned.begin(), abandoned.end());
  abandoned.erase(std::unique(abandoned.begin(), abandoned.end()), abandoned.end());
  free_stacks = abandoned;
}

// Runs all threads of the block at block.index.
inline void run_block() {
  block.serial++;
  next_thread = done = waiting = ready_head = ready_tail = spins = 0;
  fell_through = nullptr;
  at_end = backward = false;
  for (unsigned i = 0; i < warps.size(); i++) {
    unsigned lanes = std::min(WARP, block.count - i * WARP);
    warps[i].live = lanes == WARP ? ~0u : (1u << lanes) - 1;
    warps[i].waiting = 0;
  }
  if (settings.order == 2) std::shuffle(order.begin(), order.end(), random_bits);
  begin_shared_memory();
  races::at_block(block.count);
  schedule(nullptr);
  while (!failed && done < block.count) {
    if (!resolve_active_masks()) deadlock();
    schedule(nullptr);
  }
  watching = false;
  races::at_block_end();
}

}  // namespace gce
