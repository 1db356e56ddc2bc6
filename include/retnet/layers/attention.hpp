// SPDX-License-Identifier: MIT
// Softmax attention with a cache, the partner of retention in hybrid stacks:
//
//   x [R,C] -> q, k, v = x W^T             project    (RMS norm of each head of q and k, if wanted)
//           -> q, k turned by position     rotate     (Su et al. 2021)
//           -> o = attention(q, k, v)      attend     <- forms: how many queries at a time
//           -> y = o W_O^T
//
// The forms compute one function; they differ in how many rows meet the cache at a time.
#pragma once

#include <memory>
#include <string>

#include "retnet/layers/attention_config.hpp"
#include "retnet/layers/block_norm.hpp"
#include "retnet/layers/key_value_state.hpp"
#include "retnet/layers/pass.hpp"
#include "retnet/ops/attention.hpp"
#include "retnet/ops/linear.hpp"

namespace retnet::inline RETNET_ABI {

/// Scalar computes; Weight stores (float, double or bfloat16). Training needs Weight = Scalar.
template <ComputeScalar Scalar, class Weight = Scalar>
class Attention : public ThreeForms<Attention<Scalar, Weight>, Scalar> {
  using In = Window<const Scalar>;
  using Out = Window<Scalar>;

 public:
  using ScalarType = Scalar;
  using WeightType = Weight;
  using Config = AttentionConfig;
  using State = KeyValueState<Scalar>;
  using ThreeForms<Attention, Scalar>::forward;
  static constexpr const char* kName = "Attention";
  static constexpr const char* kPart = "attention";  // of a block
  static constexpr const char* kBlockName = "AttentionBlock";

  /// What backward needs of forward, by name. R rows; grows, never shrinks.
  struct Saved {
    Out q_raw, k_raw;  // before their norm; empty without one
    Out q, k, v;       // rotated queries and keys, values
    Out o, lse;        // attention, and the log of its sums
    State initial;     // the state that forward was given
    Buffer<Scalar> memory;
  };

  /// A layer that owns its weights.
  explicit Attention(AttentionConfig config, Seed seed = {}) : config_(std::move(config)) {
    ParamLayout layout;
    place(layout, "");
    own_ = std::make_shared<const Owned>(std::move(layout), seed);
  }
  /// The same with weights from elsewhere: a copy, a checkpoint, a cast to bfloat16.
  Attention(AttentionConfig config, ParamBuffer<Weight> weights) : config_(std::move(config)) {
    ParamLayout layout;
    place(layout, "");
    RETNET_CHECK(static_cast<Index>(weights.flat().size()) == layout.size(), kName, "weights hold ",
                 weights.flat().size(), " elements, this config needs ", layout.size());
    own_ = std::make_shared<const Owned>(std::move(layout), std::move(weights));
  }
  /// A part of a model: only places, names start with `prefix`.
  Attention(AttentionConfig config, ParamLayout& layout, const std::string& prefix)
      : config_(std::move(config)) {
    place(layout, prefix);
  }

  const AttentionConfig& config() const { return config_; }
  bool owns_weights() const { return own_ != nullptr; }
  ParamRef<const Weight> weights() const { return own_->values.ref(); }
  const ParamBuffer<Weight>& weight_buffer() const { return own_->values; }
  const ParamLayout& layout() const { return own_->layout; }

  State initial_state(Index sequences = 1) const {
    return State(sequences, key_width(), key_width(), config_.window);
  }

  /// Throws std::invalid_argument if x or state do not fit this layer.
  void check(const Pass& pass, ConstView<Scalar, 3> x, const State* state) const;

  /// x, y [B,T,C]. state may be null: position 0, and the cache is dropped. Saved may be null.
  /// Throws std::invalid_argument on shapes that do not fit.
  template <class Context>
  void forward(Context& ctx, ParamRef<const Weight> w, const Pass& pass, ConstView<Scalar, 3> x,
               State* state, View<Scalar, 3> y, Saved* saved = nullptr) const {
    check(pass, x, state);
    RETNET_CHECK(x.dims() == y.dims(), kName, pass.form.name(), ": y is ", y, ", x is ", x);
    forward_rows(ctx, w, pass, rows_of(x), state, rows_of(y), saved);
  }

  /// The same on rows [B*T,C] without checks, for layers that contain this one.
  template <class Context>
  void forward_rows(Context& ctx, ParamRef<const Weight> w, const Pass& pass, In x, State* state,
                    Out y, Saved* saved) const;

  /// dx = gradient + beta dx; gradients of the weights accumulate in dw. The state that forward was
  /// given is a constant: no gradient flows into the tokens it remembers, and dstate must be null.
  template <class Context>
  void backward_rows(Context& ctx, ParamRef<const Weight> w, const Pass& pass, In x, Saved& s,
                     In dy, ParamRef<Scalar> dw, Out dx, Scalar beta,
                     State* dstate = nullptr) const requires std::same_as<Scalar, Weight>;

  /// Backward of forward, for the same w, pass and x: dx [B,T,C] is assigned and may be dy, the
  /// gradients of the weights are added to dw. Throws std::invalid_argument on shapes that do not
  /// fit.
  template <class Context>
  void backward(Context& ctx, ParamRef<const Weight> w, const Pass& pass, ConstView<Scalar, 3> x,
                Saved& saved, ConstView<Scalar, 3> dy, ParamRef<Scalar> dw,
                View<Scalar, 3> dx) const requires std::same_as<Scalar, Weight> {
    check_backward(pass, x, saved, dy, dx, nullptr);
    backward_rows(ctx, w, pass, rows_of(x), saved, rows_of(dy), dw, rows_of(dx), Scalar(0));
  }
  /// Throws std::invalid_argument if these are not what forward was given and what it saved.
  void check_backward(const Pass& pass, ConstView<Scalar, 3> x, const Saved& saved,
                      ConstView<Scalar, 3> dy, ConstView<Scalar, 3> dx,
                      const State* /*dstate*/) const {
    check(pass, x, nullptr);
    RETNET_CHECK(dy.dims() == x.dims() && dx.dims() == x.dims(), kName, "backward: dy is ", dy,
                 ", dx is ", dx, ", x is ", x);
    RETNET_CHECK(saved.q.rows == x.dim(0) * x.dim(1), kName, "backward: saved holds ", saved.q.rows,
                 " rows, x is ", x, ", expected what forward saved of this x");
  }

 private:
  struct Owned {
    Owned(ParamLayout l, Seed seed) : layout(std::move(l)), values(layout) {
      initialize(values, layout, seed);
    }
    Owned(ParamLayout l, ParamBuffer<Weight> v) : layout(std::move(l)), values(std::move(v)) {}
    ParamLayout layout;
    ParamBuffer<Weight> values;
  };

  void place(ParamLayout& layout, const std::string& prefix);
  Index key_width() const { return config_.kv() * config_.dim(); }

  template <class Context>
  AttentionInput<Scalar> input(Context& ctx, const Pass& pass, const Saved& s,
                               const State* state) const;
  template <class Context>
  void project(Context& ctx, ParamRef<const Weight> w, const Pass& pass, In x,
               const std::int64_t* positions, Saved& s) const;

  AttentionConfig config_;
  RotationTable rotation_;
  Param q_, k_, v_, out_;
  Param q_bias_, k_bias_, v_bias_, out_bias_;
  BlockNorm q_norm_, k_norm_;
  std::shared_ptr<const Owned> own_;
};

}  // namespace retnet::inline RETNET_ABI

#include "retnet/layers/detail/attention_impl.hpp"
