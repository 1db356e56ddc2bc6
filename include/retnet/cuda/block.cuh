// SPDX-License-Identifier: MIT
// One block of retention and feed-forward network on the device; what it computes is layers/block.hpp,
// multi_scale_retention.hpp and feed_forward.hpp. The residual joins inside the last product of a
// half, the gate inside the head norm.
//
// Backward makes again what is cheap to make (norms, gates, activations) and keeps the rest.
#pragma once

#include "retnet/cuda/parts.cuh"
#include "retnet/cuda/retention.cuh"
#include "retnet/cuda/rotation.cuh"

namespace retnet {

/// One run over the rows of x, on the device.
struct DevicePass {
  Form::Kind form = Form::Kind::chunkwise;
  DeviceSequences sequences = {};
  DeviceAngles angles = {};
};

/// What backward needs of forward: R rows each.
template <class T>
struct DeviceBlockSaved {
  DeviceMatrix<T> qkvg;                // projections, queries and keys turned
  DeviceMatrix<T> o;                   // retention
  DeviceMatrix<T> h;                   // after the first half
  DeviceMatrix<T> au;                  // of the feed-forward network, before the activation
  DeviceMatrix<T> mixer_aux, ffn_aux;  // what a norm behind its half reads
};

template <class T>
class DeviceBlock {
  using In = DeviceMatrix<const T>;
  using Out = DeviceMatrix<T>;

 public:
  DeviceBlock(const BlockConfig& config, const ParamLayout& layout, const std::string& prefix)
      : config_(config),
        qkvg_(layout, prefix + "retention.", {"q_proj", "k_proj", "v_proj", "g_proj"}),
        down_(layout, prefix + "retention.", {"down_proj"}),
        out_(layout, prefix + "retention.", {"out_proj"}),
        in_(layout, prefix + "ffn.", {"fc1", "gate"}),
        fc2_(layout, prefix + "ffn.", {"fc2"}),
        mixer_norm_(layout, prefix + "retention_norm", config.norm, config.norm_eps),
        head_norm_(layout, prefix + "retention.head_norm", config.mixer.head_norm,
                   config.mixer.head_norm_eps, config.mixer.heads,
                   config.mixer.head_norm_affine == Affine::per_channel),
        sub_norm_(layout, prefix + "ffn.sub_norm", config.feed_forward.sub_norm,
                  config.feed_forward.sub_norm_eps) {
    if (config.ffn_norm)
      ffn_norm_ = cuda::NormPlace(layout, prefix + "ffn_norm", config.norm, config.norm_eps);
    const auto log_gamma = log_gamma_of(config.mixer);
    for (std::size_t h = 0; h < log_gamma.size(); ++h)
      decay_.log2_gamma[h] = static_cast<float>(log_gamma[h] / std::log(2.0));
  }

  /// Elements that DeviceBlockSaved takes for R rows.
  std::int64_t saved_size(std::int64_t rows) const {
    std::int64_t sum = 0;
    for (const auto cols :
         {qkvg_.width(), values(), width(), in_.width(), norm_first() ? Index{0} : 2 * width()})
      sum += cuda::Carver<T>::size(rows, cols);
    return sum + 512;
  }
  DeviceBlockSaved<T> carve(T* base, std::int64_t rows) const {
    cuda::Carver<T> carve(base, rows);
    DeviceBlockSaved<T> s;
    s.qkvg = carve(qkvg_.width());
    s.o = carve(values());
    s.h = carve(width());
    s.au = carve(in_.width());
    s.mixer_aux = carve(width(), !norm_first());
    s.ffn_aux = carve(width(), !norm_first());
    return s;
  }
  /// Bytes of scratch that forward and backward take for R rows, roughly from above.
  std::int64_t scratch_bytes(std::int64_t rows) const {
    const Index mixer = 2 * width() + 4 * values() + qkvg_.width() + 2 * config_.mixer.bottleneck;
    const Index ffn = 2 * width() + 4 * in_.width();
    return rows * std::max(mixer, ffn) * static_cast<std::int64_t>(sizeof(T)) +
           2 * cuda::Blas::kWorkspace;
  }

  /// y must not be x. state [N,H,Dk,Dv] may be null.
  void forward(CudaContext& ctx, const T* w, const DevicePass& pass, In x, float* state, Out y,
               const DeviceBlockSaved<T>& s) const {
    const auto mix = [&](Out out, In z, float beta) {
      mixer(ctx, w, pass, state, s, out, z, beta);
    };
    const auto feed = [&](Out out, In z, float beta) { feed_forward(ctx, w, s, out, z, beta); };
    half(ctx, w, mixer_norm_, qkvg_, s.qkvg, x, x, s.mixer_aux, s.h, mix);
    half(ctx, w, ffn_norm_, in_, s.au, parallel() ? x : In(s.h), s.h, s.ffn_aux, y, feed);
  }

  /// dx is assigned and may not be dy; gradients of the weights are added to dw. `initial` is the
  /// state that forward was given, null: none.
  void backward(CudaContext& ctx, const T* w, const DevicePass& pass, In x, const float* initial,
                const DeviceBlockSaved<T>& s, In dy, float* dw, Out dx) const {
    const auto scope = ctx.workspace().scope();
    const auto mix = [&](In in, In d, Out din, In z, float beta) {
      mixer_backward(ctx, w, pass, in, initial, s, d, dw, din, z, beta);
    };
    const auto feed = [&](In in, In d, Out din, In z, float beta) {
      feed_forward_backward(ctx, w, in, s, d, dw, din, z, beta);
    };
    const Out dh = cuda::take<T>(ctx, x.rows, x.cols);
    half_backward(ctx, w, ffn_norm_, parallel() ? x : In(s.h), s.ffn_aux, dy, dy, dw, dh, feed);
    half_backward(ctx, w, mixer_norm_, x, s.mixer_aux, parallel() ? dy : In(dh), dh, dw, dx, mix);
  }

 private:
  Index width() const { return config_.mixer.d_model; }
  Index values() const { return config_.mixer.value_width(); }
  bool parallel() const { return config_.residual == Residual::parallel; }
  bool norm_first() const { return config_.residual == Residual::pre || parallel(); }
  float alpha() const { return static_cast<float>(config_.alpha); }

  // ---- the two halves ----

  // y = what the residual makes of a half: `first` projects its input, or the norm of that, and
  // f(out, z, beta) goes on from there: out = branch + beta z.
  template <class F>
  void half(CudaContext& ctx, const T* w, const cuda::NormPlace& norm,
            const cuda::Projection& first, Out projected, In x, In residual, Out aux, Out y,
            const F& f) const {
    if (norm_first()) {
      project(ctx, w, norm, first, x, projected);
      return f(y, residual, alpha());
    }
    const bool sum_first = config_.residual == Residual::post;
    first.forward(ctx, w, x, projected);
    f(aux, sum_first ? residual : In(), alpha());
    norm.forward(ctx, w, In(aux), y, sum_first ? In() : residual, alpha());
  }
  void project(CudaContext& ctx, const T* w, const cuda::NormPlace& norm,
               const cuda::Projection& first, In x, Out projected) const {
    if (!norm) return first.forward(ctx, w, x, projected);
    if (first.forward_of_norm(ctx, w, norm, x, In(), DeviceActivation::identity, projected)) return;
    const auto scope = ctx.workspace().scope();
    const Out n = cuda::take<T>(ctx, x.rows, x.cols);
    norm.forward(ctx, w, x, n);
    first.forward(ctx, w, In(n), projected);
  }

  // dx = the gradient through f and its norm, plus alpha `through`, what reaches x past f.
  // f(in, d, din, z, beta): din = gradient + beta z.
  template <class F>
  void half_backward(CudaContext& ctx, const T* w, const cuda::NormPlace& norm, In x, In aux, In d,
                     In through, float* dw, Out dx, const F& f) const {
    const auto scope = ctx.workspace().scope();
    if (norm_first() && !norm) return f(x, d, dx, through, alpha());
    const Out n = cuda::take<T>(ctx, x.rows, x.cols);
    if (norm_first()) {
      norm.forward(ctx, w, x, n);
      f(n, d, n, In(), 0.0f);
      return norm.backward(ctx, w, x, In(n), dw, {.dx = dx}, through, alpha());
    }
    norm.backward(ctx, w, aux, d, dw, {.dx = n});
    f(x, n, dx, config_.residual == Residual::post ? In(n) : through, alpha());
  }

  // ---- retention ----

  struct Windows {
    Out q, k, v, g;
  };
  Windows windows(Out qkvg) const {
    const auto& c = config_.mixer;
    const Index q = c.key_width(), k = c.key_dim() * c.kv(), v = c.value_dim() * c.kv();
    return {qkvg.columns(0, q), qkvg.columns(q, k), qkvg.columns(q + k, v),
            c.gate ? qkvg.columns(q + k + v, c.gate_width()) : Out()};
  }
  DeviceRetention<T> problem(const DevicePass& pass, const Windows& x) const {
    const auto& c = config_.mixer;
    return {.q = DeviceMatrix<const T>(x.q),
            .k = DeviceMatrix<const T>(x.k),
            .v = DeviceMatrix<const T>(x.v),
            .heads = static_cast<int>(c.heads),
            .kv_heads = static_cast<int>(c.kv()),
            .key_dim = static_cast<int>(c.key_dim()),
            .value_dim = static_cast<int>(c.value_dim()),
            .decay = decay_,
            .log_gate = {},
            .sequences = pass.sequences};
  }
  float scale(ScaleOn side) const {
    const auto& c = config_.mixer;
    return c.scale_on == side ? static_cast<float>(1.0 / std::sqrt(double(c.key_dim()))) : 1.0f;
  }
  void turn(CudaContext& ctx, const DevicePass& pass, const Windows& x, bool inverse) const {
    stage(ctx, Stage::rows);
    const auto& c = config_.mixer;
    rotate<T>(ctx, pass.angles,
              {x.q, static_cast<int>(c.heads), pass.angles.query, pass.angles.row_scale,
               scale(ScaleOn::query)},
              {x.k, static_cast<int>(c.kv()), pass.angles.key, nullptr, scale(ScaleOn::key)},
              inverse);
  }

  // The head norm and the gate are one pass over o unless something stands between them.
  bool fused() const { return head_norm_ && config_.mixer.gate && !down_; }
  DeviceActivation gate_activation() const {
    return cuda::on_device(config_.mixer.gate_activation);
  }

  struct Finished {
    Out normed, lowered, gated;
  };
  // o -> what the output projection reads; scratch of the caller's scope.
  Finished finish(CudaContext& ctx, const T* w, const DeviceBlockSaved<T>& s, Out g) const {
    Finished f;
    if (fused()) {
      f.gated = cuda::take<T>(ctx, s.o.rows, values());
      head_norm_.forward(ctx, w, In(s.o), f.gated, In(), 0.0f, In(g), gate_activation());
      return f;
    }
    f.normed = s.o;
    if (head_norm_) {
      f.normed = cuda::take<T>(ctx, s.o.rows, values());
      head_norm_.forward(ctx, w, In(s.o), f.normed);
    }
    f.lowered = f.normed;
    if (down_) {
      f.lowered = cuda::take<T>(ctx, s.o.rows, down_.width());
      down_.forward(ctx, w, In(f.normed), f.lowered);
    }
    f.gated = f.lowered;
    if (config_.mixer.gate) {
      stage(ctx, Stage::rows);
      f.gated = cuda::take<T>(ctx, s.o.rows, f.lowered.cols);
      retnet::gate<T>(ctx, gate_activation(), In(g), In(f.lowered), f.gated);
    }
    return f;
  }

  // From the projections [R, q k v g] on.
  void mixer(CudaContext& ctx, const T* w, const DevicePass& pass, float* state,
             const DeviceBlockSaved<T>& s, Out y, In z, float beta) const {
    const auto scope = ctx.workspace().scope();
    const Windows win = windows(s.qkvg);
    turn(ctx, pass, win, false);
    stage(ctx, Stage::retention);
    const auto in = problem(pass, win);
    switch (pass.form) {
      case Form::Kind::parallel: retention_parallel<T>(ctx, in, state, state, s.o); break;
      case Form::Kind::chunkwise: retention_chunkwise<T>(ctx, in, state, state, s.o); break;
      case Form::Kind::recurrent: retention_recurrent<T>(ctx, in, state, state, s.o); break;
    }
    if (fused() &&
        out_.forward_of_norm(ctx, w, head_norm_, In(s.o), In(win.g), gate_activation(), y, z, beta))
      return;
    out_.forward(ctx, w, In(finish(ctx, w, s, win.g).gated), y, z, beta);  // [R,C]
  }

  void mixer_backward(CudaContext& ctx, const T* w, const DevicePass& pass, In x,
                      const float* initial, const DeviceBlockSaved<T>& s, In dy, float* dw, Out dx,
                      In z, float beta) const {
    const auto scope = ctx.workspace().scope();
    const Windows win = windows(s.qkvg);
    const Out dqkvg = cuda::take<T>(ctx, x.rows, qkvg_.width());
    const Windows grad = windows(dqkvg);
    const Out d = cuda::take<T>(ctx, x.rows, values());
    {
      const auto inner = ctx.workspace().scope();
      finish_backward(ctx, w, s, win.g, dy, dw, d, grad.g);
    }
    stage(ctx, Stage::retention);
    retention_chunkwise_backward<T>(ctx, problem(pass, win), initial, DeviceMatrix<const T>(d),
                                    {grad.q, grad.k, grad.v, nullptr, {}});
    turn(ctx, pass, grad, true);
    qkvg_.backward_weight(ctx, dw, x, In(dqkvg));  // before dx, which may be x
    qkvg_.backward_input(ctx, w, In(dqkvg), dx, z, beta);
  }

  // d = gradient of o; dg = that of the gate.
  void finish_backward(CudaContext& ctx, const T* w, const DeviceBlockSaved<T>& s, Out g, In dy,
                       float* dw, Out d, Out dg) const {
    const Out d_out = cuda::take<T>(ctx, s.o.rows, config_.mixer.gate_width());
    out_.backward_input(ctx, w, dy, d_out);
    if (fused()) {
      const Out gated = cuda::take<T>(ctx, s.o.rows, values());
      head_norm_.backward(ctx, w, In(s.o), In(d_out), dw, {.dx = d, .dg = dg, .y = gated}, In(),
                          0.0f, In(g), gate_activation());
      return out_.backward_weight(ctx, dw, In(gated), dy);
    }
    const Finished f = finish(ctx, w, s, g);
    out_.backward_weight(ctx, dw, In(f.gated), dy);
    if (config_.mixer.gate) {
      stage(ctx, Stage::rows);
      gate_backward<T>(ctx, gate_activation(), In(g), In(f.lowered), In(d_out), dg, d_out, Out());
    }
    Out d_normed = d_out;
    if (down_) {
      down_.backward_weight(ctx, dw, In(f.normed), In(d_out));
      d_normed = cuda::take<T>(ctx, s.o.rows, values());
      down_.backward_input(ctx, w, In(d_out), d_normed);
    }
    if (head_norm_) return head_norm_.backward(ctx, w, In(s.o), In(d_normed), dw, {.dx = d});
    RETNET_CUDA(cudaMemcpyAsync(d.data, d_normed.data, sizeof(T) * d.rows * d.cols,
                                cudaMemcpyDeviceToDevice, ctx.stream()));
  }

  // ---- feed-forward network ----

  bool glu() const { return config_.feed_forward.kind == FeedForwardKind::glu; }
  Index hidden() const { return config_.feed_forward.width(); }
  Out factor(Out au) const { return glu() ? au.columns(hidden(), hidden()) : Out(); }
  DeviceActivation activation() const { return cuda::on_device(config_.feed_forward.activation); }

  // From the first projections [R, a u] on.
  void feed_forward(CudaContext& ctx, const T* w, const DeviceBlockSaved<T>& s, Out y, In z,
                    float beta) const {
    const auto scope = ctx.workspace().scope();
    const In a = s.au.columns(0, hidden()), u = factor(s.au);
    if (!sub_norm_ && fc2_.forward_of_gate(ctx, w, activation(), a, u, y, z, beta)) return;
    const Out h = cuda::take<T>(ctx, a.rows, hidden());
    stage(ctx, Stage::rows);
    retnet::gate<T>(ctx, activation(), a, u, h);
    if (sub_norm_) sub_norm_.forward(ctx, w, In(h), h);
    fc2_.forward(ctx, w, In(h), y, z, beta);
  }

  void feed_forward_backward(CudaContext& ctx, const T* w, In x, const DeviceBlockSaved<T>& s,
                             In dy, float* dw, Out dx, In z, float beta) const {
    const auto scope = ctx.workspace().scope();
    const In a = s.au.columns(0, hidden()), u = factor(s.au);
    const Out dau = cuda::take<T>(ctx, x.rows, in_.width());
    const Out dh = cuda::take<T>(ctx, x.rows, hidden());
    const Out h = cuda::take<T>(ctx, x.rows, hidden());
    fc2_.backward_input(ctx, w, dy, dh);
    if (sub_norm_) {
      const auto inner = ctx.workspace().scope();
      const Out normed = cuda::take<T>(ctx, x.rows, hidden());
      stage(ctx, Stage::rows);
      retnet::gate<T>(ctx, activation(), a, u, h);
      sub_norm_.forward(ctx, w, In(h), normed);
      fc2_.backward_weight(ctx, dw, In(normed), dy);
      sub_norm_.backward(ctx, w, In(h), In(dh), dw, {.dx = dh});
    }
    stage(ctx, Stage::rows);
    gate_backward<T>(ctx, activation(), a, u, In(dh), dau.columns(0, hidden()), factor(dau), h);
    if (!sub_norm_) fc2_.backward_weight(ctx, dw, In(h), dy);
    in_.backward_weight(ctx, dw, x, In(dau));  // before dx, which may be x
    in_.backward_input(ctx, w, In(dau), dx, z, beta);
  }

  BlockConfig config_;
  cuda::Projection qkvg_, down_, out_, in_, fc2_;
  cuda::NormPlace mixer_norm_, head_norm_, sub_norm_, ffn_norm_;
  DeviceDecay decay_;
};

}  // namespace retnet
