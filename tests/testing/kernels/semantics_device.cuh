#pragma once
#ifndef OFFSET
#define OFFSET 1
#endif
template <int BY, typename T> __device__ __forceinline__ T times(T v) { return v * BY; }
