// SPDX-License-Identifier: MIT
// The steps of RetNetModel, in the order the data flows; backward below, mirrored.
#pragma once

#include "retnet/model/retnet_model.hpp"

namespace retnet::inline RETNET_ABI {

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
  for (Index l = 0; l < c.layers; ++l)
    blocks_.emplace_back(c.block(), layout_, detail::concat("layers.", l, "."));
  if (c.final_norm) final_norm_ = BlockNorm(c.norm, c.norm_eps, c.d_model, layout_, "final_norm");
  if (!c.tied_output) output_ = layout_.add("output_projection.weight", c.vocab, c.d_model, init);
  if (c.output_bias) output_bias_ = layout_.add("output_projection.bias", 1, c.vocab, {}, false);
}

template <ComputeScalar Scalar, class Weight>
void RetNetModel<Scalar, Weight>::check(const Pass& pass, TokenView tokens,
                                        const State* state) const {
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
  for (std::size_t l = 0; l < blocks_.size(); ++l)
    blocks_[l].mixer().check(pass, x, state ? &state->layers[l] : nullptr);
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
    Pass at = pass;
    at.layer = static_cast<Index>(l);
    blocks_[l].forward_rows(ctx, w, at, In(x), state ? &state->layers[l] : nullptr, y, nullptr);
    std::swap(x, y);
  }
  if (final_norm_) return final_norm_.forward(ctx, w, In(x), h);
  std::copy_n(x.data, x.rows * x.cols, h.data);
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
  const auto inputs = static_cast<std::size_t>(config_.layers) + 1;
  const Index extra = 2;  // embedded, hidden
  s.memory.resize(size * (static_cast<Index>(inputs) + extra));
  s.inputs.resize(inputs);
  Scalar* p = s.memory.data();
  const auto next = [&] { return Out(std::exchange(p, p + size), rows, config_.d_model); };
  for (auto& x : s.inputs) x = next();
  s.embedded = next();
  s.hidden = next();
  const std::size_t blocks = s.recompute ? 1 : blocks_.size();
  if (s.blocks.size() != blocks) s.blocks = std::vector<typename Block::Saved>(blocks);
  if (s.recompute && state) s.initial = *state;
  if (s.recompute && !state) s.initial = State();
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
  for (std::size_t l = 0; l < blocks_.size(); ++l) {
    Pass at = pass;
    at.layer = static_cast<Index>(l);
    blocks_[l].forward_rows(ctx, w, at, In(saved.inputs[l]), state ? &state->layers[l] : nullptr,
                            saved.inputs[l + 1], saved.recompute ? nullptr : &saved.blocks[l]);
  }
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

template <ComputeScalar Scalar, class Weight>
template <class Context>
void RetNetModel<Scalar, Weight>::backward(Context& ctx, ParamRef<const Weight> w, const Pass& pass,
                                           TokenView tokens, Saved& s, Out dh, ParamRef<Scalar> dw,
                                           State* dstate) const {
  const auto scope = ctx.workspace().scope();
  Out dy = dh, dx = take(ctx, dh.rows);
  const Out again = s.recompute ? take(ctx, dh.rows) : Out();
  if (final_norm_) final_norm_.backward(ctx, w, In(s.inputs.back()), In(dy), dw, dy, Scalar(0));
  for (std::size_t l = blocks_.size(); l-- > 0;) {
    Pass at = pass;
    at.layer = static_cast<Index>(l);
    auto& block = s.blocks[s.recompute ? 0 : l];
    if (s.recompute) {
      s.scratch = s.initial;
      blocks_[l].forward_rows(ctx, w, at, In(s.inputs[l]),
                              s.initial.empty() ? nullptr : &s.scratch.layers[l], again, &block);
    }
    blocks_[l].backward_rows(ctx, w, at, In(s.inputs[l]), block, dy, dw, dx,
                             dstate ? &dstate->layers[l] : nullptr);
    std::swap(dy, dx);
  }
  if (pass.dropout)
    dropout(ctx, config_.dropout, pass.dropout->seed,
            pass.dropout->stream(config_.layers, kEmbeddingSite), dy);
  if (embedding_norm_) embedding_norm_.backward(ctx, w, In(s.embedded), In(dy), dw, dy, Scalar(0));
  embedding_backward(ctx, embedding_scale(), tokens.data(), In(dy), dw[embedding_]);
}

}  // namespace retnet::inline RETNET_ABI
