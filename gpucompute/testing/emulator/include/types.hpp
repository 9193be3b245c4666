// dim3 and the vector types of CUDA C++, with its alignments ("Built-in vector types" in the CUDA C++ programming
// guide).
#pragma once

#define GCE_VECTOR(T, NAME, ALIGN2, ALIGN4)                          \
  struct NAME##1 { T x; };                                           \
  struct alignas(ALIGN2) NAME##2 { T x, y; };                        \
  struct NAME##3 { T x, y, z; };                                     \
  struct alignas(ALIGN4) NAME##4 { T x, y, z, w; };                  \
  inline NAME##1 make_##NAME##1(T x) { return {x}; }                 \
  inline NAME##2 make_##NAME##2(T x, T y) { return {x, y}; }         \
  inline NAME##3 make_##NAME##3(T x, T y, T z) { return {x, y, z}; } \
  inline NAME##4 make_##NAME##4(T x, T y, T z, T w) { return {x, y, z, w}; }

GCE_VECTOR(signed char, char, 2, 4)
GCE_VECTOR(unsigned char, uchar, 2, 4)
GCE_VECTOR(short, short, 4, 8)
GCE_VECTOR(unsigned short, ushort, 4, 8)
GCE_VECTOR(int, int, 8, 16)
GCE_VECTOR(unsigned int, uint, 8, 16)
GCE_VECTOR(long, long, 2 * sizeof(long), 16)
GCE_VECTOR(unsigned long, ulong, 2 * sizeof(long), 16)
GCE_VECTOR(long long, longlong, 16, 16)
GCE_VECTOR(unsigned long long, ulonglong, 16, 16)
GCE_VECTOR(float, float, 8, 16)
GCE_VECTOR(double, double, 16, 16)
#undef GCE_VECTOR

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
  constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
  constexpr operator uint3() const { return {x, y, z}; }
};
