// SPDX-License-Identifier: MIT
// The steps of MultiScaleRetention, in the order the data flows; backward below, mirrored.
#pragma once

#include "retnet/layers/multi_scale_retention.hpp"

namespace retnet::inline RETNET_ABI {

template <ComputeScalar Scalar, class Weight>
void MultiScaleRetention<Scalar, Weight>::place(ParamLayout& layout, const std::string& prefix) {
  config_.validate(kName);
  log_gamma_ = log_gamma_of(config_);
  rotation_ = rotation_of(config_);
  const auto& c = config_;
  const Index keys = c.key_dim() * c.kv(), values = c.value_dim() * c.kv();
  const auto add = [&](const char* name, Index out, Index in, Init init, Param& weight,
                       Param& bias) {
    weight = layout.add(prefix + name + ".weight", out, in, init);
    if (c.bias) bias = layout.add(prefix + name + ".bias", 1, out, {}, false);
  };
  add("q_proj", c.key_width(), c.d_model, c.init_projection, q_, q_bias_);
  add("k_proj", keys, c.d_model, c.init_projection, k_, k_bias_);
  add("v_proj", values, c.d_model, c.init_value, v_, v_bias_);
  if (c.gate) add("g_proj", c.gate_width(), c.d_model, c.init_projection, g_, g_bias_);
  if (c.decay == DecayKind::gated)
    gt_ = layout.add(prefix + "gt_proj.weight", c.heads, c.d_model, c.init_projection);
  if (c.head_norm_affine != Affine::none) {
    const Index width = c.head_norm_affine == Affine::per_channel ? c.value_width() : c.value_dim();
    norm_weight_ = layout.add(prefix + "head_norm.weight", 1, width, {Init::Kind::ones}, false);
    if (c.head_norm_bias) norm_bias_ = layout.add(prefix + "head_norm.bias", 1, width, {}, false);
  }
  if (c.bottleneck > 0)
    add("down_proj", c.bottleneck, c.value_width(), c.init_projection, down_, down_bias_);
  add("out_proj", c.d_model, c.gate_width(), c.init_output, out_, out_bias_);
}

template <ComputeScalar Scalar, class Weight>
void MultiScaleRetention<Scalar, Weight>::check(const Pass& pass, ConstView<Scalar, 3> x,
                                                const State* state) const {
  const char* form = pass.form.name();
  RETNET_CHECK(x.size() > 0, kName, form, ": x is ", x, ", expected positive sizes");
  RETNET_CHECK(x.dim(2) == config_.d_model, kName, form, ": x is ", x,
               ", layer has d_model = ", config_.d_model);
  RETNET_CHECK(x.dim(0) * x.dim(1) == pass.sequences.rows(), kName, form, ": x is ", x,
               ", the sequences cover ", pass.sequences.rows(), " rows");
  RETNET_CHECK(pass.form.kind != Form::Kind::chunkwise || pass.form.chunk > 0, kName, form,
               ": chunk = ", pass.form.chunk, ", expected at least 1");
  if (rotation_.has_xpos()) check_xpos(pass, state);
  if (state == nullptr) return;
  RETNET_CHECK(state->sequences() == pass.sequences.count(), kName, form, ": the state holds ",
               state->sequences(), " sequences, x holds ", pass.sequences.count());
  RETNET_CHECK(state->heads() == config_.heads && state->key_dim() == config_.key_dim() &&
                   state->value_dim() == config_.value_dim() && state->has_key_sum() == scored(),
               kName, form, ": the state is of another layer: [H,Dk,Dv] = [", state->heads(), ",",
               state->key_dim(), ",", state->value_dim(), "], expected [", config_.heads, ",",
               config_.key_dim(), ",", config_.value_dim(), "]");
  if (!config_.compat() || pass.form.kind == Form::Kind::recurrent) return;
  for (const std::int64_t n : state->positions())
    RETNET_CHECK(n == 0, kName, form, ": a sequence is at position ", n,
                 ", expected 0: Normalization::torchscale continues in the recurrent form only");
}

// The key's factor grows with its position, zeta^(-n/base), and must stay a number.
template <ComputeScalar Scalar, class Weight>
void MultiScaleRetention<Scalar, Weight>::check_xpos(const Pass& pass, const State* state) const {
  const double largest = std::same_as<Scalar, float> ? 80.0 : 700.0;  // ln of the range, rounded down
  for (Index i = 0; i < pass.sequences.count(); ++i) {
    const bool started = state && i < state->sequences();
    const std::int64_t end = pass.sequences[i].length +
                             (started ? state->positions()[static_cast<std::size_t>(i)] : 0);
    RETNET_CHECK(rotation_.xpos_exponent(end) < largest, kName, pass.form.name(),
                 ": sequence ", i, " reaches position ", end, ", where the xPos scale is e^",
                 rotation_.xpos_exponent(end), ", expected less than e^", largest,
                 ": reset the state, or use double");
  }
}

// Windows into one block of memory: the saved one if backward will come, else scratch.
template <ComputeScalar Scalar, class Weight>
template <class Context>
void MultiScaleRetention<Scalar, Weight>::reserve(Context& ctx, Saved& s, Index rows,
                                                  bool keep) const {
  const auto& c = config_;
  const bool gated = c.decay == DecayKind::gated;
  const Index values = c.value_width();
  Scalar* base = nullptr;
  Index used = 0;
  const auto carve = [&](Out& w, Index cols, bool wanted) {
    w = wanted && base ? Out(base + used, rows, cols) : Out();
    if (wanted) used += (rows * cols + 15) / 16 * 16;
  };
  const auto carve_all = [&] {
    used = 0;
    carve(s.q, c.key_width(), true);
    carve(s.k, c.key_dim() * c.kv(), true);
    carve(s.v, c.value_dim() * c.kv(), true);
    carve(s.g, c.gate_width(), c.gate);
    carve(s.z, c.heads, gated);
    carve(s.log_gate, c.heads, gated);
    carve(s.o, values, true);
    carve(s.r, c.heads, scored());
    carve(s.scaled, values, scored());
    carve(s.normed, values, c.head_norm != NormKind::none);
    carve(s.lowered, c.bottleneck, c.bottleneck > 0);
    carve(s.gated, c.gate_width(), c.gate);
  };
  carve_all();
  if (keep) {
    s.memory.resize(used);
    base = s.memory.data();
  } else {
    base = ctx.workspace().template take<Scalar>(used);
  }
  carve_all();
  if (!scored()) s.scaled = s.o;
  if (c.head_norm == NormKind::none) s.normed = s.scaled;
  if (c.bottleneck == 0) s.lowered = s.normed;
  if (!c.gate) s.gated = s.lowered;
}

template <ComputeScalar Scalar, class Weight>
template <class Context>
const std::int64_t* MultiScaleRetention<Scalar, Weight>::positions_of(Context& ctx,
                                                                      const Sequences& sequences,
                                                                      const State* state) const {
  if (state && !state->empty()) return state->positions().data();
  auto* zeros = ctx.workspace().template take<std::int64_t>(sequences.count());
  std::fill_n(zeros, sequences.count(), 0);
  return zeros;
}

template <ComputeScalar Scalar, class Weight>
template <class Context>
Window<const Scalar> MultiScaleRetention<Scalar, Weight>::ones(Context& ctx, Index rows) const {
  Scalar* data = ctx.workspace().template take<Scalar>(rows * config_.kv());
  std::fill_n(data, rows * config_.kv(), Scalar(1));
  return {data, rows, config_.kv()};
}

template <ComputeScalar Scalar, class Weight>
template <class Context>
void MultiScaleRetention<Scalar, Weight>::project(Context& ctx, ParamRef<const Weight> w,
                                                  const Pass& pass, In x,
                                                  const std::int64_t* positions, Saved& s) const {
  const bool one = pass.sequences.single_token();
  linear(ctx, w[q_], w[q_bias_], x, s.q, one);                    // [R,H*Dk]
  linear(ctx, w[k_], w[k_bias_], x, s.k, one);                    // [R,Hk*Dk]
  linear(ctx, w[v_], w[v_bias_], x, s.v, one);                    // [R,Hk*Dv]
  if (config_.gate) linear(ctx, w[g_], w[g_bias_], x, s.g, one);  // [R,H*Dv]
  if (gt_) {
    linear(ctx, w[gt_], Window<const Weight>(), x, s.z, one);  // [R,H]
    log_sigmoid_gate(ctx, config_.gate_divisor, In(s.z), s.log_gate);
  }
  rotate(ctx, rotation_, query_scale(pass), config_.heads, pass.sequences, positions, In(s.q), s.q);
  rotate(ctx, rotation_, key_scale(), config_.kv(), pass.sequences, positions, In(s.k), s.k);
}

template <ComputeScalar Scalar, class Weight>
template <class Context>
void MultiScaleRetention<Scalar, Weight>::retain_once(Context& ctx, const Pass& pass,
                                                      const RetentionInput<Scalar>& in,
                                                      Scalar* state, Out o) const {
  switch (pass.form.kind) {
    case Form::Kind::parallel: return retention_parallel(ctx, in, state, o);
    case Form::Kind::chunkwise: return retention_chunkwise(ctx, in, pass.form.chunk, state, o);
    case Form::Kind::recurrent: return retention_recurrent(ctx, in, state, o);
  }
}

template <ComputeScalar Scalar, class Weight>
template <class Context>
void MultiScaleRetention<Scalar, Weight>::retain(Context& ctx, const Pass& pass, State* state,
                                                 Saved& s) const {
  const auto in = input(pass, s);
  if (pass.sequences.padded()) {  // rows of no sequence come out as zero
    std::fill_n(s.o.data, s.o.rows * s.o.cols, Scalar(0));
    if (scored()) std::fill_n(s.r.data, s.r.rows * s.r.cols, Scalar(0));
  }
  if constexpr (std::derived_from<Context, Cpu> && Vectorized<Scalar>) {
    if (state && state->deferred() && !scored() && pass.form.kind == Form::Kind::recurrent)
      return retention_deferred(ctx, in, state->pending_tokens(), state->unsettled_matrices(), s.o);
  }
  Scalar* matrices = state ? state->matrices() : nullptr;
  if (config_.compat() && pass.form.kind != Form::Kind::recurrent) {
    if (state) retain_once(ctx, pass, in, matrices, s.o);  // for the state; o is written anew
    const auto version = torchscale_version();
    if (pass.form.kind == Form::Kind::parallel) {
      retention_torchscale_parallel(ctx, version, in, s.o);
    } else {
      retention_torchscale_chunkwise(ctx, version, in, pass.form.chunk, s.o);
    }
    return;
  }
  retain_once(ctx, pass, in, matrices, s.o);
  if (!scored()) return;
  const auto scope = ctx.workspace().scope();
  retain_once(ctx, pass, score_input(pass, s, ones(ctx, s.q.rows)),
              state ? state->key_sums() : nullptr, s.r);
  const Index dv = config_.value_dim();
  for_row_blocks(ctx, s.o.rows, [&](Index first, Index last) {
    for (Index r = first; r < last; ++r)
      for (Index h = 0; h < config_.heads; ++h) {
        const Scalar size = detail::absolute(s.r(r, h));
        simd::scale(Scalar(Scalar(1) / (size < Scalar(1) ? Scalar(1) : size)), s.o.row(r) + h * dv,
                    s.scaled.row(r) + h * dv, dv);
      }
  });
}

template <ComputeScalar Scalar, class Weight>
template <class Context>
void MultiScaleRetention<Scalar, Weight>::finish(Context& ctx, ParamRef<const Weight> w,
                                                 const Pass& pass, Saved& s, Out y) const {
  const auto& c = config_;
  if (c.head_norm != NormKind::none)
    norm(ctx, c.head_norm, c.head_norm_eps, c.heads, w[norm_weight_], w[norm_bias_], In(s.scaled),
         s.normed);
  const bool one = pass.sequences.single_token();
  if (down_) linear(ctx, w[down_], w[down_bias_], In(s.normed), s.lowered, one);
  if (c.gate) retnet::gate(ctx, c.gate_activation, In(s.g), In(s.lowered), s.gated);
  linear(ctx, w[out_], w[out_bias_], In(s.gated), y, one);  // [R,C]
}

// ---- backward ----

template <ComputeScalar Scalar, class Weight>
template <class Context>
void MultiScaleRetention<Scalar, Weight>::retain_backward(Context& ctx, const Pass& pass,
                                                          const Saved& s, In d_o, Out dq, Out dk,
                                                          Out dv, Out dlog, State* dstate) const {
  const auto in = input(pass, s);
  const bool has_state = !s.initial.empty();
  const auto once = [&](const RetentionInput<Scalar>& input, const Scalar* initial, In d,
                        const RetentionGradient<Scalar>& grad) {
    if (pass.form.kind == Form::Kind::parallel) {
      retention_parallel_backward(ctx, input, initial, d, grad);
    } else {
      const Index chunk = pass.form.kind == Form::Kind::chunkwise ? pass.form.chunk : 64;
      retention_chunkwise_backward(ctx, input, chunk, initial, d, grad);
    }
  };
  if (config_.compat() && pass.form.kind != Form::Kind::recurrent) {
    RETNET_CHECK(pass.form.kind == Form::Kind::parallel, kName,
                 "backward: Normalization::torchscale has gradients in the parallel form only, "
                 "expected Form::parallel(), or Normalization::row_sum to train in chunks");
    RETNET_CHECK(dstate == nullptr, kName,
                 "backward: Normalization::torchscale carries no gradient through the state");
    return retention_torchscale_parallel_backward(ctx, torchscale_version(), in, d_o,
                                                  {dq, dk, dv, nullptr, {}});
  }
  if (!scored())
    return once(in, has_state ? s.initial.matrices() : nullptr, d_o,
                {dq, dk, dv, dstate ? dstate->matrices() : nullptr, dlog});

  // o / max(|r|, 1): the gradients of o and of r, then retention twice
  const auto scope = ctx.workspace().scope();
  const Index rows = d_o.rows, width = config_.value_dim(), heads = config_.heads;
  auto& ws = ctx.workspace();
  const Out d_raw(ws.template take<Scalar>(rows * d_o.cols), rows, d_o.cols);
  const Out dr(ws.template take<Scalar>(rows * heads), rows, heads);
  const Out dq2(ws.template take<Scalar>(rows * dq.cols), rows, dq.cols);
  const Out dk2(ws.template take<Scalar>(rows * dk.cols), rows, dk.cols);
  const Out dones(ws.template take<Scalar>(rows * config_.kv()), rows, config_.kv());
  for (const Out& w : {dq2, dk2}) std::fill_n(w.data, w.rows * w.cols, Scalar(0));
  for_row_blocks(ctx, rows, [&](Index first, Index last) {
    for (Index r = first; r < last; ++r)
      for (Index h = 0; h < heads; ++h) {
        const Scalar score = s.r(r, h), size = detail::absolute(score);
        const bool active = Scalar(1) < size;
        const Scalar inverse = active ? Scalar(Scalar(1) / size) : Scalar(1);
        const Scalar* d = d_o.row(r) + h * width;
        simd::scale(inverse, d, d_raw.row(r) + h * width, width);
        const Scalar along = simd::dot(d, s.o.row(r) + h * width, width);
        const Scalar sign = score < Scalar(0) ? Scalar(1) : Scalar(-1);
        dr(r, h) = active ? Scalar(sign * along * inverse * inverse) : Scalar(0);
      }
  });
  once(in, has_state ? s.initial.matrices() : nullptr, d_raw,
       {dq, dk, dv, dstate ? dstate->matrices() : nullptr, {}});
  once(score_input(pass, s, ones(ctx, rows)), has_state ? s.initial.key_sums() : nullptr, dr,
       {dq2, dk2, dones, dstate ? dstate->key_sums() : nullptr, {}});
  simd::add(dq2.data, dq.data, rows * dq.cols);
  simd::add(dk2.data, dk.data, rows * dk.cols);
}

template <ComputeScalar Scalar, class Weight>
template <class Context>
void MultiScaleRetention<Scalar, Weight>::backward_rows(
    Context& ctx, ParamRef<const Weight> w, const Pass& pass, In x, Saved& s, In dy,
    ParamRef<Scalar> dw, Out dx, Scalar beta,
    State* dstate) const requires std::same_as<Scalar, Weight> {
  const auto& c = config_;
  const auto scope = ctx.workspace().scope();
  auto& ws = ctx.workspace();
  const Index rows = x.rows, values = c.value_width();
  const auto take = [&](Index cols) {
    return Out(ws.template take<Scalar>(rows * cols), rows, cols);
  };
  const std::int64_t* positions = positions_of(ctx, pass.sequences, &s.initial);

  const Out d = take(values), dg = c.gate ? take(c.gate_width()) : Out();
  const Out dlow = down_ ? take(c.bottleneck) : d;
  linear_backward(ctx, w[out_], In(s.gated), dy, dw[out_], dw[out_bias_], dlow);
  if (c.gate) gate_backward(ctx, c.gate_activation, In(s.g), In(s.lowered), In(dlow), dg, dlow);
  if (down_)
    linear_backward(ctx, w[down_], In(s.normed), In(dlow), dw[down_], dw[down_bias_], d);
  if (c.head_norm != NormKind::none)
    norm_backward(ctx, c.head_norm, c.head_norm_eps, c.heads, w[norm_weight_], In(s.scaled), In(d),
                  dw[norm_weight_], dw[norm_bias_], d);

  const Out dq = take(s.q.cols), dk = take(s.k.cols), dv = take(s.v.cols);
  const Out dlog = gt_ ? take(c.heads) : Out();
  if (pass.sequences.padded())
    for (const Out& part : {dq, dk, dv, dlog})
      std::fill_n(part.data, part.rows * part.cols, Scalar(0));
  retain_backward(ctx, pass, s, d, dq, dk, dv, dlog, dstate);

  rotate(ctx, rotation_, query_scale(pass), c.heads, pass.sequences, positions, In(dq), dq, true);
  rotate(ctx, rotation_, key_scale(), c.kv(), pass.sequences, positions, In(dk), dk, true);
  linear_backward(ctx, w[q_], x, In(dq), dw[q_], dw[q_bias_], dx, beta);
  linear_backward(ctx, w[k_], x, In(dk), dw[k_], dw[k_bias_], dx, Scalar(1));
  linear_backward(ctx, w[v_], x, In(dv), dw[v_], dw[v_bias_], dx, Scalar(1));
  if (c.gate) linear_backward(ctx, w[g_], x, In(dg), dw[g_], dw[g_bias_], dx, Scalar(1));
  if (gt_) {
    log_sigmoid_gate_backward(ctx, c.gate_divisor, In(s.z), In(dlog), dlog);
    linear_backward(ctx, w[gt_], x, In(dlog), dw[gt_], Out(), dx, Scalar(1));
  }
}

}  // namespace retnet::inline RETNET_ABI
