// The emulator's own side of a library, compiled once to an object file: build.py.
#pragma once

#include "scheduler.hpp"
#include "rendezvous.hpp"
#if GCE_CHECK
#include "hooks.hpp"
#endif
#include "launch.hpp"
