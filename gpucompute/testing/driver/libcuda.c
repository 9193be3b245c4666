/* A libcuda.so.1 without a GPU, on which PyCUDA's own code runs: contexts, memory, modules, streams, events, launches.
 *
 * Device memory is host memory, and every call is finished when it returns. A module's image is
 *   - a shared library of the kernel emulator (its C interface: emulator/DESIGN.md), or
 *   - anything else, about which the `fake_loader` is asked: it names such a library, or says that `fake_runner` runs it.
 * Functions named fake_* are for the tests: how many devices, what shall fail, what was called and launched.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { OK, INVALID_VALUE, OUT_OF_MEMORY, NOT_INITIALIZED, NO_DEVICE = 100, INVALID_DEVICE = 101, INVALID_IMAGE = 200,
       INVALID_CONTEXT = 201, NO_BINARY_FOR_GPU = 209, INVALID_HANDLE = 400, NOT_FOUND = 500, ILLEGAL_ADDRESS = 700,
       LAUNCH_OUT_OF_RESOURCES = 701, LAUNCH_FAILED = 719, NOT_SUPPORTED = 801 };

#define DEVICES 8
#define NAME 256
#define LOG 256

typedef uintptr_t Address;
typedef struct Context { int device, primary; } Context;
typedef struct Block { Address start; size_t bytes; int device; struct Block *next; } Block; /* device -1: host memory */
typedef struct { Context *context; } Stream;
typedef struct { struct timespec when; Address stream; } Event;
struct Function;
typedef struct { /* library NULL: image is the runner's */
  Context *context;
  void *library;
  uint64_t image;
  struct Function *functions;
} Module;
typedef struct Function { Module *module; int kernel, dynamic_shared; char name[NAME]; struct Function *next; } Function;
typedef struct { char name[NAME]; int device; unsigned grid[3], block[3], shared; Address stream; } Launch;
typedef struct { Address stream, after; long launches; } Wait;
typedef struct Alias { char symbol[NAME], name[NAME]; struct Alias *next; } Alias;
typedef struct Counter { const char *name; long calls; int known; struct Counter *next; } Counter;
typedef struct { char name[64]; int status, times; long skip; } Failure;

/* What the loader answers for an image: the path of an emulator library in `path`, or an empty path and a number. */
typedef int (*Loader)(const char *image, size_t bytes, char *path, size_t room, uint64_t *number);
typedef int (*Runner)(uint64_t number, const char *kernel, const unsigned *grid, const unsigned *block, unsigned shared,
                      const void *parameters, size_t bytes, char *error, size_t room);

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int devices = 1, capability[2] = {9, 0}, initialized;
static size_t capacity = (size_t)1 << 30, used[DEVICES];
static Context primary[DEVICES];
static Block *blocks;
static Launch launches[LOG];
static Wait waits[LOG];
static long launched, waited;
static Counter *counters;
static Alias *aliases;
static Failure failures[16];
static Loader loader;
static Runner runner;
static char text[1024] = "";
static __thread Context *stack[64];
static __thread int depth;

/* ------------------------------------------------------------------------------------ what every function begins with */

static int enter(Counter *counter) {
  pthread_mutex_lock(&lock);
  if (!counter->known) counter->known = 1, counter->next = counters, counters = counter;
  counter->calls++;
  int status = OK;
  for (int i = 0; i < 16 && !status; i++) {
    Failure *f = &failures[i];
    if (f->times && !strcmp(f->name, counter->name) && f->skip-- <= 0) f->times--, status = f->status;
  }
  pthread_mutex_unlock(&lock);
  if (status) text[0] = 0;
  return status;
}

#define API(function, ...) \
  int function(__VA_ARGS__) { \
    static Counter counter = {.name = #function}; \
    int status = enter(&counter); \
    if (status) return status;
#define END return OK; }
#define NEEDS_CONTEXT if (!depth) return INVALID_CONTEXT;
#define current() (stack[depth - 1])

/* ----------------------------------------------------------------------------------------------------------- for tests */

void fake_configure(int count, size_t bytes, int major, int minor) {
  devices = count, capacity = bytes, capability[0] = major, capability[1] = minor;
}
void fake_callbacks(Loader l, Runner r) { loader = l, runner = r; }
void fake_fail(const char *name, int status, int times, long skip) {
  for (int i = 0; i < 16; i++)
    if (!failures[i].times) {
      snprintf(failures[i].name, sizeof failures[i].name, "%s", name);
      failures[i].status = status, failures[i].times = times, failures[i].skip = skip;
      return;
    }
}
void fake_alias(const char *symbol, const char *name) { /* a template's symbol, and what the emulator calls it */
  Alias *a = malloc(sizeof *a);
  snprintf(a->symbol, NAME, "%s", symbol), snprintf(a->name, NAME, "%s", name);
  a->next = aliases, aliases = a;
}
void fake_forget(void) { /* failures and counts, not memory */
  memset(failures, 0, sizeof failures);
  for (Counter *c = counters; c; c = c->next) c->calls = 0;
  launched = waited = 0;
}
long fake_calls(const char *name) { /* since fake_forget */
  for (Counter *c = counters; c; c = c->next)
    if (!strcmp(c->name, name)) return c->calls;
  return 0;
}
long fake_launches(void) { return launched; }
const Launch *fake_launch(long i) { return &launches[i % LOG]; }
long fake_waits(void) { return waited; }
const Wait *fake_wait(long i) { return &waits[i % LOG]; }
int fake_depth(void) { return depth; }
size_t fake_used(int device) { return used[device]; }
long fake_blocks(Address *start, size_t *bytes, long room) { /* all living memory that a kernel may address */
  long n = 0;
  pthread_mutex_lock(&lock);
  for (Block *b = blocks; b; b = b->next, n++)
    if (n < room) start[n] = b->start, bytes[n] = b->bytes;
  pthread_mutex_unlock(&lock);
  return n;
}

/* ----------------------------------------------------------------------------------------------- errors, devices, contexts */

static const struct { int status; const char *name, *text; } STATUS[] = {
    {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {NO_BINARY_FOR_GPU, "CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image is available for execution on the device"},
    {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {LAUNCH_OUT_OF_RESOURCES, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", "too many resources requested for launch"},
    {LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
};
int cuGetErrorString(int status, const char **s) {
  *s = "unknown error";
  for (size_t i = 0; i < sizeof STATUS / sizeof *STATUS; i++)
    if (STATUS[i].status == status) *s = STATUS[i].text;
  if (status == LAUNCH_FAILED && text[0]) *s = text; /* what the emulator or interpreter said */
  return OK;
}
int cuGetErrorName(int status, const char **s) {
  *s = "CUDA_ERROR_UNKNOWN";
  for (size_t i = 0; i < sizeof STATUS / sizeof *STATUS; i++)
    if (STATUS[i].status == status) *s = STATUS[i].name;
  return OK;
}

API(cuInit, unsigned flags)
  (void)flags;
  Dl_info caller; /* NVRTC looks for a driver too, and crashes on one that lacks its private tables */
  if (dladdr(__builtin_return_address(0), &caller) && caller.dli_fname && strstr(caller.dli_fname, "libnv")) return NO_DEVICE;
  initialized = 1;
END
API(cuDriverGetVersion, int *v) *v = 13000; END
API(cuGetExportTable, const void **table, const void *id) (void)id; *table = 0; return NOT_FOUND; }
API(cuDeviceGetCount, int *n) if (!initialized) return NOT_INITIALIZED; *n = devices; END
API(cuDeviceGet, int *d, int i) *d = i; if (i < 0 || i >= devices) return INVALID_DEVICE; END
API(cuDeviceGetName, char *s, int n, int d) snprintf(s, (size_t)n, "Fake CUDA device %d", d); END
API(cuDeviceGetPCIBusId, char *s, int n, int d) snprintf(s, (size_t)n, "0000:%02x:00.0", d); END
API(cuDeviceTotalMem_v2, size_t *b, int d) (void)d; *b = capacity; END
API(cuDeviceComputeCapability, int *major, int *minor, int d) (void)d; *major = capability[0], *minor = capability[1]; END
API(cuDeviceGetAttribute, int *v, int attribute, int d)
  (void)d;
  static const int known[][2] = {{1, 1024}, {2, 1024}, {3, 1024}, {4, 64}, {5, 2147483647}, {6, 65535}, {7, 65535},
                                 {8, 49152}, {10, 32}, {12, 65536}, {16, 132}, {39, 2048}, {41, 1}, {97, 232448}};
  *v = attribute == 75 ? capability[0] : attribute == 76 ? capability[1] : 0;
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (known[i][0] == attribute) *v = known[i][1];
END

API(cuDevicePrimaryCtxRetain, Context **c, int d) primary[d].device = d, primary[d].primary = 1, *c = &primary[d]; END
API(cuDevicePrimaryCtxRelease_v2, int d) (void)d; END
static int create(Context **c, int d) {
  if (depth == 64) return OUT_OF_MEMORY;
  *c = calloc(1, sizeof **c), (*c)->device = d, stack[depth++] = *c;
  return OK;
}
API(cuCtxCreate_v4, Context **c, void *p, unsigned f, int d) (void)p, (void)f; return create(c, d); }
API(cuCtxCreate_v2, Context **c, unsigned f, int d) (void)f; return create(c, d); }
API(cuCtxPushCurrent_v2, Context *c) if (depth == 64) return INVALID_VALUE; stack[depth++] = c; END
API(cuCtxPopCurrent_v2, Context **c) NEEDS_CONTEXT depth--; if (c) *c = stack[depth]; END
API(cuCtxGetCurrent, Context **c) *c = depth ? current() : 0; END
API(cuCtxGetDevice, int *d) NEEDS_CONTEXT *d = current()->device; END
API(cuCtxGetApiVersion, Context *c, unsigned *v) (void)c; *v = 13000; END
API(cuCtxDetach, Context *c) (void)c; END
API(cuCtxSynchronize, void) NEEDS_CONTEXT END

/* -------------------------------------------------------------------------------------------------------------- memory */

static int take(Address *p, size_t bytes, int device) {
  size_t whole = (bytes + 255) / 256 * 256;
  if (device >= 0 && used[device] + whole > capacity) return OUT_OF_MEMORY;
  Block *b = malloc(sizeof *b);
  *p = (Address)aligned_alloc(256, whole ? whole : 256);
  memset((void *)*p, 0xCD, whole); /* uninitialised memory that looks like nothing */
  pthread_mutex_lock(&lock);
  *b = (Block){*p, bytes, device, blocks}, blocks = b;
  if (device >= 0) used[device] += whole;
  pthread_mutex_unlock(&lock);
  return OK;
}
static int give(Address p) {
  int status = INVALID_VALUE;
  pthread_mutex_lock(&lock);
  for (Block **b = &blocks; *b; b = &(*b)->next)
    if ((*b)->start == p) {
      Block *gone = *b;
      *b = gone->next;
      if (gone->device >= 0) used[gone->device] -= (gone->bytes + 255) / 256 * 256;
      free((void *)p), free(gone);
      status = OK;
      break;
    }
  pthread_mutex_unlock(&lock);
  return status;
}
API(cuMemAlloc_v2, Address *p, size_t n) NEEDS_CONTEXT if (!n) return INVALID_VALUE; return take(p, n, current()->device); }
API(cuMemFree_v2, Address p) return p ? give(p) : OK; }
API(cuMemAllocManaged, Address *p, size_t n, unsigned f) NEEDS_CONTEXT (void)f; return take(p, n, current()->device); }
API(cuMemHostAlloc, void **p, size_t n, unsigned f) NEEDS_CONTEXT (void)f; return take((Address *)p, n, -1); }
API(cuMemFreeHost, void *p) return give((Address)p); }
API(cuMemHostGetDevicePointer_v2, Address *d, void *h, unsigned f) (void)f; *d = (Address)h; END
API(cuMemGetInfo_v2, size_t *f, size_t *t) NEEDS_CONTEXT *t = capacity, *f = capacity - used[current()->device]; END
API(cuPointerGetAttribute, void *v, int attribute, Address p)
  if (attribute != 9) return NOT_SUPPORTED; /* CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL */
  int found = INVALID_VALUE;
  pthread_mutex_lock(&lock);
  for (Block *b = blocks; b; b = b->next)
    if (p >= b->start && p < b->start + b->bytes && b->device >= 0) *(int *)v = b->device, found = OK;
  pthread_mutex_unlock(&lock);
  return found; }

static int copy(void *d, const void *s, size_t n) { return memmove(d, s, n), OK; }
API(cuMemcpyHtoD_v2, Address d, const void *s, size_t n) NEEDS_CONTEXT return copy((void *)d, s, n); }
API(cuMemcpyDtoH_v2, void *d, Address s, size_t n) NEEDS_CONTEXT return copy(d, (void *)s, n); }
API(cuMemcpyDtoD_v2, Address d, Address s, size_t n) NEEDS_CONTEXT return copy((void *)d, (void *)s, n); }
API(cuMemcpyHtoDAsync_v2, Address d, const void *s, size_t n, void *st) NEEDS_CONTEXT (void)st; return copy((void *)d, s, n); }
API(cuMemcpyDtoHAsync_v2, void *d, Address s, size_t n, void *st) NEEDS_CONTEXT (void)st; return copy(d, (void *)s, n); }
API(cuMemcpyDtoDAsync_v2, Address d, Address s, size_t n, void *st) NEEDS_CONTEXT (void)st; return copy((void *)d, (void *)s, n); }

#define FILL(name, type) \
  API(name##_v2, Address d, type v, size_t n) for (size_t i = 0; i < n; i++) ((type *)d)[i] = v; END \
  API(name##Async, Address d, type v, size_t n, void *s) (void)s; for (size_t i = 0; i < n; i++) ((type *)d)[i] = v; END
FILL(cuMemsetD8, unsigned char) FILL(cuMemsetD16, unsigned short) FILL(cuMemsetD32, unsigned)

/* -------------------------------------------------------------------------------------------------- streams and events */

API(cuStreamCreate, Stream **s, unsigned f) NEEDS_CONTEXT (void)f; *s = malloc(sizeof **s), (*s)->context = current(); END
API(cuStreamDestroy_v2, Stream *s) free(s); END
API(cuStreamSynchronize, Stream *s) (void)s; END
API(cuStreamQuery, Stream *s) (void)s; END
API(cuStreamWaitEvent, Stream *s, Event *e, unsigned f)
  NEEDS_CONTEXT
  (void)f;
  pthread_mutex_lock(&lock);
  waits[waited++ % LOG] = (Wait){(Address)s, e->stream, launched};
  pthread_mutex_unlock(&lock);
END
API(cuEventCreate, Event **e, unsigned f) NEEDS_CONTEXT (void)f; *e = calloc(1, sizeof **e); END
API(cuEventDestroy_v2, Event *e) free(e); END
API(cuEventRecord, Event *e, Stream *s) e->stream = (Address)s; clock_gettime(CLOCK_MONOTONIC, &e->when); END
API(cuEventSynchronize, Event *e) (void)e; END
API(cuEventQuery, Event *e) (void)e; END
static float elapsed(const Event *a, const Event *b) {
  return (float)(b->when.tv_sec - a->when.tv_sec) * 1e3f + (float)(b->when.tv_nsec - a->when.tv_nsec) * 1e-6f;
}
API(cuEventElapsedTime_v2, float *ms, Event *a, Event *b) *ms = elapsed(a, b); END
API(cuEventElapsedTime, float *ms, Event *a, Event *b) *ms = elapsed(a, b); END

/* -------------------------------------------------------------------------------------------------- modules and launches */

static size_t image_bytes(const char *image) {
  const Elf64_Ehdr *e = (const Elf64_Ehdr *)image;
  if (memcmp(image, ELFMAG, 4)) return strlen(image);
  size_t sections = e->e_shoff + (size_t)e->e_shnum * e->e_shentsize;
  size_t segments = e->e_phoff + (size_t)e->e_phnum * e->e_phentsize; /* NVIDIA's cubins end with these */
  return sections > segments ? sections : segments;
}
static void *open_memory(const char *image, size_t bytes) {
  int file = memfd_create("module", 0);
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", file);
  void *library = write(file, image, bytes) == (ssize_t)bytes ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : 0;
  close(file);
  return library;
}
API(cuModuleLoadDataEx, Module **m, const void *image, unsigned n, void *o, void *v)
  NEEDS_CONTEXT
  (void)n, (void)o, (void)v;
  const Elf64_Ehdr *e = image;
  size_t bytes = image_bytes(image);
  void *library = 0;
  uint64_t number = 0;
  if (!memcmp(image, ELFMAG, 4) && (e->e_machine == EM_X86_64 || e->e_machine == EM_AARCH64)) {
    if (!(library = open_memory(image, bytes))) return INVALID_IMAGE;
  } else {
    char path[4096] = "";
    if (!loader) return NO_BINARY_FOR_GPU;
    if ((status = loader(image, bytes, path, sizeof path, &number))) return status;
    if (path[0] && !(library = dlopen(path, RTLD_NOW | RTLD_LOCAL))) return INVALID_IMAGE;
  }
  *m = malloc(sizeof **m), **m = (Module){current(), library, number, 0};
END
API(cuModuleLoadData, Module **m, const void *image) return cuModuleLoadDataEx(m, image, 0, 0, 0); }
API(cuModuleUnload, Module *m) (void)m; END /* functions may outlive it here */
API(cuModuleGetFunction, Function **f, Module *m, const char *name)
  int kernel = 0;
  for (Function *known = m->functions; known; known = known->next) /* a kernel has one handle, as in CUDA */
    if (!strcmp(known->name, name)) return *f = known, OK;
  if (m->library) {
    int (*find)(const char *) = (int (*)(const char *))dlsym(m->library, "gce_find_kernel");
    const char *known = name;
    for (Alias *a = aliases; a; a = a->next)
      if (!strcmp(a->symbol, name)) known = a->name;
    if (!find || (kernel = find(known)) < 0) return NOT_FOUND;
  } else if (runner(m->image, name, 0, 0, 0, 0, 0, text, sizeof text)) return NOT_FOUND;
  *f = calloc(1, sizeof **f), (*f)->module = m, (*f)->kernel = kernel, (*f)->dynamic_shared = 49152;
  snprintf((*f)->name, NAME, "%s", name);
  (*f)->next = m->functions, m->functions = *f;
END
API(cuModuleGetGlobal_v2, Address *d, size_t *n, Module *m, const char *name)
  *d = m->library ? (Address)dlsym(m->library, name) : 0;
  if (n) *n = 0;
  return *d ? OK : NOT_FOUND; }
API(cuFuncGetAttribute, int *v, int attribute, Function *f) (void)f; *v = attribute ? 0 : 1024; END
API(cuFuncSetAttribute, Function *f, int attribute, int v)
  if (v > 232448) return INVALID_VALUE;
  if (attribute == 8) f->dynamic_shared = v; /* CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES */
END
API(cuFuncSetBlockShape, Function *f, int x, int y, int z) (void)f; if (x * y * z > 1024) return INVALID_VALUE; END
API(cuFuncSetCacheConfig, Function *f, int c) (void)f, (void)c; END
API(cuFuncSetSharedSize, Function *f, unsigned n) (void)f, (void)n; END

API(cuLaunchKernel, Function *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
    unsigned shared, Stream *stream, void **parameters, void **extra)
  NEEDS_CONTEXT
  if (f->module->context != current()) return INVALID_HANDLE;
  if (stream && stream->context != current()) return INVALID_HANDLE;
  if (!gx || !gy || !gz || !bx || !by || !bz || gy > 65535 || gz > 65535) return INVALID_VALUE;
  if ((uint64_t)bx * by * bz > 1024 || shared > (unsigned)f->dynamic_shared) return INVALID_VALUE;
  if (parameters || !extra || (Address)extra[0] != 1 || (Address)extra[2] != 2) return NOT_SUPPORTED;
  unsigned grid[3] = {gx, gy, gz}, block[3] = {bx, by, bz};
  const void *buffer = extra[1];
  size_t bytes = *(size_t *)extra[3];
  pthread_mutex_lock(&lock);
  Launch *entry = &launches[launched++ % LOG];
  *entry = (Launch){.device = current()->device, .shared = shared, .stream = (Address)stream};
  memcpy(entry->name, f->name, NAME), memcpy(entry->grid, grid, sizeof grid), memcpy(entry->block, block, sizeof block);
  pthread_mutex_unlock(&lock);
  if (!f->module->library)
    return runner(f->module->image, f->name, grid, block, shared, buffer, bytes, text, sizeof text) ? LAUNCH_FAILED : OK;
  int (*launch)(int, const unsigned *, const unsigned *, size_t, const void *, size_t) =
      (int (*)(int, const unsigned *, const unsigned *, size_t, const void *, size_t))dlsym(f->module->library, "gce_launch_packed");
  int failed = launch ? launch(f->kernel, grid, block, shared, buffer, bytes) : 2;
  if (failed) {
    const char *(*error)(void) = (const char *(*)(void))dlsym(f->module->library, "gce_error");
    snprintf(text, sizeof text, "%s", error ? error() : "");
  }
  return failed == 1 ? INVALID_VALUE : failed ? LAUNCH_FAILED : OK; }
