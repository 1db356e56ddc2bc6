// SPDX-License-Identifier: MIT
// Window: a row-major matrix inside a larger one. A head is a window: [B,T,H*D] seen at head h has
// rows D wide that lie H*D apart, so no head is ever permuted or copied.
#pragma once

#include <type_traits>

#include "retnet/core/check.hpp"
#include "retnet/core/view.hpp"

namespace retnet::inline RETNET_ABI {

template <class S>
struct Window {
  S* data = nullptr;
  Index rows = 0;
  Index cols = 0;
  Index stride = 0;  // elements from one row to the next

  Window() = default;
  Window(S* data_, Index rows_, Index cols_, Index stride_)
      : data(data_), rows(rows_), cols(cols_), stride(stride_) {}
  Window(S* data_, Index rows_, Index cols_) : Window(data_, rows_, cols_, cols_) {}
  template <class Other>
    requires(std::is_const_v<S> && std::is_same_v<Other, std::remove_const_t<S>>)
  Window(const Window<Other>& o)  // NOLINT(google-explicit-constructor)
      : Window(o.data, o.rows, o.cols, o.stride) {}

  bool empty() const { return data == nullptr; }
  S* row(Index r) const { return data + r * stride; }
  S& operator()(Index r, Index c) const { return data[r * stride + c]; }
  Window block(Index r, Index c, Index n_rows, Index n_cols) const {
    RETNET_ASSERT(r >= 0 && c >= 0 && r + n_rows <= rows && c + n_cols <= cols);
    return {data + r * stride + c, n_rows, n_cols, stride};
  }
  Window row_block(Index r, Index n_rows) const { return block(r, 0, n_rows, cols); }
  /// Columns [h*width, (h+1)*width): the head h.
  Window head(Index h, Index width) const { return block(0, h * width, rows, width); }
};

/// [B,T,C] as the matrix [B*T,C] that projections and norms see.
template <class S>
Window<S> rows_of(const View<S, 3>& x) {
  return {x.data(), x.dim(0) * x.dim(1), x.dim(2)};
}

template <class S>
Window<S> rows_of(const View<S, 2>& x) {
  return {x.data(), x.dim(0), x.dim(1)};
}

}  // namespace retnet::inline RETNET_ABI
