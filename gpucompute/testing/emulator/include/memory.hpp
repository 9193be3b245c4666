// The memory that a kernel may touch: shared variables, dynamic shared memory, and under the checker the arguments'
// arrays.
#pragma once

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "shared.hpp"
#include "state.hpp"

namespace gce {

struct Cell;  // what happened to a few bytes last (races.hpp)

enum class Space : uint8_t { shared, global };
struct Region {
  uintptr_t begin, end;
  Space space;
  unsigned element;  // bytes, for telling an index
  unsigned granule;  // bytes of one cell: no access is expected to be narrower
  std::string name;
  Cell *cells = nullptr;
  std::vector<bool> written = {};  // of shared memory: whether this block has, byte by byte
  const void *initial = nullptr;   // of a variable: what it holds before a launch

  size_t size() const { return end - begin; }
};

inline bool watching;  // a kernel's own code runs, under the checker
struct Unwatched {     // while the emulator works for a kernel
  bool before = watching;
  Unwatched() { watching = false; }
  ~Unwatched() { watching = before; }
};

inline size_t dynamic_bytes;
inline unsigned poison = 0xff;  // what shared memory holds before it is written: NaN, -1
inline std::vector<Region> shared_variables;
inline std::vector<Region> device_variables;  // __device__ and __constant__
inline Region dynamic_region;

inline unsigned granule_of(size_t alignment) { return alignment < 4 ? (unsigned)alignment : 4; }

void declare_shared(void *address, size_t bytes, size_t element, size_t alignment, const char *name) {
  Unwatched now;
  uintptr_t begin = (uintptr_t)address;
  shared_variables.push_back({begin, begin + bytes, Space::shared, (unsigned)element, granule_of(alignment), name});
  shared_variables.back().written.resize(GCE_CHECK ? bytes : 0);
  memset(address, (int)poison, bytes);
}

void declare_variable(void *address, const void *initial, size_t bytes, size_t element, size_t alignment,
                      const char *name) {
  uintptr_t begin = (uintptr_t)address;
  device_variables.push_back({begin, begin + bytes, Space::global, (unsigned)element, granule_of(alignment), name});
  device_variables.back().initial = initial;
}

// Each launch finds variables as the module's loading leaves them. Pages are only written where they differ: a variable
// of a gigabyte of zeros takes none.
inline void reset_variables() {
  constexpr size_t PAGE = 4096;
  for (Region &variable : device_variables)
    for (size_t at = 0; at < variable.size(); at += PAGE) {
      size_t bytes = std::min(PAGE, variable.size() - at);
      const char *initial = (const char *)variable.initial + at;
      if (memcmp((char *)variable.begin + at, initial, bytes)) memcpy((char *)variable.begin + at, initial, bytes);
    }
}

void declare_dynamic(size_t element, const char *name) {
  Unwatched now;
  dynamic_region.element = (unsigned)element;
  dynamic_region.name = name;
}

inline void begin_shared_memory() {
  for (Region &variable : shared_variables) {
    memset((void *)variable.begin, (int)poison, variable.size());
    variable.written.assign(variable.written.size(), false);
  }
  if (dynamic_bytes) memset(dynamic_shared, (int)poison, dynamic_bytes);
  dynamic_region.written.assign(dynamic_region.written.size(), false);
}

}  // namespace gce
