// <cuComplex.h>: float2 and double2 as complex numbers.
#pragma once

#include <cmath>

#include "types.hpp"

typedef float2 cuFloatComplex;
typedef float2 cuComplex;
typedef double2 cuDoubleComplex;

// C: the type; F: what the functions' names end in. The absolute value and the quotient are scaled, as CUDA's, so that
// squares do not overflow.
#define GCE_COMPLEX(C, T, F)                                                                \
  inline T cuCreal##F(C a) { return a.x; }                                                  \
  inline T cuCimag##F(C a) { return a.y; }                                                  \
  inline C cuConj##F(C a) { return {a.x, -a.y}; }                                           \
  inline C cuCadd##F(C a, C b) { return {a.x + b.x, a.y + b.y}; }                           \
  inline C cuCsub##F(C a, C b) { return {a.x - b.x, a.y - b.y}; }                           \
  inline C cuCmul##F(C a, C b) { return {a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x}; }   \
  inline C cuCdiv##F(C a, C b) {                                                            \
    T scale = 1 / (std::fabs(b.x) + std::fabs(b.y));                                        \
    C n = {a.x * scale, a.y * scale}, d = {b.x * scale, b.y * scale};                       \
    T over = 1 / (d.x * d.x + d.y * d.y);                                                   \
    return {(n.x * d.x + n.y * d.y) * over, (n.y * d.x - n.x * d.y) * over};                \
  }                                                                                         \
  inline T cuCabs##F(C a) {                                                                 \
    T x = std::fabs(a.x), y = std::fabs(a.y), large = x > y ? x : y, small = x > y ? y : x; \
    if (large == 0 || std::isinf(large) || std::isinf(small)) return large + small;         \
    T ratio = small / large;                                                                \
    return large * std::sqrt(1 + ratio * ratio);                                            \
  }                                                                                         \
  inline C cuCfma##F(C a, C b, C c) {                                                       \
    return {(a.x * b.x + c.x) - a.y * b.y, (a.x * b.y + c.y) + a.y * b.x};                  \
  }
GCE_COMPLEX(cuFloatComplex, float, f)
GCE_COMPLEX(cuDoubleComplex, double, )
#undef GCE_COMPLEX
inline float2 make_cuFloatComplex(float x, float y) { return {x, y}; }
inline float2 make_cuComplex(float x, float y) { return {x, y}; }
inline double2 make_cuDoubleComplex(double x, double y) { return {x, y}; }
inline float2 cuComplexDoubleToFloat(double2 a) { return {(float)a.x, (float)a.y}; }
inline double2 cuComplexFloatToDouble(float2 a) { return {a.x, a.y}; }
