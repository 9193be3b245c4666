// Fibers: a stack for each thread of a block, and the switch from one to another.
#pragma once

#include <cstring>
#include <vector>

#include <sys/mman.h>
#if !defined(MAP_NORESERVE)
#define MAP_NORESERVE 0
#endif

#include "state.hpp"

#if GCE_CONTEXT == 0
#include <ucontext.h>
#endif

namespace gce {

// Only what is touched takes memory. CUDA gives a thread up to 512 KiB of local memory.
constexpr size_t STACK = 512 << 10, GUARD = 64 << 10;  // bytes; a guard page may be as large as 64 KiB
constexpr int COLOURS = 32;  // first frames at so many offsets, so that not all fall into the same lines of the cache

inline std::vector<void *> free_stacks;

inline void *take_stack() {
  if (!free_stacks.empty()) {
    void *stack = free_stacks.back();
    free_stacks.pop_back();
    return stack;
  }
  void *mapped =
      mmap(nullptr, GUARD + STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  mprotect(mapped, GUARD, PROT_NONE);
  return (char *)mapped + GUARD;
}

void fiber_main();

#if GCE_CONTEXT

// Saves the registers that a call must keep, stores the stack pointer at `save`, and goes on from `to`.
extern "C" void gce_switch(void **save, void *to) __attribute__((visibility("hidden")));

#if defined(__APPLE__)
#define GCE_SYMBOL "_gce_switch"
#else
#define GCE_SYMBOL "gce_switch"
#endif

#if GCE_CONTEXT == 1                 // System V ABI, AMD64
constexpr int SAVED = 8, ENTRY = 6;  // words of a frame, and the one with the address to go on at
asm(".text\n.globl " GCE_SYMBOL "\n" GCE_SYMBOL
    ":\n"
    "pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
    "movq %rsp, (%rdi)\n movq %rsi, %rsp\n"
    "popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n ret\n");
#else  // AAPCS64
constexpr int SAVED = 20, ENTRY = 11;
asm(".text\n.globl " GCE_SYMBOL "\n" GCE_SYMBOL
    ":\n"
    "sub sp, sp, #160\n"
    "stp x19, x20, [sp, #0]\n stp x21, x22, [sp, #16]\n stp x23, x24, [sp, #32]\n stp x25, x26, [sp, #48]\n"
    "stp x27, x28, [sp, #64]\n stp x29, x30, [sp, #80]\n"
    "stp d8, d9, [sp, #96]\n stp d10, d11, [sp, #112]\n stp d12, d13, [sp, #128]\n stp d14, d15, [sp, #144]\n"
    "mov x9, sp\n str x9, [x0]\n mov sp, x1\n"
    "ldp x19, x20, [sp, #0]\n ldp x21, x22, [sp, #16]\n ldp x23, x24, [sp, #32]\n ldp x25, x26, [sp, #48]\n"
    "ldp x27, x28, [sp, #64]\n ldp x29, x30, [sp, #80]\n"
    "ldp d8, d9, [sp, #96]\n ldp d10, d11, [sp, #112]\n ldp d12, d13, [sp, #128]\n ldp d14, d15, [sp, #144]\n"
    "add sp, sp, #160\n ret\n");
#endif

inline void *launcher;  // the stack pointer of who launched

inline void *first_frame(void *stack) {
  static unsigned colour = 0;
  void **top = (void **)((char *)stack + STACK - (colour++ % COLOURS) * 128);
  void **frame = top - SAVED;  // the word above the address is where a caller's would be: stacks end with zeros
  memset(frame, 0, SAVED * sizeof(void *));
  frame[ENTRY] = (void *)&fiber_main;
  return frame;
}
inline void **own_pointer(Thread *thread) { return thread ? &thread->stack_pointer : &launcher; }
inline void start(Thread *from, Thread *thread) { gce_switch(own_pointer(from), first_frame(thread->stack)); }
inline void resume(Thread *from, Thread *thread) { gce_switch(own_pointer(from), thread->stack_pointer); }
inline void leave(Thread *from) { gce_switch(own_pointer(from), launcher); }

#else

inline ucontext_t launcher;

inline ucontext_t *context_of(Thread *thread) {
  // the highest bytes of a stack hold the context of the fiber that has it
  return thread ? (ucontext_t *)((char *)thread->stack + STACK - (sizeof(ucontext_t) + 63) / 64 * 64) : &launcher;
}
inline void start(Thread *from, Thread *thread) {
  ucontext_t *fresh = context_of(thread);
  getcontext(fresh);
  fresh->uc_stack.ss_sp = thread->stack;
  fresh->uc_stack.ss_size = (char *)fresh - (char *)thread->stack;
  fresh->uc_link = nullptr;
  makecontext(fresh, fiber_main, 0);
  swapcontext(context_of(from), fresh);
}
inline void resume(Thread *from, Thread *thread) { swapcontext(context_of(from), context_of(thread)); }
inline void leave(Thread *from) { swapcontext(context_of(from), &launcher); }

#endif

}  // namespace gce
