// SPDX-License-Identifier: MIT
// The gradient of a layer as one function, for finite differences and for comparing forms.
//
//   loss = <c, y> + <d, final state>      c, d: fixed random numbers
#pragma once

#include "layers/variants.hpp"

namespace retnet::test {

/// x, weights and initial state of a layer, and the loss above of them.
template <class Layer, class S>
struct LossOf {
  using State = typename Layer::State;

  const Layer& layer;
  Sequences sequences;
  Index width;
  Buffer<S> x;
  ParamBuffer<S> weights;
  State initial;  // empty: none
  Buffer<S> c, d;

  LossOf(const Layer& l, Sequences s, Index w, bool with_state)
      : layer(l),
        sequences(std::move(s)),
        width(w),
        x(random_normal<S>(sequences.rows() * w, 11)),
        weights(random_weights<S>(l.layout())),
        c(random_normal<S>(x.size(), 12)) {
    for (Index r = 0; r < sequences.rows(); ++r)
      if (!real(r)) std::fill_n(c.data() + r * width, width, S(0));
    if (!with_state) return;
    initial = layer.initial_state(sequences.count());
    fill_normal(initial.flat(), 13, 0.5);
    for (std::size_t i = 0; i < initial.positions().size(); ++i)
      initial.positions()[i] = 5 + static_cast<std::int64_t>(i);
    d = random_normal<S>(static_cast<Index>(initial.flat().size()), 14);
  }

  bool real(Index row) const {
    for (Index i = 0; i < sequences.count(); ++i)
      if (row >= sequences[i].first_row && row < sequences[i].first_row + sequences[i].length)
        return true;
    return false;
  }
  const DropoutKey* dropout = nullptr;
  Pass pass(Form form) const { return {form, sequences, dropout}; }
  std::array<Index, 3> dims() const { return {1, sequences.rows(), width}; }

  template <class Context>
  double loss(Context& ctx, Form form) const {
    State state = initial;
    Buffer<S> y(x.size());
    layer.forward(ctx, ParamRef<const S>(weights.ref()), pass(form),
                  ConstView<S, 3>(x.data(), dims()), state.empty() ? nullptr : &state,
                  View<S, 3>(y.data(), dims()));
    double total = 0.0;
    for (Index i = 0; i < y.size(); ++i)
      if (c[i] != S(0)) total += static_cast<double>(c[i]) * static_cast<double>(y[i]);
    for (Index i = 0; i < d.size(); ++i)
      total += static_cast<double>(d[i]) *
               static_cast<double>(state.flat()[static_cast<std::size_t>(i)]);
    return total;
  }

  struct Gradient {
    Buffer<S> dx;
    ParamBuffer<S> dw;
    State dstate;
  };

  template <class Context>
  Gradient gradient(Context& ctx, Form form) const {
    State state = initial;
    Buffer<S> y(x.size()), dy = c;
    typename Layer::Saved saved;
    layer.forward(ctx, ParamRef<const S>(weights.ref()), pass(form),
                  ConstView<S, 3>(x.data(), dims()), state.empty() ? nullptr : &state,
                  View<S, 3>(y.data(), dims()), &saved);
    Gradient g{Buffer<S>(x.size()), ParamBuffer<S>(layer.layout()), initial};
    if (!initial.empty()) std::copy(d.begin(), d.end(), g.dstate.flat().begin());
    const Index n = sequences.rows();
    const Window<const S> in(x.data(), n, width);
    const Window<S> dx(g.dx.data(), n, width), out(dy.data(), n, width);
    State* dstate = initial.empty() ? nullptr : &g.dstate;
    if constexpr (requires { layer.mixer(); }) {
      layer.backward_rows(ctx, ParamRef<const S>(weights.ref()), pass(form), in, saved, out,
                          g.dw.ref(), dx, dstate);
    } else {
      layer.backward_rows(ctx, ParamRef<const S>(weights.ref()), pass(form), in, saved,
                          Window<const S>(out), g.dw.ref(), dx, S(0), dstate);
    }
    return g;
  }
};

/// Worst error of two gradients: of x, of each weight, of the initial state.
template <class Layer, class Gradient>
double worst_error(const Layer& layer, const Gradient& given, const Gradient& expected) {
  double worst = relative_error(given.dx, expected.dx);
  for (const auto& entry : layer.layout().entries())
    worst = std::fmax(worst, relative_error(given.dw[entry.place], expected.dw[entry.place]));
  if (!expected.dstate.empty())
    worst = std::fmax(worst, relative_error(std::as_const(given.dstate).flat(),
                                            std::as_const(expected.dstate).flat()));
  return worst;
}

}  // namespace retnet::test
