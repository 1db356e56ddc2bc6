// SPDX-License-Identifier: MIT
// The steps of RetNetModel, in the order the data flows; backward below, mirrored.
#pragma once

#include "retnet/model/retnet_model.hpp"

namespace retnet::inline RETNET_ABI {

namespace detail {

/// The variant as a T, made one if it is something else.
template <class T, class Variant>
T& as(Variant& v) {
  if (!std::holds_alternative<T>(v)) v.template emplace<T>();
  return std::get<T>(v);
}

}  // namespace detail

template <ComputeScalar Scalar, class Weight>
void RetNetModel<Scalar, Weight>::place() {
  config_.validate();
  const auto& c = config_;
  const double std_dev =
      c.init_embedding > 0.0 ? c.init_embedding : 1.0 / std::sqrt(static_cast<double>(c.d_model));
  const Init init{Init::Kind::normal, std_dev};
  embedding_ = layout_.add("embed_tokens.weight", c.vocab, c.d_model, init, false);
  if (c.embedding_norm)
    embedding_norm_ = BlockNorm(c.norm, c.norm_eps, c.d_model, layout_, "embedding_norm");
  for (Index l = 0; l < c.layers; ++l) {
    const std::string prefix = detail::concat("layers.", l, ".");
    if (const AttentionLayer* a = c.attention_at(l)) {
      blocks_.emplace_back(std::in_place_type<AttentionBlock>, c.attention_block(*a), layout_, prefix);
    } else {
      blocks_.emplace_back(std::in_place_type<RetentionBlock>, c.block(), layout_, prefix);
    }
  }
  if (c.cross_decoder.layers > 0) {
    shared_.emplace(c.cross_block().mixer, layout_, "cross.shared.");
    for (Index l = 0; l < c.cross_decoder.layers; ++l)
      cross_blocks_.emplace_back(c.cross_block(), layout_, detail::concat("cross.layers.", l, "."));
  }
  if (c.final_norm) final_norm_ = BlockNorm(c.norm, c.norm_eps, c.d_model, layout_, "final_norm");
  if (!c.tied_output) output_ = layout_.add("output_projection.weight", c.vocab, c.d_model, init);
  if (c.output_bias) output_bias_ = layout_.add("output_projection.bias", 1, c.vocab, {}, false);
}

template <ComputeScalar Scalar, class Weight>
void RetNetModel<Scalar, Weight>::check(const Pass& pass, TokenView tokens, State* state) const {
  const char* form = pass.form.name();
  RETNET_CHECK(tokens.size() > 0 && tokens.size() == pass.sequences.rows(), kName, form,
               ": tokens are ", tokens, ", the sequences cover ", pass.sequences.rows(), " rows");
  for (Index i = 0; i < tokens.size(); ++i) {
    const Token t = tokens.data()[i];
    RETNET_CHECK(t >= 0 && t < config_.vocab, kName, form, ": token ", t, " at row ", i,
                 ", expected 0 <= token < vocab = ", config_.vocab);
  }
  RETNET_CHECK(!state || static_cast<Index>(state->layers.size()) == config_.layers, kName, form,
               ": the state has ", state ? state->layers.size() : 0, " layers, expected ",
               config_.layers);
  // what the mixers check of x holds by construction; what they check of the state does not
  const ConstView<Scalar, 3> x(nullptr, {1, tokens.size(), config_.d_model});
  for (std::size_t l = 0; l < blocks_.size(); ++l) {
    RETNET_CHECK(!state || state->layers[l].index() == blocks_[l].index(), kName, form,
                 ": the state of layer ", l,
                 " is of another kind of mixer, expected one of initial_state(sequences)");
    std::visit([&](const auto& b) { b.mixer().check(pass, x, state_of(b, state, l)); }, blocks_[l]);
  }
  if (shared_) shared_->check(pass, x, state ? &state->cross : nullptr);
}

template <ComputeScalar Scalar, class Weight>
void RetNetModel<Scalar, Weight>::check_targets(TokenView tokens, TokenView targets) const {
  RETNET_CHECK(targets.dims() == tokens.dims(), kName, "loss: targets are ", targets,
               ", tokens are ", tokens);
  for (Index i = 0; i < targets.size(); ++i) {
    const Token t = targets.data()[i];
    RETNET_CHECK(t == kIgnore || (t >= 0 && t < config_.vocab), kName, "loss: target ", t,
                 " at row ", i, ", expected 0 <= target < vocab = ", config_.vocab, ", or kIgnore");
  }
}

template <ComputeScalar Scalar, class Weight>
template <class Context>
void RetNetModel<Scalar, Weight>::embed(Context& ctx, ParamRef<const Weight> w, const Pass& pass,
                                        TokenView tokens, Out embedded, Out x) const {
  embedding(ctx, embedding_scale(), tokens.data(), w[embedding_], embedding_norm_ ? embedded : x);
  if (embedding_norm_) embedding_norm_.forward(ctx, w, In(embedded), x);
  if (pass.dropout)
    dropout(ctx, config_.dropout, pass.dropout->seed,
            pass.dropout->stream(config_.layers, kEmbeddingSite), x);
}

template <ComputeScalar Scalar, class Weight>
template <class Context>
void RetNetModel<Scalar, Weight>::hidden(Context& ctx, ParamRef<const Weight> w, const Pass& pass,
                                         TokenView tokens, State* state, Out h) const {
  check(pass, tokens, state);
  const auto scope = ctx.workspace().scope();
  Out x = take(ctx, tokens.size()), y = take(ctx, tokens.size());
  embed(ctx, w, pass, tokens, y, x);
  for (std::size_t l = 0; l < blocks_.size(); ++l) {
    std::visit(
        [&](const auto& b) {
          b.forward_rows(ctx, w, at_layer(pass, l), In(x), state_of(b, state, l), y, nullptr);
        },
        blocks_[l]);
    std::swap(x, y);
  }
  if (shared_) cross_decode(ctx, w, pass, state, x, y);
  if (final_norm_) return final_norm_.forward(ctx, w, In(x), h);
  std::copy_n(x.data, x.rows * x.cols, h.data);
}

// x goes through the cross-decoder and stands in x again; y is scratch.
template <ComputeScalar Scalar, class Weight>
template <class Context>
void RetNetModel<Scalar, Weight>::cross_decode(Context& ctx, ParamRef<const Weight> w,
                                               const Pass& pass, State* state, Out& x,
                                               Out& y) const {
  SharedRows<Scalar> shared;
  shared_->forward_rows(ctx, w, pass, In(x), state ? &state->cross : nullptr, shared);
  for (std::size_t l = 0; l < cross_blocks_.size(); ++l) {
    cross_blocks_[l].forward_rows(ctx, w, at_layer(pass, blocks_.size() + l), In(x), &shared, y,
                                  nullptr);
    std::swap(x, y);
  }
  if (state) state->cross.append(pass.sequences, In(shared.k), In(shared.v));
}

template <ComputeScalar Scalar, class Weight>
template <class Context>
LossSum RetNetModel<Scalar, Weight>::loss(Context& ctx, ParamRef<const Weight> w, const Pass& pass,
                                          TokenView tokens, TokenView targets, State* state) const {
  check_targets(tokens, targets);
  const auto scope = ctx.workspace().scope();
  const Index rows = tokens.size();
  const Out h = take(ctx, rows);
  hidden(ctx, w, pass, tokens, state, h);
  LossSum total;
  for (Index r = 0; r < rows; r += kLossRows) {
    const auto inner = ctx.workspace().scope();
    const Index n = std::min(kLossRows, rows - r);
    const Out logits(ctx.workspace().template take<Scalar>(n * config_.vocab), n, config_.vocab);
    project(ctx, w, pass, In(h.row_block(r, n)), logits);
    const LossSum part = cross_entropy(ctx, targets.data() + r, logits);
    total.sum += part.sum;
    total.rows += part.rows;
  }
  return total;
}

template <ComputeScalar Scalar, class Weight>
void RetNetModel<Scalar, Weight>::reserve(Saved& s, Index rows, const State* state) const {
  const Index size = rows * config_.d_model;
  const std::size_t inputs = blocks_.size() + cross_blocks_.size() + 1;
  const Index extra = 2;  // embedded, hidden
  s.memory.resize(size * (static_cast<Index>(inputs) + extra));
  s.inputs.resize(inputs);
  Scalar* p = s.memory.data();
  const auto next = [&] { return Out(std::exchange(p, p + size), rows, config_.d_model); };
  for (auto& x : s.inputs) x = next();
  s.embedded = next();
  s.hidden = next();
  s.blocks.resize(s.recompute ? std::variant_size_v<AnyBlock> : blocks_.size());
  s.cross_blocks.resize(s.recompute && !cross_blocks_.empty() ? 1 : cross_blocks_.size());
  if (s.recompute && state) s.initial = *state;
  if (s.recompute && !state) s.initial = State();
}

// Every block's input, and what its backward needs.
template <ComputeScalar Scalar, class Weight>
template <class Context>
void RetNetModel<Scalar, Weight>::forward_saved(Context& ctx, ParamRef<const Weight> w,
                                                const Pass& pass, State* state, Saved& s) const {
  for (std::size_t l = 0; l < blocks_.size(); ++l)
    std::visit(
        [&](const auto& b) {
          using B = std::remove_cvref_t<decltype(b)>;
          auto* saved = s.recompute ? nullptr : &detail::as<typename B::Saved>(s.blocks[l]);
          b.forward_rows(ctx, w, at_layer(pass, l), In(s.inputs[l]), state_of(b, state, l),
                         s.inputs[l + 1], saved);
        },
        blocks_[l]);
  if (!shared_) return;
  const std::size_t first = blocks_.size();
  shared_->forward_rows(ctx, w, pass, In(s.inputs[first]), state ? &state->cross : nullptr,
                        s.shared, true);
  for (std::size_t l = 0; l < cross_blocks_.size(); ++l)
    cross_blocks_[l].forward_rows(ctx, w, at_layer(pass, first + l), In(s.inputs[first + l]),
                                  &s.shared, s.inputs[first + l + 1],
                                  s.recompute ? nullptr : &s.cross_blocks[l]);
  if (state) state->cross.append(pass.sequences, In(s.shared.k), In(s.shared.v));
  s.shared.state = nullptr;  // backward sees the copy of what was given
}

template <ComputeScalar Scalar, class Weight>
template <class Context>
LossSum RetNetModel<Scalar, Weight>::loss_and_gradient(
    Context& ctx, ParamRef<const Weight> w, const Pass& pass, TokenView tokens, TokenView targets,
    State* state, Saved& saved, ParamRef<Scalar> dw, double scale,
    State* dstate) const requires std::same_as<Scalar, Weight> {
  check(pass, tokens, state);
  check_targets(tokens, targets);
  const Index rows = tokens.size();
  reserve(saved, rows, state);
  embed(ctx, w, pass, tokens, saved.embedded, saved.inputs[0]);
  forward_saved(ctx, w, pass, state, saved);
  if (final_norm_) final_norm_.forward(ctx, w, In(saved.inputs.back()), saved.hidden);
  const In h = final_norm_ ? In(saved.hidden) : In(saved.inputs.back());

  const auto scope = ctx.workspace().scope();
  const Out dh = take(ctx, rows);
  LossSum total;
  for (Index r = 0; r < rows; r += kLossRows) {  // logits become their gradient in place
    const auto inner = ctx.workspace().scope();
    const Index n = std::min(kLossRows, rows - r);
    const Out logits(ctx.workspace().template take<Scalar>(n * config_.vocab), n, config_.vocab);
    project(ctx, w, pass, h.row_block(r, n), logits);
    const LossSum part = cross_entropy(ctx, targets.data() + r, logits, scale);
    linear_backward(ctx, w[output()], h.row_block(r, n), In(logits), dw[output()], dw[output_bias_],
                    dh.row_block(r, n));
    total.sum += part.sum;
    total.rows += part.rows;
  }
  backward(ctx, w, pass, tokens, saved, dh, dw, dstate);
  return total;
}

// dy of the last block becomes that of what the cross-decoder was given.
template <ComputeScalar Scalar, class Weight>
template <class Context>
void RetNetModel<Scalar, Weight>::cross_backward(Context& ctx, ParamRef<const Weight> w,
                                                 const Pass& pass, Saved& s, Out& dy, Out& dx,
                                                 Out again, ParamRef<Scalar> dw) const {
  const std::size_t first = blocks_.size();
  const auto& keys = s.shared.k;
  s.dshared_memory.resize(2 * keys.rows * keys.cols);
  s.dshared_memory.fill(Scalar(0));
  s.dshared.k = Out(s.dshared_memory.data(), keys.rows, keys.cols);
  s.dshared.v = Out(s.dshared_memory.data() + keys.rows * keys.cols, keys.rows, keys.cols);
  s.shared.state = s.shared.initial.empty() ? nullptr : &s.shared.initial;
  for (std::size_t l = cross_blocks_.size(); l-- > 0;) {
    auto& saved = s.cross_blocks[s.recompute ? 0 : l];
    const Pass at = at_layer(pass, first + l);
    const In x(s.inputs[first + l]);
    if (s.recompute) cross_blocks_[l].forward_rows(ctx, w, at, x, &s.shared, again, &saved);
    cross_blocks_[l].backward_rows(ctx, w, at, x, saved, dy, dw, dx, &s.dshared);
    std::swap(dy, dx);
  }
  shared_->backward_rows(ctx, w, pass, In(s.inputs[first]), s.shared, s.dshared.k,
                         In(s.dshared.v), dw, dy, Scalar(1));
}

template <ComputeScalar Scalar, class Weight>
template <class Context>
void RetNetModel<Scalar, Weight>::backward(Context& ctx, ParamRef<const Weight> w, const Pass& pass,
                                           TokenView tokens, Saved& s, Out dh, ParamRef<Scalar> dw,
                                           State* dstate) const {
  const auto scope = ctx.workspace().scope();
  Out dy = dh, dx = take(ctx, dh.rows);
  const Out again = s.recompute ? take(ctx, dh.rows) : Out();
  if (final_norm_) final_norm_.backward(ctx, w, In(s.inputs.back()), In(dy), dw, dy, Scalar(0));
  if (shared_) cross_backward(ctx, w, pass, s, dy, dx, again, dw);
  for (std::size_t l = blocks_.size(); l-- > 0;) {
    std::visit(
        [&](const auto& b) {
          using B = std::remove_cvref_t<decltype(b)>;
          const std::size_t place = s.recompute ? blocks_[l].index() : l;
          auto& saved = detail::as<typename B::Saved>(s.blocks[place]);
          const Pass at = at_layer(pass, l);
          const In x(s.inputs[l]);
          if (s.recompute) {
            s.scratch = s.initial;
            b.forward_rows(ctx, w, at, x,
                           s.initial.empty() ? nullptr : state_of(b, &s.scratch, l), again, &saved);
          }
          b.backward_rows(ctx, w, at, x, saved, dy, dw, dx, state_of(b, dstate, l));
        },
        blocks_[l]);
    std::swap(dy, dx);
  }
  if (pass.dropout)
    dropout(ctx, config_.dropout, pass.dropout->seed,
            pass.dropout->stream(config_.layers, kEmbeddingSite), dy);
  if (embedding_norm_) embedding_norm_.backward(ctx, w, In(s.embedded), In(dy), dw, dy, Scalar(0));
  embedding_backward(ctx, embedding_scale(), tokens.data(), In(dy), dw[embedding_]);
}

}  // namespace retnet::inline RETNET_ABI
