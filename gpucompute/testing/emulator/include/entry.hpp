// The table of a library's kernels. build.py ends each unit with
//   namespace gce { extern const Kernel kernels[] = {entry<&::axpy_kernel>("axpy", "y x a n", 1024), ...}; ... }
#pragma once

#include <type_traits>
#include <utility>

#include "half.hpp"
#include "state.hpp"

namespace gce {

template <class T> struct Element {  // a number, or a struct that the emulator knows nothing of
  static constexpr char kind = std::is_same<T, bool>::value       ? 'b'
                               : std::is_floating_point<T>::value ? 'f'
                               : !std::is_arithmetic<T>::value    ? 's'
                               : std::is_signed<T>::value         ? 'i'
                                                                  : 'u';
  static constexpr unsigned bytes = sizeof(T), elements = 1;
};
template <> struct Element<void> {
  static constexpr char kind = 'v';
  static constexpr unsigned bytes = 0, elements = 1;
};
template <> struct Element<__half> {
  static constexpr char kind = 'h';
  static constexpr unsigned bytes = 2, elements = 1;
};
template <> struct Element<__nv_bfloat16> {
  static constexpr char kind = 'B';
  static constexpr unsigned bytes = 2, elements = 1;
};
template <class T> struct Element<Pair<T>> : Element<T> {
  static constexpr unsigned elements = 2;
};
#define GCE_ELEMENTS(NAME, T)                          \
  template <> struct Element<NAME##1> : Element<T> {}; \
  template <> struct Element<NAME##2> : Element<T> {   \
    static constexpr unsigned elements = 2;            \
  };                                                   \
  template <> struct Element<NAME##3> : Element<T> {   \
    static constexpr unsigned elements = 3;            \
  };                                                   \
  template <> struct Element<NAME##4> : Element<T> {   \
    static constexpr unsigned elements = 4;            \
  };
GCE_ELEMENTS(char, signed char)
GCE_ELEMENTS(uchar, unsigned char)
GCE_ELEMENTS(short, short)
GCE_ELEMENTS(ushort, unsigned short)
GCE_ELEMENTS(int, int)
GCE_ELEMENTS(uint, unsigned)
GCE_ELEMENTS(long, long)
GCE_ELEMENTS(ulong, unsigned long)
GCE_ELEMENTS(longlong, long long)
GCE_ELEMENTS(ulonglong, unsigned long long)
GCE_ELEMENTS(float, float)
GCE_ELEMENTS(double, double)
#undef GCE_ELEMENTS

template <class A> constexpr Parameter parameter_of() {
  typedef std::remove_reference_t<A> Value;
  typedef std::remove_pointer_t<Value> Target;
  typedef Element<std::remove_cv_t<Target>> E;
  return {E::kind,
          std::is_pointer<Value>::value,
          std::is_pointer<Value>::value && std::is_const<Target>::value,
          E::bytes,
          E::elements,
          sizeof(Value),
          alignof(Value)};
}

template <auto FUNCTION, class... A> struct Bound {
  static constexpr Parameter parameters[sizeof...(A) + 1] = {parameter_of<A>()...};

  template <size_t... I> GCE_UNWATCHED static inline void call(void **arguments, std::index_sequence<I...>) {
    (void)arguments;
    FUNCTION(*(std::remove_cv_t<std::remove_reference_t<A>> *)arguments[I]...);
  }
  GCE_UNWATCHED static void run(void **arguments) { call(arguments, std::index_sequence_for<A...>{}); }
};

template <auto FUNCTION, class... A>
constexpr Kernel entry_of(void (*)(A...), const char *name, const char *names, unsigned most_threads) {
  typedef Bound<FUNCTION, A...> B;
  return {name, names, B::parameters, sizeof...(A), most_threads, &B::run};
}
template <auto FUNCTION> constexpr Kernel entry(const char *name, const char *names, unsigned most_threads) {
  return entry_of<FUNCTION>(FUNCTION, name, names, most_threads);
}

constexpr unsigned first(unsigned threads, ...) { return threads; }  // of what __launch_bounds__ has

}  // namespace gce
