// SPDX-License-Identifier: MIT
// The version, and the inline namespace that keeps differently compiled copies apart.
#pragma once

#if !defined(__cplusplus) || __cplusplus < 202002L
#error "retnet needs C++20: compile with -std=c++20 or newer"
#endif

#define RETNET_VERSION_MAJOR 0
#define RETNET_VERSION_MINOR 1
#define RETNET_VERSION_PATCH 0
#define RETNET_VERSION_STRING "0.1.0"

// The kernels' width follows the compiler's -m flags. Two translation units with different flags
// must not share one inline function, so the instruction set is part of every mangled name.
#if defined(__AVX512F__)
#define RETNET_ISA avx512
#elif defined(__AVX2__) && defined(__FMA__)
#define RETNET_ISA avx2
#elif defined(__aarch64__)
#define RETNET_ISA neon
#elif defined(__SSE2__)
#define RETNET_ISA sse2
#else
#define RETNET_ISA scalar
#endif

#define RETNET_CONCAT_(a, b) a##b
#define RETNET_CONCAT(a, b) RETNET_CONCAT_(a, b)
#define RETNET_ABI RETNET_CONCAT(v0_1_, RETNET_ISA)
