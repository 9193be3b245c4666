// Everything that CUDA C++ declares without an #include, and what the headers that kernels include would add.
#pragma once

#include <cfloat>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "types.hpp"
#include "complex.hpp"
#include "half.hpp"
#include "keywords.hpp"
#include "shared.hpp"
#include "warp.hpp"
#include "atomics.hpp"
#include "math.hpp"
#include "integers.hpp"
#include "simd.hpp"
#include "groups.hpp"
