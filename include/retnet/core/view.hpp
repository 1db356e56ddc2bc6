// SPDX-License-Identifier: MIT
// View: a contiguous row-major array that somebody else owns. The one type of every public door.
//
// A View is made from Eigen::Tensor<S, Rank, RowMajor>, from its TensorMap, and, for rank 3 as one
// sequence [1,T,C] or rank 2, from a row-major Eigen matrix or Map. A wrong layout, rank or scalar,
// a temporary where the callee writes, or an unevaluated expression does not compile; nothing is
// ever copied behind the caller's back.
#pragma once

#include <array>
#include <concepts>
#include <string>
#include <type_traits>
#include <utility>

#include "retnet/core/check.hpp"
#include "retnet/core/scalar.hpp"

namespace retnet::inline RETNET_ABI {

namespace detail {

// clang-format off: version 14 does not know requires clauses
template <class X, int Rank>
concept RowMajorTensor = requires(X& x) {
  { x.data() };
  { x.dimension(0) } -> std::convertible_to<Index>;
  requires int(X::NumDimensions) == Rank;
  requires int(X::Layout) == int(Eigen::RowMajor);
};

template <class X>
concept RowMajorMatrix = requires(X& x) {
  { x.data() };
  { x.rows() } -> std::convertible_to<Index>;
  { x.outerStride() } -> std::convertible_to<Index>;
  { x.innerStride() } -> std::convertible_to<Index>;
  requires bool(X::IsRowMajor) || int(X::ColsAtCompileTime) == 1;
};

template <class X>
using ElementOf = std::remove_pointer_t<decltype(std::declval<X&>().data())>;

// A const map hands out mutable pointers; a const owner must not.
template <class X, class S>
concept GivesPointerTo =
    std::same_as<std::remove_const_t<ElementOf<X>>, std::remove_const_t<S>> &&
    std::convertible_to<ElementOf<X>*, S*>;

}  // namespace detail

template <class S, int Rank>
class View {
 public:
  using Scalar = std::remove_const_t<S>;
  using Dims = std::array<Index, Rank>;

  View() = default;
  View(S* data, const Dims& dims) : data_(data), dims_(dims) {}

  /// A mutable view reads as a const one.
  template <class Other>
    requires(std::is_const_v<S> && std::same_as<Other, Scalar>)
  View(const View<Other, Rank>& other)  // NOLINT(google-explicit-constructor)
      : data_(other.data()), dims_(other.dims()) {}

  template <class X>
    requires detail::RowMajorTensor<std::remove_reference_t<X>, Rank> &&
             detail::GivesPointerTo<std::remove_reference_t<X>, S> &&
             (std::is_const_v<S> || std::is_lvalue_reference_v<X>)
  View(X&& x) : data_(x.data()) {  // NOLINT(google-explicit-constructor)
    // constant indices: Eigen's tensors disagree on their type
    [&]<int... I>(std::integer_sequence<int, I...>) {
      dims_ = {x.dimension(I)...};
    }(std::make_integer_sequence<int, Rank>{});
  }

  template <class X>
    requires(Rank == 3 || Rank == 2) && detail::RowMajorMatrix<std::remove_reference_t<X>> &&
            detail::GivesPointerTo<std::remove_reference_t<X>, S> &&
            (std::is_const_v<S> || std::is_lvalue_reference_v<X>)
  View(X&& x) : data_(x.data()) {  // NOLINT(google-explicit-constructor)
    constexpr bool kByRows = bool(std::remove_reference_t<X>::IsRowMajor);  // else one column
    const Index across = kByRows ? x.outerStride() : x.innerStride();
    const Index along = kByRows ? x.innerStride() : Index{1};
    RETNET_CHECK((x.rows() <= 1 || across == x.cols()) && (x.cols() <= 1 || along == 1),
                 "View::View", "a matrix whose rows lie ", across,
                 " elements apart, their elements ", along, ", expected contiguous rows of ",
                 Index(x.cols()));
    if constexpr (Rank == 3) {
      dims_ = {1, x.rows(), x.cols()};
    } else {
      dims_ = {x.rows(), x.cols()};
    }
  }
  // clang-format on

  S* data() const { return data_; }
  const Dims& dims() const { return dims_; }
  Index dim(int i) const { return dims_[static_cast<std::size_t>(i)]; }
  Index size() const {
    Index n = 1;
    for (Index d : dims_) n *= d;
    return n;
  }
  std::string shape_text() const {
    std::string text = "[";
    for (int i = 0; i < Rank; ++i) text += (i ? "," : "") + std::to_string(dim(i));
    return text + "]";
  }

 private:
  S* data_ = nullptr;
  Dims dims_{};
};

template <class S, int Rank>
using ConstView = View<const S, Rank>;

}  // namespace retnet::inline RETNET_ABI
