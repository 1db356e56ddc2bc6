// SPDX-License-Identifier: MIT
// The steps of SharedKeyValue and CrossAttention, each with its backward.
#pragma once

#include "retnet/layers/cross_attention.hpp"
#include "retnet/layers/detail/attention_parts.hpp"

namespace retnet::inline RETNET_ABI {

// ---- SharedKeyValue ----

template <ComputeScalar Scalar, class Weight>
SharedKeyValue<Scalar, Weight>::SharedKeyValue(CrossAttentionConfig config, ParamLayout& layout,
                                               const std::string& prefix)
    : config_(std::move(config)) {
  config_.validate(kName);
  rotation_ = rotation_of(config_.attention());
  norm_ = BlockNorm(NormKind::rms, config_.norm_eps, config_.d_model, layout, prefix + "norm");
  k_ = layout.add(prefix + "k_proj.weight", width(), config_.d_model, config_.init_projection);
  v_ = layout.add(prefix + "v_proj.weight", width(), config_.d_model, config_.init_projection);
}

template <ComputeScalar Scalar, class Weight>
void SharedKeyValue<Scalar, Weight>::check(const Pass& pass, ConstView<Scalar, 3> x,
                                           const State* state) const {
  const char* form = pass.form.name();
  RETNET_CHECK(x.size() > 0 && x.dim(2) == config_.d_model, kName, form, ": x is ", x,
               ", layer has d_model = ", config_.d_model);
  RETNET_CHECK(x.dim(0) * x.dim(1) == pass.sequences.rows(), kName, form, ": x is ", x,
               ", the sequences cover ", pass.sequences.rows(), " rows");
  if (state == nullptr) return;
  RETNET_CHECK(state->sequences() == pass.sequences.count(), kName, form, ": the state holds ",
               state->sequences(), " sequences, x holds ", pass.sequences.count());
  RETNET_CHECK(
      state->key_width() == width() && state->value_width() == width() && state->window() == 0,
      kName, form, ": the state is of another layer: a token has ", state->key_width(), " and ",
      state->value_width(), " numbers, window = ", state->window(), ", expected ", width(),
      " of keys and of values, window = 0");
}

template <ComputeScalar Scalar, class Weight>
template <class Context>
void SharedKeyValue<Scalar, Weight>::forward_rows(Context& ctx, ParamRef<const Weight> w,
                                                  const Pass& pass, In x, const State* state,
                                                  Rows& rows, bool train) const {
  const auto scope = ctx.workspace().scope();
  detail::lay_out(ctx, &rows.memory, x.rows,
                  {{&rows.k, width()}, {&rows.v, width()}, {&rows.normed, config_.d_model}});
  rows.state = state;
  if (train) rows.initial = state ? *state : State();
  norm_.forward(ctx, w, x, rows.normed);
  const bool one = pass.sequences.single_token();
  const Window<const Weight> no_bias;
  linear(ctx, w[k_], no_bias, In(rows.normed), rows.k, one);
  linear(ctx, w[v_], no_bias, In(rows.normed), rows.v, one);
  rotate(ctx, rotation_, {}, config_.kv(), pass.sequences,
         detail::positions_of(ctx, pass.sequences, state), In(rows.k), rows.k);
}

template <ComputeScalar Scalar, class Weight>
template <class Context>
void SharedKeyValue<Scalar, Weight>::backward_rows(
    Context& ctx, ParamRef<const Weight> w, const Pass& pass, In x, const Rows& rows, Out dk, In dv,
    ParamRef<Scalar> dw, Out dx, Scalar beta) const requires std::same_as<Scalar, Weight> {
  const auto scope = ctx.workspace().scope();
  Out d;
  detail::lay_out<Context, Scalar>(ctx, nullptr, x.rows, {{&d, config_.d_model}});
  rotate(ctx, rotation_, {}, config_.kv(), pass.sequences,
         detail::positions_of(ctx, pass.sequences, &rows.initial), In(dk), dk, true);
  linear_backward(ctx, w[k_], In(rows.normed), In(dk), dw[k_], Out(), d);
  linear_backward(ctx, w[v_], In(rows.normed), dv, dw[v_], Out(), d, Scalar(1));
  norm_.backward(ctx, w, x, In(d), dw, dx, beta);
}

// ---- CrossAttention ----

template <ComputeScalar Scalar, class Weight>
CrossAttention<Scalar, Weight>::CrossAttention(CrossAttentionConfig config, ParamLayout& layout,
                                               const std::string& prefix)
    : config_(std::move(config)) {
  config_.validate(kName);
  scale_ = config_.attention().score_scale();
  rotation_ = rotation_of(config_.attention());
  const Index width = config_.heads * config_.dim();
  q_ = layout.add(prefix + "q_proj.weight", width, config_.d_model, config_.init_projection);
  out_ = layout.add(prefix + "out_proj.weight", config_.d_model, width, config_.init_output);
}

template <ComputeScalar Scalar, class Weight>
void CrossAttention<Scalar, Weight>::check(const Pass& pass, ConstView<Scalar, 3> x,
                                           const Rows& shared) const {
  const char* form = pass.form.name();
  RETNET_CHECK(x.size() > 0 && x.dim(2) == config_.d_model, kName, form, ": x is ", x,
               ", layer has d_model = ", config_.d_model);
  RETNET_CHECK(x.dim(0) * x.dim(1) == pass.sequences.rows(), kName, form, ": x is ", x,
               ", the sequences cover ", pass.sequences.rows(), " rows");
  const Index width = config_.kv() * config_.dim();
  RETNET_CHECK(shared.k.rows == pass.sequences.rows() && shared.k.cols == width, kName, form,
               ": the shared keys are [", shared.k.rows, ",", shared.k.cols, "], expected [",
               pass.sequences.rows(), ",", width, "]");
  RETNET_CHECK(pass.form.kind != Form::Kind::chunkwise || pass.form.chunk > 0, kName, form,
               ": chunk = ", pass.form.chunk, ", expected at least 1");
}

template <ComputeScalar Scalar, class Weight>
template <class Context>
void CrossAttention<Scalar, Weight>::forward_rows(Context& ctx, ParamRef<const Weight> w,
                                                  const Pass& pass, In x, const Rows& shared, Out y,
                                                  Saved* saved) const {
  const auto scope = ctx.workspace().scope();
  Saved local;
  Saved& s = saved ? *saved : local;
  const Index width = config_.heads * config_.dim();
  detail::lay_out(ctx, saved ? &saved->memory : nullptr, x.rows,
                  {{&s.q, width}, {&s.o, width}, {&s.lse, saved ? config_.heads : 0}});
  const bool one = pass.sequences.single_token();
  const Window<const Weight> no_bias;
  linear(ctx, w[q_], no_bias, x, s.q, one);
  rotate(ctx, rotation_, {}, config_.heads, pass.sequences,
         detail::positions_of(ctx, pass.sequences, shared.state), In(s.q), s.q);
  if (pass.sequences.padded()) detail::zero(s.o);  // rows of no sequence come out as zero
  attention(ctx, input(ctx, pass, shared, s.q, shared.state), detail::queries_of(pass.form), s.o,
            s.lse);
  linear(ctx, w[out_], no_bias, In(s.o), y, one);
}

template <ComputeScalar Scalar, class Weight>
template <class Context>
void CrossAttention<Scalar, Weight>::backward_rows(
    Context& ctx, ParamRef<const Weight> w, const Pass& pass, In x, const Rows& shared, Saved& s,
    In dy, ParamRef<Scalar> dw, Out dx, Scalar beta, Out dk,
    Out dv) const requires std::same_as<Scalar, Weight> {
  const auto scope = ctx.workspace().scope();
  Out d, dq;
  detail::lay_out<Context, Scalar>(ctx, nullptr, x.rows, {{&d, s.q.cols}, {&dq, s.q.cols}});
  linear_backward(ctx, w[out_], In(s.o), dy, dw[out_], Out(), d);
  if (pass.sequences.padded()) detail::zero(dq);
  attention_backward(ctx, input(ctx, pass, shared, s.q, &shared.initial), In(s.o), In(s.lse), In(d),
                     {dq, dk, dv, true});
  rotate(ctx, rotation_, {}, config_.heads, pass.sequences,
         detail::positions_of(ctx, pass.sequences, &shared.initial), In(dq), dq, true);
  linear_backward(ctx, w[q_], x, In(dq), dw[q_], Out(), dx, beta);
}

}  // namespace retnet::inline RETNET_ABI
