// SPDX-License-Identifier: MIT
// Chunkwise retention for Hopper in one pass over device memory. A block owns one head of one sequence
// (or of a segment of it) and 64 or 128 columns of the values; its state stays in registers from the
// first token to the last, float, transposed: S^T [Dv,Dk] is the accumulator of wgmma, and rounded it
// is the next one's register operand. For a chunk of 64 tokens, i and j counted from its start:
//
//   P_ij = q_i k_j^T g^-(j+1)  for j <= i, else 0                           scores warpgroup
//   O^T  = [S^T Q^T + V^T P^T] D(g^(i+1))       [Dv,64]                      state warpgroups, 64 rows
//   S^T' = g^64 S^T + (V^T D(g^(63-j))) K       [Dv,Dk]                      of Dv each
//
// so no score needs an exponential of its own. Where g^-64 would leave the type, and where every token
// has its own decay, c_i = log2 of the decay from the chunk's start to i goes beside the chunk instead:
//
//   P_ij = q_i k_j^T 2^(c_i - c_j)      O^T = S^T Q^T D(2^c_i) + V^T P^T
//   S^T' = 2^c_63 S^T + (V^T D(2^(c_63 - c_j))) K
//
// Warpgroups: one copies (TMA, rings of chunks), one makes P and stores it to shared memory, one or two
// hold the state. The blocks of one head's columns read Q and K at about the same time, all but the
// first from the L2 cache: clusters that share a copy measured slower, for they do not fill the chip.
#pragma once

#include <algorithm>
#include <cmath>

#include "retnet/cuda/detail/sm90_serves.cuh"
#include "retnet/cuda/device.cuh"
#include "retnet/cuda/ptx.cuh"
#include "retnet/cuda/retention_problem.cuh"

namespace retnet::cuda {

inline constexpr int kSm90Chunk = 64;
inline constexpr int kSm90Tile = 64 * 64 * 2;  // bytes of 64 rows of 128 bytes

enum class Sm90Pass {
  fixed,   // outputs, powers of g folded into P and O
  gated,   // outputs, differences of exponents
  states,  // the state at the end of a segment, fixed decay
};

/// Sizes of one kernel: T is a 16-bit type, kDk the key size, kDv the value columns of a block.
template <class T, int kDk_, int kDv_, Sm90Pass kPass>
struct Sm90Forward {
  using Element = T;
  static constexpr int kDk = kDk_, kDv = kDv_;
  static constexpr bool kOutputs = kPass != Sm90Pass::states, kGated = kPass == Sm90Pass::gated;
  static constexpr int kKeyTiles = kDk / 64;
  static constexpr int kValueTiles = kDv / 64;  // also the number of state warpgroups
  static constexpr int kScoreTiles = kOutputs ? 2 : 0;
  static constexpr int kOutputTiles = kOutputs ? kValueTiles : 0;
  // Two blocks share a multiprocessor where the sizes are small.
  static constexpr int kBlocks = kDk == 64 && kDv == 64 ? 2 : 1;
  static constexpr int kFreeTiles = (kBlocks == 2 ? 13 : 28) - kScoreTiles - kOutputTiles;
  // Chunks of Q, K and V in shared memory. K is needed longest: by the scores, a chunk ahead of the
  // states, and by the state's update at a chunk's very end.
  static constexpr bool kTight = kOutputs && kDk == 256;
  static constexpr int kEqual =
      std::min(kGated ? 3 : 4, kFreeTiles / ((kOutputs ? 2 : 1) * kKeyTiles + kValueTiles));
  static constexpr int kQ = kTight ? 2 : kOutputs ? kEqual : 0;
  static constexpr int kK = kTight ? 3 : kEqual;
  static constexpr int kV = kTight ? 2 : kEqual;
  static constexpr int kWarpgroups = 1 + (kOutputs ? 1 : 0) + kValueTiles;
  static constexpr int kThreads = 128 * kWarpgroups;
  // Of the state's update: 256 would need more registers than a thread has before setmaxnreg.
  static constexpr int kWidth = std::min(kDk, 128);
  static constexpr int kStateRegisters = kBlocks == 2 ? 144 : 208;
  static constexpr int kTables = kGated ? 208 * kK : 256;  // floats
  static constexpr int kBytes =
      ((kQ + kK) * kKeyTiles + kV * kValueTiles + kScoreTiles + kOutputTiles) * kSm90Tile +
      kTables * 4 + 256;
  static_assert(kBytes <= 232448 / kBlocks);
};

struct Sm90ForwardMaps {
  CUtensorMap q, k, v, o;
};

struct Sm90ForwardArguments {
  DeviceDecay decay;
  DeviceSequences sequences;
  const float* initial;
  float* final_state;
  void* o;  // for ragged ends of packed sequences
  std::int64_t o_stride;
  DeviceRows<const float> log_gate;
  int heads, group, value_dim, slices;
  int segments, segment_length;
  float* segment_states;  // [N,segments,H,slices] states in the order of the registers
};

#if RETNET_SM90A

/// What one block works on.
struct Sm90Work {
  int sequence, head, segment, slice;
  int first;       // row of the sequence's first token in the maps
  int plane;       // of the maps: the sequence when dense
  int begin, end;  // tokens
  bool last;       // the sequence ends here
  float log2_gamma;

  template <class P>
  __device__ static Sm90Work of_block(const Sm90ForwardArguments& a) {
    Sm90Work w;
    int i = static_cast<int>(blockIdx.x);
    w.slice = i % a.slices, i /= a.slices;
    w.head = i % a.heads, i /= a.heads;
    const int segments = P::kOutputs ? a.segments : a.segments - 1;
    w.segment = i % segments, w.sequence = i / segments;
    const bool packed = a.sequences.cu_seqlens != nullptr;
    const int length = static_cast<int>(a.sequences.length_of(w.sequence));
    w.first = packed ? a.sequences.cu_seqlens[w.sequence] : 0;
    w.plane = packed ? 0 : w.sequence;
    w.begin = w.segment * a.segment_length;
    w.end = min(length, w.begin + a.segment_length);
    w.last = w.end == length;
    w.log2_gamma = a.decay.log2_gamma[w.head];
    if constexpr (!P::kOutputs) {
      // What is older than 2^-26 cannot be seen in the segment's end state: start later.
      const float seen = 26.0f / fmaxf(-w.log2_gamma, 1e-9f);
      if (seen < static_cast<float>(w.end - w.begin))
        w.begin = max(w.begin, w.end - (static_cast<int>(seen) / kSm90Chunk + 1) * kSm90Chunk);
    }
    return w;
  }
  __device__ int chunks() const { return max(0, (end - begin + kSm90Chunk - 1) / kSm90Chunk); }
};

/// Shared memory: rings of Q, K and V tiles, P twice, O once a warpgroup, tables, barriers.
template <class P>
struct Sm90ForwardShared {
  unsigned char* base;

  __device__ unsigned char* tile(int i) const { return base + i * kSm90Tile; }
  __device__ unsigned char* q(int slot) const { return tile(slot * P::kKeyTiles); }
  __device__ unsigned char* k(int slot) const { return tile((P::kQ + slot) * P::kKeyTiles); }
  __device__ unsigned char* v(int slot, int group) const {
    return tile((P::kQ + P::kK) * P::kKeyTiles + slot * P::kValueTiles + group);
  }
  __device__ unsigned char* p(int i) const { return v(P::kV, i); }
  __device__ unsigned char* o(int group) const { return p(P::kScoreTiles + group); }
  __device__ float* tables() const {
    return reinterpret_cast<float*>(p(P::kScoreTiles + P::kOutputTiles));
  }
  // Gated, each slot of K has weights of its own: [64] c_i, [64] 2^c_i, [64] 2^(c_63-c_j), 2^c_63.
  __device__ float* weights(int slot) const { return tables() + (P::kGated ? 208 * slot : 0); }
  __device__ float* score_weight(int slot) const { return weights(slot); }        // [64] g^-(j+1)
  __device__ float* output_weight(int slot) const { return weights(slot) + 64; }  // [64] g^(i+1)
  // [128] g^(63-j), then zeros
  __device__ float* value_weight(int slot) const { return weights(slot) + 128; }
  __device__ float* chunk_weight(int slot) const { return weights(slot) + 192; }  // gated
  __device__ std::uint64_t* barrier(int i) const {
    return reinterpret_cast<std::uint64_t*>(tables() + P::kTables) + i;
  }
  __device__ std::uint64_t* q_full(int slot) const { return barrier(slot); }
  __device__ std::uint64_t* q_empty(int slot) const { return barrier(4 + slot); }
  __device__ std::uint64_t* k_full(int slot) const { return barrier(8 + slot); }
  __device__ std::uint64_t* k_empty(int slot) const { return barrier(12 + slot); }
  __device__ std::uint64_t* v_full(int slot) const { return barrier(16 + slot); }
  __device__ std::uint64_t* v_empty(int slot) const { return barrier(20 + slot); }
  __device__ std::uint64_t* p_full(int i) const { return barrier(24 + i); }
  __device__ std::uint64_t* p_empty(int i) const { return barrier(26 + i); }
};

/// Position in a ring of kSlots and the parity of its present round.
template <int kSlots>
struct Sm90Ring {
  int slot = 0;
  std::uint32_t parity = 0;
  __device__ void next() {
    if (++slot == kSlots) slot = 0, parity ^= 1;
  }
};

/// A warp has done with tiles.
__device__ __forceinline__ void sm90_release(std::uint64_t* empty) {
  if (threadIdx.x % 32 == 0) mbarrier_arrive(empty);
}

/// One thread copies every chunk's Q, K, V, in the order in which their places become free.
template <class P>
__device__ void sm90_copy(const Sm90ForwardShared<P>& s, const Sm90ForwardMaps& maps,
                          const Sm90ForwardArguments& a, const Sm90Work& w) {
  const int kv_head = w.head / a.group;
  const int q_tile = w.head * P::kKeyTiles, k_tile = kv_head * P::kKeyTiles;
  const int v_tile = kv_head * (a.value_dim / 64) + w.slice * P::kValueTiles;
  Sm90Ring<P::kQ> q;
  Sm90Ring<P::kK> k;
  Sm90Ring<P::kV> v;
  for (int n = 0, count = w.chunks(); n < count; ++n, q.next(), k.next(), v.next()) {
    const int row = w.first + w.begin + n * kSm90Chunk;
    const auto copy = [&](auto at, unsigned char* to, const CUtensorMap& map, std::uint64_t* full,
                          std::uint64_t* empty, int tile, int tiles) {
      mbarrier_wait(empty, at.parity ^ 1);
      mbarrier_arrive_expect(full, tiles * kSm90Tile);
      tma_load(to, &map, full, 0, row, tile, w.plane);
    };
    copy(k, s.k(k.slot), maps.k, s.k_full(k.slot), s.k_empty(k.slot), k_tile, P::kKeyTiles);
    if constexpr (P::kOutputs)
      copy(q, s.q(q.slot), maps.q, s.q_full(q.slot), s.q_empty(q.slot), q_tile, P::kKeyTiles);
    copy(v, s.v(v.slot, 0), maps.v, s.v_full(v.slot), s.v_empty(v.slot), v_tile, P::kValueTiles);
  }
}

/// One warp sums the decays of every chunk; lane l has tokens 2l and 2l + 1.
template <class P>
__device__ void sm90_weigh(const Sm90ForwardShared<P>& s, const Sm90ForwardArguments& a,
                           const Sm90Work& w) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const std::int64_t first =
      w.first + (a.sequences.cu_seqlens != nullptr ? 0 : w.plane * a.sequences.length);
  const auto decay = [&](int token) {  // log2; what is below 2^-160 is zero in a float
    if (token >= w.end) return 0.0f;
    if (!a.log_gate) return w.log2_gamma;
    return fmaxf(1.44269504f * a.log_gate.row(first + token)[w.head], -160.0f);
  };
  Sm90Ring<P::kK> ring;
  for (int n = 0, count = w.chunks(); n < count; ++n, ring.next()) {
    const int token = w.begin + n * kSm90Chunk + 2 * lane;
    const float one = decay(token), both = one + decay(token + 1);
    float sum = both;
#pragma unroll
    for (int d = 1; d < 32; d *= 2) {
      const float before = __shfl_up_sync(0xFFFFFFFF, sum, d);
      if (lane >= d) sum += before;
    }
    const float all = __shfl_sync(0xFFFFFFFF, sum, 31);
    const float2 c{sum - both + one, sum};
    mbarrier_wait(s.k_empty(ring.slot), ring.parity ^ 1);
    float* weight = s.weights(ring.slot);
    reinterpret_cast<float2*>(weight)[lane] = c;
    reinterpret_cast<float2*>(weight + 64)[lane] = {exp2f(c.x), exp2f(c.y)};
    reinterpret_cast<float2*>(weight + 128)[lane] = {token < w.end ? exp2f(all - c.x) : 0.0f,
                                                     token + 1 < w.end ? exp2f(all - c.y) : 0.0f};
    if (lane == 0) *s.chunk_weight(ring.slot) = exp2f(all);
    __syncwarp();
    if (lane == 0) mbarrier_arrive(s.k_full(ring.slot));
  }
}

/// P of every chunk, bf16, [64 i][64 j] in a swizzled tile: a B operand. Runs ahead of the state
/// warpgroups by up to two chunks.
template <class P>
__device__ void sm90_scores(const Sm90ForwardShared<P>& s, const Sm90ForwardArguments& a,
                            const Sm90Work& w) {
  using T = typename P::Element;
  const int thread = static_cast<int>(threadIdx.x) % 128, warp = thread / 32, lane = thread % 32;
  const int row = 16 * warp + lane / 4, column = 2 * (lane % 4);
  const int out_row = 16 * warp + lane % 16, out_piece = lane / 16;
  Sm90Ring<P::kQ> qs;
  Sm90Ring<P::kK> ks;
  Sm90Ring<2> out;
  for (int n = 0, count = w.chunks(); n < count; ++n, qs.next(), ks.next(), out.next()) {
    float p[32];  // [64,64] of the warpgroup
    mbarrier_wait(s.k_full(ks.slot), ks.parity);
    mbarrier_wait(s.q_full(qs.slot), qs.parity);
    const std::uint64_t q = matrix_tile(shared_address(s.q(qs.slot)));
    const std::uint64_t k = matrix_tile(shared_address(s.k(ks.slot)));
    wgmma_fence();
#pragma unroll
    for (int d = 0; d < P::kDk / 16; ++d) {
      const std::uint32_t on = (d / 4) * kSm90Tile + (d % 4) * 32;
      wgmma<T>(p, advance(q, on), advance(k, on), d > 0);
    }
    wgmma_commit();
    mbarrier_wait(s.p_empty(out.slot), out.parity ^ 1);
    wgmma_wait<0>();
    pin(p);
    sm90_release(s.q_empty(qs.slot));
    if constexpr (!P::kGated) sm90_release(s.k_empty(ks.slot));
    const float* weight = s.score_weight(ks.slot);
    const std::uint32_t to = shared_address(s.p(out.slot));
#pragma unroll
    for (int c = 0; c < 8; c += 2) {
      std::uint32_t r[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {  // matrices: rows +0, +8 of piece c, then of piece c + 1
        const int j = 8 * (c + i / 2) + column, from = 4 * (c + i / 2) + 2 * (i % 2);
        float2 g = *reinterpret_cast<const float2*>(weight + j);
        if constexpr (P::kGated)
          g = {exp2f(weight[row + 8 * (i % 2)] - g.x), exp2f(weight[row + 8 * (i % 2)] - g.y)};
        const int limit = row + 8 * (i % 2);
        r[i] =
            pack<T>(j <= limit ? p[from] * g.x : 0.0f, j + 1 <= limit ? p[from + 1] * g.y : 0.0f);
      }
      stmatrix(to + swizzled(out_row, c + out_piece), r[0], r[1], r[2], r[3]);
    }
    fence_proxy_async();
    mbarrier_arrive(s.p_full(out.slot));
    if constexpr (P::kGated) {  // the weights go with K
      __syncwarp();
      sm90_release(s.k_empty(ks.slot));
    }
  }
}

/// S^T of a state warpgroup: register 4n+e is row 16 warp + lane/4 + 8(e/2) of its 64 of Dv, column
/// 8n + 2(lane%4) + e%2 of Dk. Calls visit(register, offset in [Dk,Dv]).
template <class P, class Visit>
__device__ __forceinline__ void sm90_each(int value_dim, int slice, int group, const Visit& visit) {
  const int thread = static_cast<int>(threadIdx.x) % 128, warp = thread / 32, lane = thread % 32;
  const int dv = slice * P::kDv + 64 * group + 16 * warp + lane / 4, dk = 2 * (lane % 4);
#pragma unroll
  for (int i = 0; i < P::kDk / 2; ++i)
    visit(i, std::int64_t{8 * (i / 4) + dk + i % 2} * value_dim + dv + 8 * (i / 2 % 2));
}

/// The state before the first token of the work: the initial state, or what the segments before left.
template <class P>
__device__ __forceinline__ void sm90_begin(float (&state)[P::kDk / 2],
                                           const Sm90ForwardArguments& a, const Sm90Work& w,
                                           int group) {
#pragma unroll
  for (int i = 0; i < P::kDk / 2; ++i) state[i] = 0.0f;
  if (w.begin == 0 && w.segment == 0) {
    if (a.initial == nullptr) return;
    const float* from = a.initial + (std::int64_t{w.sequence} * a.heads + w.head) *
                                        (std::int64_t{P::kDk} * a.value_dim);
    sm90_each<P>(a.value_dim, w.slice, group, [&](int i, std::int64_t at) { state[i] = from[at]; });
  } else if constexpr (P::kOutputs) {
    const int thread = static_cast<int>(threadIdx.x) % 128;
    for (int r = w.segment - 1; r >= 0; --r) {
      const float g = exp2f(w.log2_gamma * static_cast<float>(a.segment_length) *
                            static_cast<float>(w.segment - 1 - r));
      if (g < 1e-9f) break;
      const std::int64_t block =
          ((std::int64_t{w.sequence} * (a.segments - 1) + r) * a.heads + w.head) * a.slices +
          w.slice;
      const float* from =
          a.segment_states + (block * P::kValueTiles + group) * (P::kDk / 2 * 128) + thread;
#pragma unroll
      for (int i = 0; i < P::kDk / 2; ++i) state[i] += g * from[i * 128];
    }
  }
}

template <class P>
__device__ __forceinline__ void sm90_end(const float (&state)[P::kDk / 2],
                                         const Sm90ForwardArguments& a, const Sm90Work& w,
                                         int group) {
  if constexpr (P::kOutputs) {
    if (a.final_state == nullptr || !w.last) return;
    float* to = a.final_state + (std::int64_t{w.sequence} * a.heads + w.head) *
                                    (std::int64_t{P::kDk} * a.value_dim);
    sm90_each<P>(a.value_dim, w.slice, group, [&](int i, std::int64_t at) { to[at] = state[i]; });
  } else {
    float* to = a.segment_states +
                (std::int64_t{blockIdx.x} * P::kValueTiles + group) * (P::kDk / 2 * 128) +
                threadIdx.x % 128;
#pragma unroll
    for (int i = 0; i < P::kDk / 2; ++i) to[i * 128] = state[i];
  }
}

/// Where a state warpgroup is in the rings.
template <class P>
struct Sm90Places {
  Sm90Ring<P::kQ> q;
  Sm90Ring<P::kK> k;
  Sm90Ring<P::kV> v;
  Sm90Ring<2> p;
  __device__ void next() { q.next(), k.next(), v.next(), p.next(); }
};

/// Parts of the state as register operands.
template <class P>
struct Sm90Rounded {
  static constexpr int kSteps = P::kDk > 128 ? 2 : 4;  // of 16 columns, a piece
  std::uint32_t piece[2][4 * kSteps];
};

/// O^T [64,64] of a warpgroup = S^T Q^T + V^T P^T, issued. The state is rounded piece by piece, two of
/// them in flight.
template <class P>
__device__ __forceinline__ void sm90_outputs(float (&o)[32], Sm90Rounded<P>& r,
                                             const float (&state)[P::kDk / 2],
                                             const Sm90ForwardShared<P>& s, const Sm90Places<P>& at,
                                             int group) {
  using T = typename P::Element;
  constexpr int kSteps = Sm90Rounded<P>::kSteps;
  auto& rounded = r.piece;
  const std::uint64_t q = matrix_tile(shared_address(s.q(at.q.slot)));
  const auto round = [&](int piece) {
#pragma unroll
    for (int i = 0; i < 4 * kSteps; ++i) {
      const int from = 8 * kSteps * piece + 2 * i;
      rounded[piece % 2][i] = pack<T>(state[from], state[from + 1]);
    }
  };
  constexpr int kPieces = P::kDk / 16 / kSteps;
  round(0);
  if constexpr (kPieces > 1) round(1);
  mbarrier_wait(s.q_full(at.q.slot), at.q.parity);
  wgmma_fence();
#pragma unroll
  for (int piece = 0; piece < kPieces; ++piece) {
    if (piece >= 2) {
      wgmma_wait<1>();
      pin(rounded[piece % 2]);
      round(piece);
      wgmma_fence();
    }
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      const int d = piece * kSteps + i;
      wgmma<T>(o, reinterpret_cast<std::uint32_t(&)[4]>(rounded[piece % 2][4 * i]),
               advance(q, d / 4 * kSm90Tile + d % 4 * 32), d > 0);
    }
    wgmma_commit();
  }
  mbarrier_wait(s.p_full(at.p.slot), at.p.parity);
  if constexpr (P::kGated) {
    wgmma_wait<0>();
    pin(o);
#pragma unroll
    for (int i = 0; i < 32; ++i)
      o[i] *= s.output_weight(at.k.slot)[8 * (i / 4) + 2 * (threadIdx.x % 4) + i % 2];
    pin(o);
    wgmma_fence();
  }
  const std::uint64_t v = matrix_tile(shared_address(s.v(at.v.slot, group)));
  const std::uint64_t p = matrix_tile(shared_address(s.p(at.p.slot)));
#pragma unroll
  for (int d = 0; d < 4; ++d) wgmma<T, 1, 0>(o, advance(v, d * 2048), advance(p, d * 32), true);
  wgmma_commit();
}

/// V^T D(weight of each token) as register operands for the 64 tokens of a chunk.
template <class P>
__device__ __forceinline__ void sm90_weighted_values(std::uint32_t (&va)[4][4],
                                                     const Sm90ForwardShared<P>& s, int slot,
                                                     int group, const float* weight, float ahead) {
  using T = typename P::Element;
  const int thread = static_cast<int>(threadIdx.x) % 128, warp = thread / 32, lane = thread % 32;
  const std::uint32_t v = shared_address(s.v(slot, group));
#pragma unroll
  for (int d = 0; d < 4; ++d) {
    ldmatrix_t(va[d], v + swizzled(16 * d + lane / 16 * 8 + lane % 8, 2 * warp + lane / 8 % 2));
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 g =
          *reinterpret_cast<const float2*>(weight + 16 * d + 8 * (i / 2) + 2 * (lane % 4));
      const float2 x = unpack<T>(va[d][i]);
      va[d][i] = pack<T>(x.x * g.x * ahead, x.y * g.y * ahead);
    }
  }
}

/// O^T, weighted, into a [64 i][64 dv] tile of shared memory and from there to device memory.
template <class P>
__device__ __forceinline__ void sm90_store(const float (&o)[32], const Sm90ForwardShared<P>& s,
                                           const Sm90ForwardMaps& maps,
                                           const Sm90ForwardArguments& a, const Sm90Work& w, int n,
                                           int group) {
  using T = typename P::Element;
  const int thread = static_cast<int>(threadIdx.x) % 128, warp = thread / 32, lane = thread % 32;
  const int column = w.head * a.value_dim + w.slice * P::kDv + 64 * group;
  const int token = w.begin + n * kSm90Chunk;
  unsigned char* tile = s.o(group);
  if (thread == 0) tma_store_wait_read<0>();  // the store of the chunk before
  named_barrier(1 + group, 128);
#pragma unroll
  for (int c = 0; c < 8; c += 2) {
    std::uint32_t r[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {  // matrices: dv +0, +8 of tokens 8c.., then of tokens 8(c+1)..
      const int from = 4 * (c + i / 2) + 2 * (i % 2);
      float2 g{1.0f, 1.0f};
      if constexpr (!P::kGated)
        g = *reinterpret_cast<const float2*>(s.output_weight(0) + 8 * (c + i / 2) + 2 * (lane % 4));
      r[i] = pack<T>(o[from] * g.x, o[from + 1] * g.y);
    }
    const int row = 8 * (c + lane / 16) + lane % 8;
    stmatrix_t(shared_address(tile) + swizzled(row, 2 * warp + lane / 8 % 2), r[0], r[1], r[2],
               r[3]);
  }
  const int left = w.end - token;
  if (a.sequences.cu_seqlens != nullptr && left < kSm90Chunk) {  // the next rows are another's
    named_barrier(1 + group, 128);
    T* to = static_cast<T*>(a.o) + (w.first + token) * a.o_stride + column;
    for (int i = thread; i < 8 * left; i += 128)
      *reinterpret_cast<uint4*>(to + i / 8 * a.o_stride + i % 8 * 8) =
          *reinterpret_cast<const uint4*>(tile + swizzled(i / 8, i % 8));
    return;
  }
  fence_proxy_async();
  named_barrier(1 + group, 128);
  if (thread == 0) {
    tma_store(&maps.o, tile, 0, w.first + token, column / 64, w.plane);
    tma_store_commit();
  }
}

/// Rows of K and V past the end of a packed sequence hold another's numbers: they become zero.
template <class P>
__device__ void sm90_clear_tail(const Sm90ForwardShared<P>& s, const Sm90Places<P>& at, int group,
                                int length) {
  const int thread = static_cast<int>(threadIdx.x) % 128;
  for (int tile = 0; tile <= P::kKeyTiles; ++tile) {
    unsigned char* x =
        tile < P::kKeyTiles ? s.k(at.k.slot) + tile * kSm90Tile : s.v(at.v.slot, group);
    for (int i = 8 * length + thread; i < 8 * kSm90Chunk; i += 128)
      *reinterpret_cast<uint4*>(x + 16 * i) = uint4{};
  }
  fence_proxy_async();
  named_barrier(1 + group, 128);
}

/// A state warpgroup: O^T and S^T over the chunks, for 64 of Dv.
template <class P>
__device__ __forceinline__ void sm90_states(const Sm90ForwardShared<P>& s,
                                            const Sm90ForwardMaps& maps,
                                            const Sm90ForwardArguments& a, const Sm90Work& w,
                                            int group) {
  using T = typename P::Element;
  float state[P::kDk / 2];
  sm90_begin<P>(state, a, w, group);
  Sm90Places<P> at;
  for (int n = 0, count = w.chunks(); n < count; ++n, at.next()) {
    const int length = min(kSm90Chunk, w.end - w.begin - n * kSm90Chunk);
    const bool ragged = length < kSm90Chunk;
    mbarrier_wait(s.k_full(at.k.slot), at.k.parity);
    mbarrier_wait(s.v_full(at.v.slot), at.v.parity);
    if (ragged && a.sequences.cu_seqlens != nullptr) sm90_clear_tail(s, at, group, length);
    float o[32];
    Sm90Rounded<P> rounded;
    if constexpr (P::kOutputs) sm90_outputs(o, rounded, state, s, at, group);

    // Once S^T Q^T is done its operands' registers are free. With 256 of them in the state there is no
    // room for the values' beside them.
    const auto release_rounded = [&] {
      if constexpr (P::kOutputs) {
        wgmma_wait<1>();
        pin(rounded.piece[0]);
        pin(rounded.piece[1]);
        sm90_release(s.q_empty(at.q.slot));
      }
    };
    if constexpr (P::kTight) release_rounded();
    std::uint32_t va[4][4];
    const float g =
        P::kGated ? *s.chunk_weight(at.k.slot) : exp2f(w.log2_gamma * static_cast<float>(length));
    // The table is that of a whole chunk.
    const float ahead =
        P::kGated ? 1.0f : exp2f(w.log2_gamma * static_cast<float>(length - kSm90Chunk));
    sm90_weighted_values(va, s, at.v.slot, group, s.value_weight(at.k.slot), ahead);
#pragma unroll
    for (int i = 0; i < P::kDk / 2; ++i) state[i] *= g;
    if constexpr (!P::kTight) release_rounded();
    pin(state);  // all of it before the first product, or the products are taken apart
    const std::uint64_t k = matrix_tile(shared_address(s.k(at.k.slot)), kSm90Tile);
    wgmma_fence();
#pragma unroll
    for (int d = 0; d < 4; ++d)
#pragma unroll
      for (int h = 0; h < P::kDk; h += P::kWidth)
        wgmma<T, 1>(reinterpret_cast<float(&)[P::kWidth / 2]>(state[h / 2]), va[d],
                    advance(k, d * 2048 + h / 64 * kSm90Tile), true);
    wgmma_commit();

    if constexpr (P::kOutputs) {
      wgmma_wait<1>();
      pin(o);
      sm90_release(s.p_empty(at.p.slot));
    }
    sm90_release(s.v_empty(at.v.slot));
    if constexpr (P::kOutputs) sm90_store(o, s, maps, a, w, n, group);
    wgmma_wait<0>();
    pin(state);
    sm90_release(s.k_empty(at.k.slot));
  }
  sm90_end<P>(state, a, w, group);
  if (P::kOutputs && threadIdx.x % 128 == 0) tma_store_wait<0>();
}

/// Tables and barriers, by all threads.
template <class P>
__device__ void sm90_prepare(const Sm90ForwardShared<P>& s, const Sm90ForwardArguments& a,
                             float log2_gamma) {
  const int i = static_cast<int>(threadIdx.x);
  if (!P::kGated && i < 128) {
    const float power = log2_gamma * static_cast<float>(i + 1);
    if (i < 64) s.score_weight(0)[i] = exp2f(-power);
    if (i < 64) s.output_weight(0)[i] = exp2f(power);
    s.value_weight(0)[i] = i < 64 ? exp2f(log2_gamma * static_cast<float>(63 - i)) : 0.0f;
  }
  if (i == 0) {
    const int readers = 4 * (P::kWarpgroups - 1);
    for (int i = 0; i < P::kQ; ++i)
      mbarrier_init(s.q_full(i), 1), mbarrier_init(s.q_empty(i), readers);
    for (int i = 0; i < P::kK; ++i)
      mbarrier_init(s.k_full(i), P::kGated ? 2 : 1), mbarrier_init(s.k_empty(i), readers);
    for (int i = 0; i < P::kV; ++i)
      mbarrier_init(s.v_full(i), 1), mbarrier_init(s.v_empty(i), 4 * P::kValueTiles);
    for (int p = 0; p < 2; ++p) {
      mbarrier_init(s.p_full(p), 128);
      mbarrier_init(s.p_empty(p), 4 * P::kValueTiles);
    }
    fence_mbarrier_init();
  }
  __syncthreads();
}

#endif  // RETNET_SM90A

template <class P>
__global__ void __launch_bounds__(P::kThreads, P::kBlocks)
    sm90_forward_kernel(const __grid_constant__ Sm90ForwardMaps maps,
                        const __grid_constant__ Sm90ForwardArguments a) {
#if RETNET_SM90A
  extern __shared__ __align__(1024) unsigned char shared[];
  const Sm90ForwardShared<P> s{shared};
  const Sm90Work w = Sm90Work::of_block<P>(a);
  if (w.begin > 0 && w.begin >= w.end) return;  // a segment behind the end of a packed sequence
  sm90_prepare(s, a, w.log2_gamma);
  const int warpgroup = static_cast<int>(threadIdx.x) / 128;
  constexpr int kFirstState = P::kOutputs ? 2 : 1;
  if (warpgroup == 0) {
    registers_release<32>();
    if (threadIdx.x == 0) sm90_copy(s, maps, a, w);
    if (P::kGated && threadIdx.x / 32 == 1) sm90_weigh(s, a, w);
  } else if (P::kOutputs && warpgroup == 1) {
    registers_release<64>();
    if constexpr (P::kOutputs) sm90_scores(s, a, w);
  } else {
    registers_acquire<P::kStateRegisters>();
    sm90_states(s, maps, a, w, warpgroup - kFirstState);
  }
#endif
}

/// Tiles of a matrix with `columns` columns: [columns within 64][row][64 columns][sequence].
template <class T>
CUtensorMap sm90_map(const T* data, std::int64_t stride, int columns, const DeviceSequences& s,
                     int tiles) {
  const bool packed = s.cu_seqlens != nullptr;
  const std::int64_t rows = packed ? s.rows : s.length;
  const std::int64_t planes = packed ? 1 : s.count;
  const auto u = [](std::int64_t x) { return static_cast<std::uint64_t>(x); };
  return tensor_map(data, {64, u(rows), u(columns / 64), u(planes)},
                    {u(stride * 2), 128, u(rows * stride * 2)},
                    {64, kSm90Chunk, static_cast<std::uint32_t>(tiles), 1});
}

template <class P>
void sm90_forward_launch(CudaContext& ctx, const DeviceRetention<typename P::Element>& in,
                         Sm90ForwardArguments a, DeviceRows<typename P::Element> o) {
  a.slices = in.value_dim / P::kDv;
  const auto& s = in.sequences;
  Sm90ForwardMaps maps;
  maps.q = sm90_map(in.q.data, in.q.stride, in.heads * P::kDk, s, P::kKeyTiles);
  maps.k = sm90_map(in.k.data, in.k.stride, in.kv_heads * P::kDk, s, P::kKeyTiles);
  maps.v = sm90_map(in.v.data, in.v.stride, in.kv_heads * in.value_dim, s, P::kValueTiles);
  maps.o = sm90_map(o.data, o.stride, in.heads * in.value_dim, s, 1);

  const int segments = P::kOutputs ? a.segments : a.segments - 1;
  const auto kernel = sm90_forward_kernel<P>;
  RETNET_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, P::kBytes));
  const dim3 grid(static_cast<unsigned>(s.count) * segments * in.heads * a.slices);
  kernel<<<grid, P::kThreads, P::kBytes, ctx.stream()>>>(maps, a);
  RETNET_CUDA_LAUNCHED("sm90_forward_kernel", shape_of(in));
}

/// The sequence in segments when there are too few heads to fill the device: first the state that each
/// leaves, then all at once, each beginning with what those before it left.
template <class T, int kDk, int kDv>
void sm90_forward_sized(CudaContext& ctx, const DeviceRetention<T>& in, const float* initial,
                        float* final_state, DeviceRows<T> o) {
  constexpr int kShortest = 512;  // tokens of a segment; below, reading K and V twice costs more
  const auto& s = in.sequences;
  Sm90ForwardArguments a{in.decay, s, initial, final_state, o.data, o.stride, in.log_gate};
  a.heads = in.heads, a.group = in.group(), a.value_dim = in.value_dim;
  a.slices = in.value_dim / kDv;
  const std::int64_t blocks = std::int64_t{s.count} * in.heads * a.slices;
  const std::int64_t most = std::min(ctx.multiprocessors() / blocks, s.length / kShortest);
  const std::int64_t segments = in.log_gate ? 1 : std::max(most, std::int64_t{1});
  a.segment_length =
      static_cast<int>(round_up(ceil_div(s.length, segments), std::int64_t{kSm90Chunk}));
  a.segments = static_cast<int>(ceil_div(s.length, std::int64_t{a.segment_length}));
  const auto scope = ctx.workspace().scope();
  if (a.segments > 1) {
    ctx.note("retention_sm90_forward: states of segments");
    if (initial != nullptr &&
        initial == final_state) {  // the last segment may end before the first
      float* copy = ctx.workspace().take<float>(in.state_size());
      RETNET_CUDA(cudaMemcpyAsync(copy, initial, in.state_size() * sizeof(float),
                                  cudaMemcpyDeviceToDevice, ctx.stream()));
      a.initial = copy;
    }
    a.segment_states = ctx.workspace().take<float>(in.state_size() * (a.segments - 1));
    sm90_forward_launch<Sm90Forward<T, kDk, kDv, Sm90Pass::states>>(ctx, in, a, o);
  }
  ctx.note("retention_sm90_forward");
  // g^-64 and its product with a score must be numbers of type T.
  const float* lg = in.decay.log2_gamma;
  const float powers = -kSm90Chunk * *std::min_element(lg, lg + in.heads);
  if (in.log_gate || powers > (std::is_same_v<T, __half> ? 6.0f : 60.0f))
    sm90_forward_launch<Sm90Forward<T, kDk, kDv, Sm90Pass::gated>>(ctx, in, a, o);
  else
    sm90_forward_launch<Sm90Forward<T, kDk, kDv, Sm90Pass::fixed>>(ctx, in, a, o);
}

/// True where retention_sm90_forward computes this problem: a Hopper device, 16-bit types, sizes in
/// tiles, rows that the copy engine can address, no growing state.
template <class T>
bool sm90_forward_serves(const CudaContext& ctx, const DeviceRetention<T>& in, DeviceRows<T> o) {
  if constexpr (sizeof(T) != 2) {
    return false;
  } else {
    if (!sm90_context_serves(ctx)) return false;
    if (in.key_dim != 64 && in.key_dim != 128 && in.key_dim != 256) return false;
    if (in.value_dim % (in.key_dim == 64 ? 64 : 128) != 0) return false;
    if (in.sequences.rows >= (std::int64_t{1} << 31)) return false;
    if (!sm90_rows_serve(in.q) || !sm90_rows_serve(in.k) || !sm90_rows_serve(in.v) ||
        !sm90_rows_serve(o))
      return false;
    const float* lg = in.decay.log2_gamma;
    return in.log_gate || *std::max_element(lg, lg + in.heads) <= 0.0f;
  }
}

/// O [R,H*Dv] and the final state [N,H,Dk,Dv]; either state may be null.
template <class T>
void retention_sm90_forward(CudaContext& ctx, const DeviceRetention<T>& in, const float* initial,
                            float* final_state, DeviceRows<T> o) {
  if constexpr (sizeof(T) == 2) {
    const bool narrow = in.value_dim % 128 != 0;
    const auto run = in.key_dim == 256   ? sm90_forward_sized<T, 256, 128>
                     : in.key_dim == 128 ? sm90_forward_sized<T, 128, 128>
                     : narrow            ? sm90_forward_sized<T, 64, 64>
                                         : sm90_forward_sized<T, 64, 128>;
    run(ctx, in, initial, final_state, o);
  }
}

}  // namespace retnet::cuda
