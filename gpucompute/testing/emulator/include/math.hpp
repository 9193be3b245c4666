// Floating-point functions. Arithmetic is IEEE and never contracted. What libdevice approximates (exp, sin, __expf,
// ...) comes from the system's libm, so the last bits may differ from a GPU's.
#pragma once

#include <cfenv>
#include <climits>
#include <cmath>
#include <type_traits>

#include <math.h>

#include "warp.hpp"

#if defined(__GLIBC_PREREQ)
#define GCE_LIBM(major, minor) __GLIBC_PREREQ(major, minor)
#else
#define GCE_LIBM(major, minor) 0
#endif

namespace gce {

template <class A, class B> using Common = std::common_type_t<A, B>;
template <class A, class B> using IfNumbers =
    std::enable_if_t<std::is_arithmetic<A>::value && std::is_arithmetic<B>::value, Common<A, B>>;

// One operation rounded in another direction. volatile keeps the compiler from computing it at any other place.
template <class T, class F> inline T rounded(int direction, F operation, T a, T b = 0, T c = 0) {
  int before = fegetround();
  volatile T x = a, y = b, z = c;
  fesetround(direction);
  volatile T result = operation(x, y, z);
  fesetround(before);
  return result;
}

// Conversions to integers saturate, and NaN becomes 0 (PTX ISA, cvt).
template <class I, class F> inline I saturated(F x) {
  if (x != x) return 0;
  constexpr I low = std::is_signed<I>::value ? I(I(1) << (sizeof(I) * 8 - 1)) : I(0), high = I(~low);
  if (x <= (F)low) return low;
  return x >= ldexp(F(1), int(sizeof(I) * 8) - std::is_signed<I>::value) ? high : (I)x;
}

}  // namespace gce

// A number and a NaN: the number, as fminf and fmaxf.
template <class A, class B> inline gce::IfNumbers<A, B> min(A a, B b) {
  typedef gce::Common<A, B> T;
  if constexpr (std::is_floating_point<T>::value) return std::fmin((T)a, (T)b);
  return (T)b < (T)a ? (T)b : (T)a;
}
template <class A, class B> inline gce::IfNumbers<A, B> max(A a, B b) {
  typedef gce::Common<A, B> T;
  if constexpr (std::is_floating_point<T>::value) return std::fmax((T)a, (T)b);
  return (T)a < (T)b ? (T)b : (T)a;
}

#define GCE_BOTH(NAME, ARGUMENT, DOUBLE)                 \
  inline double NAME(double ARGUMENT) { return DOUBLE; } \
  inline float NAME##f(float ARGUMENT) { return (float)NAME((double)ARGUMENT); }
#if !GCE_LIBM(2, 42)
inline double rsqrt(double x) { return 1 / ::sqrt(x); }
inline float rsqrtf(float x) { return (float)(1 / ::sqrt((double)x)); }
#endif
inline float rsqrt(float x) { return rsqrtf(x); }
#if !GCE_LIBM(2, 41)
GCE_BOTH(sinpi, x, x == rint(x) ? copysign(0.0, x) : sin(M_PI * (x - 2 * rint(x / 2))))
GCE_BOTH(cospi, x, fabs(x - trunc(x)) == 0.5 ? 0.0 : cos(M_PI * (x - 2 * rint(x / 2))))
#endif
GCE_BOTH(rcbrt, x, 1 / cbrt(x))
GCE_BOTH(normcdf, x, 0.5 * erfc(-x * M_SQRT1_2))
GCE_BOTH(erfcx, x, x < 25 ? exp(x * x) * erfc(x) : 0.5641895835477563 / x * (1 - 0.5 / (x * x)))
#undef GCE_BOTH
inline void sincospi(double x, double *s, double *c) { *s = sinpi(x), *c = cospi(x); }
inline void sincospif(float x, float *s, float *c) { *s = sinpif(x), *c = cospif(x); }
inline float fdividef(float a, float b) { return a / b; }
inline float norm3df(float x, float y, float z) { return (float)::sqrt((double)x * x + (double)y * y + (double)z * z); }
inline double norm3d(double x, double y, double z) { return ::sqrt(x * x + y * y + z * z); }
inline float rhypotf(float x, float y) { return (float)(1 / hypot((double)x, (double)y)); }
inline double rhypot(double x, double y) { return 1 / hypot(x, y); }

// The fast intrinsics: here as precise as the slow ones.
inline float __expf(float x) { return expf(x); }
inline float __exp10f(float x) { return powf(10, x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __log10f(float x) { return log10f(x); }
inline float __sinf(float x) { return sinf(x); }
inline float __cosf(float x) { return cosf(x); }
inline float __tanf(float x) { return tanf(x); }
inline float __tanhf(float x) { return tanhf(x); }
inline float __powf(float x, float y) { return powf(x, y); }
inline float __fdividef(float a, float b) { return a / b; }
inline void __sincosf(float x, float *s, float *c) { *s = sinf(x), *c = cosf(x); }
inline float __saturatef(float x) { return x > 0 ? x < 1 ? x : 1.0f : 0.0f; }
inline float __frsqrt_rn(float x) { return rsqrtf(x); }

// Arithmetic with its rounding in the name: nearest, toward zero, up, down.
#define GCE_ROUNDED(P, T, SUFFIX, WAY)                                      \
  inline T __##P##add_##SUFFIX(T a, T b) {                                  \
    return gce::rounded<T>(WAY, [](T x, T y, T) { return x + y; }, a, b);   \
  }                                                                         \
  inline T __##P##mul_##SUFFIX(T a, T b) {                                  \
    return gce::rounded<T>(WAY, [](T x, T y, T) { return x * y; }, a, b);   \
  }                                                                         \
  inline T __##P##sub_##SUFFIX(T a, T b) {                                  \
    return gce::rounded<T>(WAY, [](T x, T y, T) { return x - y; }, a, b);   \
  }                                                                         \
  inline T __##P##div_##SUFFIX(T a, T b) {                                  \
    return gce::rounded<T>(WAY, [](T x, T y, T) { return x / y; }, a, b);   \
  }                                                                         \
  inline T __##P##rcp_##SUFFIX(T a) {                                       \
    return gce::rounded<T>(WAY, [](T x, T, T) { return 1 / x; }, a);        \
  }                                                                         \
  inline T __##P##sqrt_##SUFFIX(T a) {                                      \
    return gce::rounded<T>(WAY, [](T x, T, T) { return std::sqrt(x); }, a); \
  }
#define GCE_NEAREST(P, T)                            \
  inline T __##P##add_rn(T a, T b) { return a + b; } \
  inline T __##P##sub_rn(T a, T b) { return a - b; } \
  inline T __##P##mul_rn(T a, T b) { return a * b; } \
  inline T __##P##div_rn(T a, T b) { return a / b; } \
  inline T __##P##rcp_rn(T a) { return 1 / a; }      \
  inline T __##P##sqrt_rn(T a) { return std::sqrt(a); }
GCE_NEAREST(f, float)
GCE_NEAREST(d, double)
GCE_ROUNDED(f, float, rz, FE_TOWARDZERO)
GCE_ROUNDED(f, float, ru, FE_UPWARD)
GCE_ROUNDED(f, float, rd, FE_DOWNWARD)
GCE_ROUNDED(d, double, rz, FE_TOWARDZERO)
GCE_ROUNDED(d, double, ru, FE_UPWARD)
GCE_ROUNDED(d, double, rd, FE_DOWNWARD)
#undef GCE_NEAREST
#undef GCE_ROUNDED
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
#define GCE_FMA(SUFFIX, WAY)                                                                              \
  inline float __fmaf_##SUFFIX(float a, float b, float c) {                                               \
    return gce::rounded<float>(WAY, [](float x, float y, float z) { return fmaf(x, y, z); }, a, b, c);    \
  }                                                                                                       \
  inline double __fma_##SUFFIX(double a, double b, double c) {                                            \
    return gce::rounded<double>(WAY, [](double x, double y, double z) { return fma(x, y, z); }, a, b, c); \
  }
GCE_FMA(rz, FE_TOWARDZERO)
GCE_FMA(ru, FE_UPWARD)
GCE_FMA(rd, FE_DOWNWARD)
#undef GCE_FMA

// Conversions, each in four roundings.
#define GCE_TO_INTEGER(FROM, F, TO, I)                                            \
  inline I __##FROM##2##TO##_rn(F x) { return gce::saturated<I>(std::rint(x)); }  \
  inline I __##FROM##2##TO##_rz(F x) { return gce::saturated<I>(std::trunc(x)); } \
  inline I __##FROM##2##TO##_ru(F x) { return gce::saturated<I>(std::ceil(x)); }  \
  inline I __##FROM##2##TO##_rd(F x) { return gce::saturated<I>(std::floor(x)); }
#define GCE_TO_FLOAT(FROM, T, TO, F)                                         \
  inline F __##FROM##2##TO##_rn(T x) { return (F)x; }                        \
  inline F __##FROM##2##TO##_rz(T v) {                                       \
    volatile T x = v;                                                        \
    return gce::rounded<F>(FE_TOWARDZERO, [&](F, F, F) { return (F)x; }, 0); \
  }                                                                          \
  inline F __##FROM##2##TO##_ru(T v) {                                       \
    volatile T x = v;                                                        \
    return gce::rounded<F>(FE_UPWARD, [&](F, F, F) { return (F)x; }, 0);     \
  }                                                                          \
  inline F __##FROM##2##TO##_rd(T v) {                                       \
    volatile T x = v;                                                        \
    return gce::rounded<F>(FE_DOWNWARD, [&](F, F, F) { return (F)x; }, 0);   \
  }
#define GCE_CONVERSIONS(NAME, I)          \
  GCE_TO_INTEGER(float, float, NAME, I)   \
  GCE_TO_INTEGER(double, double, NAME, I) \
  GCE_TO_FLOAT(NAME, I, float, float)
GCE_CONVERSIONS(int, int)
GCE_CONVERSIONS(uint, unsigned)
GCE_CONVERSIONS(ll, long long)
GCE_CONVERSIONS(ull, unsigned long long)
GCE_TO_FLOAT(ll, long long, double, double)
GCE_TO_FLOAT(ull, unsigned long long, double, double)
GCE_TO_FLOAT(double, double, float, float)
#undef GCE_CONVERSIONS
#undef GCE_TO_INTEGER
#undef GCE_TO_FLOAT
inline double __int2double_rn(int x) { return x; }
inline double __uint2double_rn(unsigned x) { return x; }

// The same bits under another type.
inline int __float_as_int(float x) { return gce::from_bits<int>(gce::to_bits(x)); }
inline unsigned __float_as_uint(float x) { return gce::from_bits<unsigned>(gce::to_bits(x)); }
inline float __int_as_float(int x) { return gce::from_bits<float>(gce::to_bits(x)); }
inline float __uint_as_float(unsigned x) { return gce::from_bits<float>(gce::to_bits(x)); }
inline long long __double_as_longlong(double x) { return gce::from_bits<long long>(gce::to_bits(x)); }
inline double __longlong_as_double(long long x) { return gce::from_bits<double>(gce::to_bits(x)); }
inline int __double2hiint(double x) { return (int)(gce::to_bits(x) >> 32); }
inline int __double2loint(double x) { return (int)gce::to_bits(x); }
inline double __hiloint2double(int high, int low) {
  return gce::from_bits<double>((uint64_t)(unsigned)high << 32 | (unsigned)low);
}

// <math_constants.h>
#define CUDART_INF_F __builtin_inff()
#define CUDART_NAN_F __builtin_nanf("")
#define CUDART_INF __builtin_inf()
#define CUDART_NAN __builtin_nan("")
#define CUDART_PI_F 3.141592654f
#define CUDART_PI 3.1415926535897931e+0
#define CUDART_MAX_NORMAL_F 3.402823466e38f
#define CUDART_MIN_DENORM_F 1.401298464e-45f
