// A launch, and the C interface of a library (DESIGN.md).
#pragma once

#include <csetjmp>
#include <csignal>
#include <mutex>

#include <ucontext.h>

#include "rendezvous.hpp"

#define GCE_EXPORT extern "C" __attribute__((visibility("default"), used))

namespace gce {

Thread *current;
Block block;
alignas(256) char dynamic_shared[MOST_SHARED + RED_ZONE];

inline std::mutex one_at_a_time;
inline sigjmp_buf launching;
inline thread_local bool inside;  // this thread is in a launch: its faults are a kernel's
constexpr int FAULTS[] = {SIGSEGV, SIGBUS, SIGFPE};
constexpr int FAULT_COUNT = 3;

void abandon() {
  watching = false;
  failed = true;
  siglongjmp(launching, 1);
}

void fail(const char *form, ...) {
  watching = false;
  va_list values;
  va_start(values, form);
  std::string text = format(form, values);
  va_end(values);
  report(true, "stopped", {}, text);
  error_text = told(findings.back());
  abandon();
}

void assembly(const char *file, int line) {
  watching = false;
  stop("stopped", {file, line},
       "inline PTX cannot be emulated; guard it with #ifndef GPUCOMPUTE_EMULATOR and give C++ in its place, or run the "
       "kernel's PTX with gpucompute.testing.run_ptx");
}

inline uintptr_t code_of(void *context) {
  auto &machine = ((ucontext_t *)context)->uc_mcontext;
#if defined(__linux__) && defined(__x86_64__)
  return offset_of((void *)(machine.gregs[REG_RIP] + 1));
#elif defined(__linux__) && defined(__aarch64__)
  return offset_of((void *)(machine.pc + 1));
#else
  (void)machine;
  return 0;
#endif
}

inline void on_fault(int signal, siginfo_t *info, void *context) {
  if (!inside) {  // not ours: dies as it would have
    std::signal(signal, SIG_DFL);
    return;
  }
  watching = false;
  uintptr_t code = code_of(context);
  if (signal == SIGFPE) stop_at("arithmetic", code, "an integer was divided by zero");
  std::string message = format("illegal or misaligned address %p", info->si_addr);
#if GCE_CHECK
  if (code >= races::image.size()) {  // the code went wrong itself, or it is a library's
    code = races::last_code;
    message += "; this is the last place that was seen before: perhaps a local array was overrun";
  }
#else
  message += "; gpucompute.testing.check names its line";
#endif
  stop_at("memory", code, message);
}

// Faults become errors of the launch while it runs. The handler needs a stack: a fiber's may be the reason.
class FaultsCaught {
  struct sigaction before[FAULT_COUNT];
  stack_t stack_before;
  std::vector<char> own_stack = std::vector<char>(64 << 10);

 public:
  FaultsCaught() {
    stack_t own = {};
    own.ss_sp = own_stack.data();
    own.ss_size = own_stack.size();
    sigaltstack(&own, &stack_before);
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    for (int i = 0; i < FAULT_COUNT; i++) sigaction(FAULTS[i], &action, &before[i]);
    inside = true;
  }
  ~FaultsCaught() {
    inside = false;
    for (int i = 0; i < FAULT_COUNT; i++) sigaction(FAULTS[i], &before[i], nullptr);
    sigaltstack(&stack_before, nullptr);
  }
};

inline void prepare(const Kernel &kernel, const unsigned *grid, const unsigned *size) {
  block.grid = {grid[0], grid[1], grid[2]};
  block.size = {size[0], size[1], size[2]};
  block.count = size[0] * size[1] * size[2];
  kernel_call = kernel.call;
  random_bits.seed(settings.seed);
  threads.assign((block.count + WARP - 1) / WARP * WARP, Thread{});
  warps.assign(threads.size() / WARP, Warp{});
  order.resize(block.count);
  for (unsigned i = 0; i < block.count; i++) {
    Thread &thread = threads[i];
    thread.index = {i % size[0], i / size[0] % size[1], i / size[0] / size[1]};
    thread.lane = (uint8_t)(i % WARP);
    thread.warp = (uint8_t)(i / WARP);
    order[i] = settings.order == 1 ? block.count - 1 - i : i;
  }
}

inline std::string wrong_configuration(const Kernel &kernel, const unsigned *grid, const unsigned *size,
                                       size_t shared) {
  uint64_t count = (uint64_t)size[0] * size[1] * size[2];
  unsigned most = std::min(kernel.most_threads, MOST_THREADS);
  if (count == 0 || !grid[0] || !grid[1] || !grid[2])
    return "a grid and a block have at least one thread along each axis";
  if (count > most || size[0] > MOST_THREADS || size[1] > MOST_THREADS || size[2] > 64)
    return format("a block of %u x %u x %u threads: this kernel takes up to %u, and up to 64 along z", size[0], size[1],
                  size[2], most);
  if (grid[0] > 0x7fffffffu || grid[1] > 65535 || grid[2] > 65535)
    return format("a grid of %u x %u x %u blocks: a GPU takes up to 2147483647 x 65535 x 65535", grid[0], grid[1],
                  grid[2]);
  if (shared > MOST_SHARED) return format("%zu bytes of shared memory: a block has up to %zu", shared, MOST_SHARED);
  return "";
}

inline void run_grid(const unsigned *grid) {
  uint64_t blocks = (uint64_t)grid[0] * grid[1] * grid[2];
  for (uint64_t i = 0; i < blocks; i++) {
    uint64_t b = settings.order == 1 ? blocks - 1 - i : i;
    block.index = {unsigned(b % grid[0]), unsigned(b / grid[0] % grid[1]), unsigned(b / grid[0] / grid[1])};
    run_block();
  }
}

inline int launch(const Kernel &kernel, const unsigned *grid, const unsigned *size, size_t shared, void **arguments) {
  std::lock_guard<std::mutex> guard(one_at_a_time);
  findings.clear();
  current = nullptr;
  error_text = wrong_configuration(kernel, grid, size, shared);
  if (!error_text.empty()) {
    error_text = std::string(kernel.name) + ": " + error_text;
    return 1;
  }
  prepare(kernel, grid, size);
  dynamic_bytes = shared;
  kernel_arguments = arguments;
  failed = false;
  FaultsCaught caught;
  atomics_used = false;
  races::at_launch();
  if (sigsetjmp(launching, 1) == 0)
    run_grid(grid);
  else
    take_back_stacks();
  races::settle();
  fflush(stdout);
  return failed ? 2 : 0;
}

inline std::string word_of(const Parameter &p) {
  std::string word = p.pointer ? p.constant ? "*c" : "*" : "";
  word += format("%c%u", p.kind, p.bytes);
  return p.elements > 1 ? word + format("x%u", p.elements) : word;
}

}  // namespace gce

GCE_EXPORT int gce_kernel_count() { return gce::kernel_count; }
GCE_EXPORT const char *gce_kernel_name(int kernel) { return gce::kernels[kernel].name; }
GCE_EXPORT const char *gce_kernel_names(int kernel) { return gce::kernels[kernel].names; }

GCE_EXPORT int gce_find_kernel(const char *name) {
  for (int i = 0; i < gce::kernel_count; i++)
    if (strcmp(gce::kernels[i].name, name) == 0) return i;
  return -1;
}

GCE_EXPORT const char *gce_kernel_parameters(int kernel) {
  static thread_local std::string words;
  words.clear();
  const gce::Kernel &k = gce::kernels[kernel];
  for (int i = 0; i < k.parameter_count; i++) words += (i ? " " : "") + gce::word_of(k.parameters[i]);
  return words.c_str();
}

GCE_EXPORT int gce_launch(int kernel, const unsigned *grid, const unsigned *block, size_t shared, void **arguments) {
  return gce::launch(gce::kernels[kernel], grid, block, shared, arguments);
}

GCE_EXPORT int gce_launch_packed(int kernel, const unsigned *grid, const unsigned *block, size_t shared,
                                 const void *buffer, size_t bytes) {
  const gce::Kernel &k = gce::kernels[kernel];
  std::vector<void *> arguments(k.parameter_count);
  size_t offset = 0;
  for (int i = 0; i < k.parameter_count; i++) {
    const gce::Parameter &p = k.parameters[i];
    offset = (offset + p.alignment - 1) / p.alignment * p.alignment;
    arguments[i] = (char *)buffer + offset;
    offset += p.size;
  }
  if (offset > bytes) {
    gce::error_text = gce::format("%s: the packed arguments have %zu bytes, expected %zu", k.name, bytes, offset);
    return 1;
  }
  return gce::launch(k, grid, block, shared, arguments.data());
}

GCE_EXPORT const char *gce_error() { return gce::error_text.c_str(); }

// The rest is for checking.py.
GCE_EXPORT void gce_settings(int order, unsigned seed, unsigned poison, int silent) {
  gce::settings = {order, seed, silent != 0};
  gce::poison = poison;
}

GCE_EXPORT int gce_used_atomics() { return gce::atomics_used; }

GCE_EXPORT const char *gce_findings() {
  static std::string text;
  text = gce::all_told();
  return text.c_str();
}

#if GCE_CHECK
GCE_EXPORT void gce_clear_buffers() {
  for (gce::Region &region : gce::races::buffers) gce::races::drop_cells(region);
  gce::races::buffers.clear();
}

// An array that the next launches may touch; `element` bytes each.
GCE_EXPORT void gce_add_buffer(const void *data, size_t bytes, unsigned element, const char *name) {
  uintptr_t begin = (uintptr_t)data;
  gce::races::buffers.push_back({begin, begin + bytes, gce::Space::global, element, gce::granule_of(element), name});
}
#endif
