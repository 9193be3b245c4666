// What the kernel's side and the runtime's side of a library both know: threads, warps, the block that runs, and the
// functions that one calls in the other.
#pragma once

#include <cstddef>
#include <cstdint>

#include "types.hpp"

#ifndef GCE_CHECK
#define GCE_CHECK 0  // 1: loads and stores are reported to the checker (hooks.hpp)
#endif

// The emulator's own code is not to be watched. What it inlines into a kernel has the kernel's place.
#if GCE_CHECK
#define GCE_UNWATCHED __attribute__((no_sanitize("thread"), noinline))
#define GCE_CALLER __builtin_return_address(0)
#else
#define GCE_UNWATCHED
#define GCE_CALLER nullptr
#endif
#define GCE_INLINE inline __attribute__((always_inline))

#if defined(__x86_64__)
#define GCE_CONTEXT 1  // registers are saved by hand (fibers.hpp)
#elif defined(__aarch64__)
#define GCE_CONTEXT 2
#else
#define GCE_CONTEXT 0  // ucontext, which costs two system calls for each switch
#endif

namespace gce {

// Where something stands in the user's source.
struct Place {
  const char *file;
  int line;
};
// The last parameters of a function that wants to know where it is called, that place, and to hand it on.
#define GCE_CALL_SITE const char *gce_file = __builtin_FILE(), int gce_line = __builtin_LINE()
#define GCE_PLACE \
  gce::Place { gce_file, gce_line }
#define GCE_PASS gce_file, gce_line

enum class Wait : uint8_t { nothing, barrier, warp, active };
enum class Op : uint8_t {  // what a warp does together
  sync,
  shuffle,
  ballot,
  match_any,
  match_all,
  add,
  min_signed,
  max_signed,
  min_unsigned,
  max_unsigned,
  bit_and,
  bit_or,
  bit_xor,
};

struct alignas(64) Thread {  // one line of the cache each
  uint3 index;
  uint8_t lane, warp;
  Wait wait;
  uint8_t source;  // the lane that a shuffle reads; 32 more: it may be one that is not there
  void *stack_pointer;
  void *stack;
  uint64_t value, result;  // what it brings to a barrier or warp function, and what it takes
  Place place;             // of the barrier or warp function that it waits at

  unsigned linear() const { return warp * 32u + lane; }
};

struct Block {
  dim3 grid, size;
  uint3 index;
  uint64_t serial;  // blocks of a process, counted
  unsigned count;   // threads
};

extern Thread *current;  // the thread that runs
extern Block block;
constexpr size_t MOST_SHARED = 227 << 10;  // bytes that a block can have on sm_90
extern char dynamic_shared[];

[[noreturn]] void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

enum class Vote : uint8_t { none, count, all, any };
int barrier(Vote vote, int predicate, Place place);
uint64_t warp_op(Op op, unsigned mask, uint64_t value, unsigned source, Place place);
unsigned active_mask(Place place);
void yield();  // let others run: a thread that spins waits for them
void reached_end();
void fence();
void before_atomic(const void *address, size_t bytes, const void *code);
void swapped();  // under the checker: the atomicCAS before this call has found what it compared with
void declare_shared(void *address, size_t bytes, size_t element, size_t alignment, const char *name);
void declare_dynamic(size_t element, const char *name);
void declare_variable(void *address, const void *initial, size_t bytes, size_t element, size_t alignment,
                      const char *name);
[[noreturn]] void assembly(const char *file, int line);
extern bool atomics_used;  // by the launch
extern unsigned spins;     // atomics and sleeps since something changed

// One parameter of a kernel.
struct Parameter {
  char kind;  // f i u b h B v s
  bool pointer, constant;
  unsigned bytes, elements;  // of one element, and how many a vector has
  unsigned size, alignment;  // of the value itself
};

struct Kernel {
  const char *name, *names;
  const Parameter *parameters;
  int parameter_count;
  unsigned most_threads;  // __launch_bounds__
  void (*call)(void **arguments);
};

extern const Kernel kernels[];
extern const int kernel_count;

}  // namespace gce
