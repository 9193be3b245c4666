// What went wrong, in words and with its place: the list that gce_findings() hands over.
#pragma once

#include <cstdarg>
#include <cstdio>
#include <string>
#include <vector>

#include "state.hpp"

namespace gce {

// Where the library lies in memory: places in its code are told from there. The linker gives it this name.
#if defined(__ELF__)
extern "C" char gce_image[] __asm__("__ehdr_start") __attribute__((visibility("hidden")));
inline uintptr_t offset_of(const void *code) { return (uintptr_t)code - (uintptr_t)gce_image; }
#else
inline uintptr_t offset_of(const void *) { return 0; }
#endif

struct Finding {
  bool error;
  const char *kind;            // one word, by which a report groups
  Place place;                 // file nullptr: see `code`
  uintptr_t code, other_code;  // offsets in the library: of the access, and of the one that it collides with; 0: none
  std::string message;         // "{there}" stands for the place of other_code
  uint3 block_index, thread_index;
};

constexpr size_t MOST_FINDINGS = 100;
inline std::vector<Finding> findings;
inline std::string error_text;

inline std::string format(const char *form, va_list values) {
  char text[512];
  vsnprintf(text, sizeof text, form, values);
  return text;
}
__attribute__((format(printf, 1, 2))) inline std::string format(const char *form, ...) {
  va_list values;
  va_start(values, form);
  std::string text = format(form, values);
  va_end(values);
  return text;
}

// The same thing at the same place is told once.
inline void add_finding(const Finding &finding) {
  for (const Finding &old : findings)
    if (old.kind == finding.kind && old.code == finding.code && old.place.line == finding.place.line &&
        old.place.file == finding.place.file)
      return;
  if (findings.size() < MOST_FINDINGS) findings.push_back(finding);
}

inline void report(bool error, const char *kind, Place place, std::string message) {
  add_finding({error, kind, place, 0, 0, message, block.index, current ? current->index : uint3{0, 0, 0}});
}

inline std::string told(const Finding &f) {
  std::string where = f.place.file ? format("%s:%d: ", f.place.file, f.place.line) : "";
  uint3 b = f.block_index, t = f.thread_index;
  return where + f.message + format(" [block (%u, %u, %u), thread (%u, %u, %u)]", b.x, b.y, b.z, t.x, t.y, t.z);
}

// The list as text: a line for each, fields between tabs.
inline std::string all_told() {
  std::string text;
  for (const Finding &f : findings) {
    uint3 b = f.block_index, t = f.thread_index;
    text += format("%s\t%s\t%s\t%d\t%zx\t%zx\t", f.error ? "error" : "warning", f.kind,
                   f.place.file ? f.place.file : "", f.place.line, (size_t)f.code, (size_t)f.other_code);
    text += format("%u %u %u\t%u %u %u\t", b.x, b.y, b.z, t.x, t.y, t.z) + f.message + "\n";
  }
  return text;
}

[[noreturn]] void abandon();  // the launch is over

[[noreturn]] __attribute__((format(printf, 3, 4))) inline void stop(const char *kind, Place place, const char *form,
                                                                    ...) {
  va_list values;
  va_start(values, form);
  report(true, kind, place, format(form, values));
  va_end(values);
  error_text = told(findings.back());
  abandon();
}

// The same, for a place in the code.
[[noreturn]] inline void stop_at(const char *kind, uintptr_t code, std::string message) {
  add_finding({true, kind, {}, code, 0, message, block.index, current->index});
  error_text = told(findings.back());
  abandon();
}

}  // namespace gce
