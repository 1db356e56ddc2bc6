// SPDX-License-Identifier: MIT
// The norm of a whole row, with its places: RMS has a weight, layer norm a weight and a bias.
#pragma once

#include <string>

#include "retnet/core/params.hpp"
#include "retnet/ops/norm.hpp"

namespace retnet::inline RETNET_ABI {

class BlockNorm {
 public:
  BlockNorm() = default;
  BlockNorm(NormKind kind, double eps, Index width, ParamLayout& layout, const std::string& name)
      : kind_(kind), eps_(eps) {
    weight_ = layout.add(name + ".weight", 1, width, {Init::Kind::ones}, false);
    if (kind == NormKind::layer) bias_ = layout.add(name + ".bias", 1, width, {}, false);
  }
  explicit operator bool() const { return kind_ != NormKind::none; }

  template <class Context, class S, class W>
  void forward(Context& ctx, ParamRef<const W> w, Window<const S> x, Window<S> y) const {
    norm(ctx, kind_, eps_, Index{1}, w[weight_], w[bias_], x, y);
  }
  /// dx = gradient + beta dx.
  template <class Context, class S>
  void backward(Context& ctx, ParamRef<const S> w, Window<const S> x, Window<const S> dy,
                ParamRef<S> dw, Window<S> dx, S beta) const {
    norm_backward(ctx, kind_, eps_, Index{1}, w[weight_], x, dy, dw[weight_], dw[bias_], dx, beta);
  }

 private:
  NormKind kind_ = NormKind::none;
  double eps_ = 0.0;
  Param weight_, bias_;
};

}  // namespace retnet::inline RETNET_ABI
