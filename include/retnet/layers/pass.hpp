// SPDX-License-Identifier: MIT
// How a layer is run, and the friendly face that all layers share.
#pragma once

#include <utility>

#include "retnet/core/context.hpp"
#include "retnet/core/sequences.hpp"
#include "retnet/core/view.hpp"
#include "retnet/ops/dropout.hpp"

namespace retnet::inline RETNET_ABI {

/// The three forms are one function; they differ in cost.
struct Form {
  enum class Kind { parallel, recurrent, chunkwise };
  Kind kind = Kind::parallel;
  Index chunk = 0;

  static constexpr Form parallel() { return {Kind::parallel, 0}; }
  static constexpr Form recurrent() { return {Kind::recurrent, 0}; }
  static constexpr Form chunkwise(Index chunk = 64) { return {Kind::chunkwise, chunk}; }
  const char* name() const {
    return kind == Kind::parallel    ? "forward_parallel"
           : kind == Kind::recurrent ? "forward_recurrent"
                                     : "forward_chunkwise";
  }
};

/// One run of a layer over the rows of x. Dropout acts only where a key is given. The sequences are
/// borrowed: in Pass{form, Sequences::dense(1, n)} they live as long as the Pass, thanks to the
/// braces; do not return such a Pass from a function.
struct Pass {
  Form form;
  const Sequences& sequences;
  const DropoutKey* dropout = nullptr;
  Index layer = 0;
};

namespace detail {

// The owning type that a result for X has: Tensor, the Tensor of a TensorMap, or the plain matrix.
template <class X>
struct PlainOf {
  using Type = X;
};
template <class X>
  requires requires { typename X::PlainObject; }
struct PlainOf<X> {
  using Type = typename X::PlainObject;
};
template <template <class, int, template <class> class> class Map, class Tensor, int Options,
          template <class> class Pointer>
struct PlainOf<Map<Tensor, Options, Pointer>> {
  using Type = std::remove_const_t<Tensor>;
};

}  // namespace detail

/// forward_parallel, forward_recurrent and forward_chunkwise for a Layer that maps [B,T,C] to
/// [B,T,C] and owns its weights. x is an Eigen row-major Tensor, TensorMap, Matrix or Map, and y
/// has its plain type. Each takes a context or uses default_context().
template <class Layer, class Scalar>
class ThreeForms {
 public:
  /// y of the whole sequence, from position 0. O(T^2).
  template <class X>
  auto forward_parallel(const X& x) const {
    return run(default_context(), Form::parallel(), x, nullptr);
  }
  /// The same from a state, which then has seen the T tokens as well.
  template <class X, class State>
  auto forward_parallel(const X& x, State& state) const {
    return run(default_context(), Form::parallel(), x, &state);
  }
  /// T more tokens, one by one; O(1) each.
  template <class X, class State>
  auto forward_recurrent(const X& x, State& state) const {
    return run(default_context(), Form::recurrent(), x, &state);
  }
  /// T more tokens, `chunk` at a time; O(T). Any T, any chunk.
  template <class X, class State>
  auto forward_chunkwise(const X& x, State& state, Index chunk = 64) const {
    return run(default_context(), Form::chunkwise(chunk), x, &state);
  }

  /// The same into memory of the caller; allocates nothing once the context is warm.
  template <class Context, class State>
  void forward(Context& ctx, Form form, ConstView<Scalar, 3> x, State* state,
               View<Scalar, 3> y) const {
    const auto& layer = static_cast<const Layer&>(*this);
    RETNET_CHECK(layer.owns_weights(), layer.kName, form.name(),
                 ": this layer is a part of a model, expected a layer that owns its weights");
    RETNET_CHECK(x.size() > 0, layer.kName, form.name(), ": x is ", x, ", expected positive sizes");
    layer.forward(ctx, layer.weights(), Pass{form, Sequences::dense(x.dim(0), x.dim(1))}, x, state,
                  y);
  }

 private:
  template <class X, class State>
  auto run(Cpu& ctx, Form form, const X& x, State* state) const {
    typename detail::PlainOf<X>::Type y;
    if constexpr (requires { x.dimensions(); }) {
      y.resize(x.dimensions());
    } else {
      y.resize(x.rows(), x.cols());
    }
    forward(ctx, form, ConstView<Scalar, 3>(x), state, View<Scalar, 3>(y));
    return y;
  }
  template <class X>
  auto run(Cpu& ctx, Form form, const X& x, std::nullptr_t) const {
    return run(ctx, form, x, static_cast<typename Layer::State*>(nullptr));
  }
};

}  // namespace retnet::inline RETNET_ABI
