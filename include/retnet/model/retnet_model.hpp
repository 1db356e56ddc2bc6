// SPDX-License-Identifier: MIT
// A language model: tokens [B,T] -> embedding -> blocks -> norm -> logits [B,T,V].
//
// The mixer of a block is retention, or attention where the config says so; a cross-decoder may
// follow. What kind a block is, is asked once a block, never inside it.
//
// Like a layer, a model is immutable after construction: any number of threads may run it, each
// with its own context and state. Training works on the flat buffers beside it.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "retnet/layers/cross_attention.hpp"
#include "retnet/layers/retnet_block.hpp"
#include "retnet/model/model_state.hpp"
#include "retnet/model/presets.hpp"  // IWYU pragma: export
#include "retnet/ops/cross_entropy.hpp"
#include "retnet/ops/embedding.hpp"

namespace retnet::inline RETNET_ABI {

using Token = std::int32_t;
using TokenView = ConstView<Token, 2>;

template <class S>
using RowMatrix = Eigen::Matrix<S, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

namespace detail {

// Logits for a token tensor are a tensor [B,T,V]; for a token matrix, rows [B*T,V].
template <class X, class S>
struct LogitsOf {
  using Type = RowMatrix<S>;
};
template <template <class, int, int, class> class Tensor, class T, int Options, class I, class S>
struct LogitsOf<Tensor<T, 2, Options, I>, S> {
  using Type = Tensor<S, 3, Options, I>;
};

}  // namespace detail

template <ComputeScalar Scalar, class Weight = Scalar>
class RetNetModel {
  using In = Window<const Scalar>;
  using Out = Window<Scalar>;
  using RetentionBlock = RetNetBlock<Scalar, Weight>;
  using AttentionBlock = Block<Attention<Scalar, Weight>>;
  using CrossBlock = Block<CrossAttention<Scalar, Weight>>;

 public:
  using State = ModelState<Scalar>;
  using AnyBlock = std::variant<RetentionBlock, AttentionBlock>;
  static constexpr const char* kName = "RetNetModel";

  /// What backward needs of forward. With `recompute` one block's activations exist at a time:
  /// memory of one block of each kind instead of L, for one more forward.
  struct Saved {
    bool recompute = false;
    Out embedded;             // before the embedding norm
    std::vector<Out> inputs;  // of each block, then of the final norm
    Out hidden;               // after the final norm
    std::vector<std::variant<typename RetentionBlock::Saved, typename AttentionBlock::Saved>> blocks;
    std::vector<typename CrossBlock::Saved> cross_blocks;
    SharedRows<Scalar> shared, dshared;  // keys and values of the cross-decoder, their gradient
    Buffer<Scalar> dshared_memory;
    State initial, scratch;
    Buffer<Scalar> memory;
  };

  explicit RetNetModel(RetNetConfig config, Seed seed = {})
      : RetNetModel(std::move(config), std::shared_ptr<const ParamBuffer<Weight>>()) {
    auto values = std::make_shared<ParamBuffer<Weight>>(layout_);
    initialize(*values, layout_, seed);
    weights_ = std::move(values);
  }
  /// Weights from elsewhere: a checkpoint, a training run, a cast to bfloat16.
  RetNetModel(RetNetConfig config, ParamBuffer<Weight> weights)
      : RetNetModel(std::move(config), ParamLayout(), std::move(weights)) {}
  /// The same with parameters where `places`, an empty layout, puts them: weights in a mapped file.
  RetNetModel(RetNetConfig config, ParamLayout places, ParamBuffer<Weight> weights)
      : RetNetModel(std::move(config),
                    std::make_shared<const ParamBuffer<Weight>>(std::move(weights)),
                    std::move(places)) {
    RETNET_CHECK(static_cast<Index>(weights_->flat().size()) == layout_.size(), kName,
                 "weights hold ", weights_->flat().size(), " elements, this config needs ",
                 layout_.size());
  }

  const RetNetConfig& config() const { return config_; }
  const ParamLayout& layout() const { return layout_; }
  const std::vector<AnyBlock>& blocks() const { return blocks_; }
  /// The retention of a layer; null if its mixer is something else.
  const MultiScaleRetention<Scalar, Weight>* retention(Index layer) const {
    const auto* block = std::get_if<RetentionBlock>(&blocks_[static_cast<std::size_t>(layer)]);
    return block ? &block->mixer() : nullptr;
  }
  Index count_params() const { return layout_.count(); }
  ParamRef<const Weight> weights() const { return weights_->ref(); }
  const ParamBuffer<Weight>& weight_buffer() const { return *weights_; }
  /// Only the architecture, for callers that bring the weights: a trainer, a reader of files.
  static RetNetModel without_weights(RetNetConfig config) {
    return RetNetModel(std::move(config), std::shared_ptr<const ParamBuffer<Weight>>());
  }
  /// The same architecture with other weights.
  template <class W>
  RetNetModel<Scalar, W> with_weights(ParamBuffer<W> weights) const {
    return RetNetModel<Scalar, W>(config_, layout_.like(), std::move(weights));
  }

  State initial_state(Index sequences = 1) const {
    State s;
    for (const auto& any : blocks_)
      s.layers.push_back(std::visit(
          [&](const auto& b) { return LayerState<Scalar>(b.initial_state(sequences)); }, any));
    if (shared_) s.cross = shared_->initial_state(sequences);
    return s;
  }

  /// Logits of Eigen tokens [B,T] of int32: [B,T,V] for a Tensor, [B*T,V] for a Matrix. All three
  /// run on default_context() and throw std::invalid_argument on wrong shapes and tokens.
  template <class X>
  auto forward_parallel(const X& tokens) const {
    return run(Form::parallel(), tokens, nullptr);
  }
  template <class X>
  auto forward_parallel(const X& tokens, State& state) const {
    return run(Form::parallel(), tokens, &state);
  }
  template <class X>
  auto forward_recurrent(const X& tokens, State& state) const {
    return run(Form::recurrent(), tokens, &state);
  }
  template <class X>
  auto forward_chunkwise(const X& tokens, State& state, Index chunk = 64) const {
    return run(Form::chunkwise(chunk), tokens, &state);
  }

  /// Logits [B,T,V] into memory of the caller, any context, any sequences; state may be null.
  template <class Context>
  void forward(Context& ctx, ParamRef<const Weight> w, const Pass& pass, TokenView tokens,
               State* state, View<Scalar, 3> logits) const {
    RETNET_CHECK(logits.dim(0) * logits.dim(1) == tokens.size() && logits.dim(2) == config_.vocab,
                 kName, pass.form.name(), ": logits are ", logits, ", tokens are ", tokens,
                 ", vocab = ", config_.vocab);
    const auto scope = ctx.workspace().scope();
    const Out h = take(ctx, tokens.size());
    hidden(ctx, w, pass, tokens, state, h);
    project(ctx, w, pass, In(h), rows_of(logits));
  }

  /// The rows [B*T,C] before the output projection.
  template <class Context>
  void hidden(Context& ctx, ParamRef<const Weight> w, const Pass& pass, TokenView tokens,
              State* state, Out h) const;

  /// logits [R,V] of hidden rows [R,C].
  template <class Context>
  void project(Context& ctx, ParamRef<const Weight> w, const Pass& pass, In h, Out logits) const {
    linear(ctx, w[output()], w[output_bias_], h, logits, pass.sequences.single_token());
  }

  /// The summed cross-entropy in nats of targets [B,T] (kIgnore: no target).
  template <class Context>
  LossSum loss(Context& ctx, ParamRef<const Weight> w, const Pass& pass, TokenView tokens,
               TokenView targets, State* state = nullptr) const;

  /// The same, and dw += scale * d(sum of losses). Give scale = 1 / number of targets for the mean.
  /// dstate: the gradient of the final state in, of the initial state out; may be null.
  template <class Context>
  LossSum loss_and_gradient(Context& ctx, ParamRef<const Weight> w, const Pass& pass,
                            TokenView tokens, TokenView targets, State* state, Saved& saved,
                            ParamRef<Scalar> dw, double scale,
                            State* dstate = nullptr) const requires std::same_as<Scalar, Weight>;

 private:
  static constexpr Index kLossRows = 1024;  // rows whose logits exist at one time
  static constexpr Index kEmbeddingSite = 3;

  RetNetModel(RetNetConfig config, std::shared_ptr<const ParamBuffer<Weight>> weights,
              ParamLayout places = {})
      : config_(std::move(config)), layout_(std::move(places)), weights_(std::move(weights)) {
    place();
  }
  void place();
  void check(const Pass& pass, TokenView tokens, State* state) const;
  void check_targets(TokenView tokens, TokenView targets) const;
  Param output() const { return config_.tied_output ? embedding_ : output_; }
  double embedding_scale() const {
    return config_.scale_embedding ? std::sqrt(static_cast<double>(config_.d_model)) : 1.0;
  }
  static Pass at_layer(Pass pass, std::size_t layer) {
    pass.layer = static_cast<Index>(layer);
    return pass;
  }
  // The entry of a state that belongs to a block of this type.
  template <class B>
  static typename B::State* state_of(const B&, State* state, std::size_t layer) {
    return state ? &std::get<typename B::State>(state->layers[layer]) : nullptr;
  }
  template <class Context>
  Out take(Context& ctx, Index rows) const {
    return {ctx.workspace().template take<Scalar>(rows * config_.d_model), rows, config_.d_model};
  }
  template <class Context>
  void embed(Context& ctx, ParamRef<const Weight> w, const Pass& pass, TokenView tokens,
             Out embedded, Out x) const;
  template <class Context>
  void cross_decode(Context& ctx, ParamRef<const Weight> w, const Pass& pass, State* state,
                    Out& x, Out& y) const;
  void reserve(Saved& s, Index rows, const State* state) const;
  template <class Context>
  void forward_saved(Context& ctx, ParamRef<const Weight> w, const Pass& pass, State* state,
                     Saved& s) const;
  template <class Context>
  void cross_backward(Context& ctx, ParamRef<const Weight> w, const Pass& pass, Saved& s, Out& dy,
                      Out& dx, Out again, ParamRef<Scalar> dw) const;
  template <class Context>
  void backward(Context& ctx, ParamRef<const Weight> w, const Pass& pass, TokenView tokens,
                Saved& s, Out dh, ParamRef<Scalar> dw, State* dstate) const;

  template <class X, class StatePointer>
  auto run(Form form, const X& tokens, StatePointer state) const {
    typename detail::LogitsOf<X, Scalar>::Type logits;
    const TokenView view(tokens);
    if constexpr (requires { logits.dimension(0); }) {
      logits.resize(view.dim(0), view.dim(1), config_.vocab);
    } else {
      logits.resize(view.size(), config_.vocab);
    }
    RETNET_CHECK(view.size() > 0, kName, form.name(), ": tokens are ", view, ", expected B, T > 0");
    forward(default_context(), weights(), Pass{form, Sequences::dense(view.dim(0), view.dim(1))},
            view, static_cast<State*>(state),
            View<Scalar, 3>(logits.data(), {view.dim(0), view.dim(1), config_.vocab}));
    return logits;
  }

  RetNetConfig config_;
  ParamLayout layout_;
  Param embedding_, output_, output_bias_;
  BlockNorm embedding_norm_, final_norm_;
  std::vector<AnyBlock> blocks_;
  std::optional<SharedKeyValue<Scalar, Weight>> shared_;
  std::vector<CrossBlock> cross_blocks_;
  std::shared_ptr<const ParamBuffer<Weight>> weights_;
};

}  // namespace retnet::inline RETNET_ABI

#include "retnet/model/detail/retnet_model_impl.hpp"
