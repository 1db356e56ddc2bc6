// SPDX-License-Identifier: MIT
// Attention over keys and values that all layers of a decoder share (Sun et al. 2024, "You Only
// Cache Once", section 2.2): one cache, whatever the number of layers.
//
//   SharedKeyValue   x -> RMS norm -> k, v = x W^T,  k turned by position        once a call
//   CrossAttention   x -> q = x W^T, turned -> o = attention(q, k, v) -> o W_O^T   each layer
//
// One call:   shared.forward_rows(..., &state, rows);
//             every layer: cross.forward_rows(..., rows, ...);
//             state.append(sequences, rows.k, rows.v);          when the last layer has run
#pragma once

#include <string>

#include "retnet/layers/attention.hpp"

namespace retnet::inline RETNET_ABI {

/// The shared keys and values of one call, [R,Hk*Dk] each.
template <class S>
struct SharedRows {
  Window<S> k, v;                           // keys rotated
  const KeyValueState<S>* state = nullptr;  // what came before, as it was given to forward
  Window<S> normed;                         // for backward: x after the norm
  KeyValueState<S> initial;                 // for backward: a copy of the state
  Buffer<S> memory;
};

template <ComputeScalar Scalar, class Weight = Scalar>
class SharedKeyValue {
  using In = Window<const Scalar>;
  using Out = Window<Scalar>;

 public:
  using State = KeyValueState<Scalar>;
  using Rows = SharedRows<Scalar>;
  static constexpr const char* kName = "SharedKeyValue";

  /// A part of a model: only places, names start with `prefix`.
  SharedKeyValue(CrossAttentionConfig config, ParamLayout& layout, const std::string& prefix);

  const CrossAttentionConfig& config() const { return config_; }
  State initial_state(Index sequences = 1) const { return State(sequences, width(), width()); }
  /// Throws std::invalid_argument if x or state do not fit.
  void check(const Pass& pass, ConstView<Scalar, 3> x, const State* state) const;

  /// Keys and values of x [R,C], the output of the self-decoder. The state may be null, position 0;
  /// it is borrowed by `rows`, and the caller appends to it after the last layer. `train` keeps a
  /// copy of the state, for backward.
  template <class Context>
  void forward_rows(Context& ctx, ParamRef<const Weight> w, const Pass& pass, In x,
                    const State* state, Rows& rows, bool train = false) const;

  /// dk and dv [R,Hk*Dk] are the sums over the layers; dk is turned back in place. dx = gradient +
  /// beta dx; gradients of the weights accumulate in dw.
  template <class Context>
  void backward_rows(Context& ctx, ParamRef<const Weight> w, const Pass& pass, In x,
                     const Rows& rows, Out dk, In dv, ParamRef<Scalar> dw, Out dx,
                     Scalar beta) const requires std::same_as<Scalar, Weight>;

 private:
  Index width() const { return config_.kv() * config_.dim(); }

  CrossAttentionConfig config_;
  RotationTable rotation_;
  BlockNorm norm_;
  Param k_, v_;
};

template <ComputeScalar Scalar, class Weight = Scalar>
class CrossAttention {
  using In = Window<const Scalar>;
  using Out = Window<Scalar>;

 public:
  using ScalarType = Scalar;
  using WeightType = Weight;
  using Config = CrossAttentionConfig;
  using Rows = SharedRows<Scalar>;
  using State =
      Rows;  // what a block hands through: the keys and values, or where their gradient goes
  static constexpr const char* kName = "CrossAttention";
  static constexpr const char* kPart = "attention";  // of a block
  static constexpr const char* kBlockName = "CrossBlock";

  /// What backward needs of forward, by name. R rows; grows, never shrinks.
  struct Saved {
    Out q;       // rotated
    Out o, lse;  // attention, and the log of its sums
    const Rows* shared = nullptr;
    Buffer<Scalar> memory;
  };

  /// A part of a model: only places, names start with `prefix`.
  CrossAttention(CrossAttentionConfig config, ParamLayout& layout, const std::string& prefix);

  const CrossAttentionConfig& config() const { return config_; }
  /// Throws std::invalid_argument if x or the shared rows do not fit.
  void check(const Pass& pass, ConstView<Scalar, 3> x, const Rows& shared) const;

  /// x, y [R,C]; the rows of x are those that the shared keys were made from. Saved may be null.
  template <class Context>
  void forward_rows(Context& ctx, ParamRef<const Weight> w, const Pass& pass, In x,
                    const Rows& shared, Out y, Saved* saved) const;

  /// dx = gradient + beta dx; gradients of the weights accumulate in dw, those of the shared keys
  /// and values in dk and dv. What the state remembers is a constant.
  template <class Context>
  void backward_rows(Context& ctx, ParamRef<const Weight> w, const Pass& pass, In x,
                     const Rows& shared, Saved& s, In dy, ParamRef<Scalar> dw, Out dx, Scalar beta,
                     Out dk, Out dv) const requires std::same_as<Scalar, Weight>;

  // The same as the mixer of a block.
  template <class Context>
  void forward_rows(Context& ctx, ParamRef<const Weight> w, const Pass& pass, In x, State* shared,
                    Out y, Saved* saved) const {
    if (saved) saved->shared = shared;
    forward_rows(ctx, w, pass, x, std::as_const(*shared), y, saved);
  }
  template <class Context>
  void backward_rows(Context& ctx, ParamRef<const Weight> w, const Pass& pass, In x, Saved& s,
                     In dy, ParamRef<Scalar> dw, Out dx, Scalar beta,
                     State* dshared) const requires std::same_as<Scalar, Weight> {
    backward_rows(ctx, w, pass, x, *s.shared, s, dy, dw, dx, beta, dshared->k, dshared->v);
  }

 private:
  template <class Context>
  AttentionInput<Scalar> input(Context& ctx, const Pass& pass, const Rows& shared, Out q,
                               const KeyValueState<Scalar>* state) const {
    return {q,
            shared.k,
            shared.v,
            config_.heads,
            config_.kv(),
            &pass.sequences,
            scale_,
            0,
            detail::pasts_of(ctx, state)};
  }

  CrossAttentionConfig config_;
  double scale_ = 0.0;
  RotationTable rotation_;
  Param q_, out_;
};

}  // namespace retnet::inline RETNET_ABI

#include "retnet/layers/detail/cross_attention_impl.hpp"
