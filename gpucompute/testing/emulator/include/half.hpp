// __half and __nv_bfloat16: stored in 16 bits, computed in float or double and rounded back to the nearest, ties to
// even.
// + - * / and sqrt are correctly rounded so (Figueroa, "When is double rounding innocuous?", 1995).
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "types.hpp"

namespace gce {

// A binary format of 16 bits with so many of exponent and of fraction.
template <int EXPONENT, int FRACTION> struct Format {
  static constexpr int BIAS = (1 << (EXPONENT - 1)) - 1;

  static unsigned short round(double value) {
    uint64_t bits;
    memcpy(&bits, &value, 8);
    unsigned sign = unsigned(bits >> 63) << 15;
    int exponent = int(bits >> 52 & 0x7ff) - 1023;
    uint64_t fraction = bits & ((1ull << 52) - 1);
    constexpr unsigned infinity = ((1u << EXPONENT) - 1) << FRACTION;
    if (exponent == 1024) return (unsigned short)(fraction ? 0x7fff : sign | infinity);
    if (exponent < -BIAS - FRACTION) return (unsigned short)sign;
    int dropped = 52 - FRACTION;
    uint64_t kept = fraction | 1ull << 52, base = 0;
    if (exponent > -BIAS)
      base = uint64_t(exponent + BIAS - 1) << FRACTION;  // the leading 1 of kept adds the missing 1
    else
      dropped += 1 - BIAS - exponent;  // subnormal
    uint64_t result = base + (kept >> dropped), rest = kept & ((1ull << dropped) - 1), half = 1ull << (dropped - 1);
    if (rest > half || (rest == half && (result & 1))) result++;
    return (unsigned short)(sign | (result > infinity ? infinity : result));
  }

  static float widen(unsigned short bits) {
    int exponent = bits >> FRACTION & ((1 << EXPONENT) - 1), fraction = bits & ((1 << FRACTION) - 1);
    float value;
    if (exponent == (1 << EXPONENT) - 1)
      value = fraction ? NAN : INFINITY;
    else if (exponent == 0)
      value = ldexpf((float)fraction, 1 - BIAS - FRACTION);
    else
      value = ldexpf((float)(fraction | 1 << FRACTION), exponent - BIAS - FRACTION);
    return copysignf(value, bits >> 15 ? -1.0f : 1.0f);
  }
};

template <int EXPONENT, int FRACTION> struct Small {
  typedef Format<EXPONENT, FRACTION> format;
  unsigned short bits;

  Small() = default;
  Small(float v) : bits(format::round(v)) {}
  Small(double v) : bits(format::round(v)) {}
  Small(int v) : bits(format::round(v)) {}
  Small(unsigned v) : bits(format::round(v)) {}
  Small(long v) : bits(format::round((double)v)) {}
  Small(unsigned long v) : bits(format::round((double)v)) {}
  Small(long long v) : bits(format::round((double)v)) {}
  Small(unsigned long long v) : bits(format::round((double)v)) {}
  operator float() const { return format::widen(bits); }

  friend Small operator+(Small a, Small b) { return float(a) + float(b); }
  friend Small operator-(Small a, Small b) { return float(a) - float(b); }
  friend Small operator*(Small a, Small b) { return float(a) * float(b); }
  friend Small operator/(Small a, Small b) { return float(a) / float(b); }
  friend Small operator-(Small a) { return from_bits(a.bits ^ 0x8000); }
  friend Small operator+(Small a) { return a; }
  friend bool operator==(Small a, Small b) { return float(a) == float(b); }
  friend bool operator!=(Small a, Small b) { return float(a) != float(b); }
  friend bool operator<(Small a, Small b) { return float(a) < float(b); }
  friend bool operator<=(Small a, Small b) { return float(a) <= float(b); }
  friend bool operator>(Small a, Small b) { return float(a) > float(b); }
  friend bool operator>=(Small a, Small b) { return float(a) >= float(b); }
  Small &operator+=(Small b) { return *this = *this + b; }
  Small &operator-=(Small b) { return *this = *this - b; }
  Small &operator*=(Small b) { return *this = *this * b; }
  Small &operator/=(Small b) { return *this = *this / b; }

  static Small from_bits(int bits) {
    Small v;
    v.bits = (unsigned short)bits;
    return v;
  }
};

template <class T> struct alignas(4) Pair {
  T x, y;
  Pair() = default;
  Pair(T x, T y) : x(x), y(y) {}
  friend Pair operator+(Pair a, Pair b) { return {a.x + b.x, a.y + b.y}; }
  friend Pair operator-(Pair a, Pair b) { return {a.x - b.x, a.y - b.y}; }
  friend Pair operator*(Pair a, Pair b) { return {a.x * b.x, a.y * b.y}; }
  friend Pair operator/(Pair a, Pair b) { return {a.x / b.x, a.y / b.y}; }
  friend Pair operator-(Pair a) { return {-a.x, -a.y}; }
  friend bool operator==(Pair a, Pair b) { return a.x == b.x && a.y == b.y; }
};

}  // namespace gce

typedef gce::Small<5, 10> __half;
typedef gce::Small<8, 7> __nv_bfloat16;
typedef gce::Pair<__half> __half2;
typedef gce::Pair<__nv_bfloat16> __nv_bfloat162;
typedef __half half;
typedef __half2 half2;
typedef __nv_bfloat16 nv_bfloat16;
typedef __nv_bfloat162 nv_bfloat162;

// What both formats have under the same names, by overloading.
#define GCE_SMALL(H, H2)                                                                         \
  inline H __hadd(H a, H b) { return a + b; }                                                    \
  inline H __hsub(H a, H b) { return a - b; }                                                    \
  inline H __hmul(H a, H b) { return a * b; }                                                    \
  inline H __hdiv(H a, H b) { return a / b; }                                                    \
  inline H __hfma(H a, H b, H c) { return fma((double)a, (double)b, (double)c); }                \
  inline H __hneg(H a) { return -a; }                                                            \
  inline H __habs(H a) { return H::from_bits(a.bits & 0x7fff); }                                 \
  inline H __hmin(H a, H b) { return fminf(a, b); }                                              \
  inline H __hmax(H a, H b) { return fmaxf(a, b); }                                              \
  inline bool __heq(H a, H b) { return a == b; }                                                 \
  inline bool __hne(H a, H b) { return a != b; }                                                 \
  inline bool __hlt(H a, H b) { return a < b; }                                                  \
  inline bool __hle(H a, H b) { return a <= b; }                                                 \
  inline bool __hgt(H a, H b) { return a > b; }                                                  \
  inline bool __hge(H a, H b) { return a >= b; }                                                 \
  inline bool __hisnan(H a) { return std::isnan(float(a)); }                                     \
  inline int __hisinf(H a) { return std::isinf(float(a)) ? (float(a) < 0 ? -1 : 1) : 0; }        \
  inline H2 __hadd2(H2 a, H2 b) { return a + b; }                                                \
  inline H2 __hsub2(H2 a, H2 b) { return a - b; }                                                \
  inline H2 __hmul2(H2 a, H2 b) { return a * b; }                                                \
  inline H2 __h2div(H2 a, H2 b) { return a / b; }                                                \
  inline H2 __hfma2(H2 a, H2 b, H2 c) { return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)}; } \
  inline H2 __hmin2(H2 a, H2 b) { return {__hmin(a.x, b.x), __hmin(a.y, b.y)}; }                 \
  inline H2 __hmax2(H2 a, H2 b) { return {__hmax(a.x, b.x), __hmax(a.y, b.y)}; }                 \
  inline H2 __habs2(H2 a) { return {__habs(a.x), __habs(a.y)}; }                                 \
  inline H2 __hneg2(H2 a) { return -a; }                                                         \
  inline H2 __halves2half2(H a, H b) { return {a, b}; }                                          \
  inline H __low2half(H2 a) { return a.x; }                                                      \
  inline H __high2half(H2 a) { return a.y; }                                                     \
  inline float __low2float(H2 a) { return a.x; }                                                 \
  inline float __high2float(H2 a) { return a.y; }                                                \
  inline H2 __lowhigh2highlow(H2 a) { return {a.y, a.x}; }                                       \
  inline H hsqrt(H a) { return sqrtf(a); }                                                       \
  inline H hrsqrt(H a) { return 1 / sqrt((double)a); }                                           \
  inline H hrcp(H a) { return 1 / (double)a; }                                                   \
  inline H hexp(H a) { return exp((double)a); }                                                  \
  inline H hexp2(H a) { return exp2((double)a); }                                                \
  inline H hlog(H a) { return log((double)a); }                                                  \
  inline H hlog2(H a) { return log2((double)a); }                                                \
  inline H hsin(H a) { return sin((double)a); }                                                  \
  inline H hcos(H a) { return cos((double)a); }                                                  \
  inline H htanh(H a) { return tanh((double)a); }                                                \
  inline H hfloor(H a) { return floorf(a); }                                                     \
  inline H hceil(H a) { return ceilf(a); }                                                       \
  inline H htrunc(H a) { return truncf(a); }                                                     \
  inline H hrint(H a) { return rintf(a); }
GCE_SMALL(__half, __half2)
GCE_SMALL(__nv_bfloat16, __nv_bfloat162)
#undef GCE_SMALL

// What has the format in its name.
#define GCE_SMALL(H, H2, NAME)                                              \
  inline H __float2##NAME(float v) { return v; }                            \
  inline H __float2##NAME##_rn(float v) { return v; }                       \
  inline H __double2##NAME(double v) { return v; }                          \
  inline H __int2##NAME##_rn(int v) { return v; }                           \
  inline H __uint2##NAME##_rn(unsigned v) { return v; }                     \
  inline H __ll2##NAME##_rn(long long v) { return v; }                      \
  inline H __short2##NAME##_rn(short v) { return (int)v; }                  \
  inline H __ushort2##NAME##_rn(unsigned short v) { return (int)v; }        \
  inline float __##NAME##2float(H v) { return v; }                          \
  inline int __##NAME##2int_rn(H v) { return (int)rintf(v); }               \
  inline int __##NAME##2int_rz(H v) { return (int)truncf(v); }              \
  inline short __##NAME##_as_short(H v) { return (short)v.bits; }           \
  inline unsigned short __##NAME##_as_ushort(H v) { return v.bits; }        \
  inline H __short_as_##NAME(short v) { return H::from_bits(v); }           \
  inline H __ushort_as_##NAME(unsigned short v) { return H::from_bits(v); } \
  inline H2 __##NAME##2##NAME##2(H v) { return {v, v}; }                    \
  inline H2 __float2##NAME##2_rn(float v) { return {v, v}; }                \
  inline H2 __floats2##NAME##2_rn(float x, float y) { return {x, y}; }      \
  inline H2 __float22##NAME##2_rn(float2 v) { return {v.x, v.y}; }          \
  inline float2 __##NAME##22float2(H2 v) { return {v.x, v.y}; }             \
  inline H2 make_##NAME##2(H x, H y) { return {x, y}; }
GCE_SMALL(__half, __half2, half)
GCE_SMALL(__nv_bfloat16, __nv_bfloat162, bfloat16)
#undef GCE_SMALL
