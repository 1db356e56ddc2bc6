// SPDX-License-Identifier: MIT
// The steps of Attention, in the order the data flows; backward below, mirrored.
#pragma once

#include "retnet/layers/attention.hpp"
#include "retnet/layers/detail/attention_parts.hpp"

namespace retnet::inline RETNET_ABI {

template <ComputeScalar Scalar, class Weight>
void Attention<Scalar, Weight>::place(ParamLayout& layout, const std::string& prefix) {
  config_.validate(kName);
  rotation_ = rotation_of(config_);
  const auto& c = config_;
  const Index width = c.heads * c.dim();
  const auto add = [&](const char* name, Index out, Index in, Init init, bool biased, Param& weight,
                       Param& bias) {
    weight = layout.add(prefix + name + ".weight", out, in, init);
    if (biased) bias = layout.add(prefix + name + ".bias", 1, out, {}, false);
  };
  add("q_proj", width, c.d_model, c.init_projection, c.qkv_bias, q_, q_bias_);
  add("k_proj", key_width(), c.d_model, c.init_projection, c.qkv_bias, k_, k_bias_);
  add("v_proj", key_width(), c.d_model, c.init_projection, c.qkv_bias, v_, v_bias_);
  if (c.qk_norm) {
    q_norm_ = BlockNorm(NormKind::rms, c.qk_norm_eps, c.dim(), layout, prefix + "q_norm");
    k_norm_ = BlockNorm(NormKind::rms, c.qk_norm_eps, c.dim(), layout, prefix + "k_norm");
  }
  add("out_proj", c.d_model, width, c.init_output, c.out_bias, out_, out_bias_);
}

template <ComputeScalar Scalar, class Weight>
void Attention<Scalar, Weight>::check(const Pass& pass, ConstView<Scalar, 3> x,
                                      const State* state) const {
  const char* form = pass.form.name();
  RETNET_CHECK(x.size() > 0, kName, form, ": x is ", x, ", expected positive sizes");
  RETNET_CHECK(x.dim(2) == config_.d_model, kName, form, ": x is ", x,
               ", layer has d_model = ", config_.d_model);
  RETNET_CHECK(x.dim(0) * x.dim(1) == pass.sequences.rows(), kName, form, ": x is ", x,
               ", the sequences cover ", pass.sequences.rows(), " rows");
  RETNET_CHECK(pass.form.kind != Form::Kind::chunkwise || pass.form.chunk > 0, kName, form,
               ": chunk = ", pass.form.chunk, ", expected at least 1");
  if (state == nullptr) return;
  RETNET_CHECK(state->sequences() == pass.sequences.count(), kName, form, ": the state holds ",
               state->sequences(), " sequences, x holds ", pass.sequences.count());
  RETNET_CHECK(state->key_width() == key_width() && state->value_width() == key_width(), kName,
               form, ": the state is of another layer: a token has ", state->key_width(), " and ",
               state->value_width(), " numbers, expected ", key_width(), " of keys and of values");
  RETNET_CHECK(state->window() == 0 || (config_.window > 0 && state->window() >= config_.window),
               kName, form, ": the state remembers ", state->window(),
               " tokens, expected all of them or at least window = ", config_.window);
}

template <ComputeScalar Scalar, class Weight>
template <class Context>
AttentionInput<Scalar> Attention<Scalar, Weight>::input(Context& ctx, const Pass& pass,
                                                        const Saved& s, const State* state) const {
  return {s.q,
          s.k,
          s.v,
          config_.heads,
          config_.kv(),
          &pass.sequences,
          config_.score_scale(),
          config_.window,
          detail::pasts_of(ctx, state)};
}

template <ComputeScalar Scalar, class Weight>
template <class Context>
void Attention<Scalar, Weight>::project(Context& ctx, ParamRef<const Weight> w, const Pass& pass,
                                        In x, const std::int64_t* positions, Saved& s) const {
  const bool one = pass.sequences.single_token();
  const Index dim = config_.dim();
  linear(ctx, w[q_], w[q_bias_], x, config_.qk_norm ? s.q_raw : s.q, one);  // [R,H*Dk]
  linear(ctx, w[k_], w[k_bias_], x, config_.qk_norm ? s.k_raw : s.k, one);  // [R,Hk*Dk]
  linear(ctx, w[v_], w[v_bias_], x, s.v, one);                              // [R,Hk*Dk]
  if (config_.qk_norm) {
    q_norm_.forward(ctx, w, In(detail::heads_as_rows(s.q_raw, dim)),
                    detail::heads_as_rows(s.q, dim));
    k_norm_.forward(ctx, w, In(detail::heads_as_rows(s.k_raw, dim)),
                    detail::heads_as_rows(s.k, dim));
  }
  rotate(ctx, rotation_, {}, config_.heads, pass.sequences, positions, In(s.q), s.q);
  rotate(ctx, rotation_, {}, config_.kv(), pass.sequences, positions, In(s.k), s.k);
}

template <ComputeScalar Scalar, class Weight>
template <class Context>
void Attention<Scalar, Weight>::forward_rows(Context& ctx, ParamRef<const Weight> w,
                                             const Pass& pass, In x, State* state, Out y,
                                             Saved* saved) const {
  const auto scope = ctx.workspace().scope();
  Saved local;
  Saved& s = saved ? *saved : local;
  const Index width = config_.heads * config_.dim(), keys = key_width();
  const bool norm = config_.qk_norm;
  detail::lay_out(ctx, saved ? &saved->memory : nullptr, x.rows,
                  {{&s.q_raw, norm ? width : 0},
                   {&s.k_raw, norm ? keys : 0},
                   {&s.q, width},
                   {&s.k, keys},
                   {&s.v, keys},
                   {&s.o, width},
                   {&s.lse, saved ? config_.heads : 0}});
  if (saved) saved->initial = state ? *state : State();
  project(ctx, w, pass, x, detail::positions_of(ctx, pass.sequences, state), s);
  if (pass.sequences.padded()) detail::zero(s.o);  // rows of no sequence come out as zero
  attention(ctx, input(ctx, pass, s, state), detail::queries_of(pass.form), s.o, s.lse);
  linear(ctx, w[out_], w[out_bias_], In(s.o), y, pass.sequences.single_token());  // [R,C]
  if (state) state->append(pass.sequences, s.k, s.v);
}

// ---- backward ----

template <ComputeScalar Scalar, class Weight>
template <class Context>
void Attention<Scalar, Weight>::backward_rows(
    Context& ctx, ParamRef<const Weight> w, const Pass& pass, In x, Saved& s, In dy,
    ParamRef<Scalar> dw, Out dx, Scalar beta,
    State* dstate) const requires std::same_as<Scalar, Weight> {
  RETNET_CHECK(dstate == nullptr, kName, "backward: given a gradient of the state, expected null: ",
               "no gradient flows into the tokens that a cache remembers");
  const auto scope = ctx.workspace().scope();
  const Index width = s.q.cols, keys = s.k.cols, dim = config_.dim();
  Out d, dq, dk, dv;
  detail::lay_out<Context, Scalar>(ctx, nullptr, x.rows,
                                   {{&d, width}, {&dq, width}, {&dk, keys}, {&dv, keys}});
  linear_backward(ctx, w[out_], In(s.o), dy, dw[out_], dw[out_bias_], d);
  if (pass.sequences.padded()) detail::zero(dq), detail::zero(dk), detail::zero(dv);
  attention_backward(ctx, input(ctx, pass, s, &s.initial), In(s.o), In(s.lse), In(d), {dq, dk, dv});

  const auto* positions = detail::positions_of(ctx, pass.sequences, &s.initial);
  rotate(ctx, rotation_, {}, config_.heads, pass.sequences, positions, In(dq), dq, true);
  rotate(ctx, rotation_, {}, config_.kv(), pass.sequences, positions, In(dk), dk, true);
  const auto norm_back = [&](const BlockNorm& norm, Out raw, Out grad) {
    const Out rows = detail::heads_as_rows(grad, dim);
    norm.backward(ctx, w, In(detail::heads_as_rows(raw, dim)), In(rows), dw, rows, Scalar(0));
  };
  if (config_.qk_norm) norm_back(q_norm_, s.q_raw, dq), norm_back(k_norm_, s.k_raw, dk);
  linear_backward(ctx, w[q_], x, In(dq), dw[q_], dw[q_bias_], dx, beta);
  linear_backward(ctx, w[k_], x, In(dk), dw[k_], dw[k_bias_], dx, Scalar(1));
  linear_backward(ctx, w[v_], x, In(dv), dw[v_], dw[v_bias_], dx, Scalar(1));
}

}  // namespace retnet::inline RETNET_ABI
