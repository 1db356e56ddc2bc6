// SPDX-License-Identifier: MIT
// Thin wrappers over the instructions of Hopper (sm_90a): mbarrier, bulk tensor copies (TMA), wgmma,
// stmatrix, setmaxnreg, clusters; and the tensor maps that the copies read. A wrapper is one
// instruction; kernels call them only where RETNET_SM90A is 1, so that a file with kernels compiles
// for every target.
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <initializer_list>
#include <type_traits>

#include "retnet/cuda/error.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define RETNET_SM90A 1
#else
#define RETNET_SM90A 0
#endif

namespace retnet::cuda {

/// Its launch bound says which target the running code was compiled for.
template <int = 0>
__global__ void __launch_bounds__(RETNET_SM90A ? 64 : 32) sm90a_probe() {}

/// True when this program carries code for sm_90a and the current device runs it.
inline bool compiled_for_sm90a() {
  cudaFuncAttributes a{};
  const bool known = cudaFuncGetAttributes(&a, sm90a_probe<0>) == cudaSuccess;
  if (!known) cudaGetLastError();
  return known && a.maxThreadsPerBlock == 64;
}

// ---- Tensor maps (host) -------------------------------------------------------------------------

/// A map for tiles of 16-bit elements, innermost dimension first, stored in shared memory with the
/// 128-byte swizzle (so box[0] <= 64). strides are in bytes and leave out the innermost, a multiple
/// of 16 like `data`; what lies outside `dims` reads as zero and is not written. The driver's entry
/// point is asked of the runtime, so that nothing links to libcuda.
template <class T>
CUtensorMap tensor_map(const T* data, std::initializer_list<std::uint64_t> dims,
                       std::initializer_list<std::uint64_t> strides,
                       std::initializer_list<std::uint32_t> box) {
  static_assert(sizeof(T) == 2);
  using Encode = decltype(&cuTensorMapEncodeTiled);
  static const Encode encode = [] {
    void* f = nullptr;
    cudaDriverEntryPointQueryResult found{};
    RETNET_CUDA(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &f, 12000,
                                                 cudaEnableDefault, &found));
    if (found != cudaDriverEntryPointSuccess || f == nullptr)
      fail("cudaGetDriverEntryPointByVersion", "no cuTensorMapEncodeTiled", __FILE__, __LINE__, "");
    return reinterpret_cast<Encode>(f);
  }();
  constexpr bool kBf16 = std::is_same_v<std::remove_const_t<T>, __nv_bfloat16>;
  constexpr cuuint32_t kOnes[5] = {1, 1, 1, 1, 1};
  CUtensorMap map;
  const CUresult code =
      encode(&map, kBf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
             static_cast<cuuint32_t>(dims.size()), const_cast<std::remove_const_t<T>*>(data),
             reinterpret_cast<const cuuint64_t*>(dims.begin()),
             reinterpret_cast<const cuuint64_t*>(strides.begin()), box.begin(), kOnes,
             CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (code != CUDA_SUCCESS)
    fail("cuTensorMapEncodeTiled", concat("code ", static_cast<int>(code)), __FILE__, __LINE__,
         concat("dims ", *dims.begin(), ",", dims.begin()[1], ",.. strides ", *strides.begin(),
                ",.."));
  return map;
}

// ---- Addresses ----------------------------------------------------------------------------------

__device__ __forceinline__ std::uint32_t shared_address(const void* p) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}

/// Byte offset in a tile of 128-byte rows (64 elements of 16 bits) as the 128-byte swizzle stores it;
/// the tile starts at a multiple of 1024 bytes. piece: the 16-byte piece of the row, 0 to 7.
__device__ __forceinline__ std::uint32_t swizzled(int row, int piece) {
  return static_cast<std::uint32_t>(row * 128 + ((piece ^ (row & 7)) << 4));
}

// ---- mbarrier -----------------------------------------------------------------------------------

__device__ __forceinline__ void mbarrier_init(std::uint64_t* bar, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(bar)), "r"(arrivals)
               : "memory");
}
/// Makes initialised barriers visible to the copy engine and to the cluster.
__device__ __forceinline__ void fence_mbarrier_init() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ __forceinline__ void mbarrier_arrive(std::uint64_t* bar) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(bar)) : "memory");
}
/// Arrives at the same barrier of another block of the cluster.
__device__ __forceinline__ void mbarrier_arrive_remote(std::uint64_t* bar, int block) {
  asm volatile(
      "{ .reg .b32 remote;\n"
      "mapa.shared::cluster.u32 remote, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [remote]; }" ::"r"(shared_address(bar)),
      "r"(block)
      : "memory");
}
/// One arrival, and `bytes` more to come from copies before the phase ends.
__device__ __forceinline__ void mbarrier_arrive_expect(std::uint64_t* bar, std::uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(bar)),
               "r"(bytes)
               : "memory");
}
__device__ __forceinline__ bool mbarrier_try_wait(std::uint64_t* bar, std::uint32_t parity) {
  std::uint32_t done;
  asm volatile(
      "{ .reg .pred p;\n"
      "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
      "selp.u32 %0, 1, 0, p; }"
      : "=r"(done)
      : "r"(shared_address(bar)), "r"(parity)
      : "memory");
  return done != 0;
}
/// Waits until the phase of this parity has ended. With RETNET_CUDA_BOUNDED_WAITS a wait that never
/// ends becomes a trap.
__device__ __forceinline__ void mbarrier_wait(std::uint64_t* bar, std::uint32_t parity) {
#ifdef RETNET_CUDA_BOUNDED_WAITS
  const long long start = clock64();
  while (!mbarrier_try_wait(bar, parity))
    if (clock64() - start > (1LL << 30)) __trap();  // about half a second
#else
  while (!mbarrier_try_wait(bar, parity)) {
  }
#endif
}

// ---- Bulk tensor copies -------------------------------------------------------------------------

__device__ __forceinline__ void tma_prefetch(const CUtensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}
__device__ __forceinline__ void tma_load(void* to, const CUtensorMap* map, std::uint64_t* bar,
                                         int x, int y, int z) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, "
      "%4, %5}], [%2];" ::"r"(shared_address(to)),
      "l"(map), "r"(shared_address(bar)), "r"(x), "r"(y), "r"(z)
      : "memory");
}
__device__ __forceinline__ void tma_load(void* to, const CUtensorMap* map, std::uint64_t* bar,
                                         int x, int y, int z, int w) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, "
      "%4, %5, %6}], [%2];" ::"r"(shared_address(to)),
      "l"(map), "r"(shared_address(bar)), "r"(x), "r"(y), "r"(z), "r"(w)
      : "memory");
}
/// The tile goes to the same address of every block in `blocks` (a bit each) and counts on the same
/// barrier there.
__device__ __forceinline__ void tma_load_multicast(void* to, const CUtensorMap* map,
                                                   std::uint64_t* bar, std::uint16_t blocks, int x,
                                                   int y, int z, int w) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::"
      "cluster [%0], [%1, {%4, %5, %6, %7}], [%2], %3;" ::"r"(shared_address(to)),
      "l"(map), "r"(shared_address(bar)), "h"(blocks), "r"(x), "r"(y), "r"(z), "r"(w)
      : "memory");
}
__device__ __forceinline__ void tma_load_multicast(void* to, const CUtensorMap* map,
                                                   std::uint64_t* bar, std::uint16_t blocks, int x,
                                                   int y, int z) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::"
      "cluster [%0], [%1, {%4, %5, %6}], [%2], %3;" ::"r"(shared_address(to)),
      "l"(map), "r"(shared_address(bar)), "h"(blocks), "r"(x), "r"(y), "r"(z)
      : "memory");
}
__device__ __forceinline__ void tma_store(const CUtensorMap* map, const void* from, int x, int y,
                                          int z) {
  asm volatile(
      "cp.async.bulk.tensor.3d.global.shared::cta.bulk_group [%0, {%2, %3, %4}], [%1];" ::"l"(map),
      "r"(shared_address(from)), "r"(x), "r"(y), "r"(z)
      : "memory");
}
__device__ __forceinline__ void tma_store(const CUtensorMap* map, const void* from, int x, int y,
                                          int z, int w) {
  asm volatile(
      "cp.async.bulk.tensor.4d.global.shared::cta.bulk_group [%0, {%2, %3, %4, %5}], [%1];" ::"l"(
          map),
      "r"(shared_address(from)), "r"(x), "r"(y), "r"(z), "r"(w)
      : "memory");
}
__device__ __forceinline__ void tma_store_commit() {
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}
/// At most kPending of this thread's committed stores still read shared memory.
template <int kPending>
__device__ __forceinline__ void tma_store_wait_read() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(kPending) : "memory");
}
/// At most kPending of this thread's committed stores are still under way.
template <int kPending>
__device__ __forceinline__ void tma_store_wait() {
  asm volatile("cp.async.bulk.wait_group %0;" ::"n"(kPending) : "memory");
}
/// Ordinary writes of shared memory before it are seen by copies and wgmma after it.
__device__ __forceinline__ void fence_proxy_async() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// ---- Warps, blocks, clusters --------------------------------------------------------------------

/// A barrier of `threads` threads of the block; 0 is __syncthreads.
__device__ __forceinline__ void named_barrier(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
template <int kRegisters>
__device__ __forceinline__ void registers_release() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void registers_acquire() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
__device__ __forceinline__ int cluster_rank() {
  int r;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(r));
  return r;
}
__device__ __forceinline__ void cluster_sync() {
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::
                   : "memory");
}

// ---- Matrices of 8x8 16-bit elements ------------------------------------------------------------
// Lane l gives the address of row l % 8 of matrix l / 8; in registers lane l holds columns 2(l%4),
// 2(l%4)+1 of row l / 4 of each. _t: transposed on the way.

__device__ __forceinline__ void ldmatrix(std::uint32_t (&r)[4], std::uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}
__device__ __forceinline__ void ldmatrix_t(std::uint32_t (&r)[4], std::uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}
__device__ __forceinline__ void stmatrix(std::uint32_t address, std::uint32_t a, std::uint32_t b,
                                         std::uint32_t c, std::uint32_t d) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
               "r"(a), "r"(b), "r"(c), "r"(d)
               : "memory");
}
__device__ __forceinline__ void stmatrix_t(std::uint32_t address, std::uint32_t a, std::uint32_t b,
                                           std::uint32_t c, std::uint32_t d) {
  asm volatile(
      "stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
      "r"(a), "r"(b), "r"(c), "r"(d)
      : "memory");
}

/// Two floats in one register, `low` in the low half.
template <class T>
__device__ __forceinline__ std::uint32_t pack(float low, float high) {
  std::uint32_t r;
  if constexpr (std::is_same_v<T, __nv_bfloat16>)
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  else
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}
template <class T>
__device__ __forceinline__ float2 unpack(std::uint32_t r) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>)
    return {__uint_as_float(r << 16), __uint_as_float(r & 0xFFFF0000u)};
  else
    return __half22float2(*reinterpret_cast<const __half2*>(&r));
}

// ---- wgmma --------------------------------------------------------------------------------------
// D [64,N] += A [64,16] B [16,N], D float in registers, by the four warps of a warpgroup. Warp w holds
// rows 16w to 16w+15: d[4n+e] is row 16w + lane/4 + 8(e/2), column 8n + 2(lane%4) + e%2. A in
// registers: a[0], a[1] rows lane/4 and +8, columns 2(lane%4), +1; a[2], a[3] the same 8 columns on;
// so columns 16s to 16s+15 of a D are, packed, the A of step s.
//
// Operands in shared memory are tiles of 128-byte rows with the 128-byte swizzle, as tensor_map stores
// them. Depth-major ("K-major"): a row is a row of A or a column of B, 64 of depth: matrix_tile(p), the
// next 16 of depth 32 bytes on. Width-major (transposed, kA/kB = 1): a row is one step of depth, 64 of
// M or N: matrix_tile(p, bytes from one 64 of N to the next), the next 16 of depth 2048 bytes on.

/// leading: distance between tiles 64 apart in N (width-major only). Groups of 8 rows are 1024 bytes
/// apart.
__device__ __forceinline__ std::uint64_t matrix_tile(std::uint32_t address,
                                                     std::uint32_t leading = 16) {
  return (std::uint64_t{1} << 62) | (std::uint64_t{1024 >> 4} << 32) |
         (static_cast<std::uint64_t>(leading >> 4) << 16) | ((address & 0x3FFFFu) >> 4);
}
/// The tile `bytes` on.
__device__ __forceinline__ std::uint64_t advance(std::uint64_t tile, std::uint32_t bytes) {
  return tile + (bytes >> 4);
}

/// Before the first wgmma, and after registers it uses were written by anything else.
__device__ __forceinline__ void wgmma_fence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int kPending>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
/// Keeps the compiler from moving reads of an accumulator above the wait before it.
template <int kSize>
__device__ __forceinline__ void pin(float (&d)[kSize]) {
#pragma unroll
  for (int i = 0; i < kSize; ++i) asm volatile("" : "+f"(d[i]));
}
template <int kSize>
__device__ __forceinline__ void pin(std::uint32_t (&d)[kSize]) {
#pragma unroll
  for (int i = 0; i < kSize; ++i) asm volatile("" : "+r"(d[i]));
}

// clang-format off
#define RETNET_WGMMA_D16 \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define RETNET_WGMMA_D32                                                      \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15" ", " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define RETNET_WGMMA_D64                                                                \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15" ", "           \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31" ", " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47" ", " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define RETNET_WGMMA_D128                                                                           \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15" ", "                       \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31" ", "             \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47" ", "             \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63" ", "             \
  "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79" ", "             \
  "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95" ", "             \
  "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111" ", " \
  "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
// clang-format on
#define RETNET_WGMMA_4(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define RETNET_WGMMA_16(d, i)                                               \
  RETNET_WGMMA_4(d, i), RETNET_WGMMA_4(d, i + 4), RETNET_WGMMA_4(d, i + 8), \
      RETNET_WGMMA_4(d, i + 12)
#define RETNET_WGMMA_32(d, i) RETNET_WGMMA_16(d, i), RETNET_WGMMA_16(d, i + 16)
#define RETNET_WGMMA_64(d, i) RETNET_WGMMA_32(d, i), RETNET_WGMMA_32(d, i + 32)
#define RETNET_WGMMA_128(d, i) RETNET_WGMMA_64(d, i), RETNET_WGMMA_64(d, i + 64)

// One width and type: A by a descriptor, and A in registers. SIZE = N/2 registers of D, numbered from
// %0; P0 to P6 are the operand numbers after them.
#define RETNET_WGMMA(SIZE, N, TYPE, NAME, P0, P1, P2, P3, P4, P5, P6)                             \
  if constexpr (std::is_same_v<T, TYPE> && kSize == SIZE) {                                       \
    if constexpr (kRegisters)                                                                     \
      asm volatile("{ .reg .pred p;\nsetp.ne.b32 p, %" #P5                                        \
                   ", 0;\n"                                                                       \
                   "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." NAME "." NAME                \
                   " {" RETNET_WGMMA_D##SIZE "}, {%" #P0 ", %" #P1 ", %" #P2 ", %" #P3 "}, %" #P4 \
                                             ", p, 1, 1, %" #P6 "; }"                             \
                   : RETNET_WGMMA_##SIZE(d, 0)                                                    \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(int{accumulate}),    \
                     "n"(kB));                                                                    \
    else                                                                                          \
      asm volatile("{ .reg .pred p;\nsetp.ne.b32 p, %" #P2                                        \
                   ", 0;\n"                                                                       \
                   "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." NAME "." NAME                \
                   " {" RETNET_WGMMA_D##SIZE "}, %" #P0 ", %" #P1 ", p, 1, 1, %" #P3 ", %" #P4    \
                                             "; }"                                                \
                   : RETNET_WGMMA_##SIZE(d, 0)                                                    \
                   : "l"(*a), "l"(b), "r"(int{accumulate}), "n"(kA), "n"(kB));                    \
  }
#define RETNET_WGMMA_TYPES(SIZE, N, P0, P1, P2, P3, P4, P5, P6)            \
  RETNET_WGMMA(SIZE, N, __nv_bfloat16, "bf16", P0, P1, P2, P3, P4, P5, P6) \
  RETNET_WGMMA(SIZE, N, __half, "f16", P0, P1, P2, P3, P4, P5, P6)

template <class T, int kA, int kB, bool kRegisters, int kSize, class A>
__device__ __forceinline__ void wgmma_any(float (&d)[kSize], const A* a, std::uint64_t b,
                                          bool accumulate) {
  static_assert(kSize == 16 || kSize == 32 || kSize == 64 || kSize == 128);
  RETNET_WGMMA_TYPES(16, 32, 16, 17, 18, 19, 20, 21, 22)
  RETNET_WGMMA_TYPES(32, 64, 32, 33, 34, 35, 36, 37, 38)
  RETNET_WGMMA_TYPES(64, 128, 64, 65, 66, 67, 68, 69, 70)
  RETNET_WGMMA_TYPES(128, 256, 128, 129, 130, 131, 132, 133, 134)
}
#undef RETNET_WGMMA_TYPES
#undef RETNET_WGMMA
#undef RETNET_WGMMA_128
#undef RETNET_WGMMA_64
#undef RETNET_WGMMA_32
#undef RETNET_WGMMA_16
#undef RETNET_WGMMA_4
#undef RETNET_WGMMA_D128
#undef RETNET_WGMMA_D64
#undef RETNET_WGMMA_D32
#undef RETNET_WGMMA_D16

/// A and B in shared memory. kA, kB: 1 when that operand is stored width-major. N = 2 kSize.
template <class T, int kA = 0, int kB = 0, int kSize>
__device__ __forceinline__ void wgmma(float (&d)[kSize], std::uint64_t a, std::uint64_t b,
                                      bool accumulate) {
  wgmma_any<T, kA, kB, false>(d, &a, b, accumulate);
}
/// A in registers.
template <class T, int kB = 0, int kSize>
__device__ __forceinline__ void wgmma(float (&d)[kSize], const std::uint32_t (&a)[4],
                                      std::uint64_t b, bool accumulate) {
  wgmma_any<T, 0, kB, true>(d, a, b, accumulate);
}

}  // namespace retnet::cuda
