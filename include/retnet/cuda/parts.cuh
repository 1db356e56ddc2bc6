// SPDX-License-Identifier: MIT
// Parts of a block on the device: projections and norms, as places in the flat buffer that the CPU's
// model laid out. Weights are T, their gradients float, at the same offsets.
#pragma once

#include <string>
#include <vector>

#include "retnet/cuda/few_rows.cuh"
#include "retnet/cuda/host.cuh"
#include "retnet/cuda/stage_clock.cuh"

namespace retnet {

namespace cuda {

inline DeviceActivation on_device(Activation a) {
  switch (a) {
    case Activation::identity: return DeviceActivation::identity;
    case Activation::relu: return DeviceActivation::relu;
    case Activation::gelu: return DeviceActivation::gelu;
    case Activation::swish: return DeviceActivation::swish;
    case Activation::sigmoid: return DeviceActivation::sigmoid;
    case Activation::gelu_tanh: break;
  }
  return DeviceActivation::gelu_tanh;
}

/// The place of a name in the layout; an empty place where it is optional and missing.
inline Param place_of(const ParamLayout& layout, const std::string& name, bool needed = true) {
  const ParamEntry* e = layout.find(name);
  RETNET_CUDA_REQUIRE(e != nullptr || !needed, "cuda::place_of", name, " is not in the layout");
  return e != nullptr ? e->place : Param{};
}

/// A norm with its places: of a whole row, or of every head.
class NormPlace {
 public:
  NormPlace() = default;
  NormPlace(const ParamLayout& layout, const std::string& name, NormKind kind, double eps,
            Index groups = 1, bool per_group = false)
      : kind_(kind),
        eps_(static_cast<float>(eps)),
        groups_(static_cast<int>(groups)),
        per_group_(per_group),
        weight_(place_of(layout, name + ".weight", false)),
        bias_(place_of(layout, name + ".bias", false)) {}
  explicit operator bool() const { return kind_ != NormKind::none; }

  template <class T>
  DeviceNormWeights<T> weights(const T* w, DeviceActivation activation) const {
    return {kind_ == NormKind::layer ? DeviceNorm::layer : DeviceNorm::rms,
            eps_,
            groups_,
            weight_ ? w + weight_.offset : nullptr,
            bias_ ? w + bias_.offset : nullptr,
            per_group_,
            activation};
  }

  /// y = norm(x) act(g) + alpha z.
  template <class T>
  void forward(CudaContext& ctx, const T* w, DeviceMatrix<const T> x, DeviceMatrix<T> y,
               DeviceMatrix<const T> z = {}, float alpha = 0.0f, DeviceMatrix<const T> g = {},
               DeviceActivation activation = DeviceActivation::swish) const {
    stage(ctx, Stage::rows);
    norm<T>(ctx, weights(w, activation), x, y, g, z, alpha);
  }
  /// grad.dx = gradient + beta z; gradients of the weights are added to dw.
  template <class T>
  void backward(CudaContext& ctx, const T* w, DeviceMatrix<const T> x, DeviceMatrix<const T> dy,
                float* dw, DeviceNormGradient<T> grad, DeviceMatrix<const T> z = {},
                float beta = 0.0f, DeviceMatrix<const T> g = {},
                DeviceActivation activation = DeviceActivation::swish) const {
    stage(ctx, Stage::rows);
    if (weight_) grad.dweight = dw + weight_.offset;
    if (bias_) grad.dbias = dw + bias_.offset;
    norm_backward<T>(ctx, weights(w, activation), x, dy, grad, g, z, beta);
  }

 private:
  NormKind kind_ = NormKind::none;
  float eps_ = 0.0f;
  int groups_ = 1;
  bool per_group_ = false;
  Param weight_, bias_;
};

/// Several projections of one input side by side in one matrix: q, k, v, g. Those without bias
/// that also lie side by side in the flat buffer are one product.
class Projection {
 public:
  Projection() = default;
  Projection(const ParamLayout& layout, const std::string& prefix,
             std::initializer_list<const char*> names) {
    for (const char* name : names) {
      const Param w = place_of(layout, prefix + name + ".weight", false);
      if (!w) continue;
      add(w, place_of(layout, prefix + name + ".bias", false));
    }
  }

  explicit operator bool() const { return !pieces_.empty(); }
  Index width() const { return width_; }

  /// y = x W^T + b + beta z.
  template <class T, class Out>
  void forward(CudaContext& ctx, const T* w, DeviceMatrix<const T> x, DeviceMatrix<Out> y,
               DeviceMatrix<const Out> z = {}, float beta = 0.0f) const {
    stage(ctx, Stage::products);
    for (const auto& p : pieces_)
      linear<T, Out>(ctx, weight(w, p), bias(w, p), x, y.columns(p.column, p.weight.rows),
                     z.columns(p.column, p.weight.rows), beta);
  }
  /// y = (norm(x) act(g)) W^T + b + beta z in one kernel, for a step of generation; false: not
  /// served, and nothing is done.
  template <class T>
  bool forward_of_norm(CudaContext& ctx, const T* w, const NormPlace& norm, DeviceMatrix<const T> x,
                       DeviceMatrix<const T> g, DeviceActivation activation, DeviceMatrix<T> y,
                       DeviceMatrix<const T> z = {}, float beta = 0.0f) const {
    if (x.rows > kFewRows) return false;
    for (const auto& p : pieces_)
      if (!linear_of_norm<T, T>(ctx, weight(w, p), bias(w, p), norm.weights(w, activation), x, g,
                                y.columns(p.column, p.weight.rows),
                                z.columns(p.column, p.weight.rows), beta))
        return false;
    return true;
  }
  /// The same of act(a) u.
  template <class T>
  bool forward_of_gate(CudaContext& ctx, const T* w, DeviceActivation kind, DeviceMatrix<const T> a,
                       DeviceMatrix<const T> u, DeviceMatrix<T> y, DeviceMatrix<const T> z,
                       float beta) const {
    if (a.rows > kFewRows) return false;
    for (const auto& p : pieces_)
      if (!linear_of_gate<T, T>(ctx, weight(w, p), bias(w, p), kind, a, u,
                                y.columns(p.column, p.weight.rows),
                                z.columns(p.column, p.weight.rows), beta))
        return false;
    return true;
  }
  /// dx = dy W + beta z.
  template <class T>
  void backward_input(CudaContext& ctx, const T* w, DeviceMatrix<const T> dy, DeviceMatrix<T> dx,
                      DeviceMatrix<const T> z = {}, float beta = 0.0f) const {
    stage(ctx, Stage::products);
    for (const auto& p : pieces_) {
      linear_backward_input<T>(ctx, weight(w, p), dy.columns(p.column, p.weight.rows), dx, z, beta);
      z = dx;
      beta = 1.0f;
    }
  }
  /// dW += dy^T x and db += the sums of dy.
  template <class T>
  void backward_weight(CudaContext& ctx, float* dw, DeviceMatrix<const T> x,
                       DeviceMatrix<const T> dy) const {
    stage(ctx, Stage::products);
    for (const auto& p : pieces_) {
      const auto d = dy.columns(p.column, p.weight.rows);
      linear_backward_weight<T>(ctx, x, d, {dw + p.weight.offset, p.weight.rows, p.weight.cols});
      if (p.bias) bias_backward<T>(ctx, d, dw + p.bias.offset);
    }
  }

 private:
  struct Piece {
    Param weight, bias;
    Index column;
  };

  void add(Param w, Param b) {
    if (!pieces_.empty()) {
      Piece& last = pieces_.back();
      if (!b && !last.bias && last.weight.offset + last.weight.size() == w.offset &&
          last.weight.cols == w.cols) {
        last.weight.rows += w.rows;
        width_ += w.rows;
        return;
      }
    }
    pieces_.push_back({w, b, width_});
    width_ += w.rows;
  }
  template <class T>
  static DeviceMatrix<const T> weight(const T* w, const Piece& p) {
    return {w + p.weight.offset, p.weight.rows, p.weight.cols};
  }
  template <class T>
  static const T* bias(const T* w, const Piece& p) {
    return p.bias ? w + p.bias.offset : nullptr;
  }

  std::vector<Piece> pieces_;
  Index width_ = 0;
};

/// Matrices of one number of rows, one behind the other in device memory, 256-byte aligned.
template <class T>
class Carver {
 public:
  Carver(T* base, std::int64_t rows) : base_(base), rows_(rows) {}
  DeviceMatrix<T> operator()(std::int64_t cols, bool wanted = true) {
    if (!wanted || cols == 0) return {};
    T* at = base_ + used_;
    used_ += size(rows_, cols);
    return {at, rows_, cols};
  }
  static std::int64_t size(std::int64_t rows, std::int64_t cols) {
    return round_up<std::int64_t>(rows * cols, 256 / sizeof(T));
  }

 private:
  T* base_;
  std::int64_t rows_;
  std::int64_t used_ = 0;
};

template <class T>
DeviceMatrix<T> take(CudaContext& ctx, std::int64_t rows, std::int64_t cols) {
  return {ctx.workspace().take<T>(rows * cols), rows, cols};
}

}  // namespace cuda

}  // namespace retnet
