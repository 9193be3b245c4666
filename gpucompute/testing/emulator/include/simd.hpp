// Four bytes or two halfwords side by side in 32 bits ("SIMD Intrinsics" in the CUDA math API).
#pragma once

#include <cstdint>
#include <type_traits>

namespace gce {

// f of each pair of lanes, as T and then as int; its result cut to the lane.
template <class T, class F> inline unsigned each_part(unsigned x, unsigned y, F f) {
  constexpr int BITS = 8 * sizeof(T);
  unsigned result = 0;
  for (int i = 0; i < 32; i += BITS)
    result |= ((unsigned)f((int)(T)(x >> i), (int)(T)(y >> i)) & ((1u << BITS) - 1)) << i;
  return result;
}
template <class T> inline int limited(int v) {
  constexpr int BITS = 8 * sizeof(T), HIGH = (T)-1 < 0 ? (1 << (BITS - 1)) - 1 : (1 << BITS) - 1;
  constexpr int LOW = (T)-1 < 0 ? -HIGH - 1 : 0;
  return v < LOW ? LOW : v > HIGH ? HIGH : v;
}
template <class T> inline unsigned sum_of_parts(unsigned x) {
  unsigned sum = 0;
  for (int i = 0; i < 32; i += 8 * (int)sizeof(T)) sum += (unsigned)(T)(x >> i);
  return sum;
}

}  // namespace gce

#define GCE_PARTS(NAME, T, RESULT) \
  inline unsigned NAME(unsigned x, unsigned y) { return gce::each_part<T>(x, y, [](int a, int b) { return RESULT; }); }
#define GCE_ALONE(NAME, T, RESULT) \
  inline unsigned NAME(unsigned x) { return gce::each_part<T>(x, 0, [](int a, int) { return RESULT; }); }
#define GCE_COMPARED(NAME, N, T, SIGN)             \
  GCE_PARTS(__vcmp##NAME##N, T, a SIGN b ? -1 : 0) \
  GCE_PARTS(__vset##NAME##N, T, a SIGN b)
#define GCE_SIGNS(N, LETTER, T)                                                     \
  GCE_COMPARED(lt##LETTER, N, T, <)                                                 \
  GCE_COMPARED(le##LETTER, N, T, <=)                                                \
  GCE_COMPARED(gt##LETTER, N, T, >)                                                 \
  GCE_COMPARED(ge##LETTER, N, T, >=)                                                \
  GCE_PARTS(__vadd##LETTER##s##N, T, gce::limited<T>(a + b))                        \
  GCE_PARTS(__vsub##LETTER##s##N, T, gce::limited<T>(a - b))                        \
  GCE_PARTS(__vmin##LETTER##N, T, a < b ? a : b)                                    \
  GCE_PARTS(__vmax##LETTER##N, T, a > b ? a : b)                                    \
  GCE_PARTS(__vabsdiff##LETTER##N, T, a > b ? a - b : b - a)                        \
  inline unsigned __vsad##LETTER##N(unsigned x, unsigned y) {                       \
    return gce::sum_of_parts<std::make_unsigned_t<T>>(__vabsdiff##LETTER##N(x, y)); \
  }
#define GCE_WIDTH(N, S, U)                                   \
  GCE_SIGNS(N, s, S)                                         \
  GCE_SIGNS(N, u, U)                                         \
  GCE_COMPARED(eq, N, U, ==)                                 \
  GCE_COMPARED(ne, N, U, !=)                                 \
  GCE_PARTS(__vadd##N, S, a + b)                             \
  GCE_PARTS(__vsub##N, S, a - b)                             \
  GCE_PARTS(__vavgs##N, S, (a + b + (a + b >= 0)) >> 1)      \
  GCE_PARTS(__vavgu##N, U, (a + b + 1) >> 1)                 \
  GCE_PARTS(__vhaddu##N, U, (a + b) >> 1)                    \
  GCE_ALONE(__vabs##N, S, a < 0 ? -a : a)                    \
  GCE_ALONE(__vabsss##N, S, gce::limited<S>(a < 0 ? -a : a)) \
  GCE_ALONE(__vneg##N, S, -a)                                \
  GCE_ALONE(__vnegss##N, S, gce::limited<S>(-a))
GCE_WIDTH(4, int8_t, uint8_t)
GCE_WIDTH(2, int16_t, uint16_t)
#undef GCE_WIDTH
#undef GCE_SIGNS
#undef GCE_COMPARED
#undef GCE_ALONE
#undef GCE_PARTS
