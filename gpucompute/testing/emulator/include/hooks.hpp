// The checker: answers the calls that -fsanitize=thread puts before each load and store, without its library.
#pragma once

#include <link.h>
#include <sys/mman.h>

#include "fibers.hpp"
#include "order.hpp"

namespace gce {

namespace races {

struct Access {
  uint64_t serial;  // of the block
  uintptr_t code;
  Time time;
  uint16_t linear;
  uint8_t bytes;  // of the cell's granule: bit i for byte i; 0 if there was no such access
  bool atomic;
};

}  // namespace races

struct Cell {
  races::Access write, read, earlier_read;
};

namespace races {

inline std::vector<Region> buffers;  // the arguments' arrays
inline Region image;  // the whole library: variables that are not in device_variables, tables of constants

struct SameValue {  // two threads write the same bytes: harmless if the value is the same, which the next event sees
  void *address = nullptr;
  size_t bytes;
  char before[16];
  Finding finding;
};
inline SameValue undecided;

void decide() {
  if (!undecided.address) return;
  if (memcmp(undecided.address, undecided.before, undecided.bytes) == 0) {
    undecided.finding.error = false;
    undecided.finding.kind = "same value";
    undecided.finding.message += "; both write the same value";
  }
  undecided.address = nullptr;
  add_finding(undecided.finding);
}

// Plain reads that race with atomics. Those that are the first guess of a loop of atomicCAS are told apart by the end.
struct Doubtful {
  uintptr_t read;  // its place
  Finding finding;
};
inline std::vector<Doubtful> doubtful;
inline std::vector<uintptr_t> first_guesses;  // places of reads
inline uintptr_t own_read;  // the place of the current thread's read of what its last atomic changed; 0 if none
inline uintptr_t last_code;  // the place of the last access, for telling where a thread got lost

void doubt(uintptr_t read, const Finding &finding) {
  for (const Doubtful &old : doubtful)
    if (old.finding.code == finding.code && old.finding.other_code == finding.other_code) return;
  if (doubtful.size() < MOST_FINDINGS) doubtful.push_back({read, finding});
}

void forget_own_read() { own_read = 0; }

void settle() {
  auto is_guess = [](uintptr_t read) {
    return std::find(first_guesses.begin(), first_guesses.end(), read) != first_guesses.end();
  };
  for (const Doubtful &one : doubtful)
    if (!is_guess(one.read)) add_finding(one.finding);
}

inline Cell *cells_for(const Region &region) {
  void *mapped = mmap(nullptr, (region.size() / region.granule + 1) * sizeof(Cell), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return mapped == MAP_FAILED ? nullptr : (Cell *)mapped;
}
inline void drop_cells(Region &region) {
  if (region.cells) munmap(region.cells, (region.size() / region.granule + 1) * sizeof(Cell));
  region.cells = nullptr;
}

// Bytes of the library in memory; global variables of the kernel lie in it.
inline size_t image_size() {
  size_t size = 0;
  auto look = [](dl_phdr_info *info, size_t, void *found) {
    if (info->dlpi_addr != (uintptr_t)gce_image) return 0;
    for (int i = 0; i < info->dlpi_phnum; i++)
      if (info->dlpi_phdr[i].p_type == PT_LOAD)
        *(size_t *)found = std::max(*(size_t *)found, size_t(info->dlpi_phdr[i].p_vaddr + info->dlpi_phdr[i].p_memsz));
    return 1;
  };
  dl_iterate_phdr(look, &size);
  return size;
}

void at_launch() {
  static const size_t size = image_size();
  fenced_blocks.clear();
  undecided.address = nullptr;
  for (Region &region : buffers) drop_cells(region);
  for (Region &region : shared_variables) drop_cells(region);
  for (Region &region : device_variables) drop_cells(region);
  drop_cells(dynamic_region);
  drop_cells(image);
  reset_variables();
  doubtful.clear();
  first_guesses.clear();
  last_code = 0;
  uintptr_t begin = (uintptr_t)dynamic_shared;
  dynamic_region = {begin, begin + dynamic_bytes, Space::shared, 1, 1, "dynamic shared memory"};
  dynamic_region.written.resize(dynamic_bytes);
  image = {(uintptr_t)gce_image, (uintptr_t)gce_image + size, Space::global, 1, 1, "a global variable"};
}

inline bool holds(const Region &region, uintptr_t address, size_t bytes) {
  return address >= region.begin && address + bytes <= region.end;
}

inline bool is_near(const Region &region, uintptr_t address, size_t bytes, size_t zone) {
  return address + bytes > region.begin - zone && address < region.end + zone;
}

inline Region *find_region(uintptr_t address, size_t bytes) {
  for (auto *regions : {&buffers, &shared_variables, &device_variables})
    for (Region &region : *regions)
      if (holds(region, address, bytes)) return &region;
  if (holds(dynamic_region, address, bytes)) return &dynamic_region;
  if (address >= (uintptr_t)dynamic_shared && address < (uintptr_t)dynamic_shared + MOST_SHARED + RED_ZONE)
    return nullptr;
  for (const Region &region : shared_variables)
    if (is_near(region, address, bytes, RED_ZONE)) return nullptr;
  for (const Region &region : device_variables)
    if (is_near(region, address, bytes, VARIABLE_ZONE)) return nullptr;
  return holds(image, address, bytes) ? &image : nullptr;
}

inline std::string kind_of(const Region &region) { return region.space == Space::shared ? "shared " : "global "; }

// How far an address lies from the nearest thing that it may be meant for.
inline std::string distance(uintptr_t address) {
  constexpr uintptr_t PAGE = 4096;  // pointers below are null, or null and a bit
  const Region *nearest = nullptr;
  uintptr_t least = 16 << 20;
  auto consider = [&](const Region &region) {
    uintptr_t away = address < region.begin ? region.begin - address : address - region.end;
    if (away < least) nearest = &region, least = away;
  };
  for (auto *regions : {&buffers, &shared_variables, &device_variables})
    for (const Region &region : *regions) consider(region);
  if (dynamic_bytes) consider(dynamic_region);
  if (!nearest)
    return format("address %p belongs to nothing%s", (void *)address,
                  address < PAGE ? "" : "; check(memory=[...]) takes the arrays that are reached through addresses");
  long offset = (long)(address - nearest->begin), element = nearest->element;
  long index = offset >= 0 ? offset / element : -((-offset + element - 1) / element);
  return format("element %ld of %s, which has %zu", index, nearest->name.c_str(), nearest->size() / nearest->element);
}

inline std::string thread_name(const Access &access) {
  unsigned x = block.size.x, y = block.size.y, i = access.linear;
  std::string name = format("thread (%u, %u, %u)", i % x, i / x % y, i / x / y);
  return access.serial == block.serial ? name : name + " of another block";
}

inline const char *advice(const Access &earlier) {
  if (earlier.serial != block.serial)
    return "blocks are not ordered: an atomic function, or a fence and one, is missing";
  return earlier.linear / LANES == current->warp ? "__syncwarp(), a barrier or an atomic function is missing"
                                                 : "a barrier or an atomic function is missing";
}

inline void collide(const Region &region, uintptr_t address, const Access &earlier, bool earlier_wrote, bool writes,
                    const Access &mine, size_t bytes) {
  Finding finding = {true, "race", {}, mine.code, earlier.code, "", block.index, current->index};
  finding.message = format("data race on %s%s, element %zu: %s here, %s by %s at {there}; %s", kind_of(region).c_str(),
                           region.name.c_str(), (address - region.begin) / region.element,
                           mine.atomic ? "atomic"
                           : writes    ? "write"
                                       : "read",
                           earlier.atomic  ? "atomic"
                           : earlier_wrote ? "write"
                                           : "read",
                           thread_name(earlier).c_str(), advice(earlier));
  uintptr_t plain_read = !writes && earlier.atomic       ? mine.code
                         : mine.atomic && !earlier_wrote ? earlier.code
                                                         : 0;
  if (plain_read) {
    doubt(plain_read, finding);
  } else if (!(writes && earlier_wrote) || mine.atomic || earlier.atomic || bytes > sizeof undecided.before) {
    add_finding(finding);
  } else if (!undecided.address) {
    undecided.address = (void *)address;
    undecided.bytes = bytes;
    undecided.finding = finding;
    memcpy(undecided.before, undecided.address, bytes);
  }
}

// A plain read of the current thread, with nothing written since.
inline bool is_own_read(const Access &read, const Access &mine) {
  return read.serial == mine.serial && read.linear == mine.linear && !read.atomic && (read.bytes & mine.bytes);
}

// Shared memory of another block is other memory.
inline bool unordered(const Region &region, const Access &earlier, const Access &mine) {
  return (earlier.bytes & mine.bytes) && !(earlier.atomic && mine.atomic) &&
         !(region.space == Space::shared && earlier.serial != mine.serial) &&
         !is_before(earlier.serial, earlier.linear, earlier.time);
}

inline void touch(Region &region, uintptr_t address, size_t bytes, bool writes, Access mine) {
  if (!region.cells) region.cells = cells_for(region);
  size_t first = (address - region.begin) / region.granule,
         last = (address + bytes - 1 - region.begin) / region.granule;
  for (size_t i = first; i <= last; i++) {
    Cell &cell = region.cells[i];
    uintptr_t begin = region.begin + i * region.granule;
    mine.bytes = 0;
    for (unsigned byte = 0; byte < region.granule; byte++)
      if (begin + byte >= address && begin + byte < address + bytes) mine.bytes |= 1 << byte;
    if (unordered(region, cell.write, mine)) collide(region, address, cell.write, true, writes, mine, bytes);
    if (!writes) {
      if (cell.read.linear != mine.linear || cell.read.serial != mine.serial) cell.earlier_read = cell.read;
      cell.read = mine;
      continue;
    }
    if (unordered(region, cell.read, mine))
      collide(region, address, cell.read, false, true, mine, bytes);
    else if (unordered(region, cell.earlier_read, mine))
      collide(region, address, cell.earlier_read, false, true, mine, bytes);
    if (mine.atomic)
      own_read = is_own_read(cell.read, mine)           ? cell.read.code
                 : is_own_read(cell.earlier_read, mine) ? cell.earlier_read.code
                                                        : 0;
    cell.write = mine;
    cell.read = cell.earlier_read = Access{};
  }
}

inline void check_written(Region &region, uintptr_t address, size_t bytes, bool writes, uintptr_t code) {
  size_t offset = address - region.begin;
  for (size_t i = offset; i < offset + bytes; i++) {
    if (!writes && !region.written[i]) {
      add_finding({true,
                   "uninitialised",
                   {},
                   code,
                   0,
                   format("shared %s, element %zu, is read before this block has written it", region.name.c_str(),
                          offset / region.element),
                   block.index,
                   current->index});
      return;
    }
    if (writes) region.written[i] = true;
  }
}

enum class Kind : uint8_t { plain, unaligned, volatile_, atomic };

inline void watch(uintptr_t address, size_t bytes, bool writes, Kind kind, const void *caller) {
  if (!watching) return;
  uintptr_t stack = (uintptr_t)current->stack, table = (uintptr_t)current - current->linear() * sizeof(Thread);
  if (address - stack < STACK) return;                         // local memory
  if (address - table < sizeof(Thread) * block.count) return;  // threadIdx
  if (address == (uintptr_t)&current || address - (uintptr_t)&block < sizeof block) return;
  watching = false;
  decide();
  uintptr_t code = last_code = offset_of(caller);
  const char *what = writes ? "write" : "read";
  Region *region = find_region(address, bytes);
  if (!region)
    stop_at("out of bounds", code, format("out-of-bounds %s of %zu bytes: %s", what, bytes, distance(address).c_str()));
  bool power_of_two = (bytes & (bytes - 1)) == 0;
  if (kind != Kind::unaligned && power_of_two && bytes <= 16 && address % bytes)
    stop_at("misaligned", code,
            format("misaligned %s of %zu bytes at %s, byte %zu", what, bytes, region->name.c_str(),
                   address - region->begin));
  bool atomic = kind == Kind::atomic || (kind == Kind::volatile_ && region->space == Space::global);
  if (atomic) acquire();
  if (region->space == Space::shared) check_written(*region, address, bytes, writes && kind != Kind::atomic, code);
  touch(*region, address, bytes, writes, {block.serial, code, now, (uint16_t)current->linear(), 0, atomic});
  if (kind == Kind::volatile_ && !writes) yield();  // it may be waiting for others
  watching = true;
}

void at_atomic(const void *address, size_t bytes, const void *code) {
  watching = true;  // the caller is part of the kernel
  watch((uintptr_t)address, bytes, true, Kind::atomic, code);
}

}  // namespace races

// Nothing was written between that read and the atomicCAS, or the cell would not have it: so the value is the same.
void swapped() {
  using namespace races;
  Unwatched now;
  if (own_read && std::find(first_guesses.begin(), first_guesses.end(), own_read) == first_guesses.end())
    first_guesses.push_back(own_read);
}

}  // namespace gce

#define GCE_HOOKS(N)                                                                                               \
  void __tsan_read##N(void *p) { gce::races::watch((uintptr_t)p, N, false, gce::races::Kind::plain, GCE_CALLER); } \
  void __tsan_write##N(void *p) { gce::races::watch((uintptr_t)p, N, true, gce::races::Kind::plain, GCE_CALLER); } \
  void __tsan_unaligned_read##N(void *p) {                                                                         \
    gce::races::watch((uintptr_t)p, N, false, gce::races::Kind::unaligned, GCE_CALLER);                            \
  }                                                                                                                \
  void __tsan_unaligned_write##N(void *p) {                                                                        \
    gce::races::watch((uintptr_t)p, N, true, gce::races::Kind::unaligned, GCE_CALLER);                             \
  }                                                                                                                \
  void __tsan_volatile_read##N(void *p) {                                                                          \
    gce::races::watch((uintptr_t)p, N, false, gce::races::Kind::volatile_, GCE_CALLER);                            \
  }                                                                                                                \
  void __tsan_volatile_write##N(void *p) {                                                                         \
    gce::races::watch((uintptr_t)p, N, true, gce::races::Kind::volatile_, GCE_CALLER);                             \
  }                                                                                                                \
  void __tsan_unaligned_volatile_read##N(void *p) { __tsan_volatile_read##N(p); }                                  \
  void __tsan_unaligned_volatile_write##N(void *p) { __tsan_volatile_write##N(p); }

extern "C" {
GCE_HOOKS(1)
GCE_HOOKS(2)
GCE_HOOKS(4)
GCE_HOOKS(8)
GCE_HOOKS(16)
void __tsan_read_range(void *p, size_t bytes) {
  gce::races::watch((uintptr_t)p, bytes, false, gce::races::Kind::plain, GCE_CALLER);
}
void __tsan_write_range(void *p, size_t bytes) {
  gce::races::watch((uintptr_t)p, bytes, true, gce::races::Kind::plain, GCE_CALLER);
}
// -fstack-protector calls this at the end of a function whose canary is dead.
__attribute__((visibility("hidden"), noreturn)) void __stack_chk_fail() {
  gce::watching = false;
  gce::add_finding({true, "out of bounds", {}, gce::offset_of(GCE_CALLER), gce::races::last_code,
                    "out-of-bounds write: a local array of the function that ends here was written past its end; the "
                    "last access to other memory before is at {there}",
                    gce::block.index, gce::current->index});
  gce::error_text = gce::told(gce::findings.back());
  gce::abandon();
}

// A kernel runs several times and prints once. The linker puts this in the place of its printf.
__attribute__((visibility("hidden"))) int __wrap_printf(const char *form, ...) {
  gce::Unwatched now;
  if (gce::settings.silent) return 0;
  va_list values;
  va_start(values, form);
  int result = vprintf(form, values);
  va_end(values);
  return result;
}

void __tsan_init() {}
void __tsan_func_entry(void *) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void **, void *) {}

// clang copies structs by calling this, and does not tell their alignment.
__attribute__((visibility("hidden"))) void *memcpy(void *to, const void *from, size_t bytes) noexcept {
  using namespace gce::races;
  if (gce::watching && bytes) {
    watch((uintptr_t)from, bytes, false, Kind::unaligned, GCE_CALLER);
    watch((uintptr_t)to, bytes, true, Kind::unaligned, GCE_CALLER);
  }
  return memmove(to, from, bytes);
}
void *__tsan_memcpy(void *to, const void *from, size_t bytes) { return memcpy(to, from, bytes); }
}
