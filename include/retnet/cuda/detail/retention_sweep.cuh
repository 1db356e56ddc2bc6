// SPDX-License-Identifier: MIT
// The sweep: the chunkwise form on tiles of 64 x 64 for any sizes, forwards or backwards in time. A
// block owns 64 columns of the output of one head and the columns of the state that they need.
//
//   O  = 2^(G_i - G_c) Q S + (Q K^T * D) V          G_c: before the chunk
//   S <- 2^(G_L - G_c) S + K^T (2^(G_L - G_j) V)    G_L: after its last row
//
// The gradients are sweeps of other operands (retention_generic.cuh), so this is the only kernel with
// a state. The state is float, in slots of the thread that multiplies it: in shared memory where that
// leaves room for two blocks a multiprocessor, else in scratch memory, [Dk,64] a block.
#pragma once

#include "retnet/cuda/detail/decay_curve.cuh"
#include "retnet/cuda/detail/tile.cuh"
#include "retnet/cuda/launch.cuh"

namespace retnet::cuda {

/// Columns [h / group * width, ... + width) of each row belong to head h.
template <class T>
struct HeadColumns {
  DeviceRows<T> rows;
  int width = 0;
  int group = 1;

  __device__ T* at(std::int64_t row, int h) const {
    return rows.row(row) + static_cast<std::int64_t>(h / group) * width;
  }
};

/// What a sweep is given, named as in the forward direction.
template <class T>
struct Sweep {
  HeadColumns<const T> q, k, v;  // q may be empty: only the final state is wanted
  HeadColumns<T> o;              // o.group heads are added into one output
  float* partial = nullptr;      // [R, columns of o], when they are more than one
  int heads = 0;
  bool reversed = false;
  DeviceSequences sequences;
  DeviceDecay decay;
  const float2* prefix = nullptr;  // decay_prefix
  const float* initial = nullptr;  // [N,H,...], seen as [key_dim, value_dim]
  float* final = nullptr;
  std::int64_t state_row = 0, state_col = 0;  // strides of that view
  float4* slots = nullptr;                    // null: in shared memory

  // For the gradient of the decay: sums over the columns of a tile of `partner` times what decays of
  // the output, [R,H,tiles]; with the state before the last row, times end_state, [N,H,tiles].
  HeadColumns<const T> partner;
  float* row_dots = nullptr;
  const float* end_state = nullptr;
  float* end_dots = nullptr;

  __host__ __device__ int key_tiles() const { return ceil_div(k.width, kTile); }
  __host__ __device__ int value_tiles() const { return ceil_div(v.width, kTile); }
  __host__ __device__ std::int64_t slot_size() const {  // of one block
    return std::int64_t{key_tiles()} * 4 * kTileThreads;
  }
};

/// The rows of one head in the order of a sweep.
template <class T>
struct HeadRows {
  T* data = nullptr;  // of row 0
  std::int64_t stride = 0;
  int cols = 0;
  bool wide = false;
};

/// One head of one sequence, in the order of the sweep: row r is token time(r).
template <class T>
struct SweepHead {
  const Sweep<T>& p;
  int sequence, head;
  std::int64_t first, length;
  DecayCurve curve;
  float sign;  // of G: it falls with time

  __device__ SweepHead(const Sweep<T>& sweep, int s, int h)
      : p(sweep),
        sequence(s),
        head(h),
        first(sweep.sequences.first(s)),
        length(sweep.sequences.length_of(s)),
        sign(sweep.reversed ? -1.0f : 1.0f) {
    curve.log2_gamma = p.decay.log2_gamma[h];
    curve.prefix = p.prefix == nullptr ? nullptr : p.prefix + first * p.heads + h;
    curve.stride = p.heads;
  }

  __device__ std::int64_t time(std::int64_t r) const { return p.reversed ? length - 1 - r : r; }
  __device__ int rows_of(std::int64_t chunk) const {
    const std::int64_t left = length - chunk * kTile;
    return left < kTile ? static_cast<int>(left) : kTile;
  }
  template <class U>
  __device__ HeadRows<U> rows(const HeadColumns<U>& x) const {
    if (!x.rows) return {};
    U* data = x.at(first + time(0), head);
    return {data, p.reversed ? -x.rows.stride : x.rows.stride, x.width,
            lines_aligned(data, x.rows.stride)};
  }
  /// Columns [t * 64, ...) of the rows of a chunk.
  template <class U>
  __device__ TileRows<U> tile(const HeadRows<U>& x, std::int64_t chunk, int t) const {
    return {x.data + chunk * kTile * x.stride + t * kTile, x.stride, rows_of(chunk),
            x.cols - t * kTile, x.wide};
  }
  /// Decay from one place to another, later in the order of the sweep.
  __device__ float between(float2 from, float2 to) const {
    return exp2f(sign * ((to.x - from.x) + (to.y - from.y)));
  }
  /// Of the state's columns of a tile, where a product holds sum e; -1 outside.
  __device__ std::int64_t state_at(int key_tile, int value_tile, int e) const {
    const int d = key_tile * kTile + TileProduct<T>::row(e);
    const int j = value_tile * kTile + TileProduct<T>::col(e);
    if (d >= p.k.width || j >= p.v.width) return -1;
    const std::int64_t state = std::int64_t{sequence} * p.heads + head;
    return state * p.k.width * p.v.width + d * p.state_row + j * p.state_col;
  }
};

template <class T>
struct alignas(16) SweepMemory {
  T q[kTileSize<T>], k[kTileSize<T>];  // together also [64][65] floats
  T s[kTileSize<T>], v[kTileSize<T>], w[kTileSize<T>];
  float2 curve[kTile];
  float cross[kTile], update[kTile], diagonal[kTile];
  float carry;
};

template <class T>
class SweepBlock : SweepHead<T> {
  using Product = TileProduct<T>;
  using SweepHead<T>::p, SweepHead<T>::length, SweepHead<T>::head;

 public:
  __device__ SweepBlock(const Sweep<T>& sweep, SweepMemory<T>& memory, float4* slots, int s, int h,
                        int value_tile)
      : SweepHead<T>(sweep, s, h),
        m_(memory),
        slots_(slots),
        tile_(value_tile),
        q_rows_(this->rows(p.q)),
        k_rows_(this->rows(p.k)),
        v_rows_(this->rows(p.v)) {}

  __device__ void run() {
    load_state();
    chunks_ = ceil_div<std::int64_t>(length, kTile);
    if (chunks_ > 0) {
      fetch(0, 0);
      v_.fetch(this->tile(v_rows_, 0, tile_));
    }
    for (std::int64_t c = 0; c < chunks_; ++c) chunk(c);
    if (p.end_dots != nullptr) end_dot();
    if (p.final != nullptr) store_state();
  }

 private:
  __device__ void chunk(std::int64_t c) {
    __syncthreads();  // the last chunk is read
    weigh(c);
    v_.put(m_.v);
    __syncthreads();
    v_.put_scaled(m_.w, m_.update);
    Product score, out;
    for (int t = 0; t < p.key_tiles(); ++t) {
      Product state = slot(t);
      q_.put(m_.q);
      k_.put(m_.k);
      state.put(m_.s);
      __syncthreads();
      fetch_after(c, t);
      if (p.q.rows) {
        score.template add<Layout::plain, Layout::transposed>(m_.q, m_.k);
        out.template add<Layout::plain, Layout::plain>(m_.q, m_.s);
      }
#pragma unroll
      for (int e = 0; e < 16; ++e) state.sums[e] *= m_.carry;
      state.template add<Layout::transposed, Layout::plain>(m_.k, m_.w);
      set_slot(t, state);
      __syncthreads();
    }
    if (!p.q.rows) return;
    mask(score);
    score.put(m_.s);
    __syncthreads();
#pragma unroll
    for (int e = 0; e < 16; ++e) out.sums[e] *= m_.cross[Product::row(e)];
    out.template add<Layout::plain, Layout::plain>(m_.s, m_.v);
    if (p.row_dots != nullptr) {
      row_dots(c, out);
      add_diagonal(out);
    }
    write(c, out);
  }

  /// Exponents are differences within the chunk or to its start.
  __device__ void weigh(std::int64_t c) {
    const int i = static_cast<int>(threadIdx.x), rows = this->rows_of(c);
    if (i >= kTile) return;
    const std::int64_t r = c * kTile;
    const std::int64_t seen = p.reversed ? min(length - r, length - 1) : r - 1;
    const float2 before = this->curve.at(seen), after = this->curve.at(this->time(r + rows - 1));
    const float2 mine = this->curve.at(this->time(r + min(i, rows - 1)));
    m_.curve[i] = mine;
    m_.cross[i] = this->between(before, mine);
    // The last row enters the final state undecayed: left out where the decay's gradient is summed.
    const bool left_out = p.row_dots != nullptr && !p.reversed && r + i == length - 1;
    m_.update[i] = left_out ? 0.0f : this->between(mine, after);
    if (i == 0) m_.carry = this->between(before, after);
  }

  /// The causal half, weighed; without the pairs (i, i) where the decay's gradient is summed.
  __device__ void mask(Product& score) {
    const bool strict = p.row_dots != nullptr;
#pragma unroll
    for (int e = 0; e < 16; ++e) {
      const int i = Product::row(e), j = Product::col(e);
      if (strict && i == j) m_.diagonal[i] = score.sums[e];
      const bool seen = strict ? j < i : j <= i;
      score.sums[e] = seen ? score.sums[e] * this->between(m_.curve[j], m_.curve[i]) : 0.0f;
    }
  }

  __device__ void add_diagonal(Product& out) {
#pragma unroll
    for (int e = 0; e < 16; ++e) {
      const int i = Product::row(e);
      out.sums[e] += m_.diagonal[i] * to_float(m_.v[i * kTileStride<T> + Product::col(e)]);
    }
  }

  __device__ void row_dots(std::int64_t c, const Product& out) {
    constexpr int kStride = kTile + 1;
    auto* products = reinterpret_cast<float*>(m_.q);
    const auto partner = this->tile(this->rows(p.partner), c, tile_);
#pragma unroll
    for (int e = 0; e < 16; ++e) {
      const int i = Product::row(e), j = Product::col(e);
      const bool there = i < partner.rows && j < partner.cols;
      const float x = there ? to_float(partner.data[i * partner.stride + j]) : 0.0f;
      products[i * kStride + j] = out.sums[e] * x;
    }
    __syncthreads();
    const int i = static_cast<int>(threadIdx.x) / 4, part = static_cast<int>(threadIdx.x) % 4;
    float sum = 0.0f;
    for (int j = part; j < kTile; j += 4) sum += products[i * kStride + j];
    sum += __shfl_xor_sync(0xFFFFFFFF, sum, 1);
    sum += __shfl_xor_sync(0xFFFFFFFF, sum, 2);
    const std::int64_t r = c * kTile + i;
    if (part == 0 && i < partner.rows) {
      // What the last token has from the final state is undecayed.
      const bool undecayed = p.reversed && r == 0;
      const std::int64_t row = this->first + this->time(r);
      p.row_dots[(row * p.heads + head) * p.value_tiles() + tile_] = undecayed ? 0.0f : sum;
    }
    __syncthreads();
  }

  /// Heads of a group come one after the other; the last one writes their sum.
  __device__ void write(std::int64_t c, Product& out) {
    const int member = head % p.o.group;
    if (p.o.group > 1) {
      const int rows = this->rows_of(c), heads = p.heads / p.o.group;
#pragma unroll
      for (int e = 0; e < 16; ++e) {
        const int i = Product::row(e), j = tile_ * kTile + Product::col(e);
        if (i >= rows || j >= p.o.width) continue;
        const std::int64_t row = this->first + this->time(c * kTile + i);
        float& sum = p.partial[(row * heads + head / p.o.group) * p.o.width + j];
        if (member > 0) out.sums[e] += sum;
        sum = out.sums[e];
      }
      if (member + 1 < p.o.group) return;
    }
    out.put(m_.q);
    __syncthreads();
    TileRegisters<T> lines;
    lines.take(m_.q);
    lines.store(this->tile(this->rows(p.o), c, tile_));
  }

  __device__ void fetch(std::int64_t c, int t) {
    if (p.q.rows) q_.fetch(this->tile(q_rows_, c, t));
    k_.fetch(this->tile(k_rows_, c, t));
  }
  /// The operands that come after tile t of chunk c.
  __device__ void fetch_after(std::int64_t c, int t) {
    const bool same = t + 1 < p.key_tiles();
    if (same || c + 1 < chunks_) fetch(same ? c : c + 1, same ? t + 1 : 0);
    if (t == 0 && c + 1 < chunks_) v_.fetch(this->tile(v_rows_, c + 1, tile_));
  }

  __device__ Product slot(int t) const {
    Product x;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float4 four = slots_[(t * 4 + i) * kTileThreads + threadIdx.x];
      x.sums[4 * i] = four.x, x.sums[4 * i + 1] = four.y;
      x.sums[4 * i + 2] = four.z, x.sums[4 * i + 3] = four.w;
    }
    return x;
  }
  __device__ void set_slot(int t, const Product& x) {
#pragma unroll
    for (int i = 0; i < 4; ++i)
      slots_[(t * 4 + i) * kTileThreads + threadIdx.x] = {x.sums[4 * i], x.sums[4 * i + 1],
                                                          x.sums[4 * i + 2], x.sums[4 * i + 3]};
  }
  __device__ void load_state() {
    for (int t = 0; t < p.key_tiles(); ++t) {
      Product x;
      for (int e = 0; e < 16 && p.initial != nullptr; ++e)
        if (const auto at = this->state_at(t, tile_, e); at >= 0) x.sums[e] = p.initial[at];
      set_slot(t, x);
    }
  }
  /// Backwards in time the state has not yet passed the first token's decay.
  __device__ void store_state() const {
    const bool decays = p.reversed && length > 0;
    const float last = decays ? this->between(this->curve.at(0), this->curve.at(-1)) : 1.0f;
    for (int t = 0; t < p.key_tiles(); ++t) {
      const Product x = slot(t);
#pragma unroll
      for (int e = 0; e < 16; ++e)
        if (const auto at = this->state_at(t, tile_, e); at >= 0) p.final[at] = last * x.sums[e];
    }
  }
  __device__ void end_dot() {
    float sum = 0.0f;
    for (int t = 0; t < p.key_tiles() && p.end_state != nullptr; ++t) {
      const Product x = slot(t);
#pragma unroll
      for (int e = 0; e < 16; ++e)
        if (const auto at = this->state_at(t, tile_, e); at >= 0)
          sum += x.sums[e] * p.end_state[at];
    }
    __syncthreads();
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) m_.cross[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x != 0) return;
    sum = 0.0f;
    for (int w = 0; w < kTileThreads / 32; ++w) sum += m_.cross[w];
    const std::int64_t state = std::int64_t{this->sequence} * p.heads + head;
    p.end_dots[state * p.value_tiles() + tile_] = sum;
  }

  SweepMemory<T>& m_;
  float4* slots_;
  int tile_;
  std::int64_t chunks_ = 0;
  HeadRows<const T> q_rows_, k_rows_, v_rows_;
  TileRegisters<T> q_, k_, v_;
};

template <class T>
__global__ void __launch_bounds__(kTileThreads, 2)
    retention_sweep_kernel(const __grid_constant__ Sweep<T> p) {
  extern __shared__ uint4 sweep_memory[];
  auto& memory = *reinterpret_cast<SweepMemory<T>*>(sweep_memory);
  float4* slots = p.slots != nullptr ? p.slots + blockIdx.x * p.slot_size()
                                     : reinterpret_cast<float4*>(&memory + 1);
  const int tile = static_cast<int>(blockIdx.x) % p.value_tiles();
  const int task = static_cast<int>(blockIdx.x) / p.value_tiles();
  const int groups = p.heads / p.o.group;
  for (int i = 0; i < p.o.group; ++i)
    SweepBlock<T>(p, memory, slots, task / groups, task % groups * p.o.group + i, tile).run();
}

template <class T>
void launch_sweep(CudaContext& ctx, const DeviceRetention<T>& in, Sweep<T> p) {
  const auto scope = ctx.workspace().scope();
  const std::int64_t blocks =
      std::int64_t{p.sequences.count} * (p.heads / p.o.group) * p.value_tiles();
  if (p.o.group > 1)
    p.partial = ctx.workspace().take<float>(p.sequences.rows * (p.heads / p.o.group) * p.o.width);
  std::size_t shared = sizeof(SweepMemory<T>);
  const std::size_t slots = static_cast<std::size_t>(p.slot_size()) * sizeof(float4);
  const auto& device = ctx.properties();
  constexpr std::size_t kReserved = 1024;  // of each block, by the system
  const bool two_blocks = 2 * (shared + slots + kReserved) <= device.sharedMemPerMultiprocessor;
  if (two_blocks && shared + slots <= device.sharedMemPerBlockOptin) {
    shared += slots;
  } else {
    p.slots = ctx.workspace().take<float4>(blocks * p.slot_size());
  }
  raise_shared_memory(ctx, retention_sweep_kernel<T>);
  retention_sweep_kernel<T>
      <<<static_cast<unsigned>(blocks), kTileThreads, shared, ctx.stream()>>>(p);
  RETNET_CUDA_LAUNCHED("retention_sweep_kernel", shape_of(in));
}

}  // namespace retnet::cuda
