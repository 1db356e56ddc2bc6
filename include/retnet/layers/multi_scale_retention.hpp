// SPDX-License-Identifier: MIT
// Multi-scale retention (Sun et al. 2023, Eq. 8):
//
//   x [R,C] -> q, k, v, g = x W^T          project
//           -> q, k turned by position     rotate     (with 1/sqrt(d_k) and 1/sqrt(s_n))
//           -> o = retention(q, k, v)      retain     <- the only line where the forms differ
//           -> norm per head, * swish(g)   finish     (a bottleneck projects between the two)
//           -> y = . W_O^T
//
// A layer is immutable after construction. One weight buffer may be read by any number of threads;
// each thread brings its own context, each sequence its own state.
#pragma once

#include <memory>
#include <string>

#include "retnet/layers/config.hpp"
#include "retnet/layers/pass.hpp"
#include "retnet/layers/retention_state.hpp"
#include "retnet/ops/linear.hpp"
#include "retnet/ops/retention_chunkwise.hpp"
#include "retnet/ops/retention_parallel.hpp"
#include "retnet/ops/retention_recurrent.hpp"
#include "retnet/ops/retention_torchscale.hpp"

namespace retnet::inline RETNET_ABI {

/// Scalar computes; Weight stores (float, double or bfloat16). Training needs Weight = Scalar.
template <ComputeScalar Scalar, class Weight = Scalar>
class MultiScaleRetention : public ThreeForms<MultiScaleRetention<Scalar, Weight>, Scalar> {
  using In = Window<const Scalar>;
  using Out = Window<Scalar>;

 public:
  using ScalarType = Scalar;
  using WeightType = Weight;
  using Config = RetentionConfig;
  using State = RetentionState<Scalar>;
  using ThreeForms<MultiScaleRetention, Scalar>::forward;
  static constexpr const char* kName = "MultiScaleRetention";
  static constexpr const char* kPart = "retention";  // of a block
  static constexpr const char* kBlockName = "RetNetBlock";

  /// What backward needs of forward, by name. R rows; grows, never shrinks.
  struct Saved {
    Out q, k, v, g;     // rotated and scaled queries and keys, values, gate before swish
    Out z, log_gate;    // gated decay: before and after log sigmoid
    Out o, r;           // retention; sum_m R_nm of Normalization::paper_score
    Out scaled;         // o after the score norm
    Out normed, lowered, gated;  // after the head norm, the bottleneck, the gate
    State initial;      // the state that forward was given
    Buffer<Scalar> memory;
  };

  /// A layer that owns its weights.
  explicit MultiScaleRetention(RetentionConfig config, Seed seed = {})
      : config_(std::move(config)) {
    ParamLayout layout;
    place(layout, "");
    own_ = std::make_shared<const Owned>(std::move(layout), seed);
  }
  /// The same with weights from elsewhere: a copy, a checkpoint, a cast to bfloat16.
  MultiScaleRetention(RetentionConfig config, ParamBuffer<Weight> weights)
      : config_(std::move(config)) {
    ParamLayout layout;
    place(layout, "");
    RETNET_CHECK(static_cast<Index>(weights.flat().size()) == layout.size(), kName, "weights hold ",
                 weights.flat().size(), " elements, this config needs ", layout.size());
    own_ = std::make_shared<const Owned>(std::move(layout), std::move(weights));
  }
  /// A part of a model: only places, names start with `prefix`.
  MultiScaleRetention(RetentionConfig config, ParamLayout& layout, const std::string& prefix)
      : config_(std::move(config)) {
    place(layout, prefix);
  }

  const RetentionConfig& config() const { return config_; }
  bool owns_weights() const { return own_ != nullptr; }
  ParamRef<const Weight> weights() const { return own_->values.ref(); }
  const ParamBuffer<Weight>& weight_buffer() const { return own_->values; }
  const ParamLayout& layout() const { return own_->layout; }
  std::span<const double> log_gamma() const { return log_gamma_; }

  State initial_state(Index sequences = 1) const {
    return State(sequences, config_.heads, config_.key_dim(), config_.value_dim(),
                 config_.normalization == Normalization::paper_score);
  }

  /// Throws std::invalid_argument if x or state do not fit this layer.
  void check(const Pass& pass, ConstView<Scalar, 3> x, const State* state) const;

  /// x, y [B,T,C]. state may be null: position 0, and what was learnt is dropped. Saved may be
  /// null. Throws std::invalid_argument on shapes that do not fit.
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
                    Out y, Saved* saved) const {
    const auto scope = ctx.workspace().scope();
    Saved local;
    Saved& s = saved ? *saved : local;
    reserve(ctx, s, x.rows, saved != nullptr);
    if (saved && state) state->settle(), saved->initial = *state;
    if (saved && !state) saved->initial = State();
    const std::int64_t* positions = positions_of(ctx, pass.sequences, state);
    project(ctx, w, pass, x, positions, s);
    retain(ctx, pass, state, s);
    finish(ctx, w, pass, s, y);
    if (!state) return;
    for (Index i = 0; i < pass.sequences.count(); ++i)
      state->positions()[static_cast<std::size_t>(i)] += pass.sequences[i].length;
  }

  /// dx = gradient + beta dx; gradients of the weights accumulate in dw. dstate [N,H,Dk,Dv] (then
  /// key sums) holds the gradient of the final state and receives that of the initial one.
  template <class Context>
  void backward_rows(Context& ctx, ParamRef<const Weight> w, const Pass& pass, In x, Saved& s,
                     In dy, ParamRef<Scalar> dw, Out dx, Scalar beta,
                     State* dstate = nullptr) const requires std::same_as<Scalar, Weight>;

  /// Backward of forward, for the same w, pass and x: dx [B,T,C] is assigned and may be dy, the
  /// gradients of the weights are added to dw. Throws std::invalid_argument on shapes that do not
  /// fit.
  template <class Context>
  void backward(Context& ctx, ParamRef<const Weight> w, const Pass& pass, ConstView<Scalar, 3> x,
                Saved& saved, ConstView<Scalar, 3> dy, ParamRef<Scalar> dw, View<Scalar, 3> dx,
                State* dstate = nullptr) const requires std::same_as<Scalar, Weight> {
    check_backward(pass, x, saved, dy, dx, dstate);
    backward_rows(ctx, w, pass, rows_of(x), saved, rows_of(dy), dw, rows_of(dx), Scalar(0), dstate);
  }
  /// Throws std::invalid_argument if these are not what forward was given and what it saved.
  void check_backward(const Pass& pass, ConstView<Scalar, 3> x, const Saved& saved,
                      ConstView<Scalar, 3> dy, ConstView<Scalar, 3> dx, const State* dstate) const {
    check(pass, x, dstate);
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

  bool scored() const { return config_.normalization == Normalization::paper_score; }
  double scale(ScaleOn side) const {
    return config_.scale_on == side ? 1.0 / std::sqrt(static_cast<double>(config_.key_dim())) : 1.0;
  }
  RowScale query_scale(const Pass& pass) const {
    const bool rows = config_.normalization == Normalization::row_sum || scored() ||
                      (config_.compat() && pass.form.kind == Form::Kind::recurrent);
    return {scale(ScaleOn::query),
            rows ? std::span<const double>(log_gamma_) : std::span<const double>(),
            rotation_.has_xpos() ? 1.0 : 0.0};
  }
  TorchscaleVersion torchscale_version() const {
    return config_.normalization == Normalization::torchscale_v1 ? TorchscaleVersion::v1
                                                                 : TorchscaleVersion::v2;
  }
  RowScale key_scale() const {
    return {scale(ScaleOn::key), {}, rotation_.has_xpos() ? -1.0 : 0.0};
  }
  RetentionInput<Scalar> input(const Pass& pass, const Saved& s) const {
    return {s.q, s.k, s.v, config_.heads, config_.kv(), {log_gamma_, s.log_gate}, &pass.sequences};
  }
  // sum_m R_nm is the retention of values that are all one: linear in the keys, O(1) state.
  RetentionInput<Scalar> score_input(const Pass& pass, const Saved& s, In ones) const {
    auto in = input(pass, s);
    in.v = ones;
    return in;
  }

  void check_xpos(const Pass& pass, const State* state) const;
  template <class Context>
  void reserve(Context& ctx, Saved& s, Index rows, bool keep) const;
  template <class Context>
  const std::int64_t* positions_of(Context& ctx, const Sequences& sequences,
                                   const State* state) const;
  template <class Context>
  In ones(Context& ctx, Index rows) const;

  template <class Context>
  void project(Context& ctx, ParamRef<const Weight> w, const Pass& pass, In x,
               const std::int64_t* positions, Saved& s) const;
  template <class Context>
  void retain(Context& ctx, const Pass& pass, State* state, Saved& s) const;
  template <class Context>
  void retain_once(Context& ctx, const Pass& pass, const RetentionInput<Scalar>& in, Scalar* state,
                   Out o) const;
  template <class Context>
  void finish(Context& ctx, ParamRef<const Weight> w, const Pass& pass, Saved& s, Out y) const;
  template <class Context>
  void retain_backward(Context& ctx, const Pass& pass, const Saved& s, In d_o, Out dq, Out dk,
                       Out dv, Out dlog, State* dstate) const;

  RetentionConfig config_;
  std::vector<double> log_gamma_;
  RotationTable rotation_;
  Param q_, k_, v_, g_, down_, out_, gt_;
  Param q_bias_, k_bias_, v_bias_, g_bias_, down_bias_, out_bias_;
  Param norm_weight_, norm_bias_;
  std::shared_ptr<const Owned> own_;
};

}  // namespace retnet::inline RETNET_ABI

#include "retnet/layers/detail/multi_scale_retention_impl.hpp"
